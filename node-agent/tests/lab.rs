//! The laboratory of the other tests here: namespaces that reach each other and leave nothing behind.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use netkeel_testkit::lab::{Namespace, join};

#[test]
fn two_joined_namespaces_reach_each_other() {
    let (a, b) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let address = |last| Ipv4Addr::new(192, 0, 2, last);
    join((&a, "left", address(1)), (&b, "right", address(2)), 24).unwrap();
    assert_eq!(a.links().unwrap(), ["left"]);
    let server = b.enter(|| TcpListener::bind((address(2), 80))).unwrap();
    a.enter(|| TcpStream::connect((address(2), 80))).unwrap();
    assert_eq!(server.accept().unwrap().1.ip(), address(1));
}

#[test]
fn a_failing_program_says_what_it_said() {
    let failed = Namespace::new().unwrap().ip("link show nonesuch").unwrap_err();
    assert!(failed.to_string().contains("nonesuch"), "{failed}");
}

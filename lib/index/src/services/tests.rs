//! Events in, changed Services out.

use serde_json::{Value, json};

use super::*;

fn service(name: &str, address: &str) -> ServiceObject {
    let object = json!({"metadata": {"namespace": "shop", "name": name},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80, "protocol": "TCP"}]}});
    serde_json::from_value(object).unwrap()
}

fn slice(name: &str, of: &str, addresses: &[&str]) -> SeenSlice {
    let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    let object = json!({"metadata": {"namespace": "shop", "name": name, "labels": {convert::SERVICE_NAME: of}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints});
    SeenSlice::read(&serde_json::from_value(object).unwrap(), "n1")
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn backends(services: &Services, of: &str) -> Vec<String> {
    let frontends = services.frontends(&name(of));
    frontends.values().flatten().map(|backend| backend.address.to_string()).collect()
}

#[test]
fn slices_join_their_service_whichever_comes_first() {
    let mut services = Services::default();
    assert_eq!(services.apply_slice(slice("a-1", "a", &["10.0.0.1"])), [name("a")].into());
    assert!(backends(&services, "a").is_empty());
    assert_eq!(services.apply_service(&service("a", "10.96.0.1")), [name("a")].into());
    assert_eq!(services.apply_slice(slice("a-2", "a", &["10.0.0.2"])), [name("a")].into());
    assert_eq!(backends(&services, "a"), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(services.delete_slice(&name("a-1")), [name("a")].into());
    assert_eq!(backends(&services, "a"), ["10.0.0.2"]);
    assert_eq!(services.delete_service(&name("a")), [name("a")].into());
    assert!(services.frontends(&name("a")).is_empty());
}

#[test]
fn an_object_sent_again_changes_nothing() {
    let mut services = Services::default();
    services.apply_service(&service("a", "10.96.0.1"));
    services.apply_slice(slice("a-1", "a", &["10.0.0.1"]));
    assert!(services.apply_service(&service("a", "10.96.0.1")).is_empty());
    assert!(services.apply_slice(slice("a-1", "a", &["10.0.0.1"])).is_empty());
    assert!(services.reset_services(&[service("a", "10.96.0.1")], &[]).is_empty());
    assert!(services.reset_slices(vec![slice("a-1", "a", &["10.0.0.1"])], &[]).is_empty());
}

#[test]
fn a_slice_that_moves_to_another_service_concerns_both() {
    let mut services = Services::default();
    services.apply_slice(slice("x", "a", &["10.0.0.1"]));
    assert_eq!(services.apply_slice(slice("x", "b", &["10.0.0.1"])), [name("a"), name("b")].into());
    assert_eq!(services.slices_of(&name("a")).count(), 0);
}

#[test]
fn a_reset_deletes_what_is_gone_and_keeps_what_could_not_be_read() {
    let mut services = Services::default();
    for (number, letter) in ["a", "b", "c"].into_iter().enumerate() {
        services.apply_service(&service(letter, &format!("10.96.0.{number}")));
    }
    assert_eq!(services.reset_services(&[service("b", "10.96.0.1")], &[name("c")]), [name("a")].into());
    assert!(services.get(&name("a")).is_none());
    assert!(services.get(&name("c")).is_some());
}

#[test]
fn an_impossible_object_is_named_and_what_was_known_stays_in_force() {
    let mut services = Services::default();
    services.apply_service(&service("a", "10.96.0.1"));
    services.apply_slice(slice("a-1", "a", &["10.0.0.1"]));
    assert!(services.apply_slice(slice("a-1", "a", &["10.0.0.1", "not an address"])).is_empty());
    assert!(services.apply_service(&service("b", "1.2.3")).is_empty());
    services.apply_service(&service("c", "10.96.0.3"));
    assert_eq!(backends(&services, "a"), ["10.0.0.1"]);
    assert!(services.get(&name("c")).is_some());
    let named: Vec<_> = services.problems().iter().map(|problem| problem.name.to_string()).collect();
    assert_eq!(named, ["shop/a-1", "shop/b"]);

    services.apply_slice(slice("a-1", "a", &["10.0.0.2"]));
    services.delete_service(&name("b"));
    assert!(services.problems().is_empty());
}

#[test]
fn endpoints_of_the_own_node_that_fall_silent_are_told_and_come_back() {
    let mut services = Services::default();
    let mut preferring = service("a", "10.96.0.1");
    preferring.spec.as_mut().unwrap().traffic_distribution = Some(convert::PREFER_SAME_NODE.into());
    services.apply_service(&preferring);
    let endpoints =
        json!([{"addresses": ["10.0.0.1"], "nodeName": "n1"}, {"addresses": ["10.0.0.2"], "nodeName": "n2"}]);
    let object = json!({"metadata": {"namespace": "shop", "name": "a-1", "labels": {convert::SERVICE_NAME: "a"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}], "endpoints": endpoints});
    services.apply_slice(SeenSlice::read(&serde_json::from_value(object).unwrap(), "n1"));
    let here = services.preferred(&name("a"), Protocol::Tcp);
    assert_eq!(here.iter().map(|backend| backend.address.to_string()).collect::<Vec<_>>(), ["10.0.0.1"]);
    assert_eq!(backends(&services, "a"), ["10.0.0.1"]);

    let silent: BTreeSet<_> = here.iter().map(|backend| backend.address).collect();
    assert_eq!(services.set_silent(&name("a"), &silent), [name("a")].into());
    assert!(services.set_silent(&name("a"), &silent).is_empty(), "nothing new");
    assert_eq!(backends(&services, "a"), ["10.0.0.2"]);
    assert_eq!(services.preferred(&name("a"), Protocol::Tcp), here, "it is asked on, to come back");
    assert_eq!(services.set_silent(&name("a"), &BTreeSet::new()), [name("a")].into());
    assert_eq!(backends(&services, "a"), ["10.0.0.1"]);
}

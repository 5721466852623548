//! Tables: a question on the left, the whole answer on the right.

use super::*;
use crate::zone::{ObjectKey, Protocol, Settings, Slice};

mod cut;
mod settings;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn port(name: &str, protocol: Protocol, number: u16) -> Port {
    Port { name: name.to_owned(), protocol, number }
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn slice(endpoints: &[(Option<&str>, &str)], ports: &[Port]) -> Slice {
    let endpoint = |(host, address): &(Option<&str>, &str)| (host.map(str::to_owned), ips(&[address]));
    Slice { endpoints: endpoints.iter().map(endpoint).collect(), ports: ports.to_vec() }
}

fn settings() -> Settings {
    Settings {
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        pod_ranges: vec!["10.244.0.0/16".parse().unwrap(), "fd00:244::/48".parse().unwrap()],
        ..Settings::new(name("cluster.local."))
    }
}

fn zone() -> Zone {
    let mut zone = Zone::new(settings(), 1);
    let cluster =
        |addresses: &[&str], ports: Vec<Port>| Service::ClusterIp { addresses: ips(addresses), ports };
    let services = [
        ("default", "kubernetes", cluster(&["10.96.0.1"], vec![port("https", Protocol::Tcp, 443)])),
        (
            "kube-system",
            "kube-dns",
            cluster(
                &["10.96.0.10"],
                vec![
                    port("dns", Protocol::Udp, 53),
                    port("dns-tcp", Protocol::Tcp, 53),
                    port("", Protocol::Tcp, 9153),
                ],
            ),
        ),
        ("shop", "dual", cluster(&["10.96.0.20", "fd00:96::20"], vec![port("http", Protocol::Tcp, 80)])),
        ("shop", "db", Service::Headless),
        ("shop", "bare", Service::Headless),
        ("shop", "idle", Service::Headless),
        ("shop", "out", Service::ExternalName(Some(name("www.example.com.")))),
        ("shop", "literal", Service::ExternalName(None)),
        ("shop", "broken", Service::Unreadable),
        ("shop", "empty", cluster(&["10.96.0.30"], vec![port("http", Protocol::Tcp, 80)])),
        ("shop", "twice", Service::Headless),
    ];
    for (namespace, name, service) in services {
        zone.put_service(&ObjectKey::new(namespace, name), service);
    }
    zone.put_namespace("quiet");
    let sql = [port("sql", Protocol::Tcp, 5432), port("stats", Protocol::Udp, 9000)];
    let slices = [
        ("db-1", "db", slice(&[(Some("db-0"), "10.1.0.5"), (None, "10.1.0.6")], &sql)),
        ("db-2", "db", slice(&[(Some("db-0"), "fd00:1::5")], &sql)),
        ("bare-1", "bare", slice(&[(None, "10.1.0.7")], &[])),
        (
            "dual-1",
            "dual",
            slice(&[(None, "10.1.0.8"), (None, "10.1.0.5")], &[port("http", Protocol::Tcp, 8080)]),
        ),
        ("orphan-1", "orphan", slice(&[(None, "10.1.0.9")], &[])),
        (
            "twice-1",
            "twice",
            slice(&[(None, "10.1.0.11"), (Some("one"), "10.1.0.11")], &[port("x", Protocol::Tcp, 1)]),
        ),
    ];
    for (name, service, slice) in slices {
        zone.put_slice(&ObjectKey::new("shop", name), service, slice);
    }
    zone
}

fn text(record: &Record) -> String {
    format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)
}

fn render(answer: &Answer) -> Vec<String> {
    match answer {
        Answer::Records { answers, additionals } => {
            let extra = additionals.iter().map(|record| format!("+ {}", text(record)));
            answers.iter().map(text).chain(extra).collect()
        }
        Answer::Alias { cname, target } => vec![text(cname), format!("-> {target}")],
        Answer::NoData(soa) => vec![format!("nodata {}", soa.name)],
        Answer::NxDomain(soa) => vec![format!("nxdomain {}", soa.name)],
        other => vec![format!("{other:?}")],
    }
}

type Case<'a> = (&'a str, RecordType, &'a [&'a str]);

fn check(cases: &[Case<'_>]) {
    check_in(&zone(), cases);
}

fn check_in(zone: &Zone, cases: &[Case<'_>]) {
    for (question, rtype, expected) in cases {
        assert_eq!(render(&answer(zone, &name(question), *rtype)), *expected, "{question} {rtype}");
    }
}

const NODATA: &[&str] = &["nodata cluster.local."];
const NXDOMAIN: &[&str] = &["nxdomain cluster.local."];

#[test]
fn cluster_addresses_answer_by_family_and_keep_the_case_of_the_question() {
    use RecordType::{A, AAAA};
    check(&[
        (
            "kubernetes.default.svc.cluster.local.",
            A,
            &["kubernetes.default.svc.cluster.local. 5 A 10.96.0.1"],
        ),
        (
            "KuberNetes.default.SVC.Cluster.LOCAL.",
            A,
            &["KuberNetes.default.SVC.Cluster.LOCAL. 5 A 10.96.0.1"],
        ),
        ("kubernetes.default.svc.cluster.local.", AAAA, NODATA),
        ("dual.shop.svc.cluster.local.", A, &["dual.shop.svc.cluster.local. 5 A 10.96.0.20"]),
        ("dual.shop.svc.cluster.local.", AAAA, &["dual.shop.svc.cluster.local. 5 AAAA fd00:96::20"]),
        ("ns.dns.cluster.local.", A, &["ns.dns.cluster.local. 5 A 10.96.0.10"]),
        ("ns.dns.cluster.local.", AAAA, NODATA),
    ]);
}

#[test]
fn headless_services_stand_for_their_ready_endpoints() {
    use RecordType::{A, AAAA, SRV};
    check(&[
        (
            "db.shop.svc.cluster.local.",
            A,
            &["db.shop.svc.cluster.local. 5 A 10.1.0.5", "db.shop.svc.cluster.local. 5 A 10.1.0.6"],
        ),
        ("db.shop.svc.cluster.local.", AAAA, &["db.shop.svc.cluster.local. 5 AAAA fd00:1::5"]),
        ("db-0.db.shop.svc.cluster.local.", A, &["db-0.db.shop.svc.cluster.local. 5 A 10.1.0.5"]),
        ("DB-0.db.shop.svc.cluster.local.", AAAA, &["DB-0.db.shop.svc.cluster.local. 5 AAAA fd00:1::5"]),
        ("10-1-0-6.db.shop.svc.cluster.local.", A, &["10-1-0-6.db.shop.svc.cluster.local. 5 A 10.1.0.6"]),
        ("10-1-0-6.db.shop.svc.cluster.local.", AAAA, NODATA),
        ("10-1-0-5.db.shop.svc.cluster.local.", A, NXDOMAIN),
        ("idle.shop.svc.cluster.local.", A, NXDOMAIN),
        ("_sql._tcp.idle.shop.svc.cluster.local.", SRV, NXDOMAIN),
        ("bare.shop.svc.cluster.local.", A, &["bare.shop.svc.cluster.local. 5 A 10.1.0.7"]),
        ("bare.shop.svc.cluster.local.", SRV, NODATA),
        // One address of two names is one record.
        ("twice.shop.svc.cluster.local.", A, &["twice.shop.svc.cluster.local. 5 A 10.1.0.11"]),
        ("one.twice.shop.svc.cluster.local.", A, &["one.twice.shop.svc.cluster.local. 5 A 10.1.0.11"]),
        ("10-1-0-8.dual.shop.svc.cluster.local.", A, &["10-1-0-8.dual.shop.svc.cluster.local. 5 A 10.1.0.8"]),
    ]);
}

#[test]
fn named_ports_have_service_records_with_their_addresses() {
    use RecordType::SRV;
    check(&[
        (
            "_https._tcp.kubernetes.default.svc.cluster.local.",
            SRV,
            &[
                "_https._tcp.kubernetes.default.svc.cluster.local. 5 SRV 0 100 443 kubernetes.default.svc.cluster.local.",
                "+ kubernetes.default.svc.cluster.local. 5 A 10.96.0.1",
            ],
        ),
        (
            "_HTTP._TCP.Dual.shop.svc.CLUSTER.local.",
            SRV,
            &[
                "_HTTP._TCP.Dual.shop.svc.CLUSTER.local. 5 SRV 0 50 80 dual.shop.svc.CLUSTER.local.",
                "+ dual.shop.svc.CLUSTER.local. 5 A 10.96.0.20",
                "+ dual.shop.svc.CLUSTER.local. 5 AAAA fd00:96::20",
            ],
        ),
        (
            "_sql._tcp.db.shop.svc.cluster.local.",
            SRV,
            &[
                "_sql._tcp.db.shop.svc.cluster.local. 5 SRV 0 33 5432 10-1-0-6.db.shop.svc.cluster.local.",
                "_sql._tcp.db.shop.svc.cluster.local. 5 SRV 0 33 5432 db-0.db.shop.svc.cluster.local.",
                "+ 10-1-0-6.db.shop.svc.cluster.local. 5 A 10.1.0.6",
                "+ db-0.db.shop.svc.cluster.local. 5 A 10.1.0.5",
                "+ db-0.db.shop.svc.cluster.local. 5 AAAA fd00:1::5",
            ],
        ),
        (
            "kubernetes.default.svc.cluster.local.",
            SRV,
            &[
                "kubernetes.default.svc.cluster.local. 5 SRV 0 100 443 kubernetes.default.svc.cluster.local.",
                "+ kubernetes.default.svc.cluster.local. 5 A 10.96.0.1",
            ],
        ),
        // Two ports of one number are one record, and weigh as three ports do.
        (
            "kube-dns.kube-system.svc.cluster.local.",
            SRV,
            &[
                "kube-dns.kube-system.svc.cluster.local. 5 SRV 0 33 53 kube-dns.kube-system.svc.cluster.local.",
                "kube-dns.kube-system.svc.cluster.local. 5 SRV 0 33 9153 kube-dns.kube-system.svc.cluster.local.",
                "+ kube-dns.kube-system.svc.cluster.local. 5 A 10.96.0.10",
            ],
        ),
        (
            "db-0.db.shop.svc.cluster.local.",
            SRV,
            &[
                "db-0.db.shop.svc.cluster.local. 5 SRV 0 25 5432 db-0.db.shop.svc.cluster.local.",
                "db-0.db.shop.svc.cluster.local. 5 SRV 0 25 9000 db-0.db.shop.svc.cluster.local.",
                "+ db-0.db.shop.svc.cluster.local. 5 A 10.1.0.5",
                "+ db-0.db.shop.svc.cluster.local. 5 AAAA fd00:1::5",
            ],
        ),
    ]);
}

#[test]
fn named_ports_have_the_addresses_behind_them_and_other_labels_are_none() {
    use RecordType::{A, AAAA, SRV, TXT};
    check(&[
        (
            "_https._tcp.kubernetes.default.svc.cluster.local.",
            A,
            &["_https._tcp.kubernetes.default.svc.cluster.local. 5 A 10.96.0.1"],
        ),
        ("_https._tcp.kubernetes.default.svc.cluster.local.", AAAA, NODATA),
        (
            "https.tcp.kubernetes.default.svc.cluster.local.",
            A,
            &["https.tcp.kubernetes.default.svc.cluster.local. 5 A 10.96.0.1"],
        ),
        (
            "_sql._tcp.db.shop.svc.cluster.local.",
            AAAA,
            &["_sql._tcp.db.shop.svc.cluster.local. 5 AAAA fd00:1::5"],
        ),
        ("_bogus._tcp.kubernetes.default.svc.cluster.local.", A, NXDOMAIN),
        ("_https._tcp.kubernetes.default.svc.cluster.local.", TXT, NODATA),
        ("_tcp.kubernetes.default.svc.cluster.local.", A, NODATA),
        ("_udp.kubernetes.default.svc.cluster.local.", A, NXDOMAIN),
        ("_https._udp.kubernetes.default.svc.cluster.local.", SRV, NXDOMAIN),
        ("_bogus._tcp.kubernetes.default.svc.cluster.local.", SRV, NXDOMAIN),
        ("_bogus._tcp.db.shop.svc.cluster.local.", SRV, NXDOMAIN),
        ("_._tcp.kube-dns.kube-system.svc.cluster.local.", SRV, NXDOMAIN),
        ("a._https._tcp.kubernetes.default.svc.cluster.local.", SRV, NXDOMAIN),
    ]);
}

#[test]
fn absence_of_a_type_is_not_absence_of_the_name() {
    use RecordType::{A, ANY, CNAME, HTTPS, MX, NS, SOA, TXT};
    check(&[
        ("kubernetes.default.svc.cluster.local.", TXT, NODATA),
        ("kubernetes.default.svc.cluster.local.", MX, NODATA),
        ("kubernetes.default.svc.cluster.local.", HTTPS, NODATA),
        ("kubernetes.default.svc.cluster.local.", SOA, NODATA),
        ("kubernetes.default.svc.cluster.local.", CNAME, NODATA),
        ("kubernetes.default.svc.cluster.local.", ANY, NODATA),
        ("cluster.local.", A, NODATA),
        ("cluster.local.", TXT, NODATA),
        ("svc.cluster.local.", A, NODATA),
        ("svc.cluster.local.", NS, NODATA),
        ("pod.cluster.local.", A, NODATA),
        ("dns.cluster.local.", A, NODATA),
        ("shop.svc.cluster.local.", A, NODATA),
        ("shop.pod.cluster.local.", A, NODATA),
        ("quiet.svc.cluster.local.", A, NODATA),
        ("quiet.svc.cluster.local.", TXT, NODATA),
        ("quiet.pod.cluster.local.", A, NODATA),
        ("ghost.quiet.svc.cluster.local.", A, NXDOMAIN),
        ("nowhere.pod.cluster.local.", A, NXDOMAIN),
        ("nowhere.svc.cluster.local.", A, NXDOMAIN),
        ("ghost.shop.svc.cluster.local.", A, NXDOMAIN),
        ("ghost.shop.svc.cluster.local.", TXT, NXDOMAIN),
        ("ghost.shop.svc.cluster.local.", SOA, NXDOMAIN),
        ("orphan.shop.svc.cluster.local.", A, NXDOMAIN),
        ("ghost.kubernetes.default.svc.cluster.local.", A, NXDOMAIN),
        ("foo.cluster.local.", A, NXDOMAIN),
        ("*.shop.svc.cluster.local.", A, NXDOMAIN),
        ("a\\.b.shop.svc.cluster.local.", A, NXDOMAIN),
    ]);
}

#[test]
fn the_apex_names_its_server_and_the_version_of_the_specification() {
    use RecordType::{A, NS, SOA, TXT};
    let serial = zone().serial();
    let soa = format!(
        "cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. {serial} 7200 1800 86400 5"
    );
    check(&[
        ("cluster.local.", SOA, &[soa.as_str()]),
        (
            "cluster.local.",
            NS,
            &["cluster.local. 5 NS ns.dns.cluster.local.", "+ ns.dns.cluster.local. 5 A 10.96.0.10"],
        ),
        ("dns-version.cluster.local.", TXT, &["dns-version.cluster.local. 28800 TXT 1.1.0"]),
        ("dns-version.cluster.local.", A, NODATA),
    ]);
}

#[test]
fn reverse_names_point_to_services_before_endpoints_and_stay_in_the_cluster() {
    use RecordType::{A, PTR, SOA};
    check(&[
        (
            "1.0.96.10.in-addr.arpa.",
            PTR,
            &["1.0.96.10.in-addr.arpa. 5 PTR kubernetes.default.svc.cluster.local."],
        ),
        ("1.0.96.10.in-addr.arpa.", A, &["nodata in-addr.arpa."]),
        ("77.0.96.10.in-addr.arpa.", PTR, &["nxdomain in-addr.arpa."]),
        (
            "5.0.1.10.in-addr.arpa.",
            PTR,
            &[
                "5.0.1.10.in-addr.arpa. 5 PTR db-0.db.shop.svc.cluster.local.",
                "5.0.1.10.in-addr.arpa. 5 PTR 10-1-0-5.dual.shop.svc.cluster.local.",
            ],
        ),
        ("9.0.1.10.in-addr.arpa.", PTR, &["Forward"]),
        ("8.8.8.8.in-addr.arpa.", PTR, &["Forward"]),
        // A network of the cluster is no business of others, nor is what lies below it.
        ("96.10.in-addr.arpa.", PTR, &["nodata in-addr.arpa."]),
        ("0.96.10.in-addr.arpa.", SOA, &["nodata in-addr.arpa."]),
        ("10.in-addr.arpa.", PTR, &["Forward"]),
        ("256.0.96.10.in-addr.arpa.", PTR, &["nxdomain in-addr.arpa."]),
        ("x.1.0.96.10.in-addr.arpa.", PTR, &["nxdomain in-addr.arpa."]),
        ("x.8.8.8.8.in-addr.arpa.", PTR, &["Forward"]),
        ("7.3.244.10.in-addr.arpa.", PTR, &["nxdomain in-addr.arpa."]),
        ("0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.", PTR, &["nodata ip6.arpa."]),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa.",
            PTR,
            &["nxdomain ip6.arpa."],
        ),
        (
            "0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            &["0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. 5 PTR \
               dual.shop.svc.cluster.local."],
        ),
    ]);
}

#[test]
fn external_names_are_aliases_and_nothing_lies_below_them() {
    use RecordType::{A, AAAA, SRV};
    let alias: &[&str] = &["out.shop.svc.cluster.local. 5 CNAME www.example.com.", "-> www.example.com."];
    check(&[
        ("out.shop.svc.cluster.local.", A, alias),
        ("out.shop.svc.cluster.local.", AAAA, alias),
        ("_http._tcp.out.shop.svc.cluster.local.", SRV, NXDOMAIN),
        ("x.out.shop.svc.cluster.local.", A, NXDOMAIN),
        ("literal.shop.svc.cluster.local.", A, NXDOMAIN),
    ]);
}

#[test]
fn other_names_are_forwarded_and_what_cannot_be_known_is_no_absence() {
    use RecordType::{A, AXFR, IXFR};
    check(&[
        ("example.com.", A, &["Forward"]),
        (".", RecordType::NS, &["Forward"]),
        ("broken.shop.svc.cluster.local.", A, &["Failure"]),
        ("x.broken.shop.svc.cluster.local.", A, &["Failure"]),
        ("cluster.local.", AXFR, &["Refused"]),
        ("cluster.local.", IXFR, &["Refused"]),
        ("0.96.10.in-addr.arpa.", AXFR, &["Refused"]),
        ("example.com.", AXFR, &["Refused"]),
    ]);
}

#[test]
fn many_endpoints_weigh_at_least_one() {
    let mut zone = zone();
    let endpoints = (0..300_u16)
        .map(|number| {
            (Some(format!("m-{number}")), ips(&[&format!("10.2.{}.{}", number / 256, number % 256)]))
        })
        .collect();
    let slice = Slice { endpoints, ports: vec![port("x", Protocol::Tcp, 1)] };
    zone.put_service(&ObjectKey::new("shop", "many"), Service::Headless);
    zone.put_slice(&ObjectKey::new("shop", "many-1"), "many", slice);
    let Answer::Records { answers, .. } =
        answer(&zone, &name("_x._tcp.many.shop.svc.cluster.local."), RecordType::SRV)
    else {
        panic!("no records")
    };
    assert_eq!(answers.len(), 300);
    assert!(text(&answers[0]).contains(" SRV 0 1 1 "), "{}", text(&answers[0]));
}

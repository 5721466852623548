//! What `spec.dns` and the namespaces change.

use RecordType::A;
use netkeel_crds::cluster_network::{EmptyServices, PodRecords};

use super::*;

fn zone_with(change: impl FnOnce(&mut Settings)) -> Zone {
    let mut zone = zone();
    let mut settings = zone.settings().clone();
    change(&mut settings);
    assert!(zone.set_settings(settings));
    zone
}

#[test]
fn pods_have_names_made_of_their_addresses_where_the_namespace_exists() {
    use RecordType::{AAAA, SRV, TXT};
    check(&[
        ("10-1-0-5.shop.pod.cluster.local.", A, &["10-1-0-5.shop.pod.cluster.local. 5 A 10.1.0.5"]),
        ("10-1-0-5.SHOP.pod.Cluster.local.", A, &["10-1-0-5.SHOP.pod.Cluster.local. 5 A 10.1.0.5"]),
        ("10-1-0-5.quiet.pod.cluster.local.", A, &["10-1-0-5.quiet.pod.cluster.local. 5 A 10.1.0.5"]),
        ("10-1-0-5.shop.pod.cluster.local.", AAAA, NODATA),
        ("10-1-0-5.shop.pod.cluster.local.", SRV, NODATA),
        ("10-1-0-5.shop.pod.cluster.local.", TXT, NODATA),
        ("fd00--1.shop.pod.cluster.local.", AAAA, &["fd00--1.shop.pod.cluster.local. 5 AAAA fd00::1"]),
        ("fd00--1.shop.pod.cluster.local.", A, NODATA),
        ("10-1-0-5.nowhere.pod.cluster.local.", A, NXDOMAIN),
        ("web.shop.pod.cluster.local.", A, NXDOMAIN),
        ("10-1-0-256.shop.pod.cluster.local.", A, NXDOMAIN),
        ("a.10-1-0-5.shop.pod.cluster.local.", A, &["a.10-1-0-5.shop.pod.cluster.local. 5 A 10.1.0.5"]),
        ("a.b.10-1-0-5.shop.pod.cluster.local.", A, &["a.b.10-1-0-5.shop.pod.cluster.local. 5 A 10.1.0.5"]),
        ("a.b.c.10-1-0-5.shop.pod.cluster.local.", A, NXDOMAIN),
    ]);
    let disabled = zone_with(|settings| settings.pod_records = PodRecords::Disabled);
    check_in(
        &disabled,
        &[("10-1-0-5.shop.pod.cluster.local.", A, NXDOMAIN), ("pod.cluster.local.", A, NODATA)],
    );
    check_in(&disabled, &[("shop.pod.cluster.local.", A, NXDOMAIN)]);
}

#[test]
fn services_without_ready_endpoints_have_no_names_where_that_is_asked_for() {
    use RecordType::{AAAA, PTR, SRV, TXT};
    let found: &[&str] = &["empty.shop.svc.cluster.local. 5 A 10.96.0.30"];
    check(&[("empty.shop.svc.cluster.local.", A, found)]);
    let mut zone = zone_with(|settings| settings.empty_services = EmptyServices::NXDomain);
    check_in(
        &zone,
        &[
            ("empty.shop.svc.cluster.local.", A, NXDOMAIN),
            ("empty.shop.svc.cluster.local.", AAAA, NXDOMAIN),
            ("empty.shop.svc.cluster.local.", TXT, NXDOMAIN),
            ("_http._tcp.empty.shop.svc.cluster.local.", SRV, NXDOMAIN),
            ("dual.shop.svc.cluster.local.", A, &["dual.shop.svc.cluster.local. 5 A 10.96.0.20"]),
            (
                "out.shop.svc.cluster.local.",
                AAAA,
                &["out.shop.svc.cluster.local. 5 CNAME www.example.com.", "-> www.example.com."],
            ),
            (
                "30.0.96.10.in-addr.arpa.",
                PTR,
                &["30.0.96.10.in-addr.arpa. 5 PTR empty.shop.svc.cluster.local."],
            ),
        ],
    );
    zone.put_slice(&ObjectKey::new("shop", "empty-1"), "empty", slice(&[(None, "10.1.0.10")], &[]));
    check_in(&zone, &[("empty.shop.svc.cluster.local.", A, found)]);
}

#[test]
fn the_time_to_live_is_what_was_told_last_and_at_most_five_minutes_for_an_absence() {
    use RecordType::SOA;
    let zone = zone_with(|settings| settings.ttl = 3600);
    let serial = zone.serial();
    let soa = format!(
        "cluster.local. 300 SOA ns.dns.cluster.local. hostmaster.cluster.local. {serial} 7200 1800 86400 3600"
    );
    check_in(
        &zone,
        &[
            ("dual.shop.svc.cluster.local.", A, &["dual.shop.svc.cluster.local. 3600 A 10.96.0.20"]),
            ("cluster.local.", SOA, &[soa.as_str()]),
        ],
    );
}

#[test]
fn a_namespace_is_there_as_an_object_or_by_its_services() {
    let mut zone = zone();
    let serial = zone.serial();
    assert!(zone.put_namespace("shop") && !zone.put_namespace("shop"));
    assert_ne!(zone.serial(), serial, "a change is published");
    assert!(zone.remove_namespace("shop") && zone.has_namespace("shop"), "its Services are still there");
    assert!(zone.remove_namespace("quiet") && !zone.has_namespace("quiet"));
    assert!(!zone.remove_namespace("quiet"));
    assert!(zone.reset_namespaces(&["new".to_owned()].into()) && zone.has_namespace("new"));
    assert!(zone.reset_namespaces(&["other".to_owned()].into()));
    assert!(zone.has_namespace("other") && !zone.has_namespace("new"));
}

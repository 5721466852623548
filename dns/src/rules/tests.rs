//! Tables: a `spec.dns` and questions on the left, what rules say on the right.

use hickory_proto::rr::RData;
use serde_json::{Value, json};

use super::*;
use crate::zone::{External, ObjectKey, Port, Protocol, Service, Settings};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules(spec: &Value) -> Rules {
    Rules::new(&serde_json::from_value(spec.clone()).unwrap()).unwrap()
}

fn zone() -> Zone {
    let settings = Settings::new(name("cluster.local."));
    let mut zone = Zone::new(settings, 7);
    let port = |name: &str, protocol, number| Port { name: name.to_owned(), protocol, number };
    let ports =
        || vec![port("http", Protocol::Tcp, 80), port("", Protocol::Udp, 81), port("dns", Protocol::Udp, 53)];
    let service = |address: &str| Service::ClusterIp { addresses: vec![ip(address)], ports: ports() };
    let external = |addresses: &[&str], hosts: &[&str], ips: &[&str]| External {
        load_balancer: addresses.iter().map(|address| ip(address)).collect(),
        host_names: hosts.iter().map(|host| name(host)).collect(),
        external_ips: ips.iter().map(|address| ip(address)).collect(),
    };
    for (namespace, service_name, address, outside) in [
        ("kube-system", "kube-dns", "10.96.0.10", None),
        ("shop", "web", "10.96.0.7", Some(external(&["192.0.2.1", "2001:db8::1"], &[], &["192.0.2.9"]))),
        ("shop", "cloud", "10.96.0.8", Some(external(&[], &["lb.example.com."], &[]))),
        ("shop", "inner", "10.96.0.9", None),
        ("shop", "old", "10.96.0.11", Some(external(&[], &[], &["192.0.2.8"]))),
    ] {
        zone.put_service(&ObjectKey::new(namespace, service_name), service(address));
        zone.put_external(&ObjectKey::new(namespace, service_name), outside);
    }
    zone
}

/// What the rules say of a question, in short: code, answers with owner and time to live, authority and additional records.
fn told(rules: &Rules, text: &str, rtype: RecordType) -> String {
    let line = |record: &hickory_proto::rr::Record| {
        format!("{} {} {} {}", record.name.to_ascii(), record.ttl, record.record_type(), record.data)
    };
    let short = |soa: &hickory_proto::rr::Record| match &soa.data {
        RData::SOA(data) => format!("SOA {} {} {}", soa.name.to_ascii(), soa.ttl, data.minimum),
        other => panic!("{other} is no SOA"),
    };
    match rules.answer(&zone(), &name(text), rtype).map(|told| told.answer) {
        None => "-".to_owned(),
        Some(Err(code)) => format!("{code:?}"),
        Some(Ok(Answer::Records { answers, additionals })) => {
            let all: Vec<String> = answers.iter().map(line).collect();
            let more: Vec<String> = additionals.iter().map(line).collect();
            if more.is_empty() { all.join(", ") } else { format!("{} + {}", all.join(", "), more.join(", ")) }
        }
        Some(Ok(Answer::Alias { cname, .. })) => line(&cname),
        Some(Ok(Answer::NoData(soa))) => format!("nodata {}", short(&soa)),
        Some(Ok(Answer::NxDomain(soa))) => format!("nxdomain {}", short(&soa)),
        Some(Ok(other)) => format!("{other:?}"),
    }
}

fn table(rules: &Rules, cases: &[(&str, RecordType, &str)]) {
    for (name, rtype, expected) in cases {
        assert_eq!(told(rules, name, *rtype), *expected, "{rtype} {name}");
    }
}

#[test]
fn hosts_have_their_addresses_and_no_other_records_forwards_and_backwards() {
    use RecordType::{A, AAAA, ANY, MX, PTR};
    let rules = rules(&json!({"hosts": [
        {"ip": "192.0.2.8", "names": ["printer.corp.example", "print.corp.example"], "ttlSeconds": 60},
        {"ip": "2001:db8::8", "names": ["printer.corp.example"]},
        {"ip": "192.0.2.9", "names": ["printer.corp.example", "other.corp.example"], "ttlSeconds": 30},
    ]}));
    table(
        &rules,
        &[
            (
                "Printer.corp.example.",
                A,
                "Printer.corp.example. 60 A 192.0.2.8, Printer.corp.example. 30 A 192.0.2.9",
            ),
            ("printer.corp.example.", AAAA, "printer.corp.example. 3600 AAAA 2001:db8::8"),
            ("print.corp.example.", A, "print.corp.example. 60 A 192.0.2.8"),
            ("print.corp.example.", AAAA, "nodata SOA print.corp.example. 60 60"),
            ("print.corp.example.", MX, "nodata SOA print.corp.example. 60 60"),
            ("print.corp.example.", ANY, "print.corp.example. 60 A 192.0.2.8"),
            ("x.print.corp.example.", A, "-"),
            ("corp.example.", A, "-"),
            ("8.2.0.192.in-addr.arpa.", PTR, "8.2.0.192.in-addr.arpa. 60 PTR printer.corp.example."),
            ("8.2.0.192.in-addr.arpa.", A, "nodata SOA 8.2.0.192.in-addr.arpa. 60 60"),
            ("9.2.0.192.in-addr.arpa.", PTR, "9.2.0.192.in-addr.arpa. 30 PTR printer.corp.example."),
            ("7.2.0.192.in-addr.arpa.", PTR, "-"),
        ],
    );
}

#[test]
fn overrides_answer_for_zones_and_types_and_the_first_counts() {
    use RecordType::{A, AAAA, ANY, CNAME, MX, TXT};
    let long = "x".repeat(254) + "ä";
    let rules = rules(&json!({"overrides": [
        {"zone": "v4.example", "types": ["AAAA"]},
        {"zone": "gone.example", "responseCode": "NXDomain", "ttlSeconds": 7},
        {"zone": "no.example", "responseCode": "Refused"},
        {"zone": "bad.example", "responseCode": "ServFail", "types": ["MX"]},
        {"zone": "wild.example", "ttlSeconds": 9, "records": [
            {"type": "A", "value": "192.0.2.1"}, {"type": "A", "value": "192.0.2.2"}, {"type": "TXT", "value": long}]},
        {"zone": "wild.example", "responseCode": "Refused"},
        {"zone": "alias.example", "records": [{"type": "CNAME", "value": "www.example.com"}, {"type": "TXT", "value": "t"}]},
        {"zone": ".", "types": ["ANY"], "responseCode": "NotImp"},
    ]}));
    table(
        &rules,
        &[
            ("www.V4.example.", AAAA, "nodata SOA V4.example. 60 60"),
            ("www.v4.example.", A, "-"),
            ("v4.example.", AAAA, "nodata SOA v4.example. 60 60"),
            ("xv4.example.", AAAA, "-"),
            ("a.b.gone.example.", MX, "nxdomain SOA gone.example. 7 7"),
            ("no.example.", A, "Refused"),
            ("bad.example.", MX, "ServFail"),
            ("bad.example.", A, "-"),
            ("a.wild.example.", A, "a.wild.example. 9 A 192.0.2.1, a.wild.example. 9 A 192.0.2.2"),
            ("a.wild.example.", AAAA, "nodata SOA wild.example. 9 9"),
            ("a.alias.example.", A, "a.alias.example. 60 CNAME www.example.com."),
            ("a.alias.example.", CNAME, "a.alias.example. 60 CNAME www.example.com."),
            ("a.alias.example.", TXT, "a.alias.example. 60 TXT t"),
            ("www.example.com.", ANY, "NotImp"),
            (".", ANY, "NotImp"),
        ],
    );
    let text = told(&rules, "wild.example.", TXT);
    assert!(text.contains(&"x".repeat(254)), "a text longer than a piece is in pieces: {text}");
}

#[test]
fn services_have_their_outside_addresses_in_external_zones() {
    use RecordType::{A, AAAA, AXFR, CNAME, MX, NS, SOA, SRV, TXT};
    let rules = rules(&json!({"externalZones": [
        {"zone": "example.org"},
        {"zone": "all.example.org", "sources": ["LoadBalancer", "ExternalIP"]},
    ]}));
    let soa = "SOA example.org. 5 5";
    let (nodata, nxdomain) = (format!("nodata {soa}"), format!("nxdomain {soa}"));
    table(
        &rules,
        &[
            ("web.shop.example.org.", A, "web.shop.example.org. 5 A 192.0.2.1"),
            ("WEB.shop.Example.org.", AAAA, "WEB.shop.Example.org. 5 AAAA 2001:db8::1"),
            (
                "web.shop.all.example.org.",
                A,
                "web.shop.all.example.org. 5 A 192.0.2.1, web.shop.all.example.org. 5 A 192.0.2.9",
            ),
            ("old.shop.all.example.org.", A, "old.shop.all.example.org. 5 A 192.0.2.8"),
            ("old.shop.all.example.org.", AAAA, "nodata SOA all.example.org. 5 5"),
            ("old.shop.example.org.", A, &nxdomain),
            ("web.shop.example.org.", TXT, &nodata),
            ("inner.shop.example.org.", A, &nxdomain),
            ("ghost.shop.example.org.", A, &nxdomain),
            ("shop.example.org.", A, &nodata),
            ("nowhere.example.org.", A, &nxdomain),
            ("x.web.shop.example.org.", A, &nxdomain),
            ("cloud.shop.example.org.", A, "cloud.shop.example.org. 5 CNAME lb.example.com."),
            ("cloud.shop.example.org.", CNAME, "cloud.shop.example.org. 5 CNAME lb.example.com."),
            (
                "_http._tcp.web.shop.example.org.",
                SRV,
                "_http._tcp.web.shop.example.org. 5 SRV 0 100 80 web.shop.example.org. + \
                 web.shop.example.org. 5 A 192.0.2.1, web.shop.example.org. 5 AAAA 2001:db8::1",
            ),
            ("_http._tcp.web.shop.example.org.", A, &nodata),
            ("_tcp.web.shop.example.org.", A, &nodata),
            ("_sctp.web.shop.example.org.", A, &nxdomain),
            ("_http._udp.web.shop.example.org.", SRV, &nxdomain),
            ("http._tcp.web.shop.example.org.", SRV, &nxdomain),
            (
                "_dns._udp.cloud.shop.example.org.",
                SRV,
                "_dns._udp.cloud.shop.example.org. 5 SRV 0 100 53 lb.example.com.",
            ),
            (
                "example.org.",
                NS,
                "example.org. 5 NS ns.dns.example.org. + ns.dns.example.org. 5 A 10.96.0.10",
            ),
            ("example.org.", MX, &nodata),
            ("dns.example.org.", A, &nodata),
            ("ns.dns.example.org.", A, "ns.dns.example.org. 5 A 10.96.0.10"),
            ("example.org.", AXFR, "Refused"),
            ("web.shop.svc.cluster.local.", A, "-"),
        ],
    );
    let apex = told(&rules, "example.org.", SOA);
    assert!(apex.starts_with("example.org. 5 SOA ns.dns.example.org. hostmaster.example.org. "), "{apex}");
    let all = told(&rules, "web.shop.example.org.", SRV);
    assert_eq!(all.matches(" SRV 0 33 ").count(), 3, "{all}");
}

#[test]
fn an_external_zone_around_the_cluster_domain_leaves_its_names_alone() {
    let rules = rules(&json!({"externalZones": [{"zone": "local"}]}));
    assert_eq!(told(&rules, "web.shop.svc.cluster.local.", RecordType::A), "-");
}

#[test]
fn the_acl_decides_by_client_zone_and_type_and_the_first_counts() {
    use RecordType::{A, AAAA, TXT};
    let rules = rules(&json!({"acl": [
        {"action": "Allow", "networks": ["10.1.0.0/16", "fd00::/64"], "zones": ["secret.example"]},
        {"action": "Block", "zones": ["secret.example"]},
        {"action": "Filter", "types": ["TXT"]},
        {"action": "Drop", "networks": ["192.0.2.0/24"]},
    ]}));
    for (client, text, rtype, expected) in [
        ("10.1.2.3", "a.secret.example.", A, Verdict::Allow),
        ("::ffff:10.1.2.3", "a.secret.example.", A, Verdict::Allow),
        ("fd00::7", "secret.example.", A, Verdict::Allow),
        ("10.2.2.3", "A.Secret.Example.", A, Verdict::Block),
        ("10.2.2.3", "a.secret.example.", TXT, Verdict::Block),
        ("10.2.2.3", "xsecret.example.", A, Verdict::Allow),
        ("10.2.2.3", "a\\.secret.example.", A, Verdict::Allow),
        ("10.1.2.3", "www.example.com.", TXT, Verdict::Filter),
        ("192.0.2.7", "www.example.com.", AAAA, Verdict::Drop),
        ("198.51.100.7", "www.example.com.", AAAA, Verdict::Allow),
    ] {
        assert_eq!(rules.verdict(ip(client), &name(text), rtype), expected, "{client} {rtype} {text}");
    }
}

#[test]
fn rewrites_make_whole_names_or_none() {
    let long = format!("{0}.{0}.{0}.", "y".repeat(63));
    let rules = rules(&json!({"rewrites": [
        {"match": {"type": "Exact", "value": "old.example"}, "to": "web.shop.svc.cluster.local"},
        {"match": {"type": "Suffix", "value": ".far.example"}, "to": format!(".{}.example", "x".repeat(63)), "answerRewrite": false},
        {"match": {"type": "Prefix", "value": "gone"}, "to": ""},
    ]}));
    let made = |text: &str, back| Some(Ok(Rewritten { name: name(text), back }));
    for (asked, expected) in [
        ("Old.Example.", made("web.shop.svc.cluster.local.", true)),
        ("a.far.example.", made(&format!("a.{}.example.", "x".repeat(63)), false)),
        (&format!("{long}far.example."), Some(Err(Impossible))),
        ("gone.", Some(Err(Impossible))),
        ("gone.example.", Some(Err(Impossible))),
        ("a\\.far.example.", None),
        ("example.", None),
    ] {
        assert_eq!(rules.rewrite(&name(asked)), expected, "{asked}");
    }
}

#[test]
fn only_rules_about_addresses_below_the_cluster_domain_bypass_quick_answers() {
    for (spec, expected) in [
        (json!({}), false),
        (json!({"hosts": [{"ip": "192.0.2.8", "names": ["printer.corp.example"]}]}), false),
        (json!({"hosts": [{"ip": "192.0.2.8", "names": ["web.shop.svc.cluster.local"]}]}), true),
        (json!({"overrides": [{"zone": "corp.example"}]}), false),
        (json!({"overrides": [{"zone": "."}]}), true),
        (json!({"overrides": [{"zone": "local", "types": ["AAAA"]}]}), true),
        (json!({"overrides": [{"zone": ".", "types": ["ANY"]}]}), false),
        (json!({"overrides": [{"zone": "shop.svc.cluster.local"}]}), true),
        (json!({"acl": [{"action": "Block"}]}), true),
        (json!({"acl": [{"action": "Allow"}]}), false),
        (json!({"acl": [{"action": "Block", "zones": ["corp.example"]}]}), false),
        (json!({"acl": [{"action": "Block", "types": ["ANY"]}]}), false),
        (json!({"rewrites": [{"match": {"type": "Suffix", "value": ".corp.example"}, "to": ""}]}), false),
        (json!({"rewrites": [{"match": {"type": "Regex", "value": "a"}, "to": "a.example"}]}), true),
        (json!({"externalZones": [{"zone": "example.org"}]}), false),
    ] {
        assert_eq!(rules(&spec).touch_cluster, expected, "{spec}");
    }
}

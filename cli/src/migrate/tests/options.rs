//! Single plugins and options: what they are in `spec.dns`, and what is told of them.

use netkeel_crds::cluster_network::Dns;

use super::{allowing, dns_of, migrate};

/// What lines in block `.` come to: `spec.dns`, how many things have no place, and how many notes there are.
fn meaning(kubernetes: &str, lines: &str) -> (Dns, usize, usize) {
    let with = |plugin: &str, default: &str| {
        let given = lines.lines().any(|line| line.split(' ').next() == Some(plugin));
        if given { String::new() } else { format!("{default}\n") }
    };
    let corefile = format!(
        ".:53 {{\nkubernetes cluster.local in-addr.arpa {{\npods insecure\n{kubernetes}\n}}\n{}{}{lines}\n}}\n",
        with("forward", "forward . /etc/resolv.conf"),
        with("cache", "cache")
    );
    let (patch, told, _) = migrate(&[("Corefile", &corefile)], &allowing());
    let notes = told.iter().filter(|line| line.starts_with("note: ")).count();
    (dns_of(&patch), told.len() - notes, notes)
}

fn expect(kubernetes: &str, lines: &str, (yaml, unmapped, notes): (&str, usize, usize)) {
    let expected: Dns = serde_yaml_ng::from_str(yaml).unwrap();
    assert_eq!(meaning(kubernetes, lines), (expected, unmapped, notes), "{kubernetes}{lines}");
}

#[test]
fn options_of_the_cluster_mean_what_they_say() {
    let cases = [
        ("pods disabled", ("{podRecords: Disabled}", 0, 0)),
        ("pods verified", ("{podRecords: Verified}", 0, 0)),
        ("ttl 0", ("{ttlSeconds: 0}", 0, 0)),
        ("ttl 4000", ("{}", 1, 0)),
        ("endpoint_pod_names", ("{endpointPodNames: true}", 0, 0)),
        ("ignore empty_service", ("{emptyServices: NXDomain}", 0, 0)),
        ("fallthrough in-addr.arpa 10.96.0.0/12", ("{}", 0, 0)),
        ("fallthrough", ("{}", 1, 0)),
        ("fallthrough cluster.local", ("{}", 1, 0)),
        ("endpoint https://192.0.2.1:6443", ("{}", 0, 1)),
        ("startup_timeout 5s", ("{}", 0, 0)),
        ("labels a=b", ("{}", 1, 0)),
        ("multicluster clusterset.local", ("{}", 1, 0)),
        ("zonal", ("{}", 1, 0)),
        ("unheard of", ("{}", 1, 0)),
    ];
    for (option, expected) in cases {
        expect(option, "", expected);
    }
}

/// Lines of block `.`: `spec.dns`, things without a place, notes.
type Case = (&'static str, &'static str, usize, usize);

const RESOLVERS: &[Case] = &[
    ("forward . 10.0.0.1 10.0.0.1 dns://[fd00::1]:5353", "{upstreams: [10.0.0.1, '[fd00::1]:5353']}", 0, 0),
    ("forward . 10.0.0.1 /etc/resolv.conf", "{}", 1, 0),
    ("forward . /run/systemd/resolve/resolv.conf", "{}", 1, 0),
    (
        "forward . tls://10.0.0.1 {\ntls_servername DNS.example.\n}",
        "{upstreams: [10.0.0.1], forwarding: {protocol: TLS, tlsServerName: dns.example}}",
        0,
        0,
    ),
    (
        "forward . tls://10.0.0.1%dns.example:8853",
        "{upstreams: ['10.0.0.1:8853'], forwarding: {protocol: TLS, tlsServerName: dns.example}}",
        0,
        0,
    ),
    (
        "forward . tls://[fd00::1%dns.example]:853",
        "{upstreams: ['fd00::1'], forwarding: {protocol: TLS, tlsServerName: dns.example}}",
        0,
        0,
    ),
    ("forward . tls://10.0.0.1%a.example tls://10.0.0.2%b.example", "{}", 1, 0),
    ("forward . tls://10.0.0.1%a.example 10.0.0.2", "{}", 1, 0),
    (
        "forward . tls://10.0.0.1:53%a.example",
        "{upstreams: ['10.0.0.1:53'], forwarding: {protocol: TLS, tlsServerName: a.example}}",
        0,
        0,
    ),
    (
        "forward . https://10.0.0.1 {\ntls_servername a.example\n}",
        "{upstreams: [10.0.0.1], forwarding: {protocol: HTTPS, tlsServerName: a.example}}",
        0,
        0,
    ),
    ("forward . 10.0.0.1%eth0", "{}", 1, 0),
    (
        "forward . 10.0.0.1 {\nforce_tcp\ntls_servername a.example\n}",
        "{upstreams: [10.0.0.1], forwarding: {protocol: TCP}}",
        0,
        0,
    ),
    ("forward . 10.0.0.1 {\npolicy least_conn\nmax_fails 3\nexpire 10s\n}", "{upstreams: [10.0.0.1]}", 1, 2),
    (
        "forward . 10.0.0.1 {\nmax_concurrent 0\nread_timeout 1.5s\n}",
        "{upstreams: [10.0.0.1], forwarding: {maxConcurrent: 100000}}",
        0,
        0,
    ),
    ("forward . 10.0.0.1 {\nread_timeout 1m\nmax_concurrent 200000\n}", "{upstreams: [10.0.0.1]}", 2, 0),
    (
        "forward . 10.0.0.1 {\nfailover nxdomain NXDOMAIN YXDOMAIN\nnext SERVFAIL\n}",
        "{upstreams: [10.0.0.1], forwarding: {failover: [NXDomain]}}",
        2,
        0,
    ),
    ("forward . 10.0.0.1 {\nexcept corp.example cluster.local\n}", "{upstreams: [10.0.0.1]}", 1, 0),
    (
        "forward . 10.0.0.1 {\nexcept corp.example\n}\nforward corp.example 10.0.0.2",
        "{upstreams: [10.0.0.1], stubDomains: [{zone: corp.example, upstreams: [10.0.0.2]}]}",
        0,
        0,
    ),
    ("forward . 10.0.0.1\nforward . 10.0.0.2", "{upstreams: [10.0.0.1]}", 1, 0),
    ("forward corp.example 10.0.0.2", "{stubDomains: [{zone: corp.example, upstreams: [10.0.0.2]}]}", 1, 0),
    ("forward cluster.local 10.0.0.2\nforward . 10.0.0.1", "{upstreams: [10.0.0.1]}", 1, 0),
];

#[test]
fn resolvers_are_asked_as_they_were() {
    for (lines, yaml, unmapped, notes) in RESOLVERS {
        expect("", lines, (yaml, *unmapped, *notes));
    }
}

#[test]
fn answers_are_kept_as_they_were() {
    let cases = [
        ("cache", ("{}", 0, 0)),
        ("cache 3", ("{cache: {maxTTLSeconds: 3, minTTLSeconds: 3, negativeMaxTTLSeconds: 3}}", 0, 1)),
        ("cache {\nsuccess 16 100\n}", ("{cache: {maxEntries: 10000, maxTTLSeconds: 100}}", 0, 0)),
        (
            "cache {\ndenial 10016 60 9\n}",
            ("{cache: {maxEntries: 20000, maxBytes: 16777216, negativeMaxTTLSeconds: 60}}", 0, 1),
        ),
        ("cache {\ndisable denial\n}", ("{cache: {negativeMaxTTLSeconds: 0}}", 0, 0)),
        ("cache {\ndisable success\n}", ("{cache: {maxEntries: 0}}", 0, 0)),
        ("cache {\ndisable success svc.cluster.local\n}", ("{}", 0, 0)),
        ("cache {\ndisable success corp.example\n}", ("{}", 1, 0)),
        ("cache {\nprefetch 0\nservfail 0\n}", ("{cache: {prefetch: false}}", 0, 1)),
        (
            "cache {\nserve_stale\n}",
            ("{cache: {serveStale: {maxAgeSeconds: 3600, mode: Immediate, responseTTLSeconds: 0}}}", 0, 0),
        ),
        ("cache {\nserve_stale 2h verify 1s 30s\n}", ("{cache: {serveStale: {maxAgeSeconds: 7200}}}", 0, 1)),
        ("cache {\nserve_stale 24h immediate 30s\n}", ("{cache: {serveStale: {mode: Immediate}}}", 0, 0)),
        ("cache {\nserve_stale 1000h\nkeepttl\nsuccess x\n}", ("{}", 3, 0)),
        ("cache 30 corp.example", ("{cache: {maxTTLSeconds: 30, negativeMaxTTLSeconds: 30}}", 1, 0)),
        ("cache\ncache 30", ("{cache: {maxTTLSeconds: 30, negativeMaxTTLSeconds: 30}}", 0, 0)),
        ("cache 20\ncache 30", ("{cache: {maxTTLSeconds: 20, negativeMaxTTLSeconds: 20}}", 1, 0)),
    ];
    for (lines, expected) in cases {
        // a cache of 3 s shortens the cluster's own time to live of 5 s
        let (yaml, unmapped, notes) = expected;
        let yaml =
            if lines == "cache 3" { yaml.replacen('{', "{ttlSeconds: 3, ", 1) } else { yaml.to_owned() };
        expect("", lines, (&yaml, unmapped, notes));
    }
}

const RULES: &[(&str, (&str, usize, usize))] = &[
    (
        "hosts {\n192.0.2.1 B.example. a.example\nttl 60\nfallthrough\n}",
        ("{hosts: [{ip: 192.0.2.1, names: [b.example, a.example], ttlSeconds: 60}]}", 0, 1),
    ),
    ("hosts {\n192.0.2.1 a.example\n}", ("{hosts: [{ip: 192.0.2.1, names: [a.example]}]}", 1, 0)),
    ("hosts {\n192.0.2.300 a.example\nfallthrough\n}", ("{}", 1, 0)),
    (
        "hosts /etc/hosts corp.example {\n192.0.2.1 a.example a.corp.example\nfallthrough\n}",
        ("{hosts: [{ip: 192.0.2.1, names: [a.corp.example]}]}", 0, 1),
    ),
    (
        "rewrite name substring old new answer auto",
        ("{rewrites: [{match: {type: Regex, value: '^(.*)old([.].*)?$'}, to: '{1}new{2}'}]}", 0, 1),
    ),
    ("rewrite name regex (.*)\\.a\\.$ {0}.b", ("{}", 1, 0)),
    ("rewrite name regex (.*)\\.a\\.$ (.{1}.b", ("{}", 1, 0)),
    ("rewrite name a.example b.example answer value x y", ("{}", 1, 0)),
    (
        "rewrite name exact a.example b.example answer value x y",
        ("{rewrites: [{match: {type: Exact, value: a.example}, to: b.example}]}", 1, 0),
    ),
    (
        "rewrite continue name a.example b.example",
        ("{rewrites: [{match: {type: Exact, value: a.example}, to: b.example}]}", 0, 0),
    ),
    ("rewrite ttl regex .* 30", ("{}", 1, 0)),
    ("template IN HINFO corp.example", ("{}", 1, 0)),
    ("template CH TXT corp.example", ("{}", 1, 0)),
    ("template IN AAAA corp.example", ("{overrides: [{zone: corp.example, types: [AAAA]}]}", 0, 0)),
    ("template ANY ANY {\nrcode REFUSED\n}", ("{acl: [{action: Block}]}", 0, 0)),
    ("template ANY ANY {\nrcode NXDOMAIN\n}", ("{}", 1, 0)),
    (
        "acl {\nallow net 10.0.0.0/8\n}\ntemplate ANY AAAA .",
        ("{acl: [{action: Allow, networks: [10.0.0.0/8]}]}", 1, 0),
    ),
    (
        "template IN A a.example {\nanswer \"{{ .Name }} 60 IN A 192.0.2.1\" \"{{ .Name }} 30 IN A 192.0.2.2\"\n}",
        ("{}", 1, 0),
    ),
    ("template IN A a.example {\nmatch .*\\.b\\.example\\.$\nfallthrough\n}", ("{}", 1, 0)),
    (
        "template IN A {\nmatch .*\\.b\\.example\\.$\nrcode NXDOMAIN\n}",
        ("{overrides: [{zone: b.example, types: [A], responseCode: NXDomain}]}", 0, 1),
    ),
    ("template IN A a.example {\nadditional \"x\"\n}", ("{}", 1, 0)),
    (
        "acl corp.example 10.0.0.0/8 {\nblock type * net * 10.0.0.0/8\nfilter type A A\n}",
        (
            "{acl: [{action: Block, zones: [corp.example, 10.in-addr.arpa]}, {action: Filter, types: [A], zones: [corp.example, 10.in-addr.arpa]}]}",
            0,
            0,
        ),
    ),
    ("acl {\ndeny net 10.0.0.0/8\nblock net ten\nblock type HINFO\nblock 10.0.0.0/8\n}", ("{}", 4, 0)),
    (
        "k8s_external lb.example {\nttl 5\napex dns\nheadless\n}",
        ("{externalZones: [{zone: lb.example, sources: [LoadBalancer, ExternalIP]}]}", 1, 0),
    ),
    ("autopath search.conf", ("{}", 1, 0)),
    ("log . {\nclass error\n}", ("{queryLog: {queries: Errors}}", 0, 0)),
    ("log . {\nclass denial\n}", ("{queryLog: {queries: Denials}}", 0, 1)),
    ("log corp.example", ("{}", 1, 0)),
    (
        "loadbalance round_robin\nbufsize 512\nhealth :8080\nready :8181\nprometheus localhost:9999",
        ("{}", 0, 2),
    ),
];

#[test]
fn rules_for_names_mean_what_they_say() {
    for (lines, expected) in RULES {
        expect("", lines, *expected);
    }
}

#[test]
fn a_block_within_the_clusters_domain_is_a_stub_domain_like_others() {
    let corefile = ".:53 {\nkubernetes cluster.local {\npods insecure\n}\nforward . /etc/resolv.conf\ncache\n}\n\
        a.cluster.local {\nforward . 10.0.0.1\n}\ncluster.local {\nforward . 10.0.0.2\n}\na.cluster.local {\nforward . 10.0.0.3\n}\n\
        corp.example {\nforward . /etc/resolv.conf\n}\n";
    let (patch, told, _) = migrate(&[("Corefile", corefile)], &allowing());
    let expected: Dns =
        serde_yaml_ng::from_str("{stubDomains: [{zone: a.cluster.local, upstreams: [10.0.0.1]}]}").unwrap();
    assert_eq!(dns_of(&patch), expected);
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn lists_end_where_the_api_ends_them() {
    let many = |count: usize, line: fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().join("\n");
    let hosts =
        format!("hosts {{\n{}\nfallthrough\n}}", many(300, |n| format!("192.0.2.{} h{n}.example", n % 250)));
    let (dns, unmapped, _) = meaning("", &hosts);
    assert_eq!((dns.hosts.len(), unmapped), (256, 44));
    let names =
        format!("hosts {{\n192.0.2.1 {}\nfallthrough\n}}", many(20, |n| format!("h{n}")).replace('\n', " "));
    assert_eq!(meaning("", &names).0.hosts.len(), 2);
    let stubs = many(70, |n| format!("forward z{n}.example 10.0.0.1"));
    let (dns, unmapped, _) = meaning("", &format!("forward . 10.0.0.1\n{stubs}"));
    assert_eq!((dns.stub_domains.len(), unmapped), (64, 6));
    let upstreams = format!("forward . {}", many(20, |n| format!("10.0.0.{n}")).replace('\n', " "));
    let (dns, unmapped, _) = meaning("", &upstreams);
    assert_eq!((dns.upstreams.len(), unmapped), (15, 5));
    let networks =
        format!("acl {{\nblock net {}\n}}", many(70, |n| format!("10.0.{n}.0/24")).replace('\n', " "));
    assert_eq!(meaning("", &networks).0.acl.len(), 2);
}

#[test]
fn dns_over_tls_takes_the_secret_that_is_named() {
    let corefile = "tls://.:853 {\ntls cert.pem key.pem\nforward . 10.0.0.9\n}\n\
        .:53 {\nkubernetes cluster.local {\npods insecure\n}\nforward . 10.0.0.1\ncache\n}\n";
    let options = super::Options { tls_secret: Some("dot".to_owned()), ..super::Options::default() };
    let (patch, told, good) = migrate(&[("Corefile", corefile)], &options);
    assert!(good, "{told:?}");
    let expected: Dns = serde_yaml_ng::from_str("{upstreams: [10.0.0.1], tls: {secretName: dot}}").unwrap();
    assert_eq!(dns_of(&patch), expected);
    assert!(!migrate(&[("Corefile", corefile)], &super::Options::default()).2);
}

//! Cluster names, asked from pods of both nodes through the address in their resolv.conf.
//! All tests share one cluster with Netkeel installed without values.

#[path = "dns/handover.rs"]
mod handover;
#[path = "dns/placement.rs"]
mod placement;
#[path = "dns/policy.rs"]
mod policy;
#[path = "dns/rolling.rs"]
mod rolling;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::{Answer, Client, ECHO_PORT, Pod, Workload, node_names, shared};
use serde_json::{Value, json};

struct Bed {
    workload: Workload<'static>,
    service: String,
}

fn names() -> &'static Bed {
    static NAMES: OnceLock<Bed> = OnceLock::new();
    NAMES.get_or_init(|| make_names().expect("the services of the DNS tests"))
}

fn make_names() -> Result<Bed> {
    let workload = Workload::new(shared(), "dns")?;
    for (index, node) in node_names(shared()).iter().enumerate().take(2) {
        workload.pod(&format!("client-{index}"), node)?;
    }
    workload.apply(vec![member("member", "members", &node_names(shared())[1])])?;
    workload.headless_for("members", "member")?;
    workload.deployment("web", 3)?;
    let service = workload.service("web")?;
    workload.headless_for("each", "web")?;
    workload.wait_endpoints("web", 3)?;
    workload.wait_endpoints("each", 3)?;
    workload.wait_endpoints("members", 1)?;
    workload.ready()?;
    Ok(Bed { workload, service })
}

/// A pod with a host name below a headless Service, as those of a `StatefulSet` have it.
fn member(name: &str, service: &str, node: &str) -> Value {
    let mut pod = Pod::server(name, node).json();
    pod["spec"]["hostname"] = json!(format!("{name}-0"));
    pod["spec"]["subdomain"] = json!(service);
    pod
}

fn clients() -> Vec<Client<'static>> {
    [0, 1].map(|index| names().workload.client(&format!("client-{index}")).expect("a pod of a node")).into()
}

/// Asks from the pods of both nodes until the answer satisfies `check`.
fn resolves(name: &str, kind: &str, tcp: bool, check: impl Fn(&Answer) -> bool) -> Result<()> {
    for client in clients() {
        wait_until(&format!("{client} asks {kind} {name}"), Duration::from_secs(5), || {
            let answer = client.resolve(name, kind, tcp)?;
            ensure!(check(&answer), "answer {answer:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_service_resolves_by_its_full_name_over_udp_and_tcp() {
    for tcp in [false, true] {
        resolves("web.dns.svc.cluster.local.", "A", tcp, |answer| {
            answer.data() == [names().service.as_str()]
        })
        .unwrap();
    }
}

#[test]
fn a_service_resolves_by_its_short_names_through_the_search_list() {
    for client in clients() {
        for name in ["web", "web.dns", "web.dns.svc"] {
            let seen = client.connect(name, ECHO_PORT, 5).unwrap();
            assert!(seen.errors.is_empty(), "{client} -> {name}: {:?}", seen.errors);
        }
    }
}

#[test]
fn a_headless_service_resolves_to_each_pod() {
    let pods = names().workload.endpoint_addresses("web").unwrap();
    assert_eq!(pods.len(), 3);
    resolves("each.dns.svc.cluster.local.", "A", false, |answer| answer.data() == pods).unwrap();
}

#[test]
fn ports_resolve_to_srv_records() {
    let name = "_echo._tcp.web.dns.svc.cluster.local.";
    let wanted = format!("{ECHO_PORT} web.dns.svc.cluster.local");
    resolves(name, "SRV", false, |answer| answer.data().len() == 1 && answer.data()[0].ends_with(&wanted))
        .unwrap();
    resolves("_echo-udp._udp.web.dns.svc.cluster.local.", "SRV", false, |answer| answer.data().len() == 1)
        .unwrap();
    resolves("_echo._tcp.each.dns.svc.cluster.local.", "SRV", false, |answer| answer.data().len() == 3)
        .unwrap();
}

#[test]
fn the_address_of_a_service_resolves_to_its_name() {
    let mut octets: Vec<&str> = names().service.split('.').collect();
    octets.reverse();
    let name = format!("{}.in-addr.arpa.", octets.join("."));
    resolves(&name, "PTR", false, |answer| answer.data() == ["web.dns.svc.cluster.local"]).unwrap();
}

#[test]
fn other_names_are_forwarded_to_the_outside_resolver() {
    for tcp in [false, true] {
        resolves("outside.test.", "A", tcp, |answer| answer.code == "NOERROR" && answer.data().len() == 1)
            .unwrap();
    }
}

#[test]
fn a_cluster_name_that_does_not_exist_is_nxdomain() {
    resolves("nothing.dns.svc.cluster.local.", "A", false, |answer| answer.code == "NXDOMAIN").unwrap();
    resolves("nothing.dns.svc.cluster.local.", "A", true, |answer| answer.code == "NXDOMAIN").unwrap();
}

#[test]
fn a_service_without_addresses_of_a_family_is_no_data() {
    resolves("web.dns.svc.cluster.local.", "AAAA", false, |answer| {
        answer.code == "NOERROR" && answer.data().is_empty()
    })
    .unwrap();
}

#[test]
fn the_kubernetes_service_and_kube_dns_have_names() {
    resolves("kubernetes.default.svc.cluster.local.", "A", false, |answer| answer.data().len() == 1).unwrap();
    resolves("kube-dns.kube-system.svc.cluster.local.", "A", false, |answer| answer.data().len() == 1)
        .unwrap();
}

#[test]
fn a_new_service_resolves_soon_after_its_creation() {
    let client = &clients()[1];
    let mut took = Vec::new();
    for round in 0..5 {
        let name = format!("new-{round}");
        let address = names().workload.service_for(&name, "web").unwrap();
        let started = Instant::now();
        wait_until("the new name", Duration::from_secs(5), || {
            let answer = client.resolve(&format!("{name}.dns.svc.cluster.local."), "A", false)?;
            ensure!(answer.data() == [address.as_str()], "answer {answer:?}");
            Ok(())
        })
        .unwrap();
        took.push(started.elapsed());
        names().workload.delete("service", &name).unwrap();
    }
    println!("a new Service resolved after (kubectl exec included): {took:.0?}");
}

#[test]
fn the_resolvers_of_both_c_libraries_find_what_the_search_list_leads_to() {
    let pods = names().workload.endpoint_addresses("web").unwrap();
    let member = names().workload.address("member", false).unwrap();
    let outside = shared().outside_addresses()[0].to_string();
    let (service, each) = (names().service.as_str(), pods.join(" "));
    let dashed = format!("{}.each", pods[0].replace('.', "-"));
    let of_pod = format!("{}.dns.pod", pods[0].replace('.', "-"));
    let kubernetes =
        shared().kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    let cases = [
        ("web", service),
        ("web.dns", service),
        ("web.dns.svc", service),
        ("web.dns.svc.cluster.local", service),
        ("web.dns.svc.cluster.local.", service),
        ("kubernetes.default", &kubernetes),
        ("each", &each),
        ("each.dns.svc", &each),
        (&dashed, &pods[0]),
        (&of_pod, &pods[0]),
        ("member-0.members", &member),
        ("member-0.members.dns.svc.cluster.local", &member),
        ("outside.test", &outside),
        ("outside.test.", &outside),
        ("alias.outside.test", &outside),
        ("nothing", "none"),
        ("nothing.dns", "none"),
        ("nothing.dns.svc.cluster.local", "none"),
        ("missing.test", "none"),
        ("missing.member.members", "none"),
    ];
    let asked = cases.map(|(name, _)| name);
    // Names outside have addresses of both families, whatever this cluster has.
    let of_both = shared().outside_records().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let of_ipv4 = cases.map(|(_, found)| found);
    let of_any = of_ipv4.map(|found| if found == outside { of_both.as_str() } else { found });
    for client in clients() {
        for library in ["musl", "glibc"] {
            for (ipv6, expected) in [(Some(false), of_ipv4), (None, of_any)] {
                wait_until(&format!("{library} in {client} finds {asked:?}"), Duration::from_secs(5), || {
                    let said = client.look_up(library, ipv6, &asked)?;
                    ensure!(said == expected, "{said:?} in place of {expected:?}, IPv6 {ipv6:?}");
                    Ok(())
                })
                .unwrap();
            }
            let said = client.look_up(library, Some(true), &["web", "each.dns", "nothing"]).unwrap();
            assert_eq!(said, ["none"; 3], "{library} in {client} over IPv4 alone");
        }
    }
}

/// Changes `spec.dns` of the ClusterNetwork.
fn set(dns: &Value) -> Result<String> {
    let patch = json!({"spec": {"dns": dns}}).to_string();
    shared().kubectl(&["patch", "clusternetwork", "default", "--type=merge", "-p", &patch])
}

/// Puts back what [`set`] changed, also after a failure.
struct AsItWas;

impl Drop for AsItWas {
    fn drop(&mut self) {
        let lists = json!({"hosts": null, "overrides": null, "acl": null, "rewrites": null, "externalZones": null,
            "placement": null, "networkPolicies": null});
        if let Err(error) = set(&lists) {
            println!("spec.dns is left changed: {error:#}");
        }
    }
}

#[test]
fn the_api_server_refuses_a_spec_dns_that_is_wrong_and_says_why() {
    for (wrong, reason) in [
        (json!({"hosts": [{"ip": "192.0.2.300", "names": ["a.test"]}]}), "must be an IP address"),
        (json!({"hosts": [{"ip": "192.0.2.3", "names": ["A.test"]}]}), "hosts[0].names[0]"),
        (
            json!({"overrides": [{"zone": "a.test", "records": [{"type": "AAAA", "value": "192.0.2.1"}]}]}),
            "the value of an AAAA record is an IPv6 address",
        ),
        (
            json!({"overrides": [{"zone": "a.test", "records": [{"type": "CNAME", "value": "b.test."}]}]}),
            "the value of a CNAME record is a domain name",
        ),
        (
            json!({"overrides": [{"zone": "a.test", "responseCode": "Refused", "records": [{"type": "TXT", "value": "a"}]}]}),
            "an answer with records has the responseCode NoError",
        ),
        (
            json!({"rewrites": [{"match": {"type": "Suffix", "value": ".A.test"}, "to": ".b.test"}]}),
            "a name that is matched is written in lower case",
        ),
        (
            json!({"rewrites": [{"match": {"type": "Exact", "value": "a.test"}, "to": "{1}.test"}]}),
            "only a rewrite of type Regex has groups",
        ),
        (
            json!({"rewrites": [{"match": {"type": "Regex", "value": "a"}, "to": ".test"}]}),
            "the new name is a whole one",
        ),
        (
            json!({"rewrites": [{"match": {"type": "Prefix", "value": "a"}, "to": "b..c"}]}),
            "a name has no empty labels",
        ),
        (
            json!({"acl": [{"action": "Block", "networks": ["10.0.0.1/8"]}]}),
            "must be a CIDR without host bits",
        ),
        (
            json!({"externalZones": [{"zone": "svc.cluster.local"}]}),
            "an external zone must not lie in the cluster domain",
        ),
        (json!({"queryLog": {"sampleRatio": 1.5}}), "sampleRatio"),
    ] {
        let said = format!("{:#}", set(&wrong).expect_err("the API server must refuse this"));
        assert!(said.contains(reason), "{wrong} was answered: {said}");
    }
}

#[test]
fn what_servers_decide_themselves_changes_live_and_what_is_wrong_changes_nothing() {
    let (client, _put_back) = (&clients()[0], AsItWas);
    let mut took = Vec::new();
    // both servers have it when each of a few questions in a row is answered so
    let mut becomes = |dns: &Value, name: &str, kind: &str, code: &str, data: &[&str]| {
        set(dns).unwrap();
        let started = Instant::now();
        let last = std::cell::Cell::new(started);
        wait_until(&format!("{kind} {name} after {dns}"), Duration::from_secs(5), || {
            for _ in 0..4 {
                let asked = Instant::now();
                let answer = client.resolve(name, kind, false)?;
                let good = answer.code == code && answer.data() == data;
                if !good {
                    last.set(asked);
                }
                ensure!(good, "answer {answer:?}");
            }
            Ok(())
        })
        .unwrap();
        took.push(last.get() - started);
    };
    let host = json!({"hosts": [{"ip": "192.0.2.77", "names": ["printer.live.test"]}]});
    becomes(&host, "printer.live.test.", "A", "NOERROR", &["192.0.2.77"]);
    let web = "web.dns.svc.cluster.local.";
    let rewrite = json!({"rewrites": [{"match": {"type": "Exact", "value": "shop.live.test"}, "to": web.trim_end_matches('.')}]});
    becomes(&rewrite, "shop.live.test.", "A", "NOERROR", &[names().service.as_str()]);
    let overridden = json!({"overrides": [{"zone": "live.test", "responseCode": "NXDomain"}]});
    becomes(&overridden, "printer.live.test.", "A", "NXDOMAIN", &[]);
    let blocked = json!({"acl": [{"action": "Block", "zones": [web.trim_end_matches('.')]}]});
    becomes(&blocked, web, "A", "REFUSED", &[]);
    becomes(&json!({"acl": []}), web, "A", "NOERROR", &[names().service.as_str()]);
    println!("the last answer as before came so long after a change (kubectl exec included): {took:.0?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{took:?}");

    let mut bad = host;
    bad["overrides"] = json!([]);
    bad["rewrites"] = json!([{"match": {"type": "Regex", "value": "(("}, "to": "a.test"}]);
    set(&bad).unwrap();
    let degraded = "jsonpath={.status.conditions[?(@.type=='Degraded')].message}";
    wait_until("the mistake in the status", Duration::from_secs(5), || {
        let message = shared().kubectl(&["get", "clusternetwork", "default", "-o", degraded])?;
        ensure!(message.contains("spec.dns.rewrites[0].match.value"), "{message:?}");
        Ok(())
    })
    .unwrap();
    let answer = client.resolve("printer.live.test.", "A", false).unwrap();
    assert_eq!(answer.code, "NXDOMAIN", "the last good one is in force: {answer:?}");
}

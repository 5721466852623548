//! The network on its way out.

use super::*;

#[test]
fn removal_waits_for_the_nodes_but_not_for_ever() {
    let mut seen = settled();
    seen.network.as_mut().unwrap().metadata.deletion_timestamp =
        serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
    let at = |seen: &Observed, age| plan(seen, &Settings::default(), age);
    let asked = at(&seen, 0);
    assert!(asked.steps.iter().all(|step| matches!(step, Step::WriteNodeNetwork { spec, .. } if spec.state == netkeel_crds::node_network::State::Removing)));
    assert_eq!(asked.steps.len(), 2);
    assert_eq!(reasons(&asked), [(kind::DEGRADED, "Removing")]);
    let deletes = |outcome: &Outcome| outcome.steps.iter().any(|step| matches!(step, Step::Delete(_)));
    assert!(!deletes(&at(&seen, NODE_WAIT - 1)) && deletes(&at(&seen, NODE_WAIT)));
    assert_eq!(reasons(&at(&seen, NODE_WAIT)), [(kind::DEGRADED, "NodesNotCleaned")]);
    seen.nodes.iter_mut().for_each(|node| node.reachable = false);
    assert!(deletes(&at(&seen, 60)), "a node that is down is not waited for as long");
}

/// `seen` with the network on its way out.
fn removing(mut seen: Observed) -> Observed {
    seen.network.as_mut().unwrap().metadata.deletion_timestamp =
        serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
    seen
}

#[test]
fn only_what_is_there_is_deleted_and_pods_that_can_end_are_waited_for() {
    let there = Workload::default();
    let ending = Workload { pods: 1, deleted: true, ..there };
    let cases = [
        (Some(there), None, Some(there), vec!["Deployment netkeel-dns"]),
        (None, Some(there), Some(there), vec!["DaemonSet netkeel-dns"]),
        (Some(there), Some(there), Some(there), vec!["Deployment netkeel-dns", "DaemonSet netkeel-dns"]),
        (Some(ending), Some(there), Some(there), vec!["DaemonSet netkeel-dns"]),
        (Some(ending), None, Some(there), vec![]),
        (None, None, Some(there), vec!["DaemonSet netkeel-agent"]),
        (None, None, Some(ending), vec![]),
        (None, None, None, vec!["network"]),
    ];
    for (servers, node_servers, agents, wanted) in cases {
        let mut seen = removing(seen());
        (seen.dns.servers, seen.dns.node_servers, seen.agents) = (servers, node_servers, agents);
        let planned = plan(&seen, &Settings::default(), 0);
        let names = planned.steps.iter().map(|step| match step {
            Step::Delete(part) => format!("{} {}", part.kind, part.name),
            Step::LetNetworkGo => "network".to_owned(),
            _ => "another".to_owned(),
        });
        assert_eq!(names.collect::<Vec<_>>(), wanted, "{servers:?} {node_servers:?} {agents:?}");
    }
}

#[test]
fn the_service_of_dns_goes_unless_it_leads_to_the_servers_of_others() {
    for (ours, leads_to_us) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut seen = removing(seen());
        seen.dns.service = Some(DnsService { ours, leads_to_us, cluster_ip: "10.96.0.10".parse().ok() });
        let steps = plan(&seen, &Settings::default(), 0).steps;
        let goes = |step: &Step| matches!(step, Step::Delete(part) if part.kind == "Service");
        assert_eq!(steps.iter().any(goes), ours && leads_to_us, "{:?}", seen.dns.service);
    }
}

#[test]
fn the_policy_of_dns_goes_after_its_servers_and_before_the_agents() {
    for (servers, wanted) in [(Some(Workload::default()), "Deployment"), (None, "NetworkPolicy")] {
        let mut seen = removing(seen());
        (seen.dns.servers, seen.dns.policy) = (servers, true);
        seen.agents = Some(Workload::default());
        let planned = plan(&seen, &Settings::default(), 0);
        let kinds: Vec<&str> = planned
            .steps
            .iter()
            .map(|step| if let Step::Delete(name) = step { name.kind } else { "another" })
            .collect();
        assert_eq!(kinds, [wanted]);
    }
}

#[test]
fn deleted_agents_come_back_while_a_node_that_had_one_is_dirty() {
    type Change = fn(&mut Observed);
    let cases: [(&str, u64, bool, Change); 5] = [
        ("dirty", 0, true, |_| {}),
        ("pods are left", 0, true, |seen| {
            seen.agents = Some(Workload { pods: 1, deleted: true, ..Workload::default() });
        }),
        ("too late", NODE_WAIT, false, |_| {}),
        ("clean", 0, false, |seen| {
            let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
            let removed = netkeel_crds::condition::condition(kind::REMOVED, true, "Removed", "", now);
            seen.node_networks[0].status.get_or_insert_default().conditions = vec![removed];
        }),
        ("never had one", 0, false, |seen| seen.node_networks[0].status = None),
    ];
    for (name, age, back, change) in cases {
        let mut seen = removing(settled());
        seen.agents = None;
        seen.node_networks[0].status = Some(netkeel_crds::NodeNetworkStatus::default());
        change(&mut seen);
        let steps = plan(&seen, &Settings::default(), age).steps;
        let applied = |step: &Step| matches!(step, Step::Apply(part) if part.name.kind == "DaemonSet");
        assert_eq!(steps.iter().any(applied), back, "{name}");
        let goes = |step: &Step| matches!(step, Step::DeleteNodeNetwork { .. });
        assert_eq!(steps.iter().any(goes), !back, "{name}");
    }
}

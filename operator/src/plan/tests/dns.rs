//! Where DNS servers run, and how they move.

use netkeel_crds::cluster_network::dns::Placement;

use super::*;

fn workload(wanted: u32, ready: u32) -> Workload {
    Workload { wanted, ready, updated: ready, ..Workload::default() }
}

/// What is done with DNS servers: `apply KIND` or `delete KIND`.
fn moves(seen: &Observed) -> Vec<String> {
    let said = planned(seen).steps.into_iter().filter_map(|step| match step {
        Step::Apply(part) if ["Deployment", "DaemonSet"].contains(&part.name.kind) => {
            (part.name.name == "netkeel-dns").then(|| format!("apply {}", part.name.kind))
        }
        Step::Delete(part) => Some(format!("delete {}", part.kind)),
        _ => None,
    });
    said.collect()
}

fn placed(placement: Placement) -> Observed {
    let mut seen = settled();
    seen.network.as_mut().unwrap().spec.dns.placement = placement;
    seen
}

#[test]
fn servers_of_the_former_placement_go_when_the_others_have_taken_over() {
    let to_nodes = ["apply DaemonSet", "delete Deployment"];
    let to_replicas = ["apply Deployment", "delete DaemonSet"];
    for (what, placement, servers, node_servers, gone) in [
        ("the first", Placement::EveryNode, None, None, false),
        ("nothing yet", Placement::EveryNode, Some(workload(2, 2)), None, false),
        ("not looked at yet", Placement::EveryNode, Some(workload(2, 2)), Some(workload(0, 0)), false),
        ("some are ready", Placement::EveryNode, Some(workload(2, 2)), Some(workload(2, 1)), false),
        ("all are ready", Placement::EveryNode, Some(workload(2, 2)), Some(workload(2, 2)), true),
        ("the former are not", Placement::EveryNode, Some(workload(2, 0)), Some(workload(2, 2)), true),
        ("back, nothing yet", Placement::Replicas, None, Some(workload(2, 2)), false),
        ("back, some", Placement::Replicas, Some(workload(3, 2)), Some(workload(2, 2)), false),
        ("back, all", Placement::Replicas, Some(workload(3, 3)), Some(workload(2, 2)), true),
        ("moved", Placement::EveryNode, None, Some(workload(2, 2)), false),
        ("moved back", Placement::Replicas, Some(workload(2, 2)), None, false),
    ] {
        let mut seen = placed(placement);
        (seen.dns.servers, seen.dns.node_servers) = (servers, node_servers);
        let steps = if placement == Placement::EveryNode { to_nodes } else { to_replicas };
        assert_eq!(moves(&seen), steps[..=usize::from(gone)], "{what}");
    }
}

#[test]
fn a_node_that_is_down_does_not_hold_the_move_up() {
    let mut seen = placed(Placement::EveryNode);
    (seen.dns.servers, seen.dns.node_servers) = (Some(workload(2, 2)), Some(workload(2, 1)));
    seen.nodes[1].ready = false;
    assert_eq!(moves(&seen), ["apply DaemonSet", "delete Deployment"]);
    seen.dns.node_servers = Some(workload(2, 0));
    seen.nodes[0].ready = false;
    assert_eq!(moves(&seen), ["apply DaemonSet"], "without any server nothing goes");
}

#[test]
fn a_foreign_service_keeps_the_servers_as_they_are() {
    let mut seen = placed(Placement::EveryNode);
    (seen.dns.servers, seen.dns.node_servers) = (Some(workload(2, 2)), Some(workload(2, 2)));
    seen.dns.service =
        Some(DnsService { ours: false, leads_to_us: false, cluster_ip: "10.96.0.7".parse().ok() });
    assert!(moves(&seen).is_empty());
}

#[test]
fn a_service_that_is_handed_over_leads_to_its_former_servers_until_ours_are_ready() {
    for (servers, taken) in [
        (None, false),
        (Some(workload(0, 0)), false),
        (Some(workload(2, 1)), false),
        (Some(workload(2, 2)), true),
    ] {
        let mut seen = settled();
        seen.dns.servers = servers;
        let cluster_ip = "10.96.0.7".parse().ok();
        seen.dns.service = Some(DnsService { ours: true, leads_to_us: false, cluster_ip });
        let outcome = planned(&seen);
        let steps = outcome.steps.iter().filter_map(|step| match step {
            Step::TakeOver(part) => Some(("take over", &part.body["spec"]["clusterIP"])),
            Step::Apply(part) if part.name.kind == "Service" => {
                Some(("apply", &part.body["spec"]["clusterIP"]))
            }
            _ => None,
        });
        let address = Value::from("10.96.0.7");
        let expected = [("take over", &address)];
        assert_eq!(steps.collect::<Vec<_>>(), expected[..usize::from(taken)], "{servers:?}");
        assert_eq!(moves(&seen), ["apply Deployment"], "the servers come first");
        assert_eq!(outcome.dns_cluster_ip, cluster_ip, "the Service keeps its address");
    }
}

//! DNS: its address, its servers and the Service in front of them.

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_crds::{
    ClusterNetwork,
    cluster_network::dns::{NetworkPolicies, Placement},
    condition::kind::{DEGRADED, DNS_READY},
};

use super::{Outcome, Problem, Step};
use crate::{
    observed::{Observed, Workload},
    render,
    settings::Settings,
};

/// Where the Service `kube-dns` lies in the first service CIDR, as kubeadm and others choose it.
const TENTH: usize = 10;

/// How many mistakes a message names.
const NAMED: usize = 3;

/// The reason of conditions while the servers refuse `spec.dns`.
pub(crate) const SETTINGS_REFUSED: &str = "DNSSettingsRefused";

pub(super) fn plan(network: &ClusterNetwork, seen: &Observed, settings: &Settings, out: &mut Outcome) {
    out.problems.extend(refused(network));
    let present = seen.dns.service.as_ref();
    if present.is_some_and(|service| !service.ours) {
        out.dns_cluster_ip = present.and_then(|service| service.cluster_ip);
        let (label, value) = render::PART_OF;
        out.problems.push(Problem {
            condition: DNS_READY,
            reason: "ForeignService",
            message: format!("Service kube-system/kube-dns is not Netkeel's and is left alone; to let Netkeel serve DNS: kubectl -n kube-system label --overwrite service kube-dns {label}={value}"),
        });
        return;
    }
    match address(network, seen) {
        Ok(address) => {
            // before there is a server to cut off
            match network.spec.dns.network_policies {
                NetworkPolicies::Exempt => {
                    out.steps.push(Step::Apply(Box::new(render::dns::policy(network))));
                }
                NetworkPolicies::Enforced if seen.dns.policy => {
                    out.steps.push(Step::Delete(render::dns::policy_name()));
                }
                NetworkPolicies::Enforced => {}
            }
            out.dns_cluster_ip = Some(address);
            service(network, address, seen, out);
            servers(network, seen, settings, out);
        }
        Err(problem) => {
            out.dns_cluster_ip = present.and_then(|service| service.cluster_ip);
            out.problems.push(problem);
        }
    }
}

/// The Service. One that others' servers stand behind, and that was handed over to us, goes on leading to them until ours are ready.
fn service(network: &ClusterNetwork, address: IpAddr, seen: &Observed, out: &mut Outcome) {
    if !is_handed_over(seen) {
        out.steps.push(Step::Apply(Box::new(render::dns::service(network, address))));
        return;
    }
    if Placed::of(network, seen).has_taken_over(network, seen) {
        // Only what it always has: later passes, which apply, could not take away what this writes.
        let mut plain = network.clone();
        plain.spec.dns.tls = None;
        out.steps.push(Step::TakeOver(Box::new(render::dns::service(&plain, address))));
    }
}

/// Whether the Service is ours by its label and leads to servers of others.
pub(crate) fn is_handed_over(seen: &Observed) -> bool {
    seen.dns.service.as_ref().is_some_and(|service| service.ours && !service.leads_to_us)
}

/// The servers where `placement` wants them. Those of the other placement go once these have taken over: the Service is never without any.
fn servers(network: &ClusterNetwork, seen: &Observed, settings: &Settings, out: &mut Outcome) {
    use render::dns::{daemon_set, daemon_set_name, deployment, deployment_name};
    let (part, other) = match network.spec.dns.placement {
        Placement::Replicas => (deployment(network, seen, settings), daemon_set_name()),
        Placement::EveryNode => (daemon_set(network, seen, settings), deployment_name()),
    };
    out.steps.push(Step::Apply(Box::new(part)));
    let placed = Placed::of(network, seen);
    if placed.former.is_some() && placed.has_taken_over(network, seen) {
        out.steps.push(Step::Delete(other));
    }
}

/// The servers of the placement that is wanted, and those of the other one.
pub(crate) struct Placed {
    pub(crate) present: Option<Workload>,
    pub(crate) former: Option<Workload>,
}

impl Placed {
    pub(crate) fn of(network: &ClusterNetwork, seen: &Observed) -> Self {
        let (replicas, nodes) = (seen.dns.servers, seen.dns.node_servers);
        match network.spec.dns.placement {
            Placement::Replicas => Self { present: replicas, former: nodes },
            Placement::EveryNode => Self { present: nodes, former: replicas },
        }
    }

    /// Whether all servers of the placement that is wanted are ready that can be: on a node that is not Ready none can.
    fn has_taken_over(&self, network: &ClusterNetwork, seen: &Observed) -> bool {
        let Some(servers) = self.present else { return false };
        let nodes = seen.nodes.iter().filter(|node| node.ready).count();
        let possible = match network.spec.dns.placement {
            Placement::Replicas => servers.wanted,
            Placement::EveryNode => servers.wanted.min(u32::try_from(nodes).unwrap_or(u32::MAX)),
        };
        servers.ready >= possible.max(1)
    }
}

/// What the servers cannot use of `spec.dns`, though the schema lets it pass. They go on answering as the last good one says.
fn refused(network: &ClusterNetwork) -> Option<Problem> {
    let mistakes = netkeel_index::dns::mistakes(&network.spec.dns);
    let mistakes: Vec<String> = mistakes.iter().take(NAMED).map(ToString::to_string).collect();
    (!mistakes.is_empty()).then(|| Problem {
        condition: DEGRADED,
        reason: SETTINGS_REFUSED,
        message: format!(
            "the last good spec.dns stays in force until this is corrected: {}",
            mistakes.join("; ")
        ),
    })
}

/// The address of `kube-dns`: the one it has, the one that is asked for, or the tenth of the first service CIDR.
fn address(network: &ClusterNetwork, seen: &Observed) -> Result<IpAddr, Problem> {
    let problem = |reason, message| Problem { condition: DNS_READY, reason, message };
    let present = seen.dns.service.as_ref().and_then(|service| service.cluster_ip);
    let asked = network.spec.dns.cluster_ip;
    match (present, asked) {
        (Some(present), Some(asked)) if present != asked => Err(problem(
            "AddressDiffers",
            format!(
                "Service kube-system/kube-dns has {present} and spec.dns.clusterIP asks for {asked}: delete the Service to move it"
            ),
        )),
        (Some(present), _) => Ok(present),
        (None, Some(asked)) if !seen.service_cidrs.iter().any(|cidr| cidr.contains(&asked)) => Err(problem(
            "AddressOutsideServices",
            format!(
                "spec.dns.clusterIP {asked} lies in no ServiceCIDR of the cluster: take one of {}",
                list(&seen.service_cidrs)
            ),
        )),
        (None, Some(asked)) => Ok(asked),
        (None, None) => seen.service_cidrs.iter().find_map(tenth).ok_or_else(|| {
            problem(
                "NoAddress",
                "the ServiceCIDRs of the cluster have no tenth address: set spec.dns.clusterIP".to_owned(),
            )
        }),
    }
}

fn tenth(cidr: &IpNet) -> Option<IpAddr> {
    match cidr {
        IpNet::V4(_) => {
            // `hosts` leaves out the network's own address, of those that have one
            let skipped = if cidr.prefix_len() < 31 { TENTH - 1 } else { TENTH };
            cidr.hosts().nth(skipped)
        }
        IpNet::V6(_) => cidr.hosts().nth(TENTH),
    }
}

fn list(cidrs: &[IpNet]) -> String {
    let texts: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
    texts.join(", ")
}

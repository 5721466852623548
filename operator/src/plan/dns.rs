//! DNS: its address, its servers and the Service in front of them.

use std::net::IpAddr;

use ipnet::IpNet;
use netkeel_crds::{
    ClusterNetwork,
    cluster_network::dns::NetworkPolicies,
    condition::kind::{DEGRADED, DNS_READY},
};

use super::{Outcome, Problem, Step};
use crate::{observed::Observed, render, settings::Settings};

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
        out.problems.push(Problem {
            condition: DNS_READY,
            reason: "ForeignService",
            message: "Service kube-system/kube-dns is not Netkeel's and is left alone: delete it, and what serves it, to let Netkeel serve DNS".to_owned(),
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
            out.steps.push(Step::Apply(Box::new(render::dns::service(network, address))));
            out.steps.push(Step::Apply(Box::new(render::dns::deployment(network, seen, settings))));
        }
        Err(problem) => {
            out.dns_cluster_ip = present.and_then(|service| service.cluster_ip);
            out.problems.push(problem);
        }
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

//! The `NetworkPolicy` reference read aloud, flow by flow: what the compiler is compared with. Slow on purpose, and shares no
//! decision with the compiler: neither selectors nor ports nor CIDRs are asked here, they are read.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Labels, Peer, Pod, Policy, Ports, Requirement, Rule, Selector, World};
use crate::address::Address;

/// A flow between two addresses, whoever has them. An address of several pods at once is nobody's.
#[must_use]
pub fn allows(world: &World, from: Address, to: Address, protocol: u8, port: u16) -> bool {
    let leaves = owner(world, from).is_none_or(|pod| egress(world, pod, to, protocol, port));
    let enters = owner(world, to).is_none_or(|pod| ingress(world, from, pod, protocol, port));
    leaves && enters
}

/// Outgoing traffic is allowed if no policy with egress selects the pod, or if it matches at least one egress rule of those that do.
/// A pod cannot be cut from itself.
#[must_use]
pub fn egress(world: &World, pod: &Pod, to: Address, protocol: u8, port: u16) -> bool {
    let mut isolated = false;
    for policy in world.policies.values() {
        let Some(rules) = &policy.egress else { continue };
        if !selects(policy, pod) {
            continue;
        }
        isolated = true;
        for rule in rules {
            if rule_allows(world, policy, rule, to, protocol, port) {
                return true;
            }
        }
    }
    !isolated || pod.addresses.contains(&to)
}

/// Incoming traffic is allowed if no policy with ingress selects the pod, or if its source is the pod's own node, or if it matches at
/// least one ingress rule of those that do. A pod cannot be cut from itself.
#[must_use]
pub fn ingress(world: &World, from: Address, pod: &Pod, protocol: u8, port: u16) -> bool {
    let mut isolated = false;
    for policy in world.policies.values() {
        let Some(rules) = &policy.ingress else { continue };
        if !selects(policy, pod) {
            continue;
        }
        isolated = true;
        for rule in rules {
            if rule_allows(world, policy, rule, from, protocol, port) {
                return true;
            }
        }
    }
    let own_node = world.nodes.contains_key(&from) && world.nodes.get(&from) == pod.node.as_ref();
    !isolated || own_node || pod.addresses.contains(&from)
}

/// `podSelector` selects pods of the policy's own namespace.
fn selects(policy: &Policy, pod: &Pod) -> bool {
    policy.name.namespace == pod.name.namespace && selector_matches(&policy.pods, &pod.labels)
}

/// Peers and ports both have to match; a missing list restricts nothing.
fn rule_allows(world: &World, policy: &Policy, rule: &Rule, other: Address, protocol: u8, port: u16) -> bool {
    let mut peer_matches = rule.peers.is_none();
    for peer in rule.peers.iter().flatten() {
        peer_matches = peer_matches || peer_is(world, policy, peer, other);
    }
    let mut port_matches = rule.ports.is_none();
    for Ports { protocol: wanted, range } in rule.ports.iter().flatten() {
        let number = *wanted as u8;
        port_matches = port_matches || (number == protocol && *range.start() <= port && port <= *range.end());
    }
    peer_matches && port_matches
}

fn peer_is(world: &World, policy: &Policy, peer: &Peer, other: Address) -> bool {
    match peer {
        Peer::Block { cidr, except } => {
            let address = other.ip();
            is_in(address, *cidr) && !except.iter().any(|except| is_in(address, *except))
        }
        Peer::Pods { namespaces, pods } => {
            let Some(pod) = owner(world, other) else { return false };
            let namespace_matches = match namespaces {
                Some(selector) => {
                    let namespace = world.namespaces.get(&pod.name.namespace);
                    namespace.is_some_and(|namespace| selector_matches(selector, &namespace.labels))
                }
                None => pod.name.namespace == policy.name.namespace,
            };
            namespace_matches && selector_matches(pods, &pod.labels)
        }
    }
}

/// Host-network pods are their node, finished ones have no address any more.
fn owner(world: &World, address: Address) -> Option<&Pod> {
    if world.nodes.contains_key(&address) {
        return None;
    }
    let mut owner = None;
    for pod in world.pods.values() {
        if pod.addresses.contains(&address) && !pod.host_network && !pod.finished {
            if owner.is_some() {
                return None;
            }
            owner = Some(pod);
        }
    }
    owner
}

/// The family and the first bits are the same.
fn is_in(address: IpAddr, net: IpNet) -> bool {
    let length = u32::from(net.prefix_len());
    match (address, net.addr()) {
        (IpAddr::V4(address), IpAddr::V4(net)) => {
            (address.to_bits() ^ net.to_bits()).leading_zeros() >= length
        }
        (IpAddr::V6(address), IpAddr::V6(net)) => {
            (address.to_bits() ^ net.to_bits()).leading_zeros() >= length
        }
        _ => false,
    }
}

fn selector_matches(selector: &Selector, labels: &Labels) -> bool {
    for requirement in &selector.0 {
        let holds = match requirement {
            Requirement::In(key, values) => labels
                .iter()
                .any(|(label, value)| label == *key && values.iter().any(|listed| listed == value)),
            Requirement::NotIn(key, values) => !labels
                .iter()
                .any(|(label, value)| label == *key && values.iter().any(|listed| listed == value)),
            Requirement::Exists(key) => labels.iter().any(|(label, _)| label == *key),
            Requirement::DoesNotExist(key) => !labels.iter().any(|(label, _)| label == *key),
        };
        if !holds {
            return false;
        }
    }
    true
}

//! Why traffic passes or does not, for `netkeel why`.

use std::fmt;

use ipnet::IpNet;

use super::{
    Class, Direction, Pod, RuleName, Who, World,
    compile::isolating,
    leaves::{self, Leaves},
};
use crate::{
    address::{Address, Family},
    few::Few,
    name::ObjectName,
};

/// One end of the traffic in question. Prints as `pod shop/cart` or as the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// A pod.
    Pod(ObjectName),
    /// An address, whoever has it.
    Address(Address),
}

/// Whether traffic passes and why. Prints as a few lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The source; a pod when the address that was asked for is a pod's.
    pub from: Party,
    /// The target; a pod when the address that was asked for is a pod's.
    pub to: Party,
    /// Both sides let it pass.
    pub allowed: bool,
    /// What the source's policies say.
    pub egress: Side,
    /// What the target's policies say.
    pub ingress: Side,
}

/// What policy says on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Not a pod: no policy is asked.
    NotAPod,
    /// A pod in its node's network: policy does not know it as a pod.
    HostNetwork,
    /// No policy isolates the pod in this direction.
    Open,
    /// The traffic comes from the pod's own node, which may always reach it.
    OwnNode,
    /// Source and target are the same pod: the traffic never leaves it.
    Itself,
    /// The pod is not known, or it ran to its end: nothing passes.
    Unknown,
    /// These policies isolate the pod, and a rule allows the traffic.
    Allowed {
        /// The policies, by name.
        isolated_by: Vec<ObjectName>,
        /// The first rule that allows it.
        rule: RuleName,
    },
    /// These policies isolate the pod, and none of their rules allows the traffic.
    Denied {
        /// The policies, by name.
        isolated_by: Vec<ObjectName>,
    },
}

impl Side {
    /// Whether this side lets the traffic pass.
    #[must_use]
    pub const fn allows(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Denied { .. })
    }
}

/// The families in which both ends have an address, IPv4 first. A pod that has no address yet may get one of each.
pub fn families(world: &World, from: &Party, to: &Party) -> impl Iterator<Item = Family> {
    let has = |party: &Party, family: Family| match party {
        Party::Address(address) => is_of(address, family),
        Party::Pod(name) => world.pods.get(name).is_none_or(|pod| {
            pod.addresses.is_empty() || pod.addresses.iter().any(|address| is_of(address, family))
        }),
    };
    Family::ALL.into_iter().filter(move |family| has(from, *family) && has(to, *family))
}

fn is_of(address: &Address, family: Family) -> bool {
    Family::of(address.ip()) == family
}

/// Explains traffic of an IP protocol to a port (host byte order; zero where the protocol has none), over the first of the families
/// in which it is possible.
#[must_use]
pub fn explain(world: &World, from: &Party, to: &Party, protocol: u8, port: u16) -> Explanation {
    let family = families(world, from, to).next().unwrap_or(Family::V4);
    explain_over(world, from, to, protocol, port, family)
}

/// The same over one family: rules with CIDRs tell the addresses of a pod apart.
#[must_use]
pub fn explain_over(
    world: &World,
    from: &Party,
    to: &Party,
    protocol: u8,
    port: u16,
    family: Family,
) -> Explanation {
    let mut leaves = Leaves::default();
    for block in world.policies.values().flat_map(leaves::named) {
        leaves.add(block);
    }
    let (from, to) = (End::find(world, &leaves, from, family), End::find(world, &leaves, to, family));
    let traffic = Traffic { world, protocol, port };
    let egress = traffic.side(Direction::Egress, &from, &to);
    let ingress = traffic.side(Direction::Ingress, &to, &from);
    let allowed = egress.allows() && ingress.allows();
    Explanation { from: from.party, to: to.party, allowed, egress, ingress }
}

/// What is known of one end.
struct End<'a> {
    party: Party,
    pod: Option<&'a Pod>,
    /// The node that it is, when it is one.
    node: Option<&'a str>,
    class: Class,
}

impl<'a> End<'a> {
    fn find(world: &'a World, leaves: &Leaves, party: &Party, family: Family) -> Self {
        match party {
            Party::Pod(name) => {
                let pod = world.pods.get(name);
                let mut addresses = pod.into_iter().flat_map(|pod| &pod.addresses);
                let address = addresses.find(|address| is_of(address, family));
                let leaf = address.and_then(|address| leaves.of(address.ip()));
                Self::pod(world, leaf, party.clone(), pod)
            }
            Party::Address(address) => {
                let leaf = leaves.of(address.ip());
                if let Some(node) = world.nodes.get(address) {
                    let class = Class { who: Who::Node, leaf };
                    return Self { party: party.clone(), pod: None, node: Some(node), class };
                }
                let mut owners = world.owners(*address);
                if let (Some(pod), None) = (owners.next(), owners.next()) {
                    return Self::pod(world, leaf, Party::Pod(pod.name.clone()), Some(pod));
                }
                Self { party: party.clone(), pod: None, node: None, class: Class { who: Who::World, leaf } }
            }
        }
    }

    fn pod(world: &World, leaf: Option<IpNet>, party: Party, pod: Option<&'a Pod>) -> Self {
        let (who, node) = match pod {
            Some(pod) if pod.host_network => (Who::Node, pod.node.as_deref()),
            Some(pod) if pod.is_subject() => (world.who(pod), None),
            _ => (Who::World, None),
        };
        Self { party, pod, node, class: Class { who, leaf } }
    }
}

impl End<'_> {
    /// Whether it is an address, and one of these.
    fn is_at(&self, addresses: &Few<Address>) -> bool {
        matches!(&self.party, Party::Address(address) if addresses.contains(address))
    }
}

struct Traffic<'a> {
    world: &'a World,
    protocol: u8,
    port: u16,
}

impl Traffic<'_> {
    fn side(&self, direction: Direction, own: &End, other: &End) -> Side {
        let pod = match (own.pod, &own.party) {
            (Some(pod), _) if pod.host_network => return Side::HostNetwork,
            (Some(pod), _) if pod.is_subject() => pod,
            (None, Party::Address(_)) => return Side::NotAPod,
            _ => return Side::Unknown,
        };
        if own.party == other.party || other.is_at(&pod.addresses) {
            return Side::Itself;
        }
        if direction == Direction::Ingress && other.node.is_some() && other.node == pod.node.as_deref() {
            return Side::OwnNode;
        }
        let isolated_by = isolating(self.world, pod, direction);
        if isolated_by.is_empty() {
            return Side::Open;
        }
        match isolated_by.iter().find_map(|policy| self.rule(policy, direction, &other.class)) {
            Some(rule) => Side::Allowed { isolated_by, rule },
            None => Side::Denied { isolated_by },
        }
    }

    /// The first rule of a policy that allows this.
    fn rule(&self, policy: &ObjectName, direction: Direction, class: &Class) -> Option<RuleName> {
        let rules = self.world.policies.get(policy)?.rules(direction)?;
        let index = rules.iter().position(|rule| {
            let peer = rule.peers.as_ref();
            let ports = rule.ports.as_ref();
            peer.is_none_or(|peers| peers.iter().any(|peer| peer.matches(&policy.namespace, class)))
                && ports
                    .is_none_or(|ports| ports.iter().any(|ports| ports.contains(self.protocol, self.port)))
        })?;
        Some(RuleName { policy: policy.clone(), direction, index })
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod {name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("not a pod of this cluster, no policy is asked"),
            Self::HostNetwork => f.write_str("uses its node's network, no policy is asked"),
            Self::Open => f.write_str("allowed, no policy isolates it"),
            Self::OwnNode => f.write_str("allowed, its own node always reaches it"),
            Self::Itself => f.write_str("allowed, it is the same pod"),
            Self::Unknown => f.write_str("denied, the pod is not known or has finished"),
            Self::Allowed { isolated_by, rule } => {
                write!(f, "allowed by {rule} (isolated by {})", list(isolated_by))
            }
            Self::Denied { isolated_by } => {
                write!(f, "denied, no rule of {} allows it", list(isolated_by))
            }
        }
    }
}

fn list(names: &[ObjectName]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.allowed { "allowed" } else { "denied" })?;
        writeln!(f, "  egress of {}: {}", self.from, self.egress)?;
        write!(f, "  ingress of {}: {}", self.to, self.ingress)
    }
}

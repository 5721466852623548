//! `NetworkPolicy`: what the API says ([`World`]), what it means to the kernel ([`compile`]) and why ([`explain`]).
//!
//! An empty set is never the absence of a set: `Some(vec![])` allows nothing, `None` restricts nothing.

pub mod class;
pub mod compile;
pub mod explain;
mod leaves;
pub mod naive;
mod named;
pub mod ports;
pub mod selector;

use std::{collections::BTreeMap, fmt, sync::Arc};

use ipnet::IpNet;

pub use self::{
    class::{Class, Numbers, Who},
    compile::{Compiled, Compiler, Isolation, Rules, Table, Work, compile},
    explain::{Explanation, Party, Side, explain, explain_over, families},
    ports::Ports,
    selector::{Requirement, Selector},
};
pub use crate::labels::{LabelSet, Labels};
use crate::{address::Address, few::Few, name::ObjectName};

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels.
    pub labels: Labels,
    /// It is being deleted, its pods and policies with it.
    pub terminating: bool,
}

/// A pod, as far as policy is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// Name of its node; none before it has one.
    pub node: Option<Arc<str>>,
    /// Its addresses; none before it has one.
    pub addresses: Few<Address>,
    /// It uses its node's addresses: to policy it is the node.
    pub host_network: bool,
    /// It ran to its end: its addresses are others' now.
    pub finished: bool,
}

impl Pod {
    /// Whether policy knows it as a pod: it selects it, and allows it by its labels.
    #[must_use]
    pub const fn is_subject(&self) -> bool {
        !self.host_network && !self.finished
    }
}

/// Which way traffic goes, seen from the pod that a policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A `NetworkPolicy`, with the API's defaults applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Namespace and name.
    pub name: ObjectName,
    /// The pods of its namespace that it isolates.
    pub pods: Selector,
    /// What may come to them; `None` when it does not isolate this direction.
    pub ingress: Option<Vec<Rule>>,
    /// What may leave them; `None` when it does not isolate this direction.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The policy that allows nothing to any pod of its namespace: in force for one that cannot be read.
    #[must_use]
    pub fn closed(name: ObjectName) -> Self {
        Self { name, pods: Selector::default(), ingress: Some(Vec::new()), egress: Some(Vec::new()) }
    }

    /// Its rules of a direction; `None` when it does not isolate it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// Whether it isolates the pod in this direction.
    #[must_use]
    pub fn isolates(&self, pod: &Pod, direction: Direction) -> bool {
        self.rules(direction).is_some()
            && pod.is_subject()
            && pod.name.namespace == self.name.namespace
            && self.pods.matches(&pod.labels)
    }
}

/// One rule: traffic with one of these peers **and** to one of these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The other side; `None` is everybody, an empty list nobody.
    pub peers: Option<Vec<Peer>>,
    /// The ports; `None` is all traffic of all protocols, an empty list none.
    pub ports: Option<Vec<Ports>>,
}

/// Who may be on the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods by their labels.
    Pods {
        /// The namespaces that they are in; `None` is the policy's own.
        namespaces: Option<Selector>,
        /// The pods of these namespaces.
        pods: Selector,
    },
    /// Addresses, whoever has them, of the family of the CIDR: `::/0` is no IPv4 address.
    Block {
        /// All of these.
        cidr: IpNet,
        /// But none of these.
        except: Vec<IpNet>,
    },
}

/// Where a rule is written. Prints as `namespace/policy, ingress rule 0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct RuleName {
    /// The policy.
    pub policy: ObjectName,
    /// Which of its lists.
    pub direction: Direction,
    /// Place in the list, from 0, as in `spec.ingress[0]`.
    pub index: usize,
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} rule {}", self.policy, self.direction, self.index)
    }
}

/// Everything that policy depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// All namespaces, by name.
    pub namespaces: BTreeMap<Arc<str>, Namespace>,
    /// All pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// All policies.
    pub policies: BTreeMap<ObjectName, Policy>,
    /// All addresses of nodes, overlay included, and the nodes' names.
    pub nodes: BTreeMap<Address, Arc<str>>,
}

impl World {
    /// The policies of a namespace, by name.
    pub fn policies_of(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        let from = ObjectName::new(namespace, "");
        let all = self.policies.range(from..).map(|(_, policy)| policy);
        all.take_while(move |policy| *policy.name.namespace == *namespace)
    }

    /// The pods of a namespace, by name.
    fn pods_of(&self, namespace: &str) -> impl Iterator<Item = &Pod> {
        let from = ObjectName::new(namespace, "");
        let all = self.pods.range(from..).map(|(_, pod)| pod);
        all.take_while(move |pod| *pod.name.namespace == *namespace)
    }

    /// The pods that have an address; more than one only while the API is behind the truth.
    fn owners(&self, address: Address) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(move |pod| pod.is_subject() && pod.addresses.contains(&address))
    }

    /// What a pod is to policy.
    fn who(&self, pod: &Pod) -> Who {
        let namespace = Arc::clone(&pod.name.namespace);
        let namespace_labels = self.namespaces.get(&namespace).map(|known| Arc::clone(&known.labels));
        Who::Pod { namespace, namespace_labels, labels: Arc::clone(&pod.labels) }
    }
}

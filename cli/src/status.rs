//! How the network is, as a value: what was found in the cluster, the problems in it, and the next step.

mod component;
pub(crate) mod fetch;
mod node;
mod read;
pub(crate) mod render;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub(crate) use component::Component;
pub(crate) use node::{Agent, Node};
pub(crate) use read::nodes_of;

/// What `netkeel status` found. Its JSON is documented in docs/reference.md: fields may be added, none changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// How far the installation is.
    pub(crate) installation: Installation,
    /// The programs in the cluster.
    pub(crate) components: Vec<Component>,
    /// Conditions of the ClusterNetwork, as the operator wrote them last.
    pub(crate) conditions: Vec<Condition>,
    /// The pools of addresses.
    pub(crate) pools: Vec<Pool>,
    /// All nodes, by name.
    pub(crate) nodes: Vec<Node>,
    /// Kinds that this user may not list, so that nothing is said of them.
    pub(crate) forbidden: Vec<String>,
}

/// How far the installation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) enum Installation {
    /// The API server does not know the kind ClusterNetwork.
    #[default]
    Absent,
    /// The kind is there, the object `default` is not.
    WithoutNetwork,
    /// The object is there; the operator has not reported on its present generation.
    Unreported,
    /// The operator has reported.
    Reported,
}

/// One condition of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// One pool of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Pool {
    pub(crate) name: String,
    /// In CIDR notation.
    pub(crate) cidr: String,
    /// `Active`, `Draining` or `Removable`, as the operator wrote it last; none while it has not, or the pool is not in force.
    pub(crate) state: Option<String>,
    /// Blocks that nodes have, and all there are.
    pub(crate) blocks: Usage,
    /// Addresses of pods in use, and those of the blocks that nodes have.
    pub(crate) addresses: Usage,
}

/// A part of a whole that is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) used: u64,
    pub(crate) total: u64,
}

/// Something that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) next: String,
}

impl Condition {
    /// Some conditions are bad when they hold, most are bad when they do not; a change under way is neither.
    fn is_bad(&self) -> bool {
        match self.kind.as_str() {
            "Conflicts" | "Degraded" => self.status == "True",
            "Progressing" | "Removed" => false,
            _ => self.status != "True",
        }
    }

    fn told(&self) -> String {
        let text = if self.message.is_empty() { &self.reason } else { &self.message };
        format!("{} is {}: {text}", self.kind, self.status)
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.used, self.total)
    }
}

impl Problem {
    fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { what: what.into(), next: next.into() }
    }
}

impl Status {
    /// What is wrong, the most basic first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        if self.installation == Installation::Absent {
            let install = "helm install netkeel ./helm/netkeel -n netkeel-system --create-namespace";
            return vec![Problem::new("Netkeel is not installed", install)];
        }
        let asked = !self.forbidden.iter().any(|kind| kind == "deployments" || kind == "daemonsets");
        let mut problems = if asked { component::problems(&self.components) } else { Vec::new() };
        let operates = !asked || self.components.iter().any(|one| one.name == "operator" && one.ready > 0);
        match self.installation {
            Installation::WithoutNetwork => problems.push(Problem::new(
                "there is no ClusterNetwork named default",
                "kubectl apply -f - <<< '{\"apiVersion\": \"netkeel.io/v1alpha1\", \"kind\": \"ClusterNetwork\", \
                 \"metadata\": {\"name\": \"default\"}, \"spec\": {}}'",
            )),
            Installation::Unreported if operates => problems.push(Problem::new(
                "the operator has not reported on the ClusterNetwork",
                "kubectl -n netkeel-system get pods; kubectl -n netkeel-system logs deploy/netkeel-operator",
            )),
            _ => {}
        }
        if self.installation != Installation::WithoutNetwork {
            // a node says more than the sum of all nodes does
            problems.extend(self.nodes.iter().filter_map(Node::problem));
        }
        if self.installation == Installation::Reported {
            let bad = self.conditions.iter().filter(|condition| condition.is_bad());
            problems.extend(bad.map(|condition| {
                Problem::new(
                    format!("network: {}", condition.told()),
                    "kubectl describe clusternetwork default",
                )
            }));
        }
        problems
    }
}

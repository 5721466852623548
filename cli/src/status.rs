//! How the network is, as a value: what was found in the cluster, the problems in it, and the next step.

pub(crate) mod fetch;
pub(crate) mod render;

use serde::Serialize;

/// What `netkeel status` found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// How far the installation is.
    pub(crate) installation: Installation,
    /// Conditions of the ClusterNetwork.
    pub(crate) conditions: Vec<Condition>,
    /// All nodes, by name.
    pub(crate) nodes: Vec<Node>,
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

/// One node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) name: String,
    /// Blocks of pod addresses, in CIDR notation.
    pub(crate) blocks: Vec<String>,
    /// Revision the operator wants; none without a NodeNetwork.
    pub(crate) revision: Option<String>,
    /// Revision the agent has applied.
    pub(crate) applied_revision: Option<String>,
    /// Addresses in use and in all, if the agent has told.
    pub(crate) addresses: Option<(u64, u64)>,
    /// Conditions of the NodeNetwork.
    pub(crate) conditions: Vec<Condition>,
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

impl Node {
    /// Whether the agent has applied what the operator wants.
    fn is_current(&self) -> bool {
        self.revision.is_some() && self.revision == self.applied_revision
    }

    fn problem(&self) -> Option<Problem> {
        let name = &self.name;
        let agent =
            format!("kubectl -n netkeel-system get pods -o wide --field-selector spec.nodeName={name}");
        let found = |what: String, next: String| Some(Problem { what: format!("node {name}: {what}"), next });
        if self.revision.is_none() {
            return found(
                "no NodeNetwork yet".into(),
                "kubectl -n netkeel-system logs deploy/netkeel-operator".into(),
            );
        }
        if let Some(bad) = self.conditions.iter().find(|condition| condition.is_bad()) {
            return found(bad.told(), format!("kubectl describe nodenetwork {name}"));
        }
        if self.blocks.is_empty() {
            return found("no block of addresses".into(), "kubectl describe clusternetwork default".into());
        }
        if self.applied_revision.is_none() {
            return found("the agent has not reported".into(), agent);
        }
        (!self.is_current())
            .then(|| found("the agent has not applied the latest configuration".into(), agent))
            .flatten()
    }
}

impl Status {
    /// What is wrong, the most basic first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let one = |what: &str, next: &str| vec![Problem { what: what.into(), next: next.into() }];
        match self.installation {
            Installation::Absent => one(
                "Netkeel is not installed",
                "helm install netkeel ./helm/netkeel -n netkeel-system --create-namespace",
            ),
            Installation::WithoutNetwork => one(
                "there is no ClusterNetwork named default",
                "kubectl apply -f - <<< '{\"apiVersion\": \"netkeel.io/v1alpha1\", \"kind\": \"ClusterNetwork\", \
                 \"metadata\": {\"name\": \"default\"}, \"spec\": {}}'",
            ),
            Installation::Unreported => one(
                "the operator has not reported on the ClusterNetwork",
                "kubectl -n netkeel-system get pods; kubectl -n netkeel-system logs deploy/netkeel-operator",
            ),
            Installation::Reported => self.reported_problems(),
        }
    }

    fn reported_problems(&self) -> Vec<Problem> {
        let bad = self.conditions.iter().filter(|condition| condition.is_bad());
        let network = bad.map(|condition| Problem {
            what: format!("network: {}", condition.told()),
            next: "kubectl describe clusternetwork default".into(),
        });
        // a node says more than the sum of all nodes does
        self.nodes.iter().filter_map(Node::problem).chain(network).collect()
    }
}

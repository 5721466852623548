//! One node: what it has, what its agent does, and what is wrong with it.

use serde::Serialize;

use super::{Condition, Problem, Usage};

/// One node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub(crate) name: String,
    /// What keeps the node itself from being Ready; none when it is, or when nothing is known of it.
    pub(crate) not_ready: Option<String>,
    /// The node's own addresses, the primary one first.
    pub(crate) addresses: Vec<String>,
    /// Largest packet of its pods in bytes, as the agent applied it.
    pub(crate) mtu: Option<u16>,
    /// Release of its kernel, as the agent found it.
    pub(crate) kernel: Option<String>,
    /// Blocks of pod addresses, in CIDR notation.
    pub(crate) blocks: Vec<String>,
    /// Pod addresses in use and in all, if the agent has told.
    pub(crate) pod_addresses: Option<Usage>,
    /// Revision the operator wants; none without a NodeNetwork.
    pub(crate) revision: Option<String>,
    /// Revision the agent has applied.
    pub(crate) applied_revision: Option<String>,
    /// The agent's pod.
    pub(crate) agent: Agent,
    /// Conditions of the NodeNetwork, as the agent wrote them last.
    pub(crate) conditions: Vec<Condition>,
}

/// The agent of a node, as its pod says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Agent {
    /// The pods could not be listed.
    #[default]
    Unknown,
    /// There is no pod on the node.
    Missing,
    /// There is one.
    #[serde(rename_all = "camelCase")]
    Pod {
        namespace: String,
        name: String,
        /// It runs and is ready.
        ready: bool,
        /// `Running`, or what keeps it from that: `CrashLoopBackOff`, `Pending`.
        state: String,
        restarts: u64,
        /// Tag of its image.
        version: Option<String>,
    },
}

/// What an agent that is away means for its node.
const AWAY: &str = "connections go on, new pods of the node and changes of Services wait";

impl Node {
    /// Whether the agent has applied what the operator wants.
    fn is_current(&self) -> bool {
        self.revision.is_some() && self.revision == self.applied_revision
    }

    /// The first thing that is wrong; what causes others comes first.
    pub(crate) fn problem(&self) -> Option<Problem> {
        let name = &self.name;
        let found = |what: String, next: String| Some(Problem::new(format!("node {name}: {what}"), next));
        if let Some(message) = &self.not_ready
            && !self.conditions.iter().any(Condition::is_bad)
            && self.revision.is_some()
        {
            return found(format!("not Ready: {message}"), format!("kubectl describe node {name}"));
        }
        if self.revision.is_none() {
            let next = "kubectl -n netkeel-system logs deploy/netkeel-operator".to_owned();
            return found("no NodeNetwork yet".to_owned(), next);
        }
        if let Some(problem) = self.agent.absence() {
            return found(format!("{}; {AWAY}", problem.what), problem.next);
        }
        if let Some(bad) = self.conditions.iter().find(|condition| condition.is_bad()) {
            return found(bad.told(), format!("kubectl describe nodenetwork {name}"));
        }
        if self.blocks.is_empty() {
            return found("no block of addresses".into(), "kubectl describe clusternetwork default".into());
        }
        let look = self.agent.logs(name);
        if self.applied_revision.is_none() {
            return found("the agent has not reported".into(), look);
        }
        if !self.is_current() {
            return found("the agent has not applied the latest configuration".into(), look);
        }
        let unready = matches!(self.agent, Agent::Pod { ready: false, .. });
        unready.then(|| found(format!("the agent is not ready; {AWAY}"), look)).flatten()
    }
}

impl Agent {
    /// That no agent works on the node.
    fn absence(&self) -> Option<Problem> {
        match self {
            Self::Unknown => None,
            Self::Missing => Some(Problem::new(
                "no agent runs on it",
                "kubectl describe daemonset netkeel-agent -n netkeel-system",
            )),
            Self::Pod { state, .. } if state == "Running" => None,
            Self::Pod { namespace, name, state, restarts, .. } => Some(Problem::new(
                format!("the agent does not run ({state}, {restarts} restarts)"),
                format!(
                    "kubectl -n {namespace} describe pod {name}; kubectl -n {namespace} logs {name} --previous"
                ),
            )),
        }
    }

    /// How to see what it does.
    fn logs(&self, node: &str) -> String {
        match self {
            Self::Pod { namespace, name, .. } => format!("kubectl -n {namespace} logs {name}"),
            _ => format!("kubectl -n netkeel-system get pods -o wide --field-selector spec.nodeName={node}"),
        }
    }

    /// One word for a table.
    pub(super) fn state(&self) -> &str {
        match self {
            Self::Unknown => "?",
            Self::Missing => "missing",
            Self::Pod { ready: true, .. } => "ready",
            Self::Pod { state, .. } if state == "Running" => "not ready",
            Self::Pod { state, .. } => state,
        }
    }
}

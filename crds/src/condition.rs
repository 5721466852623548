//! Conditions: their types as a closed set, and how a list of them is kept.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Types of conditions.
pub mod kind {
    /// The network works for every node that has joined.
    pub const AVAILABLE: &str = "Available";
    /// A change is on its way to the nodes.
    pub const PROGRESSING: &str = "Progressing";
    /// Something is wrong; the message names it and says what to do.
    pub const DEGRADED: &str = "Degraded";
    /// The agents of all nodes have applied the present revision and are ready.
    pub const AGENTS_READY: &str = "AgentsReady";
    /// The cluster's DNS answers.
    pub const DNS_READY: &str = "DNSReady";
    /// The Services of the cluster can be served: its `ServiceCIDR` objects are known, and no pool overlaps them.
    pub const SERVICE_NETWORK_READY: &str = "ServiceNetworkReady";
    /// Policies are in force as they are written, on the node of a `NodeNetwork` or on all nodes; the message names policy and field of
    /// what is not.
    pub const POLICY_READY: &str = "PolicyReady";
    /// Another program that does the same work is in the cluster.
    pub const CONFLICTS: &str = "Conflicts";
    /// Of a `NodeNetwork`: the agent has applied its configuration and serves the container runtime.
    pub const READY: &str = "Ready";
    /// Of a `NodeNetwork`: pods of the node get addresses; the message says which blocks are full and what to do.
    pub const ADDRESSES_AVAILABLE: &str = "AddressesAvailable";
    /// Of a `NodeNetwork`: packets as large as pods send them reach other nodes; the message names a node that they do not reach, the size, and what
    /// to do.
    pub const PATHS_READY: &str = "PathsReady";
    /// Of a `NodeNetwork`: the agent has removed everything it made on the node.
    pub const REMOVED: &str = "Removed";
}

/// Puts `new` into `conditions`. The transition time changes only with the status; the result says whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    let Some(old) = conditions.iter_mut().find(|old| old.type_ == new.type_) else {
        conditions.push(new);
        return true;
    };
    if old.status == new.status {
        new.last_transition_time = old.last_transition_time.clone();
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// A condition. `reason` is one word in CamelCase; `message` names the object and says what to do.
#[must_use]
pub fn condition(kind: &str, status: bool, reason: &str, message: impl Into<String>, now: Time) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time: now,
        observed_generation: None,
    }
}

/// Whether `conditions` has `kind` with status True.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

//! The operator's port to the cluster: observe, apply, report. `api` is the real one, `fake` the one of the tests.

pub mod api;
mod api_observe;
#[cfg(test)]
pub(crate) mod fake;

use netkeel_crds::{ClusterNetwork, ClusterNetworkStatus};

use serde_json::Value;

use crate::{
    observed::{Observed, Unreadable},
    plan::Step,
};

/// Why the cluster could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{verb} {kind} {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Kind of the object.
        kind: &'static str,
        /// Its name; empty for a list.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What an applied step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The cluster is as the step wants it.
    Done,
    /// Somebody else was faster, or something is in the way: look again.
    Stale,
}

/// A cluster as an operator uses it.
pub trait Cluster: Send + Sync {
    /// Reads everything: claims first, then `NodeNetworks`, then nodes. Planning relies on that order.
    fn observe(&self) -> impl Future<Output = Result<Observed, Error>> + Send;

    /// Whether `step` would change nothing since the last `observe`.
    fn is_done(&self, step: &Step) -> bool;

    /// Does one step. A step that lost a race is no error.
    fn apply(&self, step: &Step) -> impl Future<Output = Result<Effect, Error>> + Send;

    /// Writes the status, if it differs.
    fn report(
        &self,
        network: &ClusterNetwork,
        status: &ClusterNetworkStatus,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Writes the conditions of a `ClusterNetwork` that cannot be read, and nothing else of it.
    fn report_unreadable(
        &self,
        network: &Unreadable,
        conditions: &[Value],
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

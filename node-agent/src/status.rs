//! What the agent says of itself in its `NodeNetwork`: composed purely, written when it differs, tried again until it is taken.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use netkeel_crds::{
    cluster_network::Usage,
    condition::{
        condition,
        kind::{ADDRESSES_AVAILABLE, PATHS_READY, POLICY_READY, READY, REMOVED},
        set,
    },
    node_network::{BlockRelease, BlockUsage, Datapath, NodeNetwork, NodeNetworkStatus},
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use crate::{cleanup::chain, ipam::Shortage};

/// Reports are gathered this long, so that a burst of changes is one write.
const GATHER: Duration = Duration::from_millis(200);
/// After a refused write.
const RETRY: Duration = Duration::from_secs(5);
/// What fits into a condition's message.
const MESSAGE: usize = 1024;

/// What to do about a want of addresses.
pub const ENOUGH: &str =
    "delete pods of this node, or add a CIDR to spec.podNetwork.pools of ClusterNetwork default";

/// Something that keeps the node from being ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One word in camel case.
    pub reason: &'static str,
    /// What is wrong with which thing, and what to do.
    pub message: String,
}

/// How far policies are in force on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enforcement {
    /// All of them are, as they are written.
    pub good: bool,
    /// One word in camel case.
    pub reason: &'static str,
    /// What is not in force: policy, field, and what happens instead.
    pub message: String,
}

/// Whether full-size packets reach other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// They do: packets of so many bytes.
    Proven(u32),
    /// Some do not: which, and what to do.
    TooLarge(String),
}

/// Parts of the agent, in the order in which they come up. The first that has a problem gives the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Kernel programs and maps.
    Datapath,
    /// The socket that the plugin calls.
    Cni,
    /// This node's object.
    NodeNetwork,
    /// Device, routes, tunnels, masquerading.
    Network,
    /// Services in the kernel.
    Services,
    /// The runtime's files.
    Install,
    /// The way back.
    Cleanup,
}

/// All that the agent reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The revision that is in force.
    pub revision: Option<String>,
    /// What keeps the node from being ready.
    pub problems: BTreeMap<Part, Problem>,
    /// What is no problem but should be known.
    pub notes: Vec<String>,
    /// How far policies are in force; `None` before anything is known of them.
    pub policy: Option<Enforcement>,
    /// The node is as it was before.
    pub removed: bool,
    /// Use of the node's addresses.
    pub addresses: Option<Usage>,
    /// The same block by block; empty before it is known.
    pub blocks: Vec<BlockUsage>,
    /// Where pods wait for a block.
    pub wanted: Vec<IpNet>,
    /// Blocks that the node has emptied to give them back.
    pub released: Vec<BlockRelease>,
    /// What pods lack; `None` where they get addresses.
    pub shortage: Option<Shortage>,
    /// Why the nodes could not be kept on disk; `None` when they are.
    pub unkept: Option<String>,
    /// Whether full-size packets reach other nodes; `None` before one has answered.
    pub paths: Option<Paths>,
    /// What was found and loaded.
    pub datapath: Option<Datapath>,
    /// Trace of the span that applied the revision.
    pub traceparent: Option<String>,
}

impl Report {
    /// The status that says this; what it said before keeps its times.
    #[must_use]
    pub fn status(&self, before: &NodeNetworkStatus, now: Timestamp) -> NodeNetworkStatus {
        let mut conditions = before.conditions.clone();
        let (ready, reason, message) = self.readiness();
        set(&mut conditions, condition(READY, ready, reason, message, Time(now)));
        if let Some(Enforcement { good, reason, message }) = &self.policy {
            let message = &message[..message.floor_char_boundary(MESSAGE)];
            set(&mut conditions, condition(POLICY_READY, *good, reason, message, Time(now)));
        }
        let (available, reason, message) = match &self.shortage {
            None => (true, "Available", "pods of this node get addresses".to_owned()),
            Some(Shortage { message, .. }) => (false, "Exhausted", format!("{message}: {ENOUGH}")),
        };
        set(&mut conditions, condition(ADDRESSES_AVAILABLE, available, reason, message, Time(now)));
        if let Some(paths) = &self.paths {
            let (proven, reason, message) = match paths {
                Paths::TooLarge(message) => {
                    (false, "MtuTooLarge", &message[..message.floor_char_boundary(MESSAGE)])
                }
                Paths::Proven(mtu) => {
                    (true, "Proven", &*format!("packets of {mtu} bytes reach the nodes that were asked"))
                }
            };
            set(&mut conditions, condition(PATHS_READY, proven, reason, message, Time(now)));
        }
        conditions
            .retain(|condition| condition.type_ != PATHS_READY || self.paths.is_some() && !self.removed);
        conditions.retain(|condition| condition.type_ != ADDRESSES_AVAILABLE || !self.removed);
        conditions.retain(|condition| condition.type_ != REMOVED || self.removed);
        conditions.retain(|condition| condition.type_ != POLICY_READY || !self.removed);
        if self.removed {
            let message = "everything that the agent made on this node is gone";
            set(&mut conditions, condition(REMOVED, true, "Removed", message, Time(now)));
        }
        NodeNetworkStatus {
            applied_revision: self.revision.clone().or_else(|| before.applied_revision.clone()),
            conditions,
            addresses: self.addresses.or(before.addresses),
            blocks: if self.addresses.is_some() { self.blocks.clone() } else { before.blocks.clone() },
            wanted: self.wanted.clone(),
            released: self.released.clone(),
            datapath: self.datapath.clone().or_else(|| before.datapath.clone()),
            traceparent: self.traceparent.clone().or_else(|| before.traceparent.clone()),
        }
    }

    fn readiness(&self) -> (bool, &'static str, String) {
        if self.removed {
            return (false, "Removed", "the agent has removed the network of this node".to_owned());
        }
        let mut messages: Vec<&str> = self.problems.values().map(|problem| &*problem.message).collect();
        messages.extend(self.notes.iter().map(String::as_str));
        let mut message = messages.join("; ");
        message.truncate(message.floor_char_boundary(MESSAGE));
        match self.problems.values().next() {
            Some(problem) => (false, problem.reason, message),
            None if message.is_empty() => (true, "Ready", "pods of this node have their network".to_owned()),
            None => (true, "Ready", message),
        }
    }
}

/// Writes every new report to the node's object, for ever.
pub async fn publish(client: Client, node: String, mut reports: watch::Receiver<Report>) {
    let api: Api<NodeNetwork> = Api::all(client);
    let mut known = None;
    loop {
        let report = reports.borrow_and_update().clone();
        match write(&api, &node, &report, &mut known).await {
            Ok(()) => {
                if reports.changed().await.is_err() {
                    return;
                }
                sleep(GATHER).await;
            }
            Err(error) => {
                // The operator may not have written the object yet; anything else somebody should know.
                if !matches!(&error, kube::Error::Api(status) if status.code == 404) {
                    tracing::warn!(node, error = chain(&error), "the status is not written, trying again");
                }
                known = None;
                sleep(RETRY).await;
            }
        }
    }
}

async fn write(
    api: &Api<NodeNetwork>,
    node: &str,
    report: &Report,
    known: &mut Option<NodeNetworkStatus>,
) -> Result<(), kube::Error> {
    let before = match known.take() {
        Some(status) => status,
        None => api.get_status(node).await?.status.unwrap_or_default(),
    };
    let status = report.status(&before, Timestamp::now());
    if status != before {
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(node, &PatchParams::default(), &patch).await?;
    }
    *known = Some(status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(problems: &[(Part, &'static str, &str)]) -> Report {
        let problems = problems
            .iter()
            .map(|&(part, reason, message)| (part, Problem { reason, message: message.to_owned() }));
        Report { revision: Some("r1".to_owned()), problems: problems.collect(), ..Report::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_part_that_fails_gives_the_reason_and_all_are_named() {
        let report = report(&[
            (Part::Services, "ServicesFailed", "service a/b"),
            (Part::Datapath, "NoBpffs", "no bpffs"),
        ]);
        let status = report.status(&NodeNetworkStatus::default(), at(1));
        let ready = &status.conditions[0];
        assert_eq!((&*ready.type_, &*ready.status, &*ready.reason), (READY, "False", "NoBpffs"));
        assert_eq!(ready.message, "no bpffs; service a/b");
        assert_eq!(status.applied_revision.as_deref(), Some("r1"));
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let first = report(&[(Part::Network, "X", "one")]).status(&NodeNetworkStatus::default(), at(1));
        let second = report(&[(Part::Network, "Y", "two")]).status(&first, at(2));
        assert_eq!(second.conditions[0].last_transition_time, Time(at(1)));
        let third = report(&[]).status(&second, at(3));
        assert_eq!(third.conditions[0].last_transition_time, Time(at(3)));
        assert_eq!(third.conditions[0].status, "True");
        assert_eq!(report(&[]).status(&third, at(9)), third, "nothing new is nothing to write");
    }

    #[test]
    fn removed_is_said_and_taken_back() {
        let removed = Report { removed: true, ..report(&[]) }.status(&NodeNetworkStatus::default(), at(1));
        let kinds: Vec<_> = removed.conditions.iter().map(|c| (&*c.type_, &*c.status)).collect();
        assert_eq!(kinds, [(READY, "False"), (REMOVED, "True")]);
        assert_eq!(report(&[]).status(&removed, at(2)).conditions.len(), 2);
    }

    #[test]
    fn packets_that_are_lost_are_told_apart_from_readiness_and_nothing_is_said_before_anything_is_known() {
        let paths = |paths| Report { paths, ..report(&[]) };
        let told = |status: &NodeNetworkStatus| {
            let found = status.conditions.iter().find(|condition| condition.type_ == PATHS_READY);
            found.map(|it| (it.status.clone(), it.reason.clone()))
        };
        let quiet = paths(None).status(&NodeNetworkStatus::default(), at(1));
        assert_eq!(told(&quiet), None);
        let lost = paths(Some(Paths::TooLarge("x".repeat(5000)))).status(&quiet, at(2));
        assert_eq!(told(&lost), Some(("False".to_owned(), "MtuTooLarge".to_owned())));
        assert!(lost.conditions.iter().any(|it| it.type_ == READY && it.status == "True"));
        let proven = paths(Some(Paths::Proven(1450))).status(&lost, at(3));
        assert_eq!(told(&proven), Some(("True".to_owned(), "Proven".to_owned())));
        let removed = Report { removed: true, ..paths(Some(Paths::Proven(1450))) };
        assert_eq!(told(&removed.status(&proven, at(4))), None);
    }

    #[test]
    fn notes_do_not_make_the_node_unready() {
        let report = Report { notes: vec!["10-other.conf is of another network".to_owned()], ..report(&[]) };
        let status = report.status(&NodeNetworkStatus::default(), at(1));
        assert_eq!(status.conditions[0].status, "True");
        assert!(status.conditions[0].message.contains("10-other.conf"));
    }
}

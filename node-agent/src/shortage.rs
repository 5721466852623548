//! A want of addresses, told where who runs the cluster looks: an Event on the Node, once for each time that it begins.

use std::time::Duration;

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::watch, time::sleep};

use crate::{
    cleanup::chain,
    ipam::Shortage,
    status::{ENOUGH, Report},
};

/// Where Events about nodes live.
const NAMESPACE: &str = "default";
/// After a refused write, and between two Events.
const PAUSE: Duration = Duration::from_secs(5);
/// What fits into an Event's note.
const NOTE: usize = 1024;

/// The Event on this node. `kubectl describe node` finds it by the node's name, which kubelets write as its UID, too.
#[must_use]
pub fn event(node: &str, shortage: &Shortage, now: Timestamp) -> Event {
    let mut text = format!("no pod address is free: {}; {ENOUGH}", shortage.message);
    text.truncate(text.floor_char_boundary(NOTE));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{node}.addresses.{:x}", now.as_millisecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        action: Some("Allocate".to_owned()),
        reason: Some("AddressesExhausted".to_owned()),
        note: Some(text),
        type_: Some("Warning".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some("netkeel.io/agent".to_owned()),
        reporting_instance: Some(node.to_owned()),
        ..Event::default()
    }
}

/// Tells every want of addresses when it begins, for ever.
pub async fn publish(client: Client, node: String, mut reports: watch::Receiver<Report>) {
    let api: Api<Event> = Api::namespaced(client, NAMESPACE);
    let mut told = None;
    loop {
        let shortage = reports.borrow_and_update().shortage.clone();
        let begun = shortage.as_ref().map(|shortage| shortage.since);
        if let Some(shortage) = shortage.filter(|_| begun != told) {
            match api.create(&PostParams::default(), &event(&node, &shortage, Timestamp::now())).await {
                Ok(_) => told = begun,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the Event about addresses is not written");
                }
            }
            sleep(PAUSE).await;
        } else if reports.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netkeel_core::ipam::{Exhausted, Family, Usage};

    #[test]
    fn the_event_is_about_the_node_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let pool = crate::ipam::Pool::with_clock(folder.path(), || Duration::from_secs(7)).unwrap();
        let usage = Usage { used: 60, resting: 3, capacity: 63 };
        pool.sent_away(&Exhausted { family: Family::V4, blocks: "10.244.0.0/26".to_owned(), usage });
        let event = event("node-1", &pool.shortage().unwrap(), Timestamp::UNIX_EPOCH);
        let about = event.regarding.unwrap();
        assert_eq!((about.kind.as_deref(), about.uid.as_deref()), (Some("Node"), Some("node-1")));
        let note = event.note.unwrap();
        for said in
            ["all 63 IPv4 addresses of 10.244.0.0/26 are taken (60 by pods, 3 freed", "spec.podNetwork.pools"]
        {
            assert!(note.contains(said), "{note}");
        }
    }
}

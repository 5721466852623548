//! What is wrong with a policy, told where its author looks: an Event on the `NetworkPolicy`. All agents tell the same, so the Event's
//! name says what it tells: the API server takes the first one.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use netkeel_core::name::ObjectName;
use sha2::{Digest, Sha256};
use tokio::{sync::watch, time::sleep};

use crate::cleanup::chain;

/// After a refused write.
const RETRY: Duration = Duration::from_secs(5);
/// What fits into an Event's note.
const NOTE: usize = 1024;
/// What fits into an object's name, before the hash.
const NAME: usize = 200;

/// What is wrong with one version of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// The policy.
    pub policy: ObjectName,
    /// UID of the object, empty where it could not be read.
    pub uid: String,
    /// Generation of its spec, 0 where it could not be read.
    pub generation: i64,
    /// One word in camel case.
    pub reason: &'static str,
    /// What is wrong, field by field.
    pub message: String,
}

/// All that is wrong now.
pub type Complaints = BTreeSet<Complaint>;

impl Complaint {
    /// The Event that every agent would write.
    #[must_use]
    pub fn event(&self, node: &str, now: Timestamp) -> Event {
        let text = &self.message[..self.message.floor_char_boundary(NOTE)];
        Event {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(self.policy.namespace.to_string()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            action: Some("Enforce".to_owned()),
            reason: Some(self.reason.to_owned()),
            note: Some(text.to_owned()),
            type_: Some("Warning".to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("networking.k8s.io/v1".to_owned()),
                kind: Some("NetworkPolicy".to_owned()),
                namespace: Some(self.policy.namespace.to_string()),
                name: Some(self.policy.name.to_string()),
                uid: Some(self.uid.clone()).filter(|uid| !uid.is_empty()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some("netkeel.io/agent".to_owned()),
            reporting_instance: Some(node.to_owned()),
            ..Event::default()
        }
    }

    fn name(&self) -> String {
        let Self { policy, uid, generation, reason, message } = self;
        let hash = Sha256::digest(format!("{uid}\n{generation}\n{reason}\n{message}"));
        let short = hash.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let name = &policy.name[..policy.name.floor_char_boundary(NAME)];
        format!("{}.{short:016x}", name.trim_end_matches(['.', '-']))
    }
}

/// Tells every new complaint, for ever.
pub async fn publish(client: Client, node: String, mut complaints: watch::Receiver<Complaints>) {
    let mut told = Complaints::new();
    loop {
        let now = complaints.borrow_and_update().clone();
        told.retain(|complaint| now.contains(complaint));
        let mut refused = false;
        for complaint in now.difference(&told.clone()) {
            match tell(&client, &node, complaint).await {
                Ok(()) => drop(told.insert(complaint.clone())),
                Err(error) => {
                    tracing::warn!(error = chain(&error), policy = %complaint.policy, "an Event is not written");
                    refused = true;
                }
            }
        }
        if refused {
            sleep(RETRY).await;
        } else if complaints.changed().await.is_err() {
            return;
        }
    }
}

/// Another agent may have told it already.
async fn tell(client: &Client, node: &str, complaint: &Complaint) -> Result<(), kube::Error> {
    let api: Api<Event> = Api::namespaced(client.clone(), &complaint.policy.namespace);
    let event = complaint.event(node, Timestamp::now());
    match api.create(&PostParams::default(), &event).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        // The namespace is on its way out, or the policy's name is no name: nobody will look.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 422) => {
            tracing::info!(policy = %complaint.policy, "{}: {}", complaint.message, status.message);
            Ok(())
        }
        written => written.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(generation: i64, message: &str) -> Complaint {
        Complaint {
            policy: ObjectName::new("shop", "web"),
            uid: "u1".to_owned(),
            generation,
            reason: "Unsupported",
            message: message.to_owned(),
        }
    }

    #[test]
    fn all_agents_write_one_event_for_a_version_of_a_policy_and_another_for_the_next() {
        let name = |complaint: &Complaint, node: &str| {
            complaint.event(node, Timestamp::UNIX_EPOCH).metadata.name.unwrap()
        };
        let first = complaint(1, "spec.ingress[0].ports[0].port: the named port \"web\"");
        assert_eq!(name(&first, "a"), name(&first, "b"));
        assert_ne!(name(&first, "a"), name(&Complaint { generation: 2, ..first.clone() }, "a"));
        assert_ne!(name(&first, "a"), name(&Complaint { message: "other".to_owned(), ..first.clone() }, "a"));
    }

    #[test]
    fn an_event_names_the_policy_and_fits_whatever_the_policy_is_called() {
        let long = Complaint {
            policy: ObjectName::new("shop", &"a".repeat(253)),
            ..complaint(1, &"x".repeat(2000))
        };
        let event = long.event("node-1", Timestamp::UNIX_EPOCH);
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert_eq!(event.note.unwrap().len(), 1024);
        let regarding = event.regarding.unwrap();
        assert_eq!(regarding.kind.as_deref(), Some("NetworkPolicy"));
        assert_eq!(regarding.name.map(|name| name.len()), Some(253));
        assert_eq!(event.reporting_instance.as_deref(), Some("node-1"));
    }
}

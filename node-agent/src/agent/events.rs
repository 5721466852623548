//! Events of the watches, into the index.

use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    networking::v1::NetworkPolicy,
};
use netkeel_client::{Event, Undecodable};
use netkeel_core::name::ObjectName;
use netkeel_crds::NodeNetwork;
use netkeel_index::{Invalid, SeenSlice};

use super::Agent;
use crate::pods::SeenPod;

/// An event of one of the watches.
#[derive(Debug)]
pub enum Change {
    /// Nodes.
    Node(Event<NodeNetwork>),
    /// Services.
    Service(Event<Service>),
    /// Slices.
    Slice(Event<SeenSlice>),
    /// What policy depends on.
    Policy(PolicyChange),
}

/// An event of one of the watches that policy depends on.
#[derive(Debug)]
pub enum PolicyChange {
    /// Pods of the whole cluster.
    Pod(Event<SeenPod>),
    /// Namespaces.
    Namespace(Event<Namespace>),
    /// Policies.
    Policy(Event<NetworkPolicy>),
}

impl Agent {
    /// Takes an event in. The work that follows from it is done by the next [`Agent::work`].
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Node(event) => self.node_event(event),
            Change::Service(event) => self.service_event(event),
            Change::Slice(event) => self.slice_event(event),
            Change::Policy(event) => self.policy_event(event),
        }
    }

    fn node_event(&mut self, event: Event<NodeNetwork>) {
        let mut first = false;
        let changed = match event {
            Event::Reset { objects, undecodable } => {
                first = !std::mem::replace(&mut self.synced.nodes, true);
                let changed = self.nodes.reset(&objects, &names(&undecodable));
                for object in undecodable {
                    self.nodes.undecodable(invalid("NodeNetwork", object));
                }
                changed
            }
            Event::Apply(object) => self.nodes.apply(&object),
            Event::Delete { name, .. } => self.nodes.delete(&name),
            Event::Undecodable(object) => {
                self.nodes.undecodable(invalid("NodeNetwork", object));
                false
            }
        };
        if changed || first {
            self.nodes_known();
        }
        if changed {
            self.apply.hurry();
            self.unsaved = true;
            self.save.hurry();
            self.follow_traces();
        }
    }

    fn service_event(&mut self, event: Event<Service>) {
        let changed = match event {
            Event::Reset { objects, undecodable } => {
                self.synced.services = true;
                let changed = self.services.reset_services(&objects, &names(&undecodable));
                for object in undecodable {
                    self.services.undecodable(invalid("Service", object));
                }
                changed
            }
            Event::Apply(object) => self.services.apply_service(&object),
            Event::Delete { namespace, name } => {
                self.services.delete_service(&object_name(namespace.as_deref(), &name))
            }
            Event::Undecodable(object) => {
                self.services.undecodable(invalid("Service", object));
                return;
            }
        };
        self.changed.extend(changed);
    }

    fn slice_event(&mut self, event: Event<SeenSlice>) {
        let changed = match event {
            Event::Reset { objects, undecodable } => {
                self.synced.slices = true;
                let changed = self.services.reset_slices(objects, &names(&undecodable));
                for object in undecodable {
                    self.services.undecodable(invalid("EndpointSlice", object));
                }
                changed
            }
            Event::Apply(slice) => self.services.apply_slice(slice),
            Event::Delete { namespace, name } => {
                self.services.delete_slice(&object_name(namespace.as_deref(), &name))
            }
            Event::Undecodable(object) => {
                self.services.undecodable(invalid("EndpointSlice", object));
                return;
            }
        };
        self.changed.extend(changed);
    }

    /// Sends traces where the node's configuration says.
    fn follow_traces(&self) {
        let (Some(guard), Some(node)) = (&self.with.telemetry, self.own()) else { return };
        if let Err(error) = guard.set_traces_endpoint(node.config.traces_endpoint.as_deref()) {
            tracing::warn!(%error, "traces are not sent");
        }
    }
}

pub(crate) fn object_name(namespace: Option<&str>, name: &str) -> ObjectName {
    ObjectName::new(namespace.unwrap_or_default(), name)
}

pub(crate) fn names(objects: &[Undecodable]) -> Vec<ObjectName> {
    objects.iter().map(|object| object_name(object.namespace.as_deref(), &object.name)).collect()
}

pub(crate) fn invalid(kind: &'static str, object: Undecodable) -> Invalid {
    Invalid { kind, name: object_name(object.namespace.as_deref(), &object.name), reason: object.error }
}

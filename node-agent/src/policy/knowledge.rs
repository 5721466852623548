//! What the API says of pods, namespaces and policies, with what only an agent adds: which sandbox is whose, and what to keep on disk.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Namespace, PodIP},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use netkeel_client::{Event, Undecodable};
use netkeel_core::{address::Address, few::Few, name::ObjectName, policy};
use netkeel_index::{Policies, convert, policies::POLICY};

use super::{Known, Outcome, PodRef, Programmer, Wanted, numbers::Kept, snapshot::Snapshot};
use crate::{
    agent::events::{invalid, names, object_name},
    cleanup::chain,
    pods::{SeenPod, SeenPodReader, SlimPod, SlimSpec, SlimStatus},
};

/// Which kinds have been listed once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Synced {
    pods: bool,
    namespaces: bool,
    policies: bool,
}

/// A policy as the API has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// UID of the object.
    pub uid: String,
    /// Generation of its spec.
    pub generation: i64,
    /// The object, for the disk.
    json: Box<str>,
}

/// All that policy depends on.
#[derive(Debug)]
pub struct Knowledge {
    own_node: String,
    index: Policies,
    numbers: Kept,
    synced: Synced,
    /// Something was read from disk.
    remembered: bool,
    /// UIDs of the own node's pods.
    uids: HashMap<ObjectName, Arc<str>>,
    versions: BTreeMap<ObjectName, Version>,
    /// Addresses that the own node gave to its pods.
    placed: BTreeMap<ObjectName, Few<Address>>,
}

impl Knowledge {
    /// What an earlier agent left. What cannot be read is logged and counts as nothing.
    #[must_use]
    pub fn restore(own_node: &str, run_folder: &Path, state_folder: &Path) -> Self {
        let warn = |error: &dyn std::error::Error| {
            tracing::warn!(error = chain(error), "starting without what was known of policy before");
        };
        let mut numbers = Kept::at(run_folder);
        let kept = numbers.read().inspect_err(|error| warn(error)).ok().flatten();
        let snapshot = Snapshot::read(state_folder).inspect_err(|error| warn(error)).ok().flatten();
        let mut this = Self {
            own_node: own_node.to_owned(),
            index: Policies::new(own_node, kept.unwrap_or_default()),
            numbers,
            synced: Synced::default(),
            remembered: snapshot.is_some(),
            uids: HashMap::new(),
            versions: BTreeMap::new(),
            placed: BTreeMap::new(),
        };
        let Snapshot { pods, namespaces, policies } = snapshot.unwrap_or_default();
        let mut reader = SeenPodReader::new(own_node);
        this.reset_pods(pods.into_iter().map(|pod| reader.read(pod)).collect(), &[]);
        this.index.reset_namespaces(&namespaces, &[]);
        this.reset_policies(policies, &[]);
        this
    }

    /// All pods, namespaces and policies of the cluster are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.synced.pods && self.synced.namespaces && self.synced.policies
    }

    /// There is something to go by, from the API or from before.
    #[must_use]
    pub fn is_something(&self) -> bool {
        self.remembered || self.is_complete()
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &Policies {
        &self.index
    }

    /// Number of policies.
    #[must_use]
    pub fn policies(&self) -> usize {
        self.versions.len()
    }

    /// A policy's version, as far as it could be read.
    #[must_use]
    pub fn version(&self, name: &ObjectName) -> Option<&Version> {
        self.versions.get(name)
    }

    /// The kernel holds numbers up to these of an earlier agent: none of them is given again.
    pub fn skip_numbers(&mut self, identity: u32, rule: u32) {
        self.index.skip_numbers(identity, rule);
    }

    /// Addresses of all nodes, those inside the overlay included, and the nodes' names.
    pub fn set_nodes(&mut self, nodes: impl IntoIterator<Item = (Address, Arc<str>)>) -> bool {
        self.index.set_nodes(nodes)
    }

    /// An event of the pods. Whether it means anything new.
    pub fn pod_event(&mut self, event: Event<SeenPod>) -> bool {
        match event {
            Event::Reset { objects, undecodable } => {
                self.synced.pods = true;
                let changed = self.reset_pods(objects, &names(&undecodable));
                self.unread("Pod", undecodable) | changed
            }
            Event::Apply(pod) => self.apply_pod(pod),
            Event::Delete { namespace, name } => {
                let name = object_name(namespace.as_deref(), &name);
                self.uids.remove(&name);
                self.index.delete_pod(&name)
            }
            Event::Undecodable(object) => self.unread("Pod", vec![object]),
        }
    }

    /// An event of the namespaces. Whether it means anything new.
    pub fn namespace_event(&mut self, event: Event<Namespace>) -> bool {
        let changed = match event {
            Event::Reset { objects, undecodable } => {
                self.synced.namespaces = true;
                let changed = self.index.reset_namespaces(&objects, &names(&undecodable));
                self.unread("Namespace", undecodable) | changed
            }
            Event::Apply(object) => self.index.apply_namespace(&object),
            Event::Delete { name, .. } => self.index.delete_namespace(&object_name(None, &name)),
            Event::Undecodable(object) => self.unread("Namespace", vec![object]),
        };
        self.forget_versions();
        changed
    }

    /// An event of the policies. Whether it means anything new.
    pub fn policy_event(&mut self, event: Event<NetworkPolicy>) -> bool {
        match event {
            Event::Reset { objects, undecodable } => {
                self.synced.policies = true;
                let changed = self.reset_policies(objects, &names(&undecodable));
                self.unread(POLICY, undecodable) | changed
            }
            Event::Apply(object) => self.apply_policy(object),
            Event::Delete { namespace, name } => {
                let changed = self.index.delete_policy(&object_name(namespace.as_deref(), &name));
                self.forget_versions();
                changed
            }
            Event::Undecodable(object) => self.unread(POLICY, vec![object]),
        }
    }

    /// These pods have a link with this address, each with all its addresses, whether the API says so yet or not. Whether that is new.
    pub fn place(&mut self, attached: &BTreeMap<Address, PodRef>) -> bool {
        let ours = |pod: &PodRef| pod.is(&self.reference(&pod.name));
        let mut now: BTreeMap<ObjectName, Few<Address>> = BTreeMap::new();
        for (address, pod) in attached.iter().filter(|(_, pod)| ours(pod)) {
            now.entry(pod.name.clone()).or_default().insert(*address);
        }
        let before = std::mem::replace(&mut self.placed, now.clone());
        let gone = before.keys().filter(|name| !now.contains_key(name));
        let changed = gone.fold(false, |changed, name| self.index.place(name, Few::default()) | changed);
        now.into_iter().fold(changed, |changed, (name, all)| self.index.place(&name, all) | changed)
    }

    /// Compiles what is known and writes it to the maps. The numbers that it is made of are kept before.
    ///
    /// # Errors
    /// The numbers cannot be kept: nothing is written.
    pub fn program(
        &mut self,
        programmer: &Programmer,
        complete: bool,
    ) -> Result<Outcome, super::numbers::Error> {
        self.index.compile();
        self.numbers.keep(self.index.numbers())?;
        let compiled = self.index.compile();
        let known = |(name, isolation): (&ObjectName, &policy::Isolation)| {
            let uid = self.uids.get(name).cloned().unwrap_or_default();
            (name.clone(), Known { uid, isolation: isolation.clone() })
        };
        Ok(programmer.program(&Wanted {
            identities: &compiled.identities,
            cidrs: &compiled.cidrs,
            pods: &compiled.pods.iter().map(known).collect(),
            complete,
        }))
    }

    /// What to keep for a start without the API server.
    #[must_use]
    pub fn snapshot(&mut self) -> Snapshot {
        let identities = self.index.compile().identities.clone();
        let world = self.index.world();
        let mut seen = HashSet::new();
        let own = |pod: &policy::Pod| pod.node.as_deref() == Some(&*self.own_node);
        let mut stands_for = |pod: &policy::Pod| {
            pod.addresses.iter().any(|address| identities.get(address).is_some_and(|id| seen.insert(*id)))
        };
        let kept = world.pods.values().filter(|pod| own(pod) || stands_for(pod));
        let uid = |pod: &policy::Pod| self.uids.get(&pod.name).map(ToString::to_string).unwrap_or_default();
        let policies = self.versions.values().filter_map(|version| serde_json::from_str(&version.json).ok());
        Snapshot {
            pods: kept.map(|pod| slim(pod, uid(pod))).collect(),
            namespaces: world.namespaces.values().map(namespace).collect(),
            policies: policies.collect(),
        }
    }

    fn reference(&self, name: &ObjectName) -> PodRef {
        PodRef { name: name.clone(), uid: self.uids.get(name).cloned().unwrap_or_default() }
    }

    fn apply_pod(&mut self, pod: SeenPod) -> bool {
        self.note_uid(&pod) | self.index.apply_pod(pod.policy)
    }

    /// Whether another pod has the name now.
    fn note_uid(&mut self, pod: &SeenPod) -> bool {
        let Some(own) = &pod.own else { return false };
        let before = self.uids.insert(pod.name().clone(), own.uid.clone());
        before.is_none_or(|before| before != own.uid)
    }

    fn reset_pods(&mut self, pods: Vec<SeenPod>, unread: &[ObjectName]) -> bool {
        let before = std::mem::take(&mut self.uids);
        for pod in &pods {
            self.note_uid(pod);
        }
        self.uids.extend(unread.iter().filter_map(|name| Some((name.clone(), before.get(name)?.clone()))));
        let others = self.uids != before;
        self.index.reset_pods(pods.into_iter().map(|pod| pod.policy).collect(), unread) | others
    }

    fn apply_policy(&mut self, mut object: NetworkPolicy) -> bool {
        self.note_version(&mut object) | self.index.apply_policy(&object)
    }

    /// Whether the object is another one than before.
    fn note_version(&mut self, object: &mut NetworkPolicy) -> bool {
        object.metadata.managed_fields = None;
        let name = convert::name(&object.metadata);
        let version = Version {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            json: serde_json::to_string(object).unwrap_or_default().into(),
        };
        self.versions.insert(name, version.clone()) != Some(version)
    }

    fn reset_policies(&mut self, mut objects: Vec<NetworkPolicy>, unread: &[ObjectName]) -> bool {
        let changed = objects.iter_mut().fold(false, |changed, object| self.note_version(object) | changed);
        let changed = self.index.reset_policies(&objects, unread) | changed;
        self.forget_versions();
        changed
    }

    /// Forgets the objects of policies that are in force no more.
    fn forget_versions(&mut self) {
        let world = self.index.world();
        self.versions.retain(|name, _| world.policies.contains_key(name));
    }

    fn unread(&mut self, kind: &'static str, objects: Vec<Undecodable>) -> bool {
        let unread = objects.into_iter().map(|object| invalid(kind, object));
        unread.fold(false, |changed, object| self.index.undecodable(object) | changed)
    }
}

fn slim(pod: &policy::Pod, uid: String) -> SlimPod {
    let phase = pod.finished.then(|| "Succeeded".to_owned());
    let ips = pod.addresses.iter().map(|address| PodIP { ip: address.to_string() });
    SlimPod {
        metadata: ObjectMeta {
            name: Some(pod.name.name.to_string()),
            namespace: Some(pod.name.namespace.to_string()),
            uid: Some(uid).filter(|uid| !uid.is_empty()),
            labels: Some(pod.labels.to_map()),
            ..ObjectMeta::default()
        },
        spec: SlimSpec {
            node_name: pod.node.as_deref().map(str::to_owned),
            host_network: pod.host_network.then_some(true),
        },
        status: SlimStatus { phase, pod_ip: None, pod_ips: Some(ips.collect()) },
    }
}

fn namespace(namespace: &policy::Namespace) -> Namespace {
    let metadata = ObjectMeta {
        name: Some(namespace.name.to_string()),
        labels: Some(namespace.labels.to_map()),
        deletion_timestamp: namespace.terminating.then_some(Time(Timestamp::UNIX_EPOCH)),
        ..ObjectMeta::default()
    };
    Namespace { metadata, ..Namespace::default() }
}

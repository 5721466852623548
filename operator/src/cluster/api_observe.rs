//! Reading the real cluster. The order of the first three lists matters (docs/adr/0002).

use std::fmt::Debug;

use ipnet::IpNet;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{self, Pod, Service},
    networking::v1::{NetworkPolicy, ServiceCIDR},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams},
    core::DeserializeGuard,
};
use netkeel_crds::{AddressBlock, ClusterNetwork, DEFAULT, NodeNetwork};
use netkeel_telemetry::chain;
use serde::de::DeserializeOwned;

use super::{
    Error,
    api::{ApiCluster, api_error, version},
};
use crate::{
    collector::{Collector, address_of, endpoint},
    observed::{DnsSeen, DnsService, Node, Observed, Rival, Unreadable, Workload},
    plan::PartName,
    render,
};

/// `DaemonSets` of other networks.
const CNIS: [&str; 10] = [
    "antrea-agent",
    "aws-node",
    "calico-node",
    "canal",
    "cilium",
    "kindnet",
    "kube-flannel",
    "kube-flannel-ds",
    "kube-router",
    "weave-net",
];
/// `DaemonSet` of the usual proxy for Services.
const KUBE_PROXY: &str = "kube-proxy";

impl ApiCluster {
    pub(super) async fn look(&self) -> Result<Observed, Error> {
        let mut seen = Observed::default();
        self.network(&mut seen).await?;
        let blocks = self.list_all::<DeserializeGuard<AddressBlock>>("AddressBlock").await?;
        seen.blocks = decoded("AddressBlock", blocks, &mut seen.undecodable).collect();
        let networks = self.list_all::<DeserializeGuard<NodeNetwork>>("NodeNetwork").await?;
        seen.node_networks = decoded("NodeNetwork", networks, &mut seen.undecodable).collect();
        seen.nodes = self.list_all::<v1::Node>("Node").await?.iter().map(node).collect();
        seen.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        seen.service_cidrs = service_cidrs(&self.list_all::<ServiceCIDR>("ServiceCIDR").await?);
        let sets = self.list_all::<DaemonSet>("DaemonSet").await?;
        seen.rivals = sets.iter().filter_map(rival).collect();
        let removing = seen.network.as_ref().is_some_and(|n| n.metadata.deletion_timestamp.is_some());
        seen.agents = self.agents(&sets, removing, &seen.nodes).await?;
        seen.dns = self.dns(&sets, removing, &seen.nodes).await?;
        if let Some(network) = &seen.network {
            seen.collector = self.collector(&network.spec.observability.traces.endpoint).await?;
        }
        Ok(seen)
    }

    /// The network, or what keeps it from being read.
    async fn network(&self, seen: &mut Observed) -> Result<(), Error> {
        let kind = ApiResource::erase::<ClusterNetwork>(&());
        let networks: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let found =
            networks.get_opt(DEFAULT).await.map_err(api_error("reading", "ClusterNetwork", DEFAULT))?;
        let Some(object) = found else { return Ok(()) };
        match object.clone().try_parse() {
            Ok(network) => seen.network = Some(network),
            Err(error) => {
                let object = serde_json::to_value(&object).unwrap_or_default();
                seen.unreadable_network = Some(Unreadable { object, error: chain(&error) });
            }
        }
        Ok(())
    }

    async fn list_all<K>(&self, kind: &'static str) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let listed = Api::<K>::all(self.client.clone()).list(&ListParams::default()).await;
        listed.map(|list| list.items).map_err(api_error("listing", kind, ""))
    }

    async fn agents(
        &self,
        sets: &[DaemonSet],
        removing: bool,
        nodes: &[Node],
    ) -> Result<Option<Workload>, Error> {
        let name = render::agent::name(&self.settings);
        let pods = self.pods(&name, removing, nodes).await?;
        Ok(self.set(name, sets, pods).or_else(|| leftover(pods)))
    }

    /// One of our `DaemonSets`, with so many pods.
    fn set(&self, name: PartName, sets: &[DaemonSet], pods: u32) -> Option<Workload> {
        let ours = |set: &&DaemonSet| {
            set.name_any() == name.name && set.namespace().as_ref() == Some(&name.namespace)
        };
        let set = sets.iter().find(ours);
        self.remember(name, set.map(|set| version(&set.metadata)));
        let status = set.map(|set| set.status.clone().unwrap_or_default());
        status.map(|status| Workload {
            wanted: number(status.desired_number_scheduled),
            ready: number(status.number_ready),
            updated: number(status.updated_number_scheduled.unwrap_or_default()),
            pods,
            deleted: false,
        })
    }

    async fn dns(&self, sets: &[DaemonSet], removing: bool, nodes: &[Node]) -> Result<DnsSeen, Error> {
        let (name, service_name) = (render::dns::deployment_name(), render::dns::service_name());
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), &name.namespace);
        let deployment =
            deployments.get_opt(name.name).await.map_err(api_error("reading", name.kind, name.name))?;
        let services: Api<Service> = Api::namespaced(self.client.clone(), &service_name.namespace);
        let service = services.get_opt(service_name.name).await;
        let service = service.map_err(api_error("reading", service_name.kind, service_name.name))?;
        let policy_name = render::dns::policy_name();
        let policies: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), &policy_name.namespace);
        let policy = policies.get_opt(policy_name.name).await;
        let policy = policy.map_err(api_error("reading", policy_name.kind, policy_name.name))?;
        self.remember(policy_name, policy.as_ref().map(|policy| version(&policy.metadata)));
        let pods = self.pods(&name, removing, nodes).await?;
        self.remember(name, deployment.as_ref().map(|deployment| version(&deployment.metadata)));
        self.remember(service_name, service.as_ref().map(|service| version(&service.metadata)));
        let counts = deployment.as_ref().map(|deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            Workload {
                wanted: number(deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or_default()),
                ready: number(status.ready_replicas.unwrap_or_default()),
                updated: number(status.updated_replicas.unwrap_or_default()),
                pods,
                deleted: false,
            }
        });
        let node_servers = self.set(render::dns::daemon_set_name(), sets, pods);
        // The pods of both have one label: what is left of one placement is not told from the other's.
        let servers = counts.or_else(|| leftover(pods).filter(|_| node_servers.is_none()));
        let service = service.as_ref().map(dns_service);
        Ok(DnsSeen { servers, node_servers, service, policy: policy.is_some() })
    }

    /// Where programs send their traces. A Service that is not there, or that may not be read, is none.
    async fn collector(&self, asked: &str) -> Result<Option<String>, Error> {
        let (namespace, name, port) = match Collector::parse(asked) {
            None => return Ok(None),
            Some(Collector::Address(address)) => return Ok(Some(endpoint(address))),
            Some(Collector::Service { namespace, name, port }) => (namespace, name, port),
        };
        let services: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        match services.get_opt(&name).await {
            Ok(service) => Ok(service.and_then(|service| address_of(&service, port)).map(endpoint)),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
            Err(error) => Err(api_error("reading", "Service", &name)(error)),
        }
    }

    /// Pods of one of our workloads that somebody can end, terminating ones too; counted only during removal.
    async fn pods(&self, name: &PartName, removing: bool, nodes: &[Node]) -> Result<u32, Error> {
        if !removing {
            return Ok(0);
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &name.namespace);
        let of_name = ListParams::default().labels(&format!("app.kubernetes.io/name={}", name.name));
        let listed = pods.list(&of_name).await.map_err(api_error("listing", "Pod", name.name))?;
        let there = listed.items.iter().filter(|pod| can_end(pod, nodes)).count();
        Ok(u32::try_from(there).unwrap_or(u32::MAX))
    }

    fn remember(&self, name: PartName, version: Option<String>) {
        let mut known = self.known();
        match version {
            Some(version) => known.seen.insert(name, version),
            None => known.seen.remove(&name),
        };
    }
}

/// What is left of a workload whose object is gone.
fn leftover(pods: u32) -> Option<Workload> {
    (pods > 0).then(|| Workload { pods, deleted: true, ..Workload::default() })
}

/// Whether somebody is there to end the pod: one on a node that does not report stays until the node is back.
fn can_end(pod: &Pod, nodes: &[Node]) -> bool {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    node.is_none_or(|name| nodes.iter().any(|node| node.name == name && node.reachable))
}

/// Those that can be read; the others are named.
fn decoded<K: Resource>(
    kind: &str,
    objects: impl IntoIterator<Item = DeserializeGuard<K>>,
    undecodable: &mut Vec<String>,
) -> impl Iterator<Item = K> {
    let mut good = Vec::new();
    for object in objects {
        match object.0 {
            Ok(object) => good.push(object),
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                tracing::warn!(kind, name, error = invalid.error, "object cannot be read and is left out");
                undecodable.push(format!("{kind} {name}"));
            }
        }
    }
    good.into_iter()
}

fn node(node: &v1::Node) -> Node {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    let ready =
        status.into_iter().flat_map(|status| status.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
    Node {
        name: node.name_any(),
        uid: node.uid().unwrap_or_default(),
        labels: node.labels().clone(),
        pod_cidrs: pod_cidrs(node),
        addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
        ready: ready.is_some_and(|condition| condition.status == "True"),
        reachable: ready.is_some_and(|condition| condition.status != "Unknown"),
    }
}

/// What a Node object says of its pods' addresses. What is no CIDR is left out.
fn pod_cidrs(node: &v1::Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten();
    let one = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
    all.chain(one).filter_map(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc()).collect()
}

/// Those of `kubernetes`, which the API server made from its own flag, first.
fn service_cidrs(objects: &[ServiceCIDR]) -> Vec<IpNet> {
    let mut objects: Vec<&ServiceCIDR> =
        objects.iter().filter(|object| object.metadata.deletion_timestamp.is_none()).collect();
    objects.sort_by_key(|object| (object.name_any() != "kubernetes", object.name_any()));
    let texts =
        objects.iter().flat_map(|object| object.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()));
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn rival(set: &DaemonSet) -> Option<Rival> {
    let name = set.name_any();
    let cni = CNIS.contains(&name.as_str());
    let full = format!("{}/{name}", set.namespace().unwrap_or_default());
    (cni || name == KUBE_PROXY).then_some(Rival { name: full, cni })
}

fn dns_service(service: &Service) -> DnsService {
    let (label, ours) = render::PART_OF;
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    DnsService {
        ours: service.labels().get(label).is_some_and(|value| value == ours),
        leads_to_us: selector.is_some_and(|selector| serde_json::json!(selector) == render::dns::selector()),
        cluster_ip: service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_ref()?.parse().ok()),
    }
}

fn number(count: i32) -> u32 {
    u32::try_from(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use netkeel_testkit::api::FakeApi;
    use serde_json::json;

    use super::*;
    use crate::{
        cluster::{Cluster as _, Effect},
        plan::Step,
        reconcile::pass,
        settings::Settings,
        story::{Story, Traces},
    };

    #[test]
    fn a_pod_on_a_node_that_does_not_report_is_not_waited_for() {
        let nodes = [("up", true), ("down", false)].map(|(name, reachable)| Node {
            name: name.to_owned(),
            reachable,
            ..Node::default()
        });
        for (spec, counts) in [
            (json!({"containers": [], "nodeName": "up"}), true),
            (json!({"containers": [], "nodeName": "down"}), false),
            (json!({"containers": [], "nodeName": "gone"}), false),
            (json!({"containers": []}), true),
        ] {
            let pod: Pod = serde_json::from_value(json!({"spec": spec.clone()})).expect("a pod");
            assert_eq!(can_end(&pod, &nodes), counts, "{spec}");
        }
    }

    #[tokio::test]
    async fn a_network_that_cannot_be_read_is_told_in_its_own_conditions() {
        let api = FakeApi::start().await.unwrap();
        api.put(json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork",
            "metadata": {"name": "default", "generation": 3}, "spec": {"podNetwork": {"vxlan": {"port": "many"}}},
            "status": {"pools": [{"of": "another version"}]}}));
        let cluster = ApiCluster::new(api.client().unwrap(), Settings::default());
        for _ in 0..2 {
            let traces = Traces { story: &Story::default(), send_to: &|_| {} };
            let done = pass(&cluster, &Settings::default(), Timestamp::UNIX_EPOCH, traces).await.unwrap();
            assert_eq!(done.applied, 0, "nothing is done for it");
        }
        let kind = ApiResource::erase::<ClusterNetwork>(&());
        let networks: Api<DynamicObject> = Api::all_with(api.client().unwrap(), &kind);
        let network = networks.get(DEFAULT).await.unwrap();
        let told = &network.data["status"]["conditions"];
        assert_eq!((&told[0]["type"], &told[0]["reason"]), (&json!("Degraded"), &json!("Undecodable")));
        assert!(told[0]["message"].as_str().unwrap().contains("\"many\""), "{told}");
        assert_eq!(network.metadata.resource_version.as_deref(), Some("2"), "it is written once");
        assert_eq!(network.data["status"]["pools"][0]["of"], "another version", "the rest is not touched");
    }

    #[tokio::test]
    async fn a_service_that_is_handed_over_keeps_its_address_and_loses_the_ports_of_others() {
        let api = FakeApi::start().await.unwrap();
        api.put(json!({"apiVersion": "netkeel.io/v1alpha1", "kind": "ClusterNetwork", "metadata": {"name": "default"},
            "spec": {"podNetwork": {"pools": [{"name": "pods", "cidrs": ["10.244.0.0/16"]}]}}}));
        let ports = json!([
            {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
        ]);
        let selector = json!({"k8s-app": "kube-dns"});
        let (label, ours) = render::PART_OF;
        api.put(json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {label: ours}},
            "spec": {"clusterIP": "10.96.0.7", "ports": ports, "selector": selector}}));
        let cluster = ApiCluster::new(api.client().unwrap(), Settings::default());
        let seen = cluster.observe().await.unwrap();
        let cluster_ip = "10.96.0.7".parse().ok();
        let service = |leads_to_us| Some(DnsService { ours: true, leads_to_us, cluster_ip });
        assert_eq!(seen.dns.service, service(false));
        let part = render::dns::service(&seen.network.unwrap(), cluster_ip.unwrap());
        let wanted = part.body["spec"]["ports"].clone();
        assert_eq!(cluster.apply(&Step::TakeOver(Box::new(part))).await.unwrap(), Effect::Done);
        assert_eq!(cluster.observe().await.unwrap().dns.service, service(true));
        let services: Api<Service> = Api::namespaced(api.client().unwrap(), "kube-system");
        let spec = services.get("kube-dns").await.unwrap().spec.unwrap();
        assert_eq!(json!(spec.ports), wanted);
    }
}

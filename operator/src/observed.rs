//! What the operator sees of the cluster in one pass: values, read in the order that `cluster` promises.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use netkeel_crds::{AddressBlock, ClusterNetwork, NodeNetwork};
use serde_json::Value;

/// The cluster at the time of one pass.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The one `ClusterNetwork`.
    pub network: Option<ClusterNetwork>,
    /// The one `ClusterNetwork`, when it is there and cannot be read.
    pub unreadable_network: Option<Unreadable>,
    /// All claims.
    pub blocks: Vec<AddressBlock>,
    /// All `NodeNetworks`.
    pub node_networks: Vec<NodeNetwork>,
    /// All nodes, seen after claims and `NodeNetworks`.
    pub nodes: Vec<Node>,
    /// Addresses of Services, those of the `ServiceCIDR` named `kubernetes` first.
    pub service_cidrs: Vec<IpNet>,
    /// Programs of others that do the same work.
    pub rivals: Vec<Rival>,
    /// The agents, once they are rolled out.
    pub agents: Option<Workload>,
    /// DNS as it is.
    pub dns: DnsSeen,
    /// Where programs send their traces, `http://address:port`; none while there is no such Service.
    pub collector: Option<String>,
    /// Objects of ours that cannot be read, as `kind name`.
    pub undecodable: Vec<String>,
}

impl Observed {
    /// Names of the objects of `kind` that exist and cannot be read.
    pub fn unreadable<'a>(&'a self, kind: &str) -> impl Iterator<Item = &'a str> {
        self.undecodable.iter().filter_map(move |object| {
            object.split_once(' ').filter(|(of, _)| *of == kind).map(|(_, name)| name)
        })
    }

    /// Whether a node has a block in one of these networks: a claim, or what its `NodeNetwork` says.
    #[must_use]
    pub fn has_blocks_in(&self, cidrs: &[IpNet]) -> bool {
        let claimed = self.blocks.iter().map(|block| &block.spec.cidr);
        let held = self.node_networks.iter().flat_map(|network| &network.spec.blocks);
        claimed.chain(held).any(|block| cidrs.iter().any(|cidr| cidr.contains(block)))
    }
}

/// An object that does not say what its kind says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// The object as the API server has it.
    pub object: Value,
    /// Which part is wrong.
    pub error: String,
}

/// A Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Name of the node.
    pub name: String,
    /// UID of the object.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its internal addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// Blocks that somebody gave it in `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Whether its kubelet says that it is Ready.
    pub ready: bool,
    /// Whether its kubelet still reports at all.
    pub reachable: bool,
}

/// Somebody else's program for the same work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// `namespace/name` of its `DaemonSet`.
    pub name: String,
    /// Whether it is a CNI, not only a proxy for Services.
    pub cni: bool,
}

/// A `DaemonSet` or Deployment of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Pods that there should be.
    pub wanted: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Pods that run the present template.
    pub updated: u32,
    /// Pods that exist on nodes that report, terminating ones too; counted only during removal.
    pub pods: u32,
    /// The object itself is gone, only pods of it are left.
    pub deleted: bool,
}

/// DNS as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSeen {
    /// Our Deployment.
    pub servers: Option<Workload>,
    /// Our `DaemonSet`: a server on each node.
    pub node_servers: Option<Workload>,
    /// The Service `kube-dns`.
    pub service: Option<DnsService>,
    /// Whether our `NetworkPolicy` of the servers is there.
    pub policy: bool,
}

/// The Service `kube-dns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsService {
    /// Whether it is ours.
    pub ours: bool,
    /// Whether it leads to our servers alone. One that was handed over to us leads to those of others at first.
    pub leads_to_us: bool,
    /// Its address.
    pub cluster_ip: Option<IpAddr>,
}

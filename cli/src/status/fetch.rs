//! Asks the API server. What this user may not see is named, and all else is told.

use anyhow::Result;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Node as KubeNode, Pod},
};
use kube::api::DynamicObject;
use netkeel_crds::{ClusterNetwork, NodeNetwork};

use super::{Status, component, read};
use crate::lister::Lister;

/// Objects as the API server has them, before anybody understands them.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) networks: Vec<DynamicObject>,
    pub(super) node_networks: Vec<DynamicObject>,
    pub(super) nodes: Vec<DynamicObject>,
    pub(super) deployments: Vec<DynamicObject>,
    pub(super) daemon_sets: Vec<DynamicObject>,
    /// The agents' pods.
    pub(super) pods: Vec<DynamicObject>,
    /// Kinds that may not be listed.
    pub(super) forbidden: Vec<String>,
}

/// The state of the cluster.
pub(crate) async fn fetch(mut lister: Lister) -> Result<Status> {
    let Some(networks) = lister.list::<ClusterNetwork>("").await? else { return Ok(Status::default()) };
    let ours = format!("{} in ({})", component::LABEL, component::NAMES.join(","));
    let agents = format!("{}=agent", component::LABEL);
    let found = Objects {
        networks,
        node_networks: lister.list::<NodeNetwork>("").await?.unwrap_or_default(),
        nodes: lister.list::<KubeNode>("").await?.unwrap_or_default(),
        deployments: lister.list::<Deployment>(&ours).await?.unwrap_or_default(),
        daemon_sets: lister.list::<DaemonSet>(&ours).await?.unwrap_or_default(),
        pods: lister.list::<Pod>(&agents).await?.unwrap_or_default(),
        forbidden: lister.forbidden,
    };
    Ok(read::status(found))
}

//! `status` of `ClusterNetwork`, written by the leading operator alone.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use crate::text::{CidrText, IpText};

/// What the operator found and did.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterNetworkStatus {
    /// Generation of `spec` that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Available, Progressing, Degraded, and one per part; each message names the object and what to do.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What is in force, after defaults and what was found in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
    /// Use of each pool, one entry for each of its CIDRs.
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name", "cidr"]))]
    pub pools: Vec<PoolStatus>,
    /// How far the nodes follow the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// What is in force, after defaults and what was found in the cluster.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Effective {
    /// Addresses of pods.
    #[serde(rename = "podCIDRs")]
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    pub pod_cidrs: Vec<IpNet>,
    /// Addresses of Services, from the cluster's `ServiceCIDR` objects.
    #[serde(rename = "serviceCIDRs")]
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    pub service_cidrs: Vec<IpNet>,
    /// Address of the Service `kube-dns`.
    #[serde(rename = "dnsClusterIP", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IpText>")]
    pub dns_cluster_ip: Option<IpAddr>,
    /// Domain below which the cluster's names live.
    pub cluster_domain: String,
    /// Largest packet of pods in bytes: the smallest that the nodes report; absent until one has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// Use of one CIDR of a pool.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// Name of the pool.
    #[schemars(length(max = 128))]
    pub name: String,
    /// CIDR of the pool in force.
    #[schemars(length(max = 43))]
    pub cidr: String,
    /// Active; Draining while blocks of the pool are some node's; Removable when none is.
    #[serde(default)]
    pub state: PoolPhase,
    /// Blocks given to nodes, and all there are.
    pub blocks: Usage,
    /// Addresses of pods in use, those at rest included, and those of the blocks given to nodes.
    pub addresses: Usage,
}

/// How far a pool is on its way out.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolPhase {
    /// Pods get its addresses.
    #[default]
    Active,
    /// Pods get none any more, and some may still have one.
    Draining,
    /// No node has a block of it: it can be taken out of the spec.
    Removable,
}

/// Part of a whole that is taken.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Number in use.
    pub used: u32,
    /// Number there are.
    pub capacity: u32,
}

/// How far the nodes follow the configuration.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Hash of the configuration that all nodes should have.
    pub revision: String,
    /// Nodes whose agent has applied its NodeNetwork and is Ready.
    pub updated: u32,
    /// Nodes there are.
    pub total: u32,
    /// `updated/total`, for the printed table.
    pub summary: String,
}

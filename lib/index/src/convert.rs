//! One Kubernetes object to one value of the core, with the API's defaults applied.

pub mod policy;

use k8s_openapi::{
    api::{
        core::v1 as api,
        discovery::v1::{self as discovery, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use netkeel_core::{
    address::{self, Address},
    name::ObjectName,
    service::{self, Endpoint, Place, Port, Reach, Service, Slice, SlicePort},
};

use crate::Invalid;

/// Joins a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Hands a Service to another proxy.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// Marks Services and slices that are reached by name alone.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// The value of `trafficDistribution` that keeps clients on their node.
pub const PREFER_SAME_NODE: &str = "PreferSameNode";

/// Namespace and name of an object.
#[must_use]
pub fn name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Reads a Service.
///
/// # Errors
/// When a part of it that the API server always sets is missing or impossible.
pub fn service(object: &api::Service) -> Result<Service, Invalid> {
    let name = name(&object.metadata);
    let read = || {
        let spec = object.spec.as_ref().ok_or("spec is missing")?;
        let ports: Result<Vec<_>, _> =
            spec.ports.iter().flatten().filter_map(|p| port(p).transpose()).collect();
        Ok(Service {
            name: name.clone(),
            reach: reach(spec)?,
            ports: ports?,
            proxied: !has_label(&object.metadata, SERVICE_PROXY_NAME)
                && !has_label(&object.metadata, HEADLESS),
            prefers_own_node: spec.traffic_distribution.as_deref() == Some(PREFER_SAME_NODE),
        })
    };
    read().map_err(|reason: String| Invalid { kind: "Service", name: name.clone(), reason })
}

/// Reads an `EndpointSlice` on `own_node`; `None` when it holds names in place of addresses, or belongs to no Service.
///
/// # Errors
/// When a part of it that the API server always checks is impossible.
pub fn slice(object: &EndpointSlice, own_node: &str) -> Result<Option<Slice>, Invalid> {
    let Some(of) = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) else {
        return Ok(None);
    };
    if !matches!(&*object.address_type, "IPv4" | "IPv6") {
        return Ok(None);
    }
    let name = name(&object.metadata);
    let read = || {
        let ports: Result<Vec<_>, _> =
            object.ports.iter().flatten().filter_map(|p| slice_port(p).transpose()).collect();
        let endpoints: Result<Vec<_>, _> =
            object.endpoints.iter().filter_map(|e| endpoint(e, own_node).transpose()).collect();
        Ok(Slice {
            name: name.clone(),
            service: ObjectName::new(&name.namespace, of),
            ports: ports?,
            endpoints: endpoints?,
            proxied: !has_label(&object.metadata, HEADLESS),
        })
    };
    read().map(Some).map_err(|reason: String| Invalid { kind: "EndpointSlice", name: name.clone(), reason })
}

fn has_label(metadata: &ObjectMeta, label: &str) -> bool {
    metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

fn reach(spec: &api::ServiceSpec) -> Result<Reach, String> {
    if spec.type_.as_deref() == Some("ExternalName") {
        let name = spec.external_name.as_deref().ok_or("spec.externalName is missing")?;
        return Ok(Reach::External(name.into()));
    }
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let addresses = if listed.is_empty() { spec.cluster_ip.as_slice() } else { listed };
    if addresses.iter().any(|address| address == "None") {
        return Ok(Reach::Headless);
    }
    let given = addresses.iter().filter(|address| !address.is_empty());
    given.map(|text| address(text, "spec.clusterIPs")).collect::<Result<_, _>>().map(Reach::Cluster)
}

fn port(port: &api::ServicePort) -> Result<Option<Port>, String> {
    let Some(protocol) = service::protocol(port.protocol.as_deref()) else { return Ok(None) };
    let number = number(port.port)?;
    Ok(Some(Port { name: port.name.as_deref().unwrap_or_default().into(), number, protocol }))
}

fn slice_port(port: &discovery::EndpointPort) -> Result<Option<SlicePort>, String> {
    let (Some(protocol), Some(value)) = (service::protocol(port.protocol.as_deref()), port.port) else {
        return Ok(None);
    };
    let number = number(value)?;
    Ok(Some(SlicePort { name: port.name.as_deref().unwrap_or_default().into(), number, protocol }))
}

fn endpoint(endpoint: &discovery::Endpoint, own_node: &str) -> Result<Option<Endpoint>, String> {
    let Some(first) = endpoint.addresses.first() else { return Ok(None) };
    let conditions = endpoint.conditions.as_ref();
    Ok(Some(Endpoint {
        address: address(first, "an endpoint's address")?,
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        hostname: endpoint.hostname.as_deref().map(Into::into),
        place: place(endpoint, own_node),
    }))
}

fn place(endpoint: &discovery::Endpoint, own_node: &str) -> Place {
    let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    match hints {
        [] if endpoint.node_name.as_deref() == Some(own_node) => Place::Here,
        [] => Place::Elsewhere,
        nodes if nodes.iter().any(|node| node.name == own_node) => Place::HintedHere,
        _ => Place::HintedElsewhere,
    }
}

fn number(port: i32) -> Result<u16, String> {
    u16::try_from(port)
        .ok()
        .filter(|&port| port > 0)
        .ok_or_else(|| format!("port {port} is not between 1 and 65535"))
}

fn address(text: &str, field: &str) -> Result<Address, String> {
    address::parse(text).map(Address::from).ok_or_else(|| format!("{field} {text:?} is not an IP address"))
}

#[cfg(test)]
mod tests;

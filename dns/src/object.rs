//! What an object of the API means for the zone. Pure; fields that make no sense are left out.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::zone::{External, Label, ObjectKey, PackedSlice, Port, Protocol, Service};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The key of a namespaced object.
pub(crate) fn key(meta: &ObjectMeta) -> Option<ObjectKey> {
    Some(ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?))
}

/// What a Service says about its names.
pub(crate) fn service(service: &core::Service) -> Service {
    let Some(spec) = &service.spec else { return Service::ClusterIp { addresses: vec![], ports: vec![] } };
    if spec.type_.as_deref() == Some("ExternalName") {
        return Service::ExternalName(spec.external_name.as_deref().and_then(host_name));
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Service::Headless;
    }
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut addresses: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let port = |port: &core::ServicePort| {
        self::port(port.name.as_deref(), port.protocol.as_deref(), u16::try_from(port.port).ok())
    };
    Service::ClusterIp { addresses, ports: spec.ports.iter().flatten().filter_map(port).collect() }
}

/// Where a Service is found from outside the cluster; `None` for most.
pub(crate) fn external(service: &core::Service) -> Option<External> {
    let spec = service.spec.as_ref()?;
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let points = || status.and_then(|status| status.ingress.as_ref()).into_iter().flatten();
    let external = External {
        load_balancer: addresses(points().filter_map(|point| point.ip.as_ref())),
        host_names: points().filter_map(|point| host_name(point.hostname.as_deref()?)).collect(),
        external_ips: addresses(spec.external_ips.iter().flatten()),
    };
    (external != External::default()).then_some(external)
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// The Service that a slice belongs to, and its ready endpoints. `None` for slices without a Service and
/// for those that hold names in place of addresses.
pub(crate) fn slice(slice: &discovery::EndpointSlice) -> Option<(String, PackedSlice)> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?.clone();
    if slice.address_type == "FQDN" {
        return None;
    }
    let ready = |endpoint: &&discovery::Endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let port = |port: &discovery::EndpointPort| {
        let number = port.port.and_then(|number| u16::try_from(number).ok());
        self::port(port.name.as_deref(), port.protocol.as_deref(), number)
    };
    let members = slice.endpoints.iter().filter(ready).flat_map(members);
    Some((service, PackedSlice::new(members, slice.ports.iter().flatten().filter_map(port).collect())))
}

fn members(endpoint: &discovery::Endpoint) -> impl Iterator<Item = (IpAddr, Option<Label>)> {
    let host = endpoint.hostname.as_ref().filter(|name| !name.is_empty());
    let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
    let pod = pod.and_then(|target| target.name.as_ref());
    let label = host.cloned().map(Label::Host).or_else(|| pod.cloned().map(Label::Pod));
    let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
    addresses.map(move |address| (address, label.clone()))
}

fn port(name: Option<&str>, protocol: Option<&str>, number: Option<u16>) -> Option<Port> {
    let protocol = match protocol {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(_) => return None,
    };
    Some(Port { name: name.unwrap_or_default().to_owned(), protocol, number: number? })
}

/// A host name, which an address is not: no resolver takes an address for the target of an alias.
fn host_name(text: &str) -> Option<Name> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_service(spec: &serde_json::Value) -> Service {
        service(&serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn services_are_told_apart_by_type_and_address() {
        let tcp = |name: &str, number| Port { name: name.to_owned(), protocol: Protocol::Tcp, number };
        let cases = [
            (
                json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
                    "ports": [{"name": "https", "port": 443}, {"port": 70000}, {"port": 1, "protocol": "X"}]}),
                Service::ClusterIp {
                    addresses: ips(&["10.96.0.1", "fd00::1"]),
                    ports: vec![tcp("https", 443)],
                },
            ),
            (
                json!({"clusterIP": "10.96.0.1"}),
                Service::ClusterIp { addresses: ips(&["10.96.0.1"]), ports: vec![] },
            ),
            (json!({"clusterIP": ""}), Service::ClusterIp { addresses: vec![], ports: vec![] }),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), Service::Headless),
            (
                json!({"type": "ExternalName", "externalName": "WWW.example.com"}),
                Service::ExternalName(Some(Name::from_ascii("WWW.example.com.").unwrap())),
            ),
            (json!({"type": "ExternalName", "externalName": "10.0.0.1"}), Service::ExternalName(None)),
            (json!({"type": "ExternalName"}), Service::ExternalName(None)),
        ];
        for (spec, expected) in cases {
            assert_eq!(read_service(&spec), expected, "{spec}");
        }
    }

    #[test]
    fn outside_addresses_are_read_where_there_are_some() {
        let read = |object: &serde_json::Value| external(&serde_json::from_value(object.clone()).unwrap());
        let object = json!({
            "spec": {"clusterIP": "10.96.0.1", "externalIPs": ["192.0.2.9", "nonsense"]},
            "status": {"loadBalancer": {"ingress": [
                {"ip": "192.0.2.2"}, {"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}, {"hostname": "lb.example.com"}, {"hostname": "192.0.2.3"},
            ]}},
        });
        let expected = External {
            load_balancer: ips(&["192.0.2.1", "192.0.2.2"]),
            host_names: vec![Name::from_ascii("lb.example.com.").unwrap()],
            external_ips: ips(&["192.0.2.9"]),
        };
        assert_eq!(read(&object), Some(expected));
        for object in [
            json!({"spec": {"clusterIP": "10.96.0.1"}, "status": {"loadBalancer": {}}}),
            json!({"spec": {"clusterIP": "10.96.0.1", "externalIPs": []}, "status": {"loadBalancer": {"ingress": []}}}),
            json!({}),
        ] {
            assert_eq!(read(&object), None, "{object}");
        }
    }

    #[test]
    fn only_ready_endpoints_count() {
        let object = json!({
            "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.1.0.1"], "hostname": "db-0", "targetRef": {"kind": "Pod", "name": "db-pod-0"}},
                {"addresses": ["10.1.0.2"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "db-pod-1"}},
                {"addresses": ["10.1.0.4"], "targetRef": {"kind": "Node", "name": "node"}},
                {"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["not an address"], "conditions": {}},
            ],
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}, {"name": "any"}],
        });
        let (service, slice) = slice(&serde_json::from_value(object).unwrap()).unwrap();
        let ports = vec![Port { name: "sql".to_owned(), protocol: Protocol::Tcp, number: 5432 }];
        let labels = [Some(Label::Host("db-0".to_owned())), Some(Label::Pod("db-pod-1".to_owned())), None];
        let expected = ips(&["10.1.0.1", "10.1.0.2", "10.1.0.4"]).into_iter().zip(labels);
        assert_eq!((service.as_str(), slice), ("db", PackedSlice::new(expected, ports)));
    }

    #[test]
    fn slices_without_a_service_or_addresses_are_left_out() {
        let labels = json!({"kubernetes.io/service-name": "db"});
        for object in [
            json!({"metadata": {}, "addressType": "IPv4", "endpoints": []}),
            json!({"metadata": {"labels": labels}, "addressType": "FQDN", "endpoints": []}),
        ] {
            assert_eq!(slice(&serde_json::from_value(object).unwrap()), None);
        }
    }
}

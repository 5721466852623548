//! Host ports: ports of the node that lead to a pod (`containers[].ports[].hostPort`), as the runtime hands them to the
//! plugin in `runtimeConfig.portMappings`. Values in, values out; `table` is what clients from outside meet, and
//! [`sockets`] what processes of this node do.

pub(crate) mod table;

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netkeel_dataplane_common::{
    Address, Protocol as Number, backends::Backend, host_ports::HostPort as Asked, services::Frontend,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::table::TABLE;
pub(crate) use crate::nftables::encode::Element as Forward;

/// What can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A port of the node that a pod asks for; in the pod's records in this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    pub protocol: Protocol,
    /// The only address of the node; `None` for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// Why a pod cannot have the ports that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the runtime's portMappings cannot be understood: {0}")]
    Form(String),
    #[error("host port {port}/{protocol}: only TCP and UDP can be forwarded")]
    Protocol { port: i64, protocol: String },
    #[error("host port {port} to container port {container}: ports are 1 to 65535")]
    Port { port: i64, container: i64 },
    #[error("host port {port} at {address:?}, which is no IP address")]
    Address { port: i64, address: String },
    #[error("host port {0} is asked for twice")]
    Twice(HostPort),
    #[error("host port {0}: the pod has no address of that family")]
    Family(HostPort),
}

/// One port as runtimes write it: the specification with small letters first, containerd with capitals.
#[derive(Debug, Deserialize)]
struct Mapping {
    #[serde(rename = "hostPort", alias = "HostPort", default)]
    host_port: i64,
    #[serde(rename = "containerPort", alias = "ContainerPort", default)]
    container_port: i64,
    #[serde(rename = "protocol", alias = "Protocol", default)]
    protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP", default)]
    host_ip: String,
}

/// The ports that a runtime asks for in its `runtimeConfig`. A host port of 0 is none.
///
/// # Errors
/// What cannot be had, by name.
pub fn read(runtime_config: &Value) -> Result<Vec<HostPort>, Refused> {
    let mappings = runtime_config.get("portMappings").cloned().unwrap_or_default();
    let mappings: Option<Vec<Mapping>> =
        serde_json::from_value(mappings).map_err(|error| Refused::Form(error.to_string()))?;
    let mut ports: Vec<HostPort> = Vec::new();
    for mapping in mappings.unwrap_or_default().iter().filter(|mapping| mapping.host_port != 0) {
        let port = port(mapping)?;
        if ports.contains(&port) {
            continue;
        }
        if ports.iter().any(|other| other.clashes(&port)) {
            return Err(Refused::Twice(port));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn port(mapping: &Mapping) -> Result<HostPort, Refused> {
    let Mapping { host_port: port, container_port: container, .. } = *mapping;
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(Refused::Protocol { port, protocol: mapping.protocol.clone() }),
    };
    let number = |number| u16::try_from(number).ok().filter(|number| *number != 0);
    let (Some(host_port), Some(container_port)) = (number(port), number(container)) else {
        return Err(Refused::Port { port, container });
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => {
            let wrong = |_| Refused::Address { port, address: text.to_owned() };
            Some(text.parse::<IpAddr>().map_err(wrong)?.to_canonical()).filter(|ip| !ip.is_unspecified())
        }
    };
    Ok(HostPort { protocol, host_ip, host_port, container_port })
}

impl HostPort {
    /// Whether a packet could be meant for either.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let apart = matches!((self.host_ip, other.host_ip), (Some(one), Some(two)) if one != two);
        self.protocol == other.protocol && self.host_port == other.host_port && !apart
    }

    /// Where packets to the port go of a pod with these addresses, one of each family at most.
    pub(crate) fn forwards(&self, pod: &[IpAddr]) -> Vec<Forward> {
        let fits = |ip: &&IpAddr| self.host_ip.is_none_or(|at| at.is_ipv4() == ip.is_ipv4());
        let forward = |ip: &IpAddr| Forward {
            at: self.host_ip,
            protocol: self.protocol.number() as u8,
            port: self.host_port,
            to: SocketAddr::new(*ip, self.container_port),
        };
        pod.iter().filter(fits).map(forward).collect()
    }
}

/// Refuses ports at addresses of a family that the pod has none of.
///
/// # Errors
/// The first such port.
pub fn check_families(ports: &[HostPort], has: impl Fn(bool) -> bool) -> Result<(), Refused> {
    let lacks = |port: &&HostPort| port.host_ip.is_some_and(|ip| !has(ip.is_ipv4()));
    ports.iter().find(lacks).map_or(Ok(()), |port| Err(Refused::Family(*port)))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(ip) = self.host_ip {
            return write!(f, "{}/{}", SocketAddr::new(ip, self.host_port), self.protocol);
        }
        write!(f, "{}/{}", self.host_port, self.protocol)
    }
}

impl Protocol {
    const fn number(self) -> Number {
        match self {
            Self::Tcp => Number::Tcp,
            Self::Udp => Number::Udp,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// What sockets of this node are told: `node` are the addresses that the node has, `netns` is the cookie of its network namespace,
/// whose processes alone mean the node by a loopback address.
pub(crate) fn sockets<'a>(
    forwards: impl IntoIterator<Item = &'a Forward>,
    node: &[IpAddr],
    netns: u64,
) -> HashMap<Asked, Backend> {
    let mut all = HashMap::new();
    for forward in forwards {
        let Some(protocol) = Number::from_number(forward.protocol.into()) else { continue };
        let backend = Backend::new(forward.to.ip().into(), forward.to.port());
        let loopback: IpAddr =
            if forward.to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        let like = |ip: &&IpAddr| ip.is_ipv4() == forward.to.is_ipv4();
        let asked = node.iter().filter(like).copied().chain([loopback]);
        for ip in asked.filter(|ip| forward.at.is_none_or(|at| at == *ip)) {
            let frontend = Frontend::new(Address::from(ip), forward.port, protocol);
            let key =
                if ip.is_loopback() { Asked::within(netns, frontend) } else { Asked::anywhere(frontend) };
            all.insert(key, backend);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tcp(host_ip: Option<&str>, host_port: u16, container_port: u16) -> HostPort {
        HostPort { protocol: Protocol::Tcp, host_ip: host_ip.map(ip), host_port, container_port }
    }

    #[test]
    fn ports_are_read_as_both_kinds_of_runtimes_write_them() {
        let read = |mappings: Value| read(&json!({ "portMappings": mappings })).unwrap();
        let containerd = json!([
            {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
            {"HostPort": 5353, "ContainerPort": 53, "Protocol": "UDP", "HostIP": "0.0.0.0"},
            {"HostPort": 0, "ContainerPort": 90, "Protocol": "sctp"},
        ]);
        let udp = HostPort { protocol: Protocol::Udp, ..tcp(None, 5353, 53) };
        assert_eq!(read(containerd), [tcp(None, 8080, 80), udp]);
        let crio = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}]);
        assert_eq!(read(crio), [tcp(Some("192.0.2.1"), 8080, 80)]);
        let same =
            json!([{"hostPort": 1, "containerPort": 2}, {"hostPort": 1, "containerPort": 2, "hostIP": "::"}]);
        assert_eq!(read(same), [tcp(None, 1, 2)]);
        for nothing in [json!(null), json!([])] {
            assert_eq!(read(nothing), []);
        }
        assert_eq!(super::read(&Value::Null), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        for (mapping, said) in [
            (
                json!({"hostPort": 5000, "containerPort": 5000, "protocol": "sctp"}),
                "5000/sctp: only TCP and UDP",
            ),
            (
                json!({"hostPort": 70000, "containerPort": 80}),
                "70000 to container port 80: ports are 1 to 65535",
            ),
            (json!({"hostPort": 80, "containerPort": 0}), "80 to container port 0"),
            (json!({"hostPort": 80, "containerPort": 80, "hostIP": "node-1"}), "80 at \"node-1\""),
            (json!({"hostPort": "80"}), "cannot be understood"),
        ] {
            let error = read(&json!({"portMappings": [mapping]})).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let twice = json!([{"hostPort": 1, "containerPort": 2}, {"hostPort": 1, "containerPort": 3, "hostIP": "192.0.2.1"}]);
        let error = read(&json!({ "portMappings": twice })).unwrap_err();
        assert_eq!(error.to_string(), "host port 192.0.2.1:1/tcp is asked for twice");
        let six = [tcp(Some("2001:db8::1"), 80, 80)];
        let error = check_families(&six, |four| four).unwrap_err();
        assert_eq!(
            error.to_string(),
            "host port [2001:db8::1]:80/tcp: the pod has no address of that family"
        );
        assert_eq!(check_families(&six, |_| true), Ok(()));
    }

    #[test]
    fn ports_clash_where_a_packet_could_be_meant_for_either() {
        let all = tcp(None, 80, 8080);
        let (one, two) = (tcp(Some("192.0.2.1"), 80, 1), tcp(Some("192.0.2.2"), 80, 2));
        assert!(all.clashes(&all) && all.clashes(&one) && one.clashes(&all) && one.clashes(&one));
        assert!(!one.clashes(&two));
        assert!(!all.clashes(&tcp(None, 81, 8080)));
        assert!(!all.clashes(&HostPort { protocol: Protocol::Udp, ..all }));
    }

    #[test]
    fn a_port_leads_to_the_pods_address_of_each_family_that_it_is_meant_for() {
        let pod = [ip("10.244.0.7"), ip("fd00::7")];
        let to = |port: HostPort| -> Vec<_> {
            port.forwards(&pod).iter().map(|forward| forward.to.to_string()).collect()
        };
        assert_eq!(to(tcp(None, 80, 8080)), ["10.244.0.7:8080", "[fd00::7]:8080"]);
        assert_eq!(to(tcp(Some("192.0.2.1"), 80, 8080)), ["10.244.0.7:8080"]);
        assert_eq!(to(tcp(Some("2001:db8::1"), 80, 8080)), ["[fd00::7]:8080"]);
    }

    #[test]
    fn sockets_find_a_port_at_every_address_of_the_node_and_loopback_means_the_node_to_its_own_processes_alone()
     {
        const NODE: u64 = 9;
        let node = [ip("172.18.0.1"), ip("192.0.2.1"), ip("2001:db8::1")];
        let found = |port: HostPort| {
            let sockets = sockets(&port.forwards(&[ip("10.244.0.7")]), &node, NODE);
            assert!(sockets.values().all(|to| *to == Backend::new(ip("10.244.0.7").into(), 8080)));
            let key = |key: &Asked| (key.netns, key.frontend.address.ip().to_string());
            let mut keys: Vec<_> = sockets.keys().map(key).collect();
            keys.sort();
            keys
        };
        let at = |netns, ip: &str| (netns, ip.to_owned());
        let everywhere = [at(0, "172.18.0.1"), at(0, "192.0.2.1"), at(NODE, "127.0.0.1")];
        assert_eq!(found(tcp(None, 80, 8080)), everywhere);
        assert_eq!(found(tcp(Some("192.0.2.1"), 80, 8080)), [at(0, "192.0.2.1")]);
        assert_eq!(found(tcp(Some("127.0.0.1"), 80, 8080)), [at(NODE, "127.0.0.1")]);
        assert_eq!(found(tcp(Some("192.0.2.9"), 80, 8080)), [], "no address of the node");
    }
}

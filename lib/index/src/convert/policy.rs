//! Pods, namespaces and `NetworkPolicy` objects to values of policy.

use std::{collections::BTreeMap, fmt, net::IpAddr, ops::RangeInclusive, sync::Arc};

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::{
    api::{
        core::v1 as api,
        networking::v1::{
            IPBlock, NetworkPolicy, NetworkPolicyPeer as ApiPeer, NetworkPolicyPort, NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use netkeel_core::{
    address::parse_ipv4,
    name::ObjectName,
    policy::{LabelSet, Labels, Namespace, Peer, Pod, Policy, Ports, Requirement, Rule, Selector, ports},
    service::protocol,
    shared::Shared,
};

use super::{address, name, number};
use crate::{Invalid, policies};

/// A part of a policy that is not implemented. It allows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The policy.
    pub policy: ObjectName,
    /// The field, as in `spec.ingress[0].ports[1].port`.
    pub field: String,
    /// What it asks for, as in `the named port "web"`.
    pub what: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, field, what } = self;
        write!(f, "NetworkPolicy {policy}: {field}: {what} is not implemented and allows nothing")
    }
}

/// Reads a namespace.
#[must_use]
pub fn namespace(object: &api::Namespace) -> Namespace {
    Namespace {
        name: object.metadata.name.as_deref().unwrap_or_default().into(),
        labels: labels(&object.metadata),
        terminating: object.metadata.deletion_timestamp.is_some(),
    }
}

/// Reads pods: what they have in common, they share.
#[derive(Debug, Default)]
pub struct PodReader {
    names: Shared<str>,
    labels: Shared<LabelSet>,
}

impl PodReader {
    /// Reads a pod.
    ///
    /// # Errors
    /// When an address of its status is none.
    pub fn read(&mut self, object: &api::Pod) -> Result<Pod, Invalid> {
        let metadata = &object.metadata;
        let name = ObjectName {
            namespace: self.names.text(metadata.namespace.as_deref().unwrap_or_default()),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        };
        let labels = metadata.labels.iter().flatten();
        let labels = labels.map(|(key, value)| (self.names.text(key), self.names.text(value))).collect();
        let labels = self.labels.get(&labels, |labels| Arc::new(labels.clone()));
        let node = object.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.filter(|node| !node.is_empty()).map(|node| self.names.text(node));
        with(object, name, labels, node)
    }
}

fn with(object: &api::Pod, name: ObjectName, labels: Labels, node: Option<Arc<str>>) -> Result<Pod, Invalid> {
    let (spec, status) = (object.spec.as_ref(), object.status.as_ref());
    let listed = status.and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let first = status.and_then(|status| status.pod_ip.as_deref());
    let addresses =
        listed.iter().map(|listed| &*listed.ip).chain(first).filter(|address| !address.is_empty());
    let addresses = addresses.map(|text| address(text, "status.podIPs")).collect::<Result<_, _>>();
    Ok(Pod {
        addresses: addresses.map_err(|reason| Invalid { kind: policies::POD, name: name.clone(), reason })?,
        labels,
        node,
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
        finished: status
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")),
        name,
    })
}

/// Reads a policy, and lists what of it is not implemented.
///
/// # Errors
/// When a part of it that the API server always checks is missing or impossible.
pub fn policy(object: &NetworkPolicy) -> Result<(Policy, Vec<Unsupported>), Invalid> {
    let name = name(&object.metadata);
    let mut reader = Reader { policy: name.clone(), unsupported: Vec::new() };
    match reader.policy(object.spec.as_ref().unwrap_or(&NetworkPolicySpec::default())) {
        Ok(policy) => Ok((policy, reader.unsupported)),
        Err(reason) => Err(Invalid { kind: policies::POLICY, name, reason }),
    }
}

/// Labels of an object.
#[must_use]
pub fn labels(metadata: &ObjectMeta) -> Labels {
    Arc::new(metadata.labels.iter().flatten().map(|(key, value)| (&**key, &**value)).collect())
}

struct Reader {
    policy: ObjectName,
    unsupported: Vec<Unsupported>,
}

impl Reader {
    fn policy(&mut self, spec: &NetworkPolicySpec) -> Result<Policy, String> {
        let (ingress, egress) = directions(spec)?;
        let ingress_rules = || spec.ingress.iter().flatten().map(|rule| (&rule.from, &rule.ports));
        let egress_rules = || spec.egress.iter().flatten().map(|rule| (&rule.to, &rule.ports));
        Ok(Policy {
            name: self.policy.clone(),
            pods: selector(spec.pod_selector.as_ref(), "spec.podSelector")?,
            ingress: ingress.then(|| self.rules("spec.ingress", "from", ingress_rules())).transpose()?,
            egress: egress.then(|| self.rules("spec.egress", "to", egress_rules())).transpose()?,
        })
    }

    fn rules<'a>(
        &mut self,
        field: &str,
        peers: &str,
        rules: impl Iterator<Item = (&'a Option<Vec<ApiPeer>>, &'a Option<Vec<NetworkPolicyPort>>)>,
    ) -> Result<Vec<Rule>, String> {
        let read = rules.enumerate().map(|(index, (from, ports))| {
            let field = format!("{field}[{index}]");
            Ok(Rule {
                peers: self.parts(&format!("{field}.{peers}"), from.as_deref(), |_, field, of| {
                    peer(field, of).map(Some)
                })?,
                ports: self.parts(&format!("{field}.ports"), ports.as_deref(), Self::ports)?,
            })
        });
        read.collect()
    }

    /// The API's lists: missing or empty is no restriction. What is left out of a list that has entries leaves a list, be it an empty one.
    fn parts<A, T>(
        &mut self,
        field: &str,
        list: Option<&[A]>,
        read: impl Fn(&mut Self, &str, &A) -> Result<Option<T>, String>,
    ) -> Result<Option<Vec<T>>, String> {
        let Some(list) = list.filter(|list| !list.is_empty()) else { return Ok(None) };
        let mut parts = Vec::new();
        for (index, part) in list.iter().enumerate() {
            parts.extend(read(self, &format!("{field}[{index}]"), part)?);
        }
        Ok(Some(parts))
    }

    fn ports(&mut self, field: &str, port: &NetworkPolicyPort) -> Result<Option<Ports>, String> {
        let range = range(field, port)?;
        let Some(protocol) = protocol(port.protocol.as_deref()) else {
            let name = port.protocol.as_deref().unwrap_or_default();
            if name != "SCTP" {
                return Err(format!("{field}.protocol {name:?} is none of TCP, UDP and SCTP"));
            }
            self.leave_out(&format!("{field}.protocol"), "SCTP".to_owned());
            return Ok(None);
        };
        match range {
            Ok(range) => Ok(Some(Ports { protocol, range })),
            Err(named) => {
                self.leave_out(&format!("{field}.port"), format!("the named port {named:?}"));
                Ok(None)
            }
        }
    }

    fn leave_out(&mut self, field: &str, what: String) {
        self.unsupported.push(Unsupported { policy: self.policy.clone(), field: field.to_owned(), what });
    }
}

/// Whether a policy isolates ingress and egress: what it says, else ingress, and egress when it has rules for it.
fn directions(spec: &NetworkPolicySpec) -> Result<(bool, bool), String> {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return Ok((true, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())));
    }
    if let Some(other) = types.iter().find(|name| !matches!(&***name, "Ingress" | "Egress")) {
        return Err(format!("spec.policyTypes {other:?} is neither Ingress nor Egress"));
    }
    let has = |name: &str| types.iter().any(|listed| listed == name);
    Ok((has("Ingress"), has("Egress")))
}

/// The numbers of a port entry, or its name.
fn range(field: &str, port: &NetworkPolicyPort) -> Result<Result<RangeInclusive<u16>, String>, String> {
    let at = |reason: String| format!("{field}: {reason}");
    match (&port.port, port.end_port) {
        (None, None) => Ok(Ok(ports::ALL)),
        (Some(IntOrString::String(name)), None) => Ok(Err(name.clone())),
        (None | Some(IntOrString::String(_)), Some(_)) => Err(at("endPort without a port number".into())),
        (Some(IntOrString::Int(first)), last) => {
            let (first, last) = (number(*first).map_err(at)?, number(last.unwrap_or(*first)).map_err(at)?);
            if last < first {
                Err(at(format!("endPort {last} is below port {first}")))
            } else {
                Ok(Ok(first..=last))
            }
        }
    }
}

fn peer(field: &str, peer: &ApiPeer) -> Result<Peer, String> {
    match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
        (Some(of), None, None) => block(&format!("{field}.ipBlock"), of),
        (Some(_), _, _) => Err(format!("{field} has an ipBlock and a selector")),
        (None, None, None) => Err(format!("{field} has no peer")),
        (None, namespaces, pods) => {
            let select = |of| selector(Some(of), &format!("{field}.namespaceSelector"));
            Ok(Peer::Pods {
                namespaces: namespaces.as_ref().map(select).transpose()?,
                pods: selector(pods.as_ref(), &format!("{field}.podSelector"))?,
            })
        }
    }
}

fn block(field: &str, block: &IPBlock) -> Result<Peer, String> {
    let whole = cidr(&block.cidr, &format!("{field}.cidr"))?;
    let except = block.except.iter().flatten().enumerate().map(|(index, text)| {
        let field = format!("{field}.except[{index}]");
        let except = cidr(text, &field)?;
        let same_family = except.network().is_ipv4() == whole.network().is_ipv4();
        same_family.then_some(except).ok_or_else(|| format!("{field} {text:?} is not inside {whole}"))
    });
    Ok(Peer::Block { cidr: whole, except: except.collect::<Result<_, _>>()? })
}

/// Bits in front of an IPv4 address in its v4-mapped form.
const MAPPED: u8 = 96;

/// Reads a CIDR, host bits cleared as the API's reference implementations do. One of v4-mapped addresses is one of IPv4.
fn cidr(text: &str, field: &str) -> Result<IpNet, String> {
    let wrong = || format!("{field} {text:?} is not a CIDR");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let length: u8 = length.parse().map_err(|_| wrong())?;
    let net = match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped().zip(length.checked_sub(MAPPED)) {
            Some((mapped, length)) => Ipv4Net::new(mapped, length).map(IpNet::V4),
            None => IpNet::new(address.into(), length),
        },
        // Old objects may have leading zeros.
        _ => Ipv4Net::new(parse_ipv4(address).ok_or_else(wrong)?, length).map(IpNet::V4),
    };
    net.map(|net| net.trunc()).map_err(|_| wrong())
}

/// Reads a label selector; a missing one selects everything, as an empty one does.
pub(crate) fn selector(selector: Option<&LabelSelector>, field: &str) -> Result<Selector, String> {
    let Some(selector) = selector else { return Ok(Selector::default()) };
    let labels: BTreeMap<_, _> = selector.match_labels.clone().unwrap_or_default();
    let equal = labels.into_iter().map(|(key, value)| Ok(Requirement::In(key, [value].into())));
    let listed = selector.match_expressions.iter().flatten().enumerate();
    let expressions = listed.map(|(index, of)| {
        requirement(of).map_err(|reason| format!("{field}.matchExpressions[{index}] {reason}"))
    });
    equal.chain(expressions).collect::<Result<_, _>>().map(Selector)
}

fn requirement(expression: &LabelSelectorRequirement) -> Result<Requirement, String> {
    let key = expression.key.clone();
    let values: std::collections::BTreeSet<_> = expression.values.iter().flatten().cloned().collect();
    match (&*expression.operator, values.is_empty()) {
        ("In", false) => Ok(Requirement::In(key, values)),
        ("NotIn", false) => Ok(Requirement::NotIn(key, values)),
        ("Exists", true) => Ok(Requirement::Exists(key)),
        ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(format!("has no values for {}", expression.operator)),
        ("Exists" | "DoesNotExist", false) => Err(format!("has values for {}", expression.operator)),
        (other, _) => {
            Err(format!("has the operator {other:?}, which is none of In, NotIn, Exists, DoesNotExist"))
        }
    }
}

#[cfg(test)]
mod tests;

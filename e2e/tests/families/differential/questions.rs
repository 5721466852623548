//! Questions about a made-up cluster: names that are in it, nearly in it, or nowhere, for every type of record.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::Value;

use super::objects::{NAMESPACES, Random};

/// The zone of both servers.
pub(crate) const DOMAIN: &str = "cluster.local.";

/// What the questions are about.
pub(crate) struct Known {
    /// `name.namespace` with its ports and the labels of its endpoints.
    services: Vec<(String, Vec<String>)>,
    /// Of Services and of endpoints.
    pub(crate) addresses: Vec<IpAddr>,
    /// `name.namespace` of those that are aliases.
    pub(crate) aliases: BTreeSet<String>,
    /// Addresses of endpoints in slices of Services that do not exist.
    pub(crate) orphans: BTreeSet<IpAddr>,
}

impl Known {
    /// From Services and slices as the API server has them.
    pub(crate) fn read(services: &Value, slices: &Value) -> Result<Self> {
        let items = |list: &Value| list["items"].as_array().cloned().context("a list");
        let (services, slices) = (items(services)?, items(slices)?);
        let mut known =
            Self { services: vec![], addresses: vec![], aliases: BTreeSet::new(), orphans: BTreeSet::new() };
        for service in &services {
            let dotted = dotted(&service["metadata"]["name"], service);
            if service["spec"]["type"] == "ExternalName" {
                known.aliases.insert(dotted.clone());
            }
            known.addresses.extend(addresses(&service["spec"]["clusterIPs"]));
            known.services.push((dotted, vec![]));
        }
        for slice in &slices {
            let dotted = dotted(&slice["metadata"]["labels"]["kubernetes.io/service-name"], slice);
            let service = known.services.iter_mut().find(|(known, _)| *known == dotted);
            let labels = service.map(|(_, labels)| labels);
            let is_orphan = labels.is_none();
            let mut found = vec![];
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                let all = addresses(&endpoint["addresses"]);
                found.extend(endpoint["hostname"].as_str().map(str::to_owned));
                found.extend(all.iter().map(|address| address.to_string().replace(['.', ':'], "-")));
                if is_orphan {
                    known.orphans.extend(&all);
                }
                known.addresses.extend(all);
            }
            if let Some(labels) = labels {
                labels.extend(found);
            }
        }
        Ok(known)
    }
}

fn dotted(name: &Value, object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{}.{}", text(name), text(&object["metadata"]["namespace"]))
}

fn addresses(list: &Value) -> Vec<IpAddr> {
    let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The size of reply that a question says to take, in bytes, and whether it wants DNSSEC; nothing without EDNS.
pub(crate) type Size = Option<(u16, bool)>;

/// One packet to both servers.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) rtype: RecordType,
    pub(crate) edns: Size,
    pub(crate) tcp: bool,
}

impl Question {
    pub(crate) fn packet(&self, id: u16) -> Result<Vec<u8>> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        let name = Name::from_ascii(&self.name).with_context(|| self.name.clone())?;
        message.add_query(Query::query(name, self.rtype));
        if let Some((size, dnssec)) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec);
            message.set_edns(edns);
        }
        Ok(message.to_vec()?)
    }
}

const TYPES: [RecordType; 16] = [
    RecordType::A,
    RecordType::A,
    RecordType::A,
    RecordType::AAAA,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::TXT,
    RecordType::SOA,
    RecordType::NS,
    RecordType::CNAME,
    RecordType::MX,
    RecordType::HTTPS,
    RecordType::ANY,
    RecordType::CAA,
];
const EDNS: [Size; 6] =
    [None, None, Some((512, false)), Some((1232, false)), Some((1232, true)), Some((4096, false))];
/// Names of the zone that stand for no object, and names outside.
const NODES: [&str; 24] = [
    "cluster.local.",
    "svc.cluster.local.",
    "pod.cluster.local.",
    "dns.cluster.local.",
    "ns.dns.cluster.local.",
    "dns-version.cluster.local.",
    "diff-one.svc.cluster.local.",
    "diff-quiet.svc.cluster.local.",
    "diff-quiet.pod.cluster.local.",
    "nowhere.svc.cluster.local.",
    "nowhere.pod.cluster.local.",
    "foo.cluster.local.",
    "outside.test.cluster.local.",
    "outside.test.svc.cluster.local.",
    "outside.test.diff-one.svc.cluster.local.",
    "x.y.z.svc.svc.cluster.local.",
    "outside.test.",
    "alias.outside.test.",
    "large.outside.test.",
    "missing.test.",
    "test.",
    "local.",
    "kubernetes.default.svc.",
    "xcluster.local.",
];
const REVERSE: [&str; 10] = [
    "99.99.96.10.in-addr.arpa.",
    "96.10.in-addr.arpa.",
    "0.96.10.in-addr.arpa.",
    "256.0.96.10.in-addr.arpa.",
    "x.1.0.96.10.in-addr.arpa.",
    "4.4.8.8.in-addr.arpa.",
    "8.in-addr.arpa.",
    "in-addr.arpa.",
    "0.1.0.0.0.0.d.f.ip6.arpa.",
    "9.9.9.9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.",
];
const PODS: [&str; 10] = [
    "10-1-2-3",
    "fd00--1",
    "1-2-3-4-5-6-7-8",
    "0--ffff-a00-1",
    "10-1-2-256",
    "10-01-2-3",
    "web",
    "x.10-1-2-3",
    "x.y.10-1-2-3",
    "x.y.z.10-1-2-3",
];
const PORTS: [&str; 12] = [
    "_http._tcp",
    "_https._tcp",
    "_dns._udp",
    "_dns-tcp._tcp",
    "_m3ua._sctp",
    "_metrics._tcp",
    "_http._udp",
    "_bogus._tcp",
    "http.tcp",
    "http._tcp",
    "_._tcp",
    "_http._",
];

/// Asked whatever the random numbers are: they are rare.
const ALWAYS: [(&str, RecordType, Size); 3] = [
    ("Cluster.LOCAL.", RecordType::NS, None),
    ("many.diff-one.svc.cluster.local.", RecordType::A, Some((4096, false))),
    ("many.diff-one.svc.cluster.local.", RecordType::SRV, None),
];

/// So many questions and some more, the same for the same random numbers.
pub(crate) fn questions(random: &mut Random, known: &Known, count: usize) -> Vec<Question> {
    let always = ALWAYS.map(|(name, rtype, edns)| Question { name: name.into(), rtype, edns, tcp: false });
    let edns_of = |tcp: bool, random: &mut Random| if tcp { None } else { *random.of(&EDNS) };
    let any = (0..count).map(|_| {
        let (name, tcp) = (name(random, known), random.once_in(6));
        let is_reverse = name.ends_with("arpa.");
        let rtype = if is_reverse && !random.once_in(4) { RecordType::PTR } else { *random.of(&TYPES) };
        Question { name: spelt(random, &name), rtype, edns: edns_of(tcp, random), tcp }
    });
    always.into_iter().chain(any).collect()
}

fn name(random: &mut Random, known: &Known) -> String {
    let (service, labels) = random.of(&known.services).clone();
    let namespace = *random.of(&NAMESPACES);
    match random.below(19) {
        0..=4 => format!("{service}.svc.{DOMAIN}"),
        5 | 6 if !labels.is_empty() => format!("{}.{service}.svc.{DOMAIN}", random.of(&labels)),
        5..=8 => format!("{}.{service}.svc.{DOMAIN}", random.of(&PORTS)),
        9 => {
            let odd = [
                "_tcp", "_udp", "_bogus", "bogus", "_", "pod-0-0", "a.b", "a.b.c", "_x._y._z", "10-9-9-9",
                "*",
            ];
            format!("{}.{service}.svc.{DOMAIN}", random.of(&odd))
        }
        10 => format!("{}.{namespace}.pod.{DOMAIN}", random.of(&PODS)),
        11 | 12 => Name::from(*random.of(&known.addresses)).to_ascii(),
        13 => (*random.of(&REVERSE)).to_owned(),
        14..=16 => (*random.of(&NODES)).to_owned(),
        17 => format!("many.diff-one.svc.{DOMAIN}"),
        _ => format!("missing.{namespace}.svc.{DOMAIN}"),
    }
}

/// Sometimes with capital letters here and there.
fn spelt(random: &mut Random, name: &str) -> String {
    if !random.once_in(3) {
        return name.to_owned();
    }
    name.chars().map(|letter| if random.once_in(2) { letter.to_ascii_uppercase() } else { letter }).collect()
}

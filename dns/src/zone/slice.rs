//! The ready endpoints of one EndpointSlice, in a tenth of the room that its object takes: names side by side in one text, and dashed
//! labels not at all, since they are made of the address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Port;
use crate::name::{dashed, undashed_label};

/// Longest label of a name, in bytes (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// The ready endpoints of one EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Host name, where the pod has one, and addresses of each ready endpoint.
    pub endpoints: Vec<(Option<String>, Vec<IpAddr>)>,
    /// Ports of all of them.
    pub ports: Vec<Port>,
}

/// What an endpoint may be called beside its address.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// Its host name.
    Host(String),
    /// The name of its pod, which counts where `spec.dns.endpointPodNames` says so.
    Pod(String),
}

/// The same as [`Slice`], and what the pods are called: small, and in order.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(from = "Plain", into = "Plain")]
pub struct PackedSlice {
    /// By address, then by name.
    members: Box<[Member]>,
    /// Places in `members` of those that have a name, by name.
    named: Box<[u32]>,
    /// All names, without anything between them.
    names: Box<str>,
    ports: Box<[Port]>,
}

/// One address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    address: IpAddr,
    is_pod: bool,
    /// Length of the name, in bytes; 0 where there is none.
    length: u8,
    /// Where it begins in `names`, in bytes.
    start: u32,
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Plain {
    members: Vec<(IpAddr, Option<Label>)>,
    ports: Vec<Port>,
}

impl PackedSlice {
    /// Packs endpoints, an address each, and the ports of all of them. A name that is no label counts as none.
    #[must_use]
    pub fn new(members: impl IntoIterator<Item = (IpAddr, Option<Label>)>, mut ports: Vec<Port>) -> Self {
        let lower = |(address, label): (IpAddr, Option<Label>)| {
            let (is_pod, name) = match label {
                Some(Label::Host(name)) => (false, name.to_ascii_lowercase()),
                Some(Label::Pod(name)) => (true, name.to_ascii_lowercase()),
                None => (false, String::new()),
            };
            if is_label(&name) { (address, name, is_pod) } else { (address, String::new(), false) }
        };
        let mut all: Vec<(IpAddr, String, bool)> = members.into_iter().map(lower).collect();
        all.sort_unstable();
        all.dedup();
        let (mut names, mut packed) = (String::new(), Vec::with_capacity(all.len()));
        for (address, name, is_pod) in all {
            let start = u32::try_from(names.len()).unwrap_or_default();
            let length = u8::try_from(name.len()).unwrap_or_default();
            names.push_str(&name);
            packed.push(Member { address, is_pod, length, start });
        }
        ports.sort_unstable();
        ports.dedup();
        let mut slice =
            Self { members: packed.into(), named: Box::default(), names: names.into(), ports: ports.into() };
        let has_name = |(place, member): (u32, &Member)| (member.length > 0).then_some(place);
        let mut order: Vec<u32> = (0..).zip(&slice.members).filter_map(has_name).collect();
        order.sort_by(|a, b| slice.name_at(*a).cmp(slice.name_at(*b)));
        slice.named = order.into();
        slice
    }

    /// Whether no endpoint is ready.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many endpoints are ready, each address counted.
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Addresses in order; one may come twice.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.members.iter().map(|member| member.address)
    }

    /// Every address with its label.
    pub(crate) fn labelled(&self, pod_names: bool) -> impl Iterator<Item = (String, IpAddr)> {
        self.members.iter().map(move |member| (self.label(member, pod_names), member.address))
    }

    /// The labels of an address.
    pub(crate) fn labels(&self, address: IpAddr, pod_names: bool) -> impl Iterator<Item = String> {
        self.at(address).map(move |member| self.label(member, pod_names))
    }

    /// The addresses of a label, which is lower case.
    pub(crate) fn find(&self, label: &str, pod_names: bool) -> impl Iterator<Item = IpAddr> {
        let start = self.named.partition_point(|place| self.name_at(*place) < label);
        let named = self.named[start..].iter().take_while(move |place| self.name_at(**place) == label);
        let named = named
            .filter_map(|place| self.member(*place))
            .filter(move |member| Self::is_named(member, pod_names));
        let dashed = undashed_label(label).into_iter().flat_map(|address| self.at(address));
        named
            .chain(dashed.filter(move |member| !Self::is_named(member, pod_names)))
            .map(|member| member.address)
    }

    fn at(&self, address: IpAddr) -> impl Iterator<Item = &Member> {
        let start = self.members.partition_point(|member| member.address < address);
        self.members[start..].iter().take_while(move |member| member.address == address)
    }

    fn is_named(member: &Member, pod_names: bool) -> bool {
        member.length > 0 && (pod_names || !member.is_pod)
    }

    fn label(&self, member: &Member, pod_names: bool) -> String {
        if Self::is_named(member, pod_names) { self.name(member).to_owned() } else { dashed(member.address) }
    }

    fn member(&self, place: u32) -> Option<&Member> {
        self.members.get(usize::try_from(place).ok()?)
    }

    fn name_at(&self, place: u32) -> &str {
        self.member(place).map_or("", |member| self.name(member))
    }

    fn name(&self, member: &Member) -> &str {
        let start = usize::try_from(member.start).unwrap_or_default();
        self.names.get(start..start + usize::from(member.length)).unwrap_or_default()
    }
}

/// Whether a name can be found below a Service: with a dot in it, it would be two labels.
fn is_label(name: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&name.len()) && !name.contains('.')
}

impl From<Slice> for PackedSlice {
    fn from(slice: Slice) -> Self {
        let members = slice.endpoints.into_iter().flat_map(|(host, addresses)| {
            let label = host.map(Label::Host);
            addresses.into_iter().map(move |address| (address, label.clone()))
        });
        Self::new(members, slice.ports)
    }
}

impl From<Plain> for PackedSlice {
    fn from(Plain { members, ports }: Plain) -> Self {
        Self::new(members, ports)
    }
}

impl From<PackedSlice> for Plain {
    fn from(slice: PackedSlice) -> Self {
        let label = |member: &Member| match (slice.name(member), member.is_pod) {
            ("", _) => None,
            (name, false) => Some(Label::Host(name.to_owned())),
            (name, true) => Some(Label::Pod(name.to_owned())),
        };
        let members = slice.members.iter().map(|member| (member.address, label(member))).collect();
        Self { members, ports: slice.ports.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zone::Protocol;

    fn member() -> impl Strategy<Value = (IpAddr, Option<Label>)> {
        let address = prop_oneof![
            (0..4_u8).prop_map(|last| IpAddr::from([10, 0, 0, last])),
            (0..3_u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])),
            (0..3_u16).prop_map(|last| IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, last])),
        ];
        let name = prop_oneof![
            "[abAB]{1,2}",
            (0..4_u8).prop_map(|last| format!("10-0-0-{last}")),
            Just("fd00--0".to_owned()),
            Just("a.b".to_owned()),
            Just("x".repeat(64)),
        ];
        let label = prop_oneof![name.clone().prop_map(Label::Host), name.prop_map(Label::Pod)];
        (address, proptest::option::of(label))
    }

    /// What a member is called, the plain way.
    fn called((address, label): &(IpAddr, Option<Label>), pod_names: bool) -> String {
        let name = match label {
            Some(Label::Host(name)) => Some(name),
            Some(Label::Pod(name)) if pod_names => Some(name),
            _ => None,
        };
        let name = name.filter(|name| name.len() <= 63 && !name.contains('.'));
        name.map_or_else(|| dashed(*address), |name| name.to_ascii_lowercase())
    }

    proptest! {
        #[test]
        fn every_label_leads_to_its_addresses_and_back(members in proptest::collection::vec(member(), 0..12), pod_names: bool) {
            let slice = PackedSlice::new(members.clone(), vec![]);
            prop_assert_eq!(slice.is_empty(), members.is_empty());
            let labels: Vec<String> = members.iter().map(|member| called(member, pod_names)).collect();
            for label in labels.iter().map(String::as_str).chain(["a", "b", "10-0-0-1", "fd00--0", "0--ffff-10-0-0-1", "-", ""]) {
                let mut found: Vec<IpAddr> = slice.find(label, pod_names).collect();
                let mut expected: Vec<IpAddr> =
                    members.iter().zip(&labels).filter(|(_, other)| *other == label).map(|(member, _)| member.0).collect();
                for all in [&mut found, &mut expected] {
                    all.sort_unstable();
                    all.dedup();
                }
                prop_assert_eq!(found, expected, "{}", label);
            }
            for (address, _) in &members {
                let mut found: Vec<String> = slice.labels(*address, pod_names).collect();
                let mut expected: Vec<String> =
                    members.iter().zip(&labels).filter(|(member, _)| member.0 == *address).map(|(_, label)| label.clone()).collect();
                for all in [&mut found, &mut expected] {
                    all.sort_unstable();
                    all.dedup();
                }
                prop_assert_eq!(found, expected, "{}", address);
            }
            let text = serde_json::to_string(&slice).unwrap();
            prop_assert_eq!(serde_json::from_str::<PackedSlice>(&text).unwrap(), slice);
        }
    }

    #[test]
    fn an_endpoint_takes_a_few_ten_bytes_and_the_order_of_what_is_said_no_matter() {
        assert!(size_of::<Member>() <= 24);
        let port = |name: &str| Port { name: name.to_owned(), protocol: Protocol::Tcp, number: 80 };
        let [first, second] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let slice = |addresses: Vec<IpAddr>, ports: [&str; 3]| {
            PackedSlice::from(Slice { endpoints: vec![(None, addresses)], ports: ports.map(port).into() })
        };
        assert_eq!(
            slice(vec![first, second], ["a", "b", "b"]),
            slice(vec![second, first, second], ["b", "a", "a"])
        );
    }
}

//! Whether two replies to one question say the same, section by section; and the differences that are meant, each with its name. Every one of
//! them is explained in docs/dns.md.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::questions::{Known, Question};

/// What of a reply is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    edns: bool,
    answers: BTreeSet<String>,
    authority: BTreeSet<String>,
    additional: BTreeSet<String>,
}

impl Reply {
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let message = Message::from_vec(bytes).context("a reply")?;
        let texts = |records: &[Record]| records.iter().map(text).collect();
        Ok(Self {
            code: message.metadata.response_code,
            authoritative: message.metadata.authoritative,
            truncated: message.metadata.truncation,
            edns: message.edns.is_some(),
            answers: texts(&message.answers),
            authority: texts(&message.authorities),
            additional: texts(&message.additionals),
        })
    }

    /// No answer and a SOA record, which says for how long.
    fn is_empty(&self, code: ResponseCode) -> bool {
        self.code == code && self.answers.is_empty() && self.authority.len() == 1 && self.authoritative
    }

    fn no_data(&self) -> bool {
        self.is_empty(ResponseCode::NoError)
    }

    fn nx_domain(&self) -> bool {
        self.is_empty(ResponseCode::NXDomain)
    }
}

/// The serial number of a SOA record is each server's own.
fn text(record: &Record) -> String {
    let mut data = record.data.clone();
    if let RData::SOA(soa) = &mut data {
        soa.serial = 0;
    }
    format!("{} {} {} {data}", record.name, record.ttl, record.record_type())
}

/// One question and what both said.
pub(crate) struct Case<'a> {
    pub(crate) question: &'a Question,
    pub(crate) ours: Reply,
    pub(crate) theirs: Reply,
    /// Of their reply, in bytes.
    pub(crate) length: usize,
    pub(crate) known: &'a Known,
}

impl Case<'_> {
    /// The lower-case labels below the cluster's domain; `None` for other names.
    fn labels(&self) -> Option<Vec<String>> {
        let name = self.question.name.to_ascii_lowercase();
        let below = name.strip_suffix("cluster.local.")?;
        let below = below.strip_suffix('.').or(Some(below).filter(|below| below.is_empty()))?;
        Some(below.split('.').filter(|label| !label.is_empty()).map(str::to_owned).collect())
    }

    fn is(&self, rtypes: &[RecordType]) -> bool {
        rtypes.contains(&self.question.rtype)
    }

    /// Whether the labels below the domain are such.
    fn at(&self, matches: impl Fn(&[&str]) -> bool) -> bool {
        let labels = self.labels();
        labels.is_some_and(|labels| matches(&labels.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn is_alias(&self) -> bool {
        self.at(|labels| {
            matches!(labels, [name, namespace, "svc"] if self.known.aliases.contains(&format!("{name}.{namespace}")))
        })
    }

    /// Ours has the alias, whatever comes after it.
    fn ours_begins_with_alias(&self) -> bool {
        let owner = format!("{} ", self.question.name);
        self.ours.answers.iter().any(|record| record.starts_with(&owner) && record.contains(" CNAME "))
    }

    /// The address, or the beginning of one, that a reverse name is about.
    fn is_reverse(&self) -> bool {
        self.question.name.to_ascii_lowercase().ends_with(".arpa.")
    }

    /// Whether their reply fills more than half of the datagram that Netkeel would send.
    fn is_near_the_limit(&self) -> bool {
        let limit = self.question.edns.map_or(512, |(size, _)| usize::from(size.min(1232)));
        !self.question.tcp && 2 * self.length > limit
    }

    fn address(&self) -> Option<IpAddr> {
        let name = Name::from_ascii(&self.question.name).ok()?;
        let network = name.parse_arpa_name().ok()?;
        (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
    }
}

/// A difference that is meant.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    allows: fn(&Case<'_>) -> bool,
}

/// Ends of the reverse names of Services.
const OWN_RANGES: [&str; 2] = ["96.10.in-addr.arpa.", "6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa."];

/// All of them, under the names that docs/dns.md explains them by.
pub(crate) const RULES: [Rule; 17] = [
    Rule { name: "names-between", allows: names_between },
    Rule { name: "txt-of-nothing", allows: txt_of_nothing },
    Rule { name: "soa-of-nothing", allows: soa_of_nothing },
    Rule { name: "apex-in-capitals", allows: apex_in_capitals },
    Rule { name: "alias-of-every-type", allows: alias_of_every_type },
    Rule { name: "alias-to-nothing", allows: alias_to_nothing },
    Rule { name: "alias-in-a-ring", allows: alias_in_a_ring },
    Rule { name: "reverse-names-stay", allows: reverse_names_stay },
    Rule { name: "reverse-names-of-no-service", allows: reverse_names_of_no_service },
    Rule { name: "reverse-authority", allows: reverse_authority },
    Rule { name: "pods-have-no-ports", allows: pods_have_no_ports },
    Rule { name: "no-wildcard-ports", allows: no_wildcard_ports },
    Rule { name: "own-name-server", allows: own_name_server },
    Rule { name: "datagrams-of-1232-bytes", allows: datagrams_of_1232_bytes },
    Rule { name: "additional-all-or-none", allows: additional_all_or_none },
    Rule { name: "answers-cut-elsewhere", allows: answers_cut_elsewhere },
    Rule { name: "answers-that-are-kept", allows: answers_that_are_kept },
];

/// The names of the rules that allow this difference; none for a difference that is not meant.
pub(crate) fn allowed_by(case: &Case<'_>) -> Option<&'static str> {
    RULES.iter().find(|rule| (rule.allows)(case)).map(|rule| rule.name)
}

/// A name below which there are others exists (RFC 8020): `_tcp.SERVICE…`, `dns.DOMAIN`; and so does the version's name for every type.
fn names_between(case: &Case<'_>) -> bool {
    let between = |labels: &[&str]| {
        matches!(labels, ["dns" | "dns-version"])
            || matches!(labels, ["_tcp" | "_udp" | "_sctp", service, namespace, "svc"]
                if !case.known.aliases.contains(&format!("{service}.{namespace}")))
    };
    case.at(between) && case.theirs.nx_domain() && case.ours.no_data()
}

/// CoreDNS says for TXT alone that names without records of their own do not exist.
fn txt_of_nothing(case: &Case<'_>) -> bool {
    let node = |labels: &[&str]| matches!(labels, [] | ["svc" | "pod"] | ["ns", "dns"] | [_, "svc" | "pod"]);
    case.is(&[RecordType::TXT]) && case.at(node) && case.theirs.nx_domain() && case.ours.no_data()
}

/// CoreDNS does not look for the name when it is asked for a SOA record.
fn soa_of_nothing(case: &Case<'_>) -> bool {
    case.is(&[RecordType::SOA]) && case.labels().is_some() && case.theirs.no_data() && case.ours.nx_domain()
}

/// CoreDNS compares the apex with the name as it was spelt.
fn apex_in_capitals(case: &Case<'_>) -> bool {
    let capitals = case.question.name != case.question.name.to_ascii_lowercase();
    case.is(&[RecordType::NS])
        && case.at(|labels| labels.is_empty())
        && capitals
        && case.theirs.no_data()
        && case.ours.answers.len() == 1
}

/// An alias stands for its name whatever type is asked for (RFC 1034 section 3.6.2).
fn alias_of_every_type(case: &Case<'_>) -> bool {
    let addresses = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
    let absent = case.theirs.no_data();
    case.is_alias() && !case.is(&addresses) && absent && case.ours_begins_with_alias()
}

/// The alias is told with what is known of its target: that it does not exist, or has no such record (RFC 6604, RFC 2308 section 2).
fn alias_to_nothing(case: &Case<'_>) -> bool {
    let told = |reply: &Reply| reply.answers.iter().filter(|record| !record.contains(" CNAME ")).count();
    case.is_alias()
        && case.is(&[RecordType::A, RecordType::AAAA])
        && told(&case.ours) == 0
        && told(&case.theirs) == 0
        && case.theirs.code == ResponseCode::NoError
        && matches!(case.ours.code, ResponseCode::NoError | ResponseCode::NXDomain)
        && case.ours_begins_with_alias()
}

/// No answer can be given to a ring of aliases; to say that there is no address would be one.
fn alias_in_a_ring(case: &Case<'_>) -> bool {
    let ring = |labels: &[&str]| matches!(labels, [name, ..] if name.starts_with("loop-"));
    case.is_alias() && case.at(ring) && case.ours.code == ResponseCode::ServFail && case.theirs.no_data()
}

/// CoreDNS asks upstream resolvers about addresses of the cluster that it has no name for, and for types other than PTR.
fn reverse_names_stay(case: &Case<'_>) -> bool {
    let name = case.question.name.to_ascii_lowercase();
    let own = OWN_RANGES.iter().any(|range| name.ends_with(range))
        || case.address().is_some_and(|address| case.known.addresses.contains(&address));
    own && (case.ours.no_data() || case.ours.nx_domain()) && !case.theirs.authoritative
}

/// CoreDNS points to names that it says do not exist.
fn reverse_names_of_no_service(case: &Case<'_>) -> bool {
    let ghosts = case.theirs.answers.iter().filter(|record| record.contains(".nobody.")).count();
    let others = |record: &&String| !record.contains(".nobody.");
    let orphan = case.address().is_some_and(|address| case.known.orphans.contains(&address));
    orphan
        && ghosts > 0
        && (case.theirs.answers.iter().filter(others).eq(case.ours.answers.iter())
            || !case.ours.authoritative)
}

/// CoreDNS takes itself for the authority of all of `in-addr.arpa` and `ip6.arpa`, under a name there that does not exist.
fn reverse_authority(case: &Case<'_>) -> bool {
    let name = case.question.name.to_ascii_lowercase();
    let apex = ["in-addr.arpa.", "ip6.arpa."].contains(&name.as_str());
    case.is_reverse()
        && (apex && case.theirs.authoritative
            || case.theirs.no_data() && (case.is(&[RecordType::SOA]) || case.ours.no_data()))
}

/// CoreDNS makes an SRV record with port 0 of the address in a pod's name.
fn pods_have_no_ports(case: &Case<'_>) -> bool {
    case.is(&[RecordType::SRV]) && case.at(|labels| labels.last() == Some(&"pod")) && case.ours.no_data()
}

/// To CoreDNS a lone underscore is every port or every protocol.
fn no_wildcard_ports(case: &Case<'_>) -> bool {
    let lone =
        |labels: &[&str]| matches!(labels, [port, protocol, _, _, "svc"] if [port, protocol].contains(&&"_"));
    case.at(lone) && case.ours.nx_domain()
}

/// CoreDNS gives the addresses of its own host where it is no endpoint of a Service; Netkeel those of the Service `kube-dns`.
/// For types other than addresses it says that its own name does not exist.
fn own_name_server(case: &Case<'_>) -> bool {
    let apex = case.at(|labels| labels.is_empty()) && case.is(&[RecordType::NS]);
    (apex || case.at(|labels| labels == ["ns", "dns"]))
        && case.theirs.authoritative
        && case.ours.authoritative
        && case.ours.code == ResponseCode::NoError
}

/// CoreDNS sends datagrams as large as the client says.
fn datagrams_of_1232_bytes(case: &Case<'_>) -> bool {
    let larger = case.question.edns.is_some_and(|(size, _)| size > 1232);
    larger && case.ours.truncated && case.ours.answers.len() < case.theirs.answers.len()
}

/// CoreDNS adds as many additional records as fit, and says that the reply is cut where one does not; Netkeel all or none, which cuts no answer
/// (RFC 2181 section 9).
fn additional_all_or_none(case: &Case<'_>) -> bool {
    let (ours, theirs) = (&case.ours, &case.theirs);
    let equal =
        (ours.code, &ours.answers, &ours.authority) == (theirs.code, &theirs.answers, &theirs.authority);
    equal && !ours.truncated && ours.additional.is_empty() && case.is_near_the_limit()
}

/// How many records fit depends on how names are shortened.
fn answers_cut_elsewhere(case: &Case<'_>) -> bool {
    let (ours, theirs) = (&case.ours, &case.theirs);
    (ours.truncated || theirs.truncated)
        && ours.code == theirs.code
        && ours.answers.len().abs_diff(theirs.answers.len()) <= theirs.answers.len() / 4
        && case.is_near_the_limit()
}

/// Netkeel asks resolvers in lower case and keeps what they say, which grows old; here CoreDNS has no cache.
fn answers_that_are_kept(case: &Case<'_>) -> bool {
    let (ours, theirs) = (&case.ours, &case.theirs);
    let without_age = |records: &BTreeSet<String>| -> BTreeSet<String> {
        let record = |text: &String| {
            let lower = text.to_ascii_lowercase();
            if lower.contains("cluster.local. ") {
                return text.clone(); // not a resolver's
            }
            let text = lower;
            let mut fields = text.splitn(3, ' ');
            [fields.next(), fields.nth(1)].into_iter().flatten().collect::<Vec<_>>().join(" ")
        };
        records.iter().map(record).collect()
    };
    let is_outside = |text: &String| text.to_ascii_lowercase().contains("test. ");
    ours.answers.iter().chain(&ours.authority).any(is_outside)
        && (ours.code, ours.authoritative, ours.truncated, ours.edns)
            == (theirs.code, theirs.authoritative, theirs.truncated, theirs.edns)
        && [
            (&ours.answers, &theirs.answers),
            (&ours.authority, &theirs.authority),
            (&ours.additional, &theirs.additional),
        ]
        .iter()
        .all(|(ours, theirs)| without_age(ours) == without_age(theirs))
}

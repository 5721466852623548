//! Who may ask what.

use std::net::IpAddr;

use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use netkeel_crds::cluster_network::dns::{AclAction, AclRule};

use super::{of_addresses, overlap, record_type, text::lies_in};

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// REFUSED.
    Block,
    /// An answer without records.
    Filter,
    /// No answer.
    Drop,
}

/// Rules in their order.
#[derive(Debug)]
pub(super) struct Acl(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    verdict: Verdict,
    networks: Vec<IpNet>,
    zones: Vec<String>,
    types: Vec<RecordType>,
}

impl Acl {
    pub(super) fn new(rules: &[AclRule]) -> Self {
        let rule = |rule: &AclRule| Rule {
            verdict: match rule.action {
                AclAction::Allow => Verdict::Allow,
                AclAction::Block => Verdict::Block,
                AclAction::Filter => Verdict::Filter,
                AclAction::Drop => Verdict::Drop,
            },
            networks: rule.networks.clone(),
            zones: rule.zones.clone(),
            types: rule.types.iter().copied().map(record_type).collect(),
        };
        Self(rules.iter().map(rule).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first rule that matches says; what none matches is allowed. An IPv4 client that came over an IPv6 socket is an IPv4 client.
    pub(super) fn verdict(&self, client: IpAddr, name: &str, rtype: RecordType) -> Verdict {
        let client = client.to_canonical();
        let found = self.0.iter().find(|rule| rule.matches(client, name, rtype));
        found.map_or(Verdict::Allow, |rule| rule.verdict)
    }

    /// Whether the address of a name below `domain` may be denied to somebody.
    pub(super) fn may_deny_below(&self, domain: &str) -> bool {
        let about =
            |rule: &Rule| rule.zones.is_empty() || rule.zones.iter().any(|zone| overlap(zone, domain));
        self.0.iter().any(|rule| rule.verdict != Verdict::Allow && about(rule) && of_addresses(&rule.types))
    }
}

impl Rule {
    fn matches(&self, client: IpAddr, name: &str, rtype: RecordType) -> bool {
        (self.types.is_empty() || self.types.contains(&rtype))
            && (self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&client)))
            && (self.zones.is_empty() || self.zones.iter().any(|zone| lies_in(name, zone)))
    }
}

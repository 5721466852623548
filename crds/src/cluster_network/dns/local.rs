//! What the servers themselves decide of questions: names of their own, other names, refusals, limits, the log.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use super::ResponseCode;
use crate::{
    rule::rules,
    text::{CidrText, DomainText, IpText, ZoneText},
};

/// An address and its names.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// The address.
    #[schemars(with = "IpText")]
    pub ip: IpAddr,
    /// Its names; the first is what the address points back to.
    #[schemars(with = "Vec<DomainText>", length(min = 1, max = 16))]
    pub names: Vec<String>,
    /// Time to live, in seconds.
    #[serde(default = "host_ttl")]
    #[schemars(range(min = 0, max = 86_400))]
    pub ttl_seconds: u32,
}

fn host_ttl() -> u32 {
    3600
}

/// A name that is asked for under another name.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.match.type == 'Regex' || self.match.value.matches('^[-a-z0-9_.]+$')",
     "a name that is matched is written in lower case, with letters, digits, '-', '_' and '.'"),
    ("self.match.type == 'Regex' || !self.to.contains('{')", "only a rewrite of type Regex has groups"),
    ("self.match.type in ['Prefix', 'Suffix'] || (self.to.size() > 0 && !self.to.startsWith('.') && !self.to.endsWith('.'))",
     "with Exact and Regex the new name is a whole one, such as web.shop.svc.cluster.local"),
    ("!self.to.contains('..') && !(self.match.type != 'Regex' && self.match.value.contains('..'))", "a name has no empty labels"),
])))]
pub struct Rewrite {
    /// Which names.
    #[serde(rename = "match")]
    pub matches: NameMatch,
    /// What takes the place of what was matched. With Regex it is the whole name and may hold `{1}`, `{2}`, … for groups.
    #[schemars(length(max = 253), regex(pattern = r"^[-a-z0-9_.{}]*$"))]
    pub to: String,
    /// Whether answers carry the name that was asked for.
    #[serde(default = "yes")]
    pub answer_rewrite: bool,
}

fn yes() -> bool {
    true
}

/// Which names a rule is about. Names are compared in lower case, without the dot at their end.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NameMatch {
    /// How names are compared.
    #[serde(rename = "type")]
    pub kind: MatchKind,
    /// What with.
    #[schemars(length(min = 1, max = 253))]
    pub value: String,
}

/// How names are compared.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind {
    /// The whole name.
    Exact,
    /// What names begin with.
    Prefix,
    /// What names end with.
    Suffix,
    /// A regular expression, anywhere in the name.
    Regex,
}

/// Answers given instead of any other.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!(has(self.records) && self.records.size() > 0) || self.responseCode == 'NoError'", "an answer with records has the responseCode NoError"),
])))]
pub struct Override {
    /// The zone whose names are answered so; `.` is all names.
    #[schemars(with = "ZoneText")]
    pub zone: String,
    /// Types of records that are asked for; empty means all.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<QueryType>,
    /// The answer's code.
    #[serde(default = "no_error")]
    pub response_code: ResponseCode,
    /// The answer's records, each for questions of its type; none makes an empty answer.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub records: Vec<AnswerRecord>,
    /// Time to live, in seconds.
    #[serde(default = "override_ttl")]
    #[schemars(range(min = 0, max = 86_400))]
    pub ttl_seconds: u32,
}

fn no_error() -> ResponseCode {
    ResponseCode::NoError
}

fn override_ttl() -> u32 {
    60
}

/// One record of an answer; its owner is the name that was asked for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.type != 'A' || (isIP(self.value) && ip(self.value).family() == 4)", "the value of an A record is an IPv4 address"),
    ("self.type != 'AAAA' || (isIP(self.value) && ip(self.value).family() == 6)", "the value of an AAAA record is an IPv6 address"),
    ("self.type != 'CNAME' || self.value.matches('^[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?([.][a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*$')",
     "the value of a CNAME record is a domain name in lower case, without a dot at its end"),
])))]
pub struct AnswerRecord {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: RecordKind,
    /// Address, name or text.
    #[schemars(length(min = 1, max = 255))]
    pub value: String,
}

/// Types of records that an override gives.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    AAAA,
    /// Another name.
    CNAME,
    /// A text.
    TXT,
}

/// Types of records that are asked for.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "their names are what the IANA registry of DNS parameters says")]
pub enum QueryType {
    A,
    AAAA,
    ANY,
    CAA,
    CNAME,
    DNSKEY,
    DS,
    HTTPS,
    MX,
    NAPTR,
    NS,
    PTR,
    SOA,
    SRV,
    SVCB,
    TXT,
}

/// Who may ask what.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AclRule {
    /// What becomes of such questions.
    pub action: AclAction,
    /// Addresses of clients; empty means all.
    #[serde(default)]
    #[schemars(with = "Vec<CidrText>", length(max = 64))]
    pub networks: Vec<IpNet>,
    /// Zones that are asked for; empty means all.
    #[serde(default)]
    #[schemars(with = "Vec<DomainText>", length(max = 16))]
    pub zones: Vec<String>,
    /// Types of records that are asked for; empty means all.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub types: Vec<QueryType>,
}

/// What becomes of a question.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// It is answered.
    Allow,
    /// It is refused.
    Block,
    /// It gets an answer without records.
    Filter,
    /// It gets no answer.
    Drop,
}

/// A zone in which Services have their outside addresses.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExternalZone {
    /// The zone.
    #[schemars(with = "DomainText")]
    pub zone: String,
    /// Which addresses.
    #[serde(default = "load_balancer")]
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub sources: Vec<ExternalSource>,
}

fn load_balancer() -> Vec<ExternalSource> {
    vec![ExternalSource::LoadBalancer]
}

/// Outside addresses of Services.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalSource {
    /// Those in `status.loadBalancer`.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIP,
}

/// Questions that are written to the log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryLog {
    /// Which.
    pub queries: LoggedQueries,
    /// What share of them, 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub sample_ratio: f64,
}

impl Default for QueryLog {
    fn default() -> Self {
        Self { queries: LoggedQueries::default(), sample_ratio: 1.0 }
    }
}

/// Which questions are written to the log.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoggedQueries {
    /// No question.
    #[default]
    None,
    /// Those that failed, such as with `SERVFAIL`, `REFUSED`, `FORMERR` or `NOTIMP`, and those that the ACL gave no answer.
    Errors,
    /// Those, and those for names that there are not.
    Denials,
    /// All.
    All,
}

/// Who tries the search list of a pod's `resolv.conf`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SearchPath {
    /// The pod, one question after the other.
    #[default]
    Client,
    /// The server: the first question of a pod is answered as the last one would be.
    ServerSide,
}

/// How many questions a client may ask. More get the answer that it should come over TCP, where it waits for its turn.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimit {
    /// Questions a second of each client address; 0 sets no limit.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub queries_per_second: u32,
    /// Questions at once after a rest; 0 is as many as those of one second.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub burst: u32,
}

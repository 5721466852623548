//! What plugin and agent say to each other: one request and one reply a connection, each as a 4-byte length (big
//! endian) and JSON. With an ADD or CHECK come two descriptors: the pod's namespace and a routing socket inside it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Failure;

/// Raised when an older agent could misread a request; unknown fields are no reason.
pub const VERSION: u32 = 1;
/// The largest message that is read, bytes.
pub const LIMIT: usize = 1024 * 1024;

/// The verbs of CNI that reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    Add,
    Del,
    Check,
    Status,
    Gc,
}

impl Verb {
    /// The verb of `CNI_COMMAND`; `VERSION` never reaches the agent.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "STATUS" => Self::Status,
            "GC" => Self::Gc,
            _ => return None,
        })
    }

    /// The verb as CNI writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }

    /// Whether the pod's descriptors belong to the call.
    #[must_use]
    pub fn needs_pod(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

/// One CNI call.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`VERSION`] of the plugin.
    pub protocol: u32,
    pub verb: Verb,
    /// `CNI_CONTAINERID`, empty for STATUS and GC.
    pub container_id: String,
    /// `CNI_IFNAME`, empty for STATUS and GC.
    pub interface: String,
    /// `CNI_NETNS`, empty where the runtime gave none.
    pub netns: String,
    /// `CNI_ARGS`: `key=value;…`.
    pub arguments: String,
    /// The whole configuration from standard input.
    pub config: Value,
    /// W3C trace context of the plugin's span: in the runtime's trace, or in a new one.
    pub traceparent: String,
    /// W3C trace context of the runtime, if it gave one: the plugin's span hangs on it.
    #[serde(default)]
    pub parent: Option<String>,
    /// When the plugin began, nanoseconds of Unix time: the call's span begins there.
    pub started_unix_nanos: u64,
    /// When the plugin turned to the agent, the pod's namespace open, nanoseconds of Unix time.
    #[serde(default)]
    pub called_unix_nanos: u64,
}

/// The agent's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reply {
    /// It worked; for ADD with the result that the runtime is to see.
    Done(Option<Value>),
    /// It did not, and nothing of it is left.
    Failed(Failure),
}

impl Request {
    /// `namespace/name` of the pod from `CNI_ARGS`, empty where they say nothing.
    #[must_use]
    pub fn pod(&self) -> String {
        match (self.argument("K8S_POD_NAMESPACE"), self.argument("K8S_POD_NAME")) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => String::new(),
        }
    }

    /// UID of the pod from `CNI_ARGS`, empty where they do not say it.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        self.argument("K8S_POD_UID").unwrap_or_default()
    }

    fn argument(&self, key: &str) -> Option<&str> {
        let mut pairs = self.arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

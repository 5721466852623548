//! Answers of resolvers that are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::rules;

/// Answers of resolvers that are kept, in each server.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self.minTTLSeconds <= self.maxTTLSeconds", "minTTLSeconds must not be above maxTTLSeconds"),
])))]
pub struct Cache {
    /// How many are kept at most; 0 keeps none.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_entries: u32,
    /// How much memory they take at most, in bytes.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub max_bytes: u32,
    /// How long one is kept at most, in seconds.
    #[serde(rename = "maxTTLSeconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub max_ttl_seconds: u32,
    /// How long one is kept at least, in seconds.
    #[serde(rename = "minTTLSeconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ttl_seconds: u32,
    /// How long the answer that there is no such name or record is kept at most, in seconds (RFC 2308); 0 keeps none.
    #[serde(rename = "negativeMaxTTLSeconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub negative_max_ttl_seconds: u32,
    /// Answers that are asked for often are fetched anew before they end.
    pub prefetch: bool,
    /// Answers that are over, given while the resolvers do not answer (RFC 8767).
    pub serve_stale: ServeStale,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_bytes: 8 << 20,
            max_ttl_seconds: 3600,
            min_ttl_seconds: 5,
            negative_max_ttl_seconds: 1800,
            prefetch: true,
            serve_stale: ServeStale::default(),
        }
    }
}

/// Answers that are over, given while the resolvers do not answer (RFC 8767).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ServeStale {
    /// How long after its end an answer is still given, in seconds; 0 gives none.
    #[schemars(range(min = 0, max = 604_800))]
    pub max_age_seconds: u32,
    /// Whether the resolvers are asked first.
    pub mode: StaleMode,
    /// Time to live of such an answer, in seconds.
    #[serde(rename = "responseTTLSeconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub response_ttl_seconds: u32,
}

impl Default for ServeStale {
    fn default() -> Self {
        Self { max_age_seconds: 86_400, mode: StaleMode::default(), response_ttl_seconds: 30 }
    }
}

/// When an answer that is over is given.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleMode {
    /// When the resolvers do not answer.
    #[default]
    Verify,
    /// At once; the resolvers are asked for the next time.
    Immediate,
}

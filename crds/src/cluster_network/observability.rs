//! `spec.observability`: what the network's own programs tell about their work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rule::rules;

/// Where traces go when nothing is said: the Service that Jaeger's own charts make in the namespace `observability`.
pub const COLLECTOR: &str = "http://jaeger-collector.observability:4317";

/// What the network's own programs tell about their work.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Traces over OTLP.
    pub traces: Traces,
}

/// Traces over OTLP.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Traces {
    /// Collector that takes OTLP over gRPC without TLS: a Service, `http://SERVICE.NAMESPACE:PORT`, or an address,
    /// `http://192.0.2.10:4317`. No traces are sent while there is no such Service, or when this is empty.
    #[schemars(length(max = 512), extend("x-kubernetes-validations" = rules(&[(
        r"self == '' || self.matches('^http://([0-9]{1,3}([.][0-9]{1,3}){3}|[[][0-9a-fA-F:.]+[]]|[a-z0-9]([-a-z0-9]*[a-z0-9])?[.][a-z0-9]([-a-z0-9]*[a-z0-9])?([.]svc([.][-a-z0-9.]+)?)?)(:[1-9][0-9]{0,4})?/?$')",
        "must be http://SERVICE.NAMESPACE:PORT or http://IP:PORT; empty sends no traces",
    )])))]
    pub endpoint: String,
    /// Shares of what is too frequent to be traced each time. Edits of this object and CNI calls always are.
    pub sampling_ratios: SamplingRatios,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: COLLECTOR.to_owned(), sampling_ratios: SamplingRatios::default() }
    }
}

/// Shares of what is traced, 0 (never) to 1 (always).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SamplingRatios {
    /// Questions to the cluster's DNS.
    #[schemars(range(min = 0, max = 1))]
    pub dns: f64,
}

impl Default for SamplingRatios {
    fn default() -> Self {
        Self { dns: 0.01 }
    }
}

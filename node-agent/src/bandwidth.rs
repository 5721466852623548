//! Limits on the rates of a pod (`kubernetes.io/ingress-bandwidth` and `egress-bandwidth`), as the runtime hands them to the plugin
//! in `runtimeConfig.bandwidth`, and the queue that keeps one. Values in, values out.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The rates that Kubernetes allows, in bits per second: 1k to 1P.
pub const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// So much of its rate a pod may send or receive at once after a silence: twice the time that a busy machine is late with the next packet, and not enough
/// to get a short transfer past the limit.
const BURST: Duration = Duration::from_millis(10);
/// What the queue holds beside a burst, as time at the limit; the reference plugin's value.
const WAIT: Duration = Duration::from_millis(25);
/// Frames for which there is always room, however low the rate: with fewer, TCP often hears of a loss by its timer alone.
const QUEUED: u64 = 16;
/// Frames that may leave at once, however low the rate. One would do; a burst of less stops a link for good.
const AT_ONCE: u64 = 2;
/// Length of an Ethernet header, bytes.
const ETHERNET: u64 = 14;

/// Which way packets go, as the pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What is sent to the pod.
    Ingress,
    /// What the pod sends.
    Egress,
}

/// The limits of one pod; in its records in this form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Of what is sent to the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Limit>,
    /// Of what the pod sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Limit>,
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Bits per second.
    pub rate: u64,
    /// The most that may pass at once, in bits, where the runtime said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// A token bucket that keeps a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that may pass at once.
    pub burst: u32,
    /// Bytes that wait at most.
    pub limit: u32,
}

/// Why a pod cannot have its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the runtime's bandwidth cannot be understood: {key} is {value}, not a number of bits")]
    Form { key: String, value: String },
    #[error("{} allows 1k to 1P bits per second, and {rate} is asked for", direction.annotation())]
    Range { direction: Direction, rate: u64 },
}

/// The limits that a runtime asks for in its `runtimeConfig`: the specification has small letters first, containerd capitals. A rate of
/// 0 is none.
///
/// # Errors
/// What cannot be had, by name.
pub fn read(runtime_config: &Value) -> Result<Bandwidth, Refused> {
    let asked = runtime_config.get("bandwidth").unwrap_or(&Value::Null);
    if !asked.is_object() && !asked.is_null() {
        return Err(Refused::Form { key: "bandwidth".to_owned(), value: asked.to_string() });
    }
    let number = |name: &str| {
        let mut keys = asked.as_object().into_iter().flatten();
        let found = keys.find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
        found.map_or(Ok(0), |(key, value)| {
            value.as_u64().ok_or_else(|| Refused::Form { key: key.clone(), value: value.to_string() })
        })
    };
    let limit = |direction, rate, burst| {
        let (rate, burst) = (number(rate)?, number(burst)?);
        match rate {
            0 => Ok(None),
            rate if RATES.contains(&rate) => {
                Ok(Some(Limit { rate, burst: Some(burst).filter(|it| *it != 0) }))
            }
            rate => Err(Refused::Range { direction, rate }),
        }
    };
    Ok(Bandwidth {
        ingress: limit(Direction::Ingress, "ingressRate", "ingressBurst")?,
        egress: limit(Direction::Egress, "egressRate", "egressBurst")?,
    })
}

impl Bandwidth {
    /// Whether there is no limit at all.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

impl Limit {
    /// The bucket that keeps this limit on a link with this MTU.
    #[must_use]
    pub fn bucket(&self, mtu: u32) -> Bucket {
        let rate = self.rate / 8;
        let frame = u64::from(mtu) + ETHERNET;
        let burst =
            self.burst.map_or(u64::MAX, |bits| bits / 8).min(within(rate, BURST)).max(AT_ONCE * frame);
        let limit = (burst + within(rate, WAIT)).max(QUEUED * frame);
        let narrow = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
        Bucket { rate, burst: narrow(burst), limit: narrow(limit) }
    }
}

/// Bytes that pass in this time.
fn within(rate: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(rate) * time.as_millis() / 1000).unwrap_or(u64::MAX)
}

impl Direction {
    /// The pod's annotation.
    #[must_use]
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::Ingress => "kubernetes.io/ingress-bandwidth",
            Self::Egress => "kubernetes.io/egress-bandwidth",
        }
    }
}

/// As annotations have it, where it can be said with one letter.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rate, mut letters) = (self.rate, ["", "k", "M", "G", "T", "P"].into_iter());
        let mut letter = letters.next().unwrap_or_default();
        while let Some(next) = letters.next().filter(|_| rate != 0 && rate.is_multiple_of(1000)) {
            (rate, letter) = (rate / 1000, next);
        }
        write!(f, "{rate}{letter} bit/s")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limit(rate: u64, burst: Option<u64>) -> Limit {
        Limit { rate, burst }
    }

    #[test]
    fn limits_are_read_as_both_kinds_of_runtimes_write_them() {
        let read = |bandwidth: Value| read(&json!({ "bandwidth": bandwidth })).unwrap();
        let containerd =
            json!({"IngressRate": 20_000_000, "IngressBurst": u32::MAX, "EgressRate": 0, "EgressBurst": 0});
        let burst = Some(u64::from(u32::MAX));
        assert_eq!(read(containerd), Bandwidth { ingress: Some(limit(20_000_000, burst)), egress: None });
        let crio = json!({"ingressRate": 1000, "egressRate": 1_000_000_000_000_000_u64, "egressBurst": 8});
        let both = Bandwidth { ingress: Some(limit(1000, None)), egress: Some(limit(*RATES.end(), Some(8))) };
        assert_eq!(read(crio), both);
        for nothing in [json!(null), json!({}), json!({"IngressRate": null, "ingressBurst": 5})] {
            assert!(read(nothing).is_free());
        }
        assert!(super::read(&Value::Null).unwrap().is_free() && super::read(&json!({})).unwrap().is_free());
    }

    #[test]
    fn a_limit_is_shown_as_annotations_have_it() {
        for (rate, shown) in
            [(1000, "1k"), (1500, "1500"), (20_000_000, "20M"), (2_500_000, "2500k"), (*RATES.end(), "1P")]
        {
            assert_eq!(limit(rate, None).to_string(), format!("{shown} bit/s"));
        }
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        for (bandwidth, said) in [
            (
                json!({"IngressRate": 999}),
                "kubernetes.io/ingress-bandwidth allows 1k to 1P bits per second, and 999 is asked for",
            ),
            (
                json!({"egressRate": 1_000_000_000_000_001_u64}),
                "kubernetes.io/egress-bandwidth allows 1k to 1P bits per second, and 1000000000000001 is",
            ),
            (json!({"IngressRate": -1}), "IngressRate is -1, not a number of bits"),
            (json!({"egressBurst": "10M"}), "egressBurst is \"10M\", not a number of bits"),
            (json!([1]), "bandwidth is [1], not"),
        ] {
            let error = read(&json!({ "bandwidth": bandwidth })).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_bucket_holds_ten_milliseconds_and_its_queue_twenty_five_more_or_sixteen_frames() {
        const MTU: u32 = 1486; // frames of 1500 bytes
        let containerd = Some(u64::from(u32::MAX));
        for (rate, burst, bucket) in [
            (1_000, containerd, (125, 3_000, 24_000)),
            (1_000_000, containerd, (125_000, 3_000, 24_000)),
            (20_000_000, containerd, (2_500_000, 25_000, 87_500)),
            (20_000_000, None, (2_500_000, 25_000, 87_500)),
            (20_000_000, Some(80_000), (2_500_000, 10_000, 72_500)),
            (20_000_000, Some(1), (2_500_000, 3_000, 65_500)),
            (10_000_000_000, containerd, (1_250_000_000, 12_500_000, 43_750_000)),
            (100_000_000_000, None, (12_500_000_000, 125_000_000, 437_500_000)),
            (1_000_000_000_000_000, None, (125_000_000_000_000, u32::MAX, u32::MAX)),
        ] {
            let bucket = Bucket { rate: bucket.0, burst: bucket.1, limit: bucket.2 };
            assert_eq!(limit(rate, burst).bucket(MTU), bucket, "{rate} {burst:?}");
        }
        assert_eq!(
            Limit { rate: 1000, burst: None }.bucket(8986).burst,
            18_000,
            "two of the link's own frames"
        );
    }
}

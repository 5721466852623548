//! The trace of a question: decided by chance when it comes, told when it is answered. A question that is not traced
//! costs one look at a flag, and a random number where a collector is there.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use netkeel_telemetry::context;
use netkeel_telemetry::spans::{self, Kind, Recorded};

use crate::message::Transport;

/// The traceparent of a question that is traced.
#[derive(Clone, Debug)]
pub(crate) struct Trace(String);

impl Trace {
    /// A trace for this share of questions, 0 to 1, while somebody collects traces.
    pub(crate) fn by_chance(ratio: f64) -> Option<Self> {
        (ratio > 0.0 && spans::wanted() && rand::random::<f64>() < ratio)
            .then(|| Self(context::new_traceparent()))
    }

    /// The question is answered, as it was seen.
    pub(crate) fn answered(&self, seen: &Answered<'_>) {
        let mut span = Recorded::new("dns query", &self.0, None, times(seen.since))
            .with("dns.question.name", seen.name.to_ascii())
            .with("netkeel.dns.question.type", seen.rtype.to_string())
            .with("netkeel.dns.rcode", i64::from(u16::from(seen.code)))
            .with("network.transport", if seen.transport == Transport::Udp { "udp" } else { "tcp" })
            .with("client.address", seen.client.ip().to_canonical().to_string())
            .with("client.port", i64::from(seen.client.port()));
        span.kind = Kind::Server;
        if matches!(seen.code, ResponseCode::ServFail | ResponseCode::Refused) {
            span = span.with("error.type", seen.code.to_str());
            span.error = Some(seen.code.to_string());
        }
        spans::record(span);
    }

    /// One try at an upstream resolver is over.
    pub(crate) fn asked(&self, upstream: SocketAddr, since: Instant, failed: Option<&std::io::Error>) {
        let Some(own) = context::child_of(&self.0) else { return };
        let mut span = Recorded::new("dns upstream", &own, Some(&self.0), times(since))
            .with("server.address", upstream.ip().to_string())
            .with("server.port", i64::from(upstream.port()));
        span.kind = Kind::Client;
        if let Some(error) = failed {
            span = span.with("error.type", error.kind().to_string());
            span.error = Some(error.to_string());
        }
        spans::record(span);
    }
}

/// A question and its answer.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) name: &'a Name,
    pub(crate) rtype: RecordType,
    pub(crate) code: ResponseCode,
    pub(crate) transport: Transport,
    pub(crate) client: SocketAddr,
    pub(crate) since: Instant,
}

/// From `since` until now, by the clock that traces are told in.
fn times(since: Instant) -> (SystemTime, SystemTime) {
    let (now, took): (SystemTime, Duration) = (SystemTime::now(), since.elapsed());
    (now.checked_sub(took).unwrap_or(now), now)
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn nothing_is_traced_while_nobody_collects() {
        assert!(Trace::by_chance(1.0).is_none());
    }
}

//! The spans of a CNI call: the plugin's, told by the agent from the times that came with the call, and the agent's own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netkeel_telemetry::{
    context,
    spans::{self, Kind, Recorded},
};
use tracing::Span;

use super::{
    failure::Failure,
    protocol::{Request, Verb},
};

/// What the plugin's span says, kept while the call is handled.
#[derive(Debug)]
pub(super) struct Plugin {
    verb: &'static str,
    context: String,
    parent: Option<String>,
    started: SystemTime,
    called: SystemTime,
    pod: String,
    container_id: String,
}

impl Plugin {
    /// The runtime asks for STATUS every few seconds, which is no part of anybody's trace.
    pub(super) fn new(request: &Request) -> Option<Self> {
        let at = |nanos: u64| UNIX_EPOCH + Duration::from_nanos(nanos);
        let started = at(request.started_unix_nanos);
        (request.verb != Verb::Status).then(|| Self {
            verb: request.verb.as_str(),
            context: request.traceparent.clone(),
            parent: request.parent.clone(),
            started,
            called: at(request.called_unix_nanos).max(started),
            pod: request.pod(),
            container_id: request.container_id.clone(),
        })
    }

    /// The agent's span of the call.
    pub(super) fn agent_span(&self) -> Span {
        let name = format!("agent {}", self.verb);
        let span = tracing::info_span!("cni", otel.name = name, otel.kind = "server", pod = self.pod);
        context::set_parent(&span, &self.context);
        span
    }

    /// The call is answered in a moment. What the way back takes is not in the span.
    pub(super) fn end(self, failure: Option<&Failure>) {
        let parent = self.parent.as_deref();
        let name = format!("CNI {}", self.verb);
        let mut span = Recorded::new(name, &self.context, parent, (self.started, SystemTime::now()))
            .with("process.executable.name", "netkeel-cni")
            .with("container.id", self.container_id);
        if let Some((namespace, name)) = self.pod.split_once('/') {
            span = span.with("k8s.namespace.name", namespace).with("k8s.pod.name", name);
        }
        if let Some(failure) = failure {
            span = span.with("error.type", i64::from(failure.code));
            span.error = Some(failure.msg.clone());
        }
        span.kind = Kind::Client;
        spans::record(span);
        if let (true, Some(own)) = (self.called > self.started, context::child_of(&self.context)) {
            let times = (self.started, self.called);
            spans::record(Recorded::new("open namespace", &own, Some(&self.context), times));
        }
    }
}

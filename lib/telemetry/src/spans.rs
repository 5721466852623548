//! Spans that are told as a whole when they are over: what began elsewhere or before it was known to be part of a
//! trace, and what is too frequent to carry a span along. Recording costs one look at a flag while nobody listens.

use std::sync::OnceLock;
use std::time::SystemTime;

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::context;
use crate::traces::Switch;

static SINK: OnceLock<Sink> = OnceLock::new();

/// Where recorded spans go.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    switch: Switch,
    scope: InstrumentationScope,
}

impl Sink {
    pub(crate) fn new(switch: &Switch, service: &'static str) -> Self {
        Self { switch: switch.clone(), scope: InstrumentationScope::builder(service).build() }
    }

    /// Makes this the sink of the process; the first one stays.
    pub(crate) fn install(self) {
        let _ = SINK.set(self);
    }

    pub(crate) fn record(&self, span: Recorded<'_>) {
        if let Some(data) = span.data(&self.scope) {
            self.switch.hand(data);
        }
    }
}

/// Whether a recorded span would be sent anywhere.
#[must_use]
pub fn wanted() -> bool {
    SINK.get().is_some_and(|sink| sink.switch.is_active())
}

/// Tells a span that is over. One whose trace is not sampled, or that nobody wants, is left out.
pub fn record(span: Recorded<'_>) {
    if let Some(sink) = SINK.get().filter(|sink| sink.switch.is_active()) {
        sink.record(span);
    }
}

/// On which side of a call a span lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Neither.
    #[default]
    Internal,
    /// It answers another program.
    Server,
    /// It asks another program.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Number(i64),
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// A span that is over. Names of attributes are those of OpenTelemetry's semantic conventions where there is one.
#[derive(Clone, Debug)]
pub struct Recorded<'a> {
    /// What was done.
    pub name: String,
    /// Its own `traceparent`: [`context::new_traceparent`] or [`context::child_of`].
    pub context: &'a str,
    /// `traceparent` of the span that it hangs on.
    pub parent: Option<&'a str>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Its side of a call.
    pub kind: Kind,
    /// What it was about.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong, if something did.
    pub error: Option<String>,
}

impl<'a> Recorded<'a> {
    /// A span of this process that went well.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        context: &'a str,
        parent: Option<&'a str>,
        (start, end): (SystemTime, SystemTime),
    ) -> Self {
        Self {
            name: name.into(),
            context,
            parent,
            start,
            end,
            kind: Kind::Internal,
            attributes: Vec::new(),
            error: None,
        }
    }

    /// With an attribute.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    fn data(self, scope: &InstrumentationScope) -> Option<SpanData> {
        let own = context::parse(self.context).filter(opentelemetry::trace::SpanContext::is_sampled)?;
        let parent = self.parent.and_then(context::parse);
        let parent_id = parent.as_ref().map_or(SpanId::INVALID, opentelemetry::trace::SpanContext::span_id);
        Some(SpanData {
            span_context: own,
            parent_span_id: parent_id,
            parent_span_is_remote: false,
            span_kind: match self.kind {
                Kind::Internal => SpanKind::Internal,
                Kind::Server => SpanKind::Server,
                Kind::Client => SpanKind::Client,
            },
            name: self.name.into(),
            start_time: self.start,
            end_time: self.end.max(self.start),
            attributes: self.attributes.into_iter().map(key_value).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: scope.clone(),
        })
    }
}

fn key_value((name, value): (&'static str, Value)) -> KeyValue {
    match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    }
}

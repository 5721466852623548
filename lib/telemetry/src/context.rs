//! W3C trace context as text, for the places that carry it: NodeNetwork and the CNI plugin's protocol.
//! A trace id is there even when nothing is exported, so that it can travel through a program that traces nothing.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// `traceparent` of the current span, `00-<32 hex>-<16 hex>-<flags>`; none outside of every span.
#[must_use]
pub fn current_traceparent() -> Option<String> {
    traceparent(&Span::current()).or_else(|| {
        let context = opentelemetry::Context::current();
        format(context.span().span_context())
    })
}

/// `traceparent` of `span`; none when the span is disabled.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    format(span.context().span().span_context())
}

/// Makes `span` a child of the remote `traceparent`. Call it before the span is entered first; afterwards, and for a
/// text that is no traceparent, it does nothing and returns false, which is nothing to act on.
#[expect(clippy::must_use_candidate, reason = "it is called for its effect")]
pub fn set_parent(span: &Span, traceparent: &str) -> bool {
    parse(traceparent).is_some_and(|parent| {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        span.set_parent(context).is_ok()
    })
}

/// A `traceparent` of a new, recorded trace.
#[must_use]
pub fn new_traceparent() -> String {
    let ids = RandomIdGenerator::default();
    text(ids.new_trace_id(), ids.new_span_id(), TraceFlags::SAMPLED)
}

/// A `traceparent` of a new span in the trace of `parent`, recorded if that is; none for a text that is no traceparent.
#[must_use]
pub fn child_of(parent: &str) -> Option<String> {
    let parent = parse(parent)?;
    Some(text(parent.trace_id(), RandomIdGenerator::default().new_span_id(), parent.trace_flags()))
}

/// Whether `text` is a `traceparent` of W3C Trace Context.
#[must_use]
pub fn is_valid(text: &str) -> bool {
    parse(text).is_some()
}

fn format(context: &SpanContext) -> Option<String> {
    context.is_valid().then(|| text(context.trace_id(), context.span_id(), context.trace_flags()))
}

fn text(trace: TraceId, span: SpanId, flags: TraceFlags) -> String {
    format!("00-{trace}-{span}-{:02x}", flags & TraceFlags::SAMPLED)
}

/// Later versions may append fields, so only the first four are looked at; version ff is invalid.
pub(crate) fn parse(text: &str) -> Option<SpanContext> {
    let mut fields = text.trim().split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let hex = |field: &str, length| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    if !hex(version, 2) || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) || version == "ff" {
        return None;
    }
    if version == "00" && fields.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::{child_of, is_valid, new_traceparent};

    #[test]
    fn a_new_traceparent_is_valid_and_unique() {
        let (one, two) = (new_traceparent(), new_traceparent());
        assert!(is_valid(&one), "{one}");
        assert!(one.ends_with("-01"));
        assert_ne!(one, two);
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace_and_recorded_as_its_parent() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let child = child_of(parent).unwrap();
        assert!(child.starts_with(&parent[..36]) && child.ends_with("-00"), "{child}");
        assert_ne!(child, parent);
        assert_eq!(child_of("nonsense"), None);
    }

    #[test]
    fn what_is_no_traceparent_is_refused() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_valid(good));
        assert!(is_valid("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later"));
        for bad in [
            "",
            "hello",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b71692033311-01",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}

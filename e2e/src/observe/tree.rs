//! A trace as text: one line a span, below the span that it hangs on, with its time.

use std::fmt::Write as _;

use super::jaeger::{Span, Trace};

/// Attributes that tell what a span was about, in this order.
const TOLD: [&str; 6] = [
    "netkeel.object",
    "netkeel.revision",
    "netkeel.effect",
    "dns.question.name",
    "server.address",
    "error.type",
];

/// The trace as a tree: when each span began after the trace did, how long it took, its program and what it was about.
#[must_use]
pub fn tree(trace: &Trace) -> String {
    let begin = trace.spans.first().map_or(0, |span| span.start);
    let mut text = format!("trace {}\n", trace.id);
    let known = |id: &String| trace.spans.iter().any(|span| span.id == *id);
    let roots = trace.spans.iter().filter(|span| !span.parent.as_ref().is_some_and(known));
    for root in roots {
        line(&mut text, root, begin, 0);
        below(&mut text, trace, root, begin, 1);
    }
    text
}

/// Spans come in the order of their start. A trace is as deep as it has spans at most.
fn below(text: &mut String, trace: &Trace, parent: &Span, begin: u64, depth: usize) {
    if depth > trace.spans.len() {
        return;
    }
    for span in trace.children(parent) {
        line(text, span, begin, depth);
        below(text, trace, span, begin, depth + 1);
    }
}

fn line(text: &mut String, span: &Span, begin: u64, depth: usize) {
    let name = format!("{}{}", "  ".repeat(depth), span.operation);
    let program = span.service.trim_start_matches("netkeel-");
    let told = about(span);
    let since = milliseconds(span.start.saturating_sub(begin));
    let _ = writeln!(
        // writing to a String does not fail
        text,
        "{since:>9} {:>9}  {name:<34} {program:<9} {}",
        milliseconds(span.duration),
        told
    );
}

/// Where the span ran and what it was about. A span's `k8s.pod.name` is that of its program where it names no namespace.
fn about(span: &Span) -> String {
    let tag = |key: &str| span.tags.get(key).map(String::as_str);
    let node = tag("k8s.node.name").filter(|_| span.service != "netkeel-operator");
    let pod = tag("k8s.namespace.name")
        .zip(tag("k8s.pod.name"))
        .map(|(namespace, name)| format!("{namespace}/{name}"));
    let generation = tag("netkeel.generation").map(|number| format!("generation {number}"));
    let rest = TOLD.iter().filter_map(|key| tag(key)).map(str::to_owned);
    let all = node.map(str::to_owned).into_iter().chain(pod).chain(generation).chain(rest);
    all.collect::<Vec<_>>().join(" ")
}

/// Microseconds as milliseconds with three digits.
fn milliseconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(id: &str, parent: Option<&str>, operation: &str, start: u64, duration: u64) -> Span {
        Span {
            id: id.into(),
            parent: parent.map(Into::into),
            service: "netkeel-agent".into(),
            operation: operation.into(),
            start,
            duration,
            tags: [("k8s.node.name".to_owned(), "n1".to_owned())].into(),
        }
    }

    #[test]
    fn spans_stand_below_the_one_they_hang_on_and_strangers_are_roots() {
        let trace = Trace {
            id: "t".into(),
            spans: vec![
                span("a", Some("elsewhere"), "edit", 1_000_000, 9_500),
                span("b", Some("a"), "apply", 1_001_250, 3_000),
                span("c", Some("b"), "routes", 1_002_000, 17),
                span("d", Some("a"), "report", 1_005_000, 400),
            ],
        };
        let text = tree(&trace);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "trace t",
                "    0.000     9.500  edit                               agent     n1",
                "    1.250     3.000    apply                            agent     n1",
                "    2.000     0.017      routes                         agent     n1",
                "    5.000     0.400    report                           agent     n1",
            ]
        );
    }

    #[test]
    fn spans_that_hang_on_each_other_end_somewhere() {
        let trace = Trace {
            id: "t".into(),
            spans: vec![span("a", Some("b"), "x", 0, 1), span("b", Some("a"), "y", 0, 1)],
        };
        assert_eq!(tree(&trace), "trace t\n");
    }
}

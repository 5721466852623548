//! The way of spans from a program to a collector that is there, late, dead, or none at all.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::context;
use crate::metrics::TELEMETRY;

struct Receiver(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).map_err(|gone| tonic::Status::internal(gone.to_string()))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A small collector: its endpoint, and what it gets.
async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    listen(([127, 0, 0, 1], 0).into()).await
}

async fn listen(address: SocketAddr) -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Receiver(sender)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, receiver)
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn options() -> Options {
    Options {
        version: "1.2.3",
        log_format: LogFormat::Text,
        log_filter: "debug".into(),
        traces_endpoint: None,
        sampling_ratio: 1.0,
        attributes: vec![("k8s.node.name", "node-1".into())],
    }
}

/// Telemetry of this test's thread.
fn start(options: &Options) -> (Guard, Log, DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let (subscriber, guard) = build("netkeel-test", options, move || writer.clone()).unwrap();
    (guard, log, tracing::subscriber::set_default(subscriber))
}

fn names(request: &ExportTraceServiceRequest) -> Vec<String> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| &scope.spans).map(|span| span.name.clone()).collect()
}

#[tokio::test]
async fn spans_reach_a_collector_with_their_parent_and_resource() {
    let (endpoint, mut got) = collector().await;
    let (guard, _log, _subscriber) = start(&Options { traces_endpoint: Some(endpoint), ..options() });
    let parent = context::new_traceparent();
    let span = tracing::info_span!("apply", node = "node-1");
    assert!(context::set_parent(&span, &parent));
    let child = span.in_scope(|| context::current_traceparent().unwrap());
    assert_eq!(child[3..35], parent[3..35], "same trace id");
    drop(span);
    guard.shutdown().await;

    let request = got.recv().await.unwrap();
    assert_eq!(names(&request), ["apply"]);
    let resource = format!("{:?}", request.resource_spans[0].resource);
    for expected in ["netkeel-test", "1.2.3", "k8s.node.name"] {
        assert!(resource.contains(expected), "{expected} is not in {resource}");
    }
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    let id = u64::from_be_bytes(span.parent_span_id.as_slice().try_into().unwrap());
    assert_eq!(format!("{id:016x}"), parent[36..52]);
}

#[tokio::test]
async fn the_collector_can_be_set_changed_and_cleared_while_running() {
    let ((first, mut first_got), (second, mut second_got)) = (collector().await, collector().await);
    let (guard, _log, _subscriber) = start(&options());
    tracing::info_span!("nobody listens").in_scope(|| ());
    guard.set_traces_endpoint(Some(&first)).unwrap();
    tracing::info_span!("one").in_scope(|| ());
    guard.set_traces_endpoint(Some(&first)).unwrap();
    guard.set_traces_endpoint(Some(&second)).unwrap();
    tracing::info_span!("two").in_scope(|| ());
    guard.set_traces_endpoint(None).unwrap();
    tracing::info_span!("three").in_scope(|| ());

    let (one, two) = (first_got.recv().await.unwrap(), second_got.recv().await.unwrap());
    assert_eq!((names(&one), names(&two)), (vec!["one".into()], vec!["two".into()]));
    assert!(format!("{:?}", two.resource_spans[0].resource).contains("netkeel-test"));
    guard.shutdown().await;
    assert!(first_got.try_recv().is_err() && second_got.try_recv().is_err());
}

#[tokio::test]
async fn a_dead_collector_changes_only_counters() {
    let endpoint = format!("http://{}", closed_port().await);
    let (guard, log, _subscriber) = start(&Options { traces_endpoint: Some(endpoint), ..options() });
    let before = (TELEMETRY.failures.get(), TELEMETRY.dropped.get());
    let start = Instant::now();
    for _ in 0..10_000 {
        tracing::info_span!("work").in_scope(|| ());
    }
    assert!(start.elapsed().as_secs() < 2, "10,000 spans took {:?}", start.elapsed());
    tracing::info!("work goes on");
    guard.shutdown().await;
    assert!(start.elapsed().as_secs() < 7);
    assert!(TELEMETRY.failures.get() > before.0);
    assert!(TELEMETRY.dropped.get() >= before.1 + 10_000, "{} were lost", TELEMETRY.dropped.get() - before.1);
    let text = log.text();
    assert!(text.contains("work goes on"));
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[tokio::test]
async fn a_collector_that_comes_late_gets_the_first_spans() {
    let address = closed_port().await;
    let endpoint = format!("http://{address}");
    let (guard, _log, _subscriber) = start(&Options { traces_endpoint: Some(endpoint), ..options() });
    let before = TELEMETRY.failures.get();
    tracing::info_span!("early").in_scope(|| ());
    while TELEMETRY.failures.get() == before {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (_, mut got) = listen(address).await;
    assert_eq!(names(&got.recv().await.unwrap()), ["early"]);
    guard.shutdown().await;
}

#[tokio::test]
async fn a_recorded_span_is_as_it_was_told() {
    let (endpoint, mut got) = collector().await;
    let (guard, _log, _subscriber) = start(&Options { traces_endpoint: Some(endpoint), ..options() });
    let sink = crate::spans::Sink::new(&guard.switch, "test");
    let parent = context::new_traceparent();
    let own = context::child_of(&parent).unwrap();
    let unsampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let at = |seconds| std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let span = |context| crate::spans::Recorded::new("told", context, Some(&parent), (at(5), at(7)));
    sink.record(span(unsampled));
    sink.record(span(&own).with("dns.question.name", "a.test"));
    guard.shutdown().await;

    let request = got.recv().await.unwrap();
    assert_eq!(names(&request), ["told"], "one that is not sampled is left out");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert_eq!((hex(&span.trace_id), hex(&span.span_id)), (own[3..35].to_owned(), own[36..52].to_owned()));
    assert_eq!(hex(&span.parent_span_id), parent[36..52]);
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (5_000_000_000, 7_000_000_000));
    assert!(format!("{:?}", span.attributes).contains("a.test"));
}

#[tokio::test]
async fn a_trace_id_travels_without_a_collector() {
    let (_guard, _log, _subscriber) = start(&options());
    assert_eq!(context::current_traceparent(), None);
    let parent = context::new_traceparent();
    let span = tracing::info_span!("cni add");
    assert!(context::set_parent(&span, &parent));
    let child = span.in_scope(|| context::current_traceparent().unwrap());
    assert!(context::is_valid(&child));
    assert_eq!(child[3..35], parent[3..35]);
    assert!(!context::set_parent(&span, &parent), "too late");
    assert!(!context::set_parent(&tracing::info_span!("other"), "nonsense"));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_one_is_refused_and_the_former_stays() {
    let (endpoint, mut got) = collector().await;
    let (guard, _log, _subscriber) = start(&Options { traces_endpoint: Some(endpoint), ..options() });
    for bad in ["jaeger:4317", "https://jaeger:4317", "http://", "http://a b"] {
        let error = guard.set_traces_endpoint(Some(bad)).unwrap_err();
        assert!(error.to_string().contains(bad), "{error}");
    }
    tracing::info_span!("still").in_scope(|| ());
    guard.shutdown().await;
    assert_eq!(names(&got.recv().await.unwrap()), ["still"]);
}

#[tokio::test]
async fn a_bad_filter_is_an_error_and_json_is_json() {
    let bad = Options { log_filter: "netkeel=loud".into(), ..options() };
    let error = build("netkeel-test", &bad, io::sink).err().unwrap();
    assert!(error.to_string().contains("netkeel=loud"));
    let (_guard, log, _subscriber) = start(&Options { log_format: LogFormat::Json, ..options() });
    tracing::info!(node = "node-1", "applied");
    assert!(log.text().starts_with('{') && log.text().contains("\"node\":\"node-1\""), "{}", log.text());
}

//! Requests in the form that API clients send them.

use std::convert::Infallible;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::store::Change;
use super::{Signal, State, Streams, write};

pub(crate) fn router(state: State) -> Router {
    Router::new().fallback(move |request: HttpRequest| {
        let state = state.clone();
        async move {
            if state.signal.borrow().silent {
                std::future::pending::<()>().await;
            }
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(body, BODY).await.unwrap_or_default();
            answer(&state, &head.method, &head.uri, &body)
        }
    })
}

/// The largest body of a write, bytes.
const BODY: usize = 1 << 20;

/// What a path and query ask for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    version: Option<u64>,
    watch: bool,
    initial: bool,
    bookmarks: bool,
}

fn answer(state: &State, method: &Method, uri: &Uri, body: &[u8]) -> Response {
    if state.signal.borrow().down {
        return status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "the server plays dead");
    }
    match uri.path() {
        "/version" => {
            return json_response(
                StatusCode::OK,
                &json!({"major": "1", "minor": "36", "gitVersion": "v1.36.0"}),
            );
        }
        "/healthz" | "/livez" | "/readyz" => return "ok".into_response(),
        _ => {}
    }
    let Some(request) = parse(uri) else { return status(StatusCode::NOT_FOUND, "NotFound", "no such path") };
    match *method {
        Method::GET
            if request.watch && request.initial && state.signal.borrow().streams == Streams::Refused =>
        {
            status(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "sendInitialEvents is forbidden for watch")
        }
        Method::GET if request.watch => watch(state, request),
        Method::GET => read(state, &request),
        _ => write::write(state, method, &request, body),
    }
}

fn parse(uri: &Uri) -> Option<Request> {
    let parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let roots = if parts.first() == Some(&"api") { 2 } else { 3 };
    let (root, rest) = parts.split_at_checked(roots)?;
    let (namespace, plural, name) = match rest {
        ["namespaces", namespace, plural] => (Some(*namespace), *plural, None),
        ["namespaces", namespace, plural, name] => (Some(*namespace), *plural, Some(*name)),
        ["namespaces", namespace, plural, name, "status"] => (Some(*namespace), *plural, Some(*name)),
        [plural, name, "status"] => (None, *plural, Some(*name)),
        [plural] => (None, *plural, None),
        [plural, name] => (None, *plural, Some(*name)),
        _ => return None,
    };
    let query: Vec<(&str, &str)> =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let value = |name: &str| query.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    let is_true = |name: &str| matches!(value(name), Some("true" | "1"));
    Some(Request {
        resource: format!("{}/{plural}", root.join("/")),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        version: value("resourceVersion").and_then(|version| version.parse().ok()),
        watch: is_true("watch"),
        initial: is_true("sendInitialEvents"),
        bookmarks: is_true("allowWatchBookmarks"),
    })
}

fn read(state: &State, request: &Request) -> Response {
    let store = state.lock();
    let items = store.list(&request.resource, request.namespace.as_deref());
    let Some(name) = &request.name else {
        state.lists.fetch_add(1, Ordering::Relaxed);
        let version = store.version().to_string();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
        return json_response(StatusCode::OK, &list);
    };
    match items.iter().find(|object| object["metadata"]["name"] == name.as_str()) {
        Some(object) => json_response(StatusCode::OK, object),
        None => status(StatusCode::NOT_FOUND, "NotFound", &format!("{} {name} not found", request.resource)),
    }
}

/// Sends changes as lines until the client or the server has enough.
fn watch(state: &State, request: Request) -> Response {
    let mut watch = Watch {
        state: state.clone(),
        signal: state.signal.subscribe(),
        seen: 0,
        cut: 0,
        silenced: 0,
        first: None,
        request,
    };
    let signal = *watch.signal.borrow_and_update();
    (watch.cut, watch.silenced) = (signal.cut, signal.silenced);
    watch.begin();
    let body = stream::unfold(watch, |mut watch| async move {
        let lines = watch.next().await?;
        Some((Ok::<_, Infallible>(lines), watch))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body)).into_response()
}

struct Watch {
    state: State,
    signal: watch::Receiver<Signal>,
    /// Everything up to this version has been sent.
    seen: u64,
    cut: u64,
    silenced: u64,
    first: Option<String>,
    request: Request,
}

impl Watch {
    /// Where the watch starts, and what it sends before any change.
    fn begin(&mut self) {
        let store = self.state.lock();
        if !self.request.initial
            && let Some(version) = self.request.version.filter(|version| *version > 0)
        {
            self.seen = version;
            return;
        }
        self.seen = store.version();
        let streams = if self.request.initial { self.signal.borrow().streams } else { Streams::Whole };
        if streams == Streams::Failing {
            let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
                "reason": "InternalError", "message": "the required storage feature RequestWatchProgress is disabled"});
            self.first = Some(line("ERROR", &failure));
            self.seen = u64::MAX;
            return;
        }
        let mut lines: String = store
            .list(&self.request.resource, self.request.namespace.as_deref())
            .iter()
            .map(|object| line("ADDED", object))
            .collect();
        if streams == Streams::Cut {
            self.seen = u64::MAX;
        } else if self.request.initial && self.request.bookmarks {
            lines += &bookmark(self.seen, &json!({"k8s.io/initial-events-end": "true"}));
        }
        self.first = Some(lines);
    }

    async fn next(&mut self) -> Option<String> {
        if let Some(lines) = self.first.take() {
            return Some(lines);
        }
        loop {
            let signal = *self.signal.borrow_and_update();
            if signal.silenced != self.silenced {
                std::future::pending::<()>().await;
            }
            if signal.down || self.seen == u64::MAX {
                return None;
            }
            if let Some(lines) = self.changes() {
                return Some(lines);
            }
            if signal.cut != self.cut || self.signal.changed().await.is_err() {
                return None;
            }
        }
    }

    fn changes(&mut self) -> Option<String> {
        let store = self.state.lock();
        let Some(changes) = store.since(&self.request.resource, self.request.namespace.as_deref(), self.seen)
        else {
            self.seen = u64::MAX;
            let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
                "reason": "Expired", "message": "too old resource version"});
            return Some(line("ERROR", &gone));
        };
        let before = std::mem::replace(&mut self.seen, store.version());
        let lines: String = changes.iter().map(|Change { kind, object, .. }| line(kind, object)).collect();
        if !lines.is_empty() {
            return Some(lines);
        }
        (self.request.bookmarks && before < self.seen).then(|| bookmark(self.seen, &json!({})))
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn bookmark(version: u64, annotations: &Value) -> String {
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    line("BOOKMARK", &json!({"kind": "Bookmark", "apiVersion": "v1", "metadata": metadata}))
}

pub(super) fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message});
    json_response(code, &body)
}

pub(super) fn json_response(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

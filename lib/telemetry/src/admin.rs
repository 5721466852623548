//! The port that people and machines ask: `/metrics`, `/healthz` (restart me if this fails), `/readyz` (send me no
//! work while this fails). Failing checks are named, with the reason, in the answer's text.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Registry;

/// Why the port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics and health: is another program using it?")]
pub struct Error {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the kernel says.
    #[source]
    pub source: std::io::Error,
}

/// Named checks of a program. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Checks>>);

/// The reason of each check that fails, by name.
#[derive(Debug, Default)]
struct Checks {
    live: BTreeMap<&'static str, Option<String>>,
    ready: BTreeMap<&'static str, Option<String>>,
}

/// One named check, which its owner sets.
#[derive(Clone, Debug)]
pub struct Check {
    health: Health,
    name: &'static str,
    live: bool,
}

impl Health {
    /// A check of `/readyz`; it fails with "starting" until it is set.
    #[must_use]
    pub fn readiness(&self, name: &'static str) -> Check {
        let check = Check { health: self.clone(), name, live: false };
        check.fail("starting");
        check
    }

    /// A check of `/healthz`; it passes until it is set.
    #[must_use]
    pub fn liveness(&self, name: &'static str) -> Check {
        let check = Check { health: self.clone(), name, live: true };
        check.pass();
        check
    }

    /// Whether every check of `/readyz` passes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.with(|checks| checks.ready.values().all(Option::is_none))
    }

    fn with<T>(&self, action: impl FnOnce(&mut Checks) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, live: bool) -> (StatusCode, String) {
        self.with(|checks| report(if live { &checks.live } else { &checks.ready }))
    }
}

impl Check {
    /// The check passes from now on.
    pub fn pass(&self) {
        self.set(None);
    }

    /// The check fails from now on; `reason` says what is wrong.
    pub fn fail(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.health.with(|checks| {
            let kind = if self.live { &mut checks.live } else { &mut checks.ready };
            kind.insert(self.name, reason);
        });
    }
}

fn report(checks: &BTreeMap<&'static str, Option<String>>) -> (StatusCode, String) {
    let mut text = String::new();
    for (name, reason) in checks {
        let reason = reason.as_deref().unwrap_or("ok");
        let _ = writeln!(text, "{name}: {reason}"); // writing to a String does not fail
    }
    if checks.values().any(Option::is_some) {
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, if text.is_empty() { "ok\n".into() } else { text })
}

/// Opens `address` and answers there in the background until `stop`. Gives the address that was bound. `[::]` is every address of
/// both families, whatever `net.ipv6.bindv6only` says, and every one of IPv4 where the kernel has no IPv6.
///
/// # Errors
/// The address is in use or not allowed.
pub async fn serve(
    address: SocketAddr,
    registry: Registry,
    health: Health,
    stop: CancellationToken,
) -> Result<SocketAddr, Error> {
    let failed = |source| Error { address, source };
    let listener = open(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let app = router(registry, health);
    tokio::spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the metrics port stopped answering");
        }
    });
    Ok(bound)
}

async fn open(address: SocketAddr) -> io::Result<TcpListener> {
    match address {
        SocketAddr::V6(any) if any.ip().is_unspecified() => match both_families(any) {
            Err(Errno::EAFNOSUPPORT) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, any.port())).await,
            opened => TcpListener::from_std(opened?),
        },
        one => TcpListener::bind(one).await,
    }
}

fn both_families(address: SocketAddrV6) -> nix::Result<std::net::TcpListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet6, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

fn router(registry: Registry, health: Health) -> Router {
    let metrics = get(|State(registry): State<Registry>| async move {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], registry.encode()).into_response()
    });
    let (live, ready) = (health.clone(), health);
    Router::new()
        .route("/metrics", metrics)
        .route("/healthz", get(move || async move { live.answer(true) }))
        .route("/readyz", get(move || async move { ready.answer(false) }))
        .with_state(registry)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_port_tells_metrics_and_names_what_is_not_ready() {
        let (health, stop) = (Health::default(), CancellationToken::new());
        let (api, live) = (health.readiness("api"), health.liveness("loop"));
        let registry = Registry::new("test", "1");
        let address =
            serve(([127, 0, 0, 1], 0).into(), registry, health.clone(), stop.clone()).await.unwrap();

        let answer = ask(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("api: starting"), "{answer}");
        assert!(!health.is_ready());
        api.pass();
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        live.fail("no progress for 60 s");
        assert!(ask(address, "/healthz").await.contains("loop: no progress for 60 s"));
        assert!(ask(address, "/metrics").await.contains("netkeel_build_info"));
        stop.cancel();
    }

    #[tokio::test]
    async fn all_addresses_are_those_of_both_families() {
        let stop = CancellationToken::new();
        let any = "[::]:0".parse().unwrap();
        let bound = serve(any, Registry::new("test", "1"), Health::default(), stop.clone()).await.unwrap();
        for host in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(host.parse().unwrap(), bound.port());
            assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"), "{address}");
        }
        let again = serve(bound, Registry::new("test", "1"), Health::default(), stop.clone()).await;
        assert!(again.unwrap_err().to_string().contains(&bound.to_string()));
        stop.cancel();
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error =
            serve(address, Registry::new("test", "1"), Health::default(), CancellationToken::new()).await;
        assert!(error.unwrap_err().to_string().contains(&address.to_string()));
    }
}

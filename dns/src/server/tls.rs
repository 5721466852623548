//! DNS over TLS (RFC 7858): questions and replies as over TCP, in TLS. The certificate and its key are files, which are looked at
//! again and again: a new pair is taken for new connections, a bad one leaves the last good one in force, and where there is none
//! the port is closed. The rest of the server does not notice.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::streams::{self, Opens};
use crate::handler::Handler;
use crate::metrics::Metrics;

/// Names of the files, as in a Secret of type `kubernetes.io/tls`.
const FILES: [&str; 2] = ["tls.crt", "tls.key"];
/// How often they are looked at. A kubelet takes a minute or two to bring a change of the Secret.
const LOOK: Duration = Duration::from_secs(2);
/// The protocol's name in the handshake (IANA, ALPN protocol ids); clients that name none are served, too.
const ALPN: &[u8] = b"dot";

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("tls.crt holds no certificate in PEM")]
    NoCertificate,
    #[error("tls.crt cannot be read as certificates in PEM")]
    Certificate(#[source] pem::Error),
    #[error("tls.key cannot be read as a private key in PEM")]
    Key(#[source] pem::Error),
    #[error("certificate and key cannot be used: do they belong together?")]
    Pair(#[from] rustls::Error),
}

/// What the files hold: the certificates and the key.
type Pair = [Vec<u8>; 2];

/// The files as they are.
#[derive(PartialEq)]
enum Seen {
    /// Nobody has looked yet.
    Unseen,
    /// One of them is not there.
    Missing,
    Pair(Pair),
}

/// Answers over TLS at `addresses` until `stop`, as long as the `folder` has a certificate.
pub async fn serve(
    folder: PathBuf,
    addresses: Vec<SocketAddr>,
    (handler, metrics): (Handler, Metrics),
    stop: CancellationToken,
) {
    let mut server =
        Server { addresses, handler, metrics, seen: Seen::Unseen, current: None, open: None, stop };
    while !server.stop.is_cancelled() {
        let seen = read(&folder).await;
        server.look(seen, &folder);
        tokio::select! {
            () = sleep(LOOK) => {}
            () = server.stop.cancelled() => {}
        }
    }
    server.close().await;
}

/// `None` where nobody can say what is there now.
async fn read(folder: &Path) -> Option<Seen> {
    let [certificates, key] = FILES.map(|file| folder.join(file));
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match (tokio::fs::read(certificates).await, tokio::fs::read(key).await) {
        (Ok(certificates), Ok(key)) => Some(Seen::Pair([certificates, key])),
        (Err(error), _) | (_, Err(error)) if missing(&error) => Some(Seen::Missing),
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, folder = %folder.display(), "the certificate for DNS over TLS cannot be read: all stays as it is");
            None
        }
    }
}

fn config([certificates, key]: &Pair) -> Result<ServerConfig, Error> {
    let certificates = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::Certificate)?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

struct Server {
    addresses: Vec<SocketAddr>,
    handler: Handler,
    metrics: Metrics,
    /// What the files held the last time.
    seen: Seen,
    /// The last good certificate.
    current: Option<Arc<ArcSwap<ServerConfig>>>,
    open: Option<(CancellationToken, JoinSet<()>)>,
    stop: CancellationToken,
}

impl Server {
    /// Follows what was seen; where that is nothing, all stays as it is.
    fn look(&mut self, seen: Option<Seen>, folder: &Path) {
        if let Some(seen) = seen.filter(|seen| self.seen != *seen) {
            self.change(&seen, folder);
            self.seen = seen;
        }
        match (&self.current, &self.open) {
            (Some(config), None) => self.open(&Tls(config.clone())),
            (None, Some(_)) => {
                // What connections there are is finished, as at the end of the server.
                if let Some((stop, mut tasks)) = self.open.take() {
                    stop.cancel();
                    tasks.detach_all();
                }
            }
            _ => {}
        }
        self.metrics.tls_open(self.open.is_some());
    }

    fn change(&mut self, seen: &Seen, folder: &Path) {
        let folder = folder.display();
        let Seen::Pair(pair) = seen else {
            tracing::warn!(%folder, "no DNS over TLS: tls.crt or tls.key is not there; is there such a Secret?");
            self.metrics.tls_load("missing");
            self.current = None;
            return;
        };
        match config(pair) {
            Ok(config) => {
                tracing::info!(%folder, "a certificate for DNS over TLS is taken");
                self.metrics.tls_load("loaded");
                match &self.current {
                    Some(current) => current.store(Arc::new(config)),
                    None => self.current = Some(Arc::new(ArcSwap::from_pointee(config))),
                }
            }
            Err(error) => {
                let (kept, error) = (self.current.is_some(), &error as &dyn std::error::Error);
                tracing::error!(%folder, error, kept, "a certificate for DNS over TLS is bad; the last good one is kept, if there is one");
                self.metrics.tls_load("bad");
            }
        }
    }

    fn open(&mut self, tls: &Tls) {
        let (stop, mut tasks) = (self.stop.child_token(), JoinSet::new());
        for address in &self.addresses {
            match streams::listen(*address) {
                Ok(listener) => {
                    tasks.spawn(streams::serve(listener, tls.clone(), self.handler.clone(), stop.clone()));
                }
                Err(error) => {
                    tracing::error!(%error, %address, "cannot listen for DNS over TLS: is the port taken?");
                    stop.cancel();
                    tasks.detach_all();
                    return; // and again at the next look
                }
            }
        }
        self.open = Some((stop, tasks));
    }

    async fn close(&mut self) {
        if let Some((stop, mut tasks)) = self.open.take() {
            stop.cancel();
            while tasks.join_next().await.is_some() {}
        }
        self.metrics.tls_open(false);
    }
}

/// TLS with the certificate as it is when a connection is opened.
#[derive(Clone)]
struct Tls(Arc<ArcSwap<ServerConfig>>);

impl Opens for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn open(self, stream: TcpStream) -> io::Result<Self::Stream> {
        TlsAcceptor::from(self.0.load_full()).accept(stream).await
    }
}

//! Connections to resolvers, plain or over TLS.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;

use netkeel_crds::cluster_network::dns::{Forwarding, Protocol};
use netkeel_index::dns::{Trust, Untrusted};
use rustls::crypto::ring;
use rustls::pki_types::{ServerName, TrustAnchor};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use webpki_roots::TLS_SERVER_ROOTS;

/// HTTP/2 as TLS names it (RFC 9113 section 3.2).
const H2: &[u8] = b"h2";

/// A connection that carries bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How a resolver's certificate is judged: by this name, and by who signed it.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.name)
    }
}

/// Why TLS cannot be spoken with a group of resolvers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// What they are told to show cannot be judged.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// TLS itself.
    #[error("TLS cannot be set up")]
    Setup(#[from] rustls::Error),
}

impl Tls {
    /// What `forwarding` says of TLS; `None` where it is not spoken.
    pub(super) fn new(forwarding: &Forwarding) -> std::result::Result<Option<Self>, TlsError> {
        let Some(Trust { name, authorities }) = Trust::read(forwarding)? else { return Ok(None) };
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(authorities))
            .with_no_client_auth();
        if forwarding.protocol == Protocol::HTTPS {
            config.alpn_protocols = vec![H2.to_vec()];
        }
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), name }))
    }
}

/// Those `authorities`, or else the public ones.
fn roots(authorities: Option<Vec<TrustAnchor<'static>>>) -> RootCertStore {
    RootCertStore { roots: authorities.unwrap_or_else(|| TLS_SERVER_ROOTS.to_vec()) }
}

/// The way to one resolver.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) address: SocketAddr,
    pub(super) tls: Option<Tls>,
}

impl Dial {
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = tls.connector.connect(tls.name.clone(), stream).await?;
        let alpn = stream.get_ref().1.alpn_protocol();
        if !tls.connector.config().alpn_protocols.is_empty() && alpn != Some(H2) {
            return Err(Error::new(ErrorKind::Unsupported, "the resolver does not speak HTTP/2"));
        }
        Ok(Box::new(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_authorities_are_trusted_where_no_others_are_told() {
        assert!(roots(None).len() > 50, "{}", roots(None).len());
        assert_eq!(roots(Some(vec![TLS_SERVER_ROOTS[0].clone()])).len(), 1);
        let told = |protocol| Forwarding {
            protocol,
            tls_server_name: Some("dns.example".to_owned()),
            ..Forwarding::default()
        };
        assert!(Tls::new(&told(Protocol::TLS)).unwrap().is_some());
        assert!(Tls::new(&told(Protocol::UDP)).unwrap().is_none());
    }
}

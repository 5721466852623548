//! Connections to resolvers, plain or over TLS.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::Arc;

use netkeel_crds::cluster_network::dns::{Forwarding, Protocol};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

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
    /// No name, or none that a certificate can have.
    #[error(
        "{0:?} is no name of a certificate: set tlsServerName to the one that the resolvers' certificate has"
    )]
    Name(String),
    /// The PEM cannot be read.
    #[error("caCertificates cannot be read ({0}): it must hold certificates in PEM")]
    Authorities(String),
    /// There is no authority at all.
    #[error(
        "no certificate authority is known: set caCertificates to the one that signs the resolvers' certificate"
    )]
    NoAuthority,
}

impl Tls {
    /// What `forwarding` says of TLS; `None` where it is not spoken.
    pub(super) fn new(forwarding: &Forwarding) -> std::result::Result<Option<Self>, TlsError> {
        if !matches!(forwarding.protocol, Protocol::TLS | Protocol::HTTPS) {
            return Ok(None);
        }
        let name = forwarding.tls_server_name.clone().unwrap_or_default();
        let name = ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name))?;
        let roots = roots(forwarding.ca_certificates.as_deref())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Authorities(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        if forwarding.protocol == Protocol::HTTPS {
            config.alpn_protocols = vec![H2.to_vec()];
        }
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), name }))
    }
}

/// The authorities in `pem`, or else those of the image.
fn roots(pem: Option<&str>) -> std::result::Result<RootCertStore, TlsError> {
    let bad = |error: &dyn std::error::Error| TlsError::Authorities(error.to_string());
    let mut roots = RootCertStore::empty();
    if let Some(pem) = pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() { Err(TlsError::NoAuthority) } else { Ok(roots) }
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
    fn what_is_wrong_with_tls_is_told_before_anybody_is_asked() {
        let told = |name: Option<&str>, pem: Option<&str>| {
            let forwarding = Forwarding {
                protocol: Protocol::TLS,
                tls_server_name: name.map(str::to_owned),
                ca_certificates: pem.map(str::to_owned),
                ..Forwarding::default()
            };
            Tls::new(&forwarding).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(told(None, None).contains("set tlsServerName"));
        assert!(told(Some("dns.example"), Some("nonsense")).contains("set caCertificates"));
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(told(Some("dns.example"), Some(damaged)).contains("must hold certificates in PEM"));
        assert!(Tls::new(&Forwarding::default()).unwrap().is_none());
    }
}

//! Whose certificate a resolver that is asked over TLS has to have.

use netkeel_crds::cluster_network::dns::{Forwarding, Protocol};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor};
use webpki::anchor_from_trusted_cert;

/// The certificate that resolvers have to show.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Name in it.
    pub name: ServerName<'static>,
    /// Who may have signed it; `None` for the public authorities.
    pub authorities: Option<Vec<TrustAnchor<'static>>>,
}

/// Why resolvers cannot be asked over TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No name, or none that a certificate can have.
    #[error("{0:?} is no name that a certificate can have: give the one in the resolvers' certificate")]
    Name(String),
    /// It cannot be read.
    #[error(
        "certificate {number} cannot be read ({problem}): give the certificates of the authorities in PEM, or none for the public authorities"
    )]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There is none in it.
    #[error(
        "it holds no certificate: give those of the authorities in PEM, or none for the public authorities"
    )]
    NoCertificate,
}

impl Untrusted {
    /// The field of `spec.dns.forwarding`, or of that of a stub domain, that is wrong.
    pub(super) fn field(&self) -> &'static str {
        match self {
            Self::Name(_) => "tlsServerName",
            Self::Certificate { .. } | Self::NoCertificate => "caCertificates",
        }
    }
}

impl Trust {
    /// What `forwarding` says of certificates; `None` where TLS is not spoken.
    ///
    /// # Errors
    /// What no schema can refuse.
    pub fn read(forwarding: &Forwarding) -> Result<Option<Self>, Untrusted> {
        if !matches!(forwarding.protocol, Protocol::TLS | Protocol::HTTPS) {
            return Ok(None);
        }
        let name = forwarding.tls_server_name.clone().unwrap_or_default();
        let name = ServerName::try_from(name.clone()).map_err(|_| Untrusted::Name(name))?;
        let authorities = forwarding.ca_certificates.as_deref().map(authorities).transpose()?;
        Ok(Some(Self { name, authorities }))
    }
}

fn authorities(pem: &str) -> Result<Vec<TrustAnchor<'static>>, Untrusted> {
    let read = |(index, certificate): (usize, Result<CertificateDer<'static>, _>)| {
        let bad = |problem| Untrusted::Certificate { number: index + 1, problem };
        let certificate =
            certificate.map_err(|error: rustls_pki_types::pem::Error| bad(error.to_string()))?;
        let anchor = anchor_from_trusted_cert(&certificate).map_err(|error| bad(error.to_string()))?;
        Ok(anchor.to_owned())
    };
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate();
    let anchors = certificates.map(read).collect::<Result<Vec<_>, _>>()?;
    if anchors.is_empty() { Err(Untrusted::NoCertificate) } else { Ok(anchors) }
}

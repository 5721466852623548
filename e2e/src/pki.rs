//! The cluster's own certificates: one authority, server and client certificates, the service account key.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// Signs certificates and writes them as `NAME.crt` and `NAME.key` into one folder.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for. With names or addresses it serves, without it is for clients only.
#[derive(Default)]
pub(crate) struct Subject<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) organization: Option<&'a str>,
    pub(crate) names: &'a [&'a str],
    pub(crate) addresses: &'a [IpAddr],
}

impl Authority {
    /// Makes a new authority; its certificate is `ca.crt`.
    pub(crate) fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = name("netkeel-test-ca", None);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        fs::write(folder.join("ca.crt"), params.self_signed(&key)?.pem())?;
        fs::write(folder.join("ca.key"), key.serialize_pem())?;
        Ok(Self { folder: folder.into(), issuer: Issuer::new(params, key) })
    }

    /// The authority that [`Authority::create`] wrote into the folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let key = fs::read_to_string(folder.join("ca.key")).context("ca.key of the cluster")?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("netkeel-test-ca", None);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        Ok(Self { folder: folder.into(), issuer: Issuer::new(params, KeyPair::from_pem(&key)?) })
    }

    /// Writes `file.crt` and `file.key`.
    pub(crate) fn issue(&self, file: &str, subject: &Subject<'_>) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(subject.common_name, subject.organization);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for dns in subject.names {
            params.subject_alt_names.push(SanType::DnsName((*dns).try_into()?));
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|address| SanType::IpAddress(*address)));
        if !params.subject_alt_names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(self.folder.join(format!("{file}.crt")), certificate.pem())?;
        fs::write(self.folder.join(format!("{file}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Writes the key pair that signs service account tokens: `sa.key` and `sa.pub`.
    pub(crate) fn service_account_key(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        fs::write(self.folder.join("sa.key"), key.serialize_pem())?;
        fs::write(self.folder.join("sa.pub"), key.public_key_pem())?;
        Ok(())
    }
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_authority_still_issues() {
        let folder = tempfile::tempdir().unwrap();
        Authority::create(folder.path()).unwrap();
        let authority = Authority::open(folder.path()).unwrap();
        authority
            .issue("n1", &Subject { common_name: "system:node:n1", names: &["n1"], ..Subject::default() })
            .unwrap();
        authority.service_account_key().unwrap();
        for (file, kind) in [("ca.crt", "CERTIFICATE"), ("n1.crt", "CERTIFICATE"), ("sa.pub", "PUBLIC KEY")] {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            assert!(text.starts_with(&format!("-----BEGIN {kind}-----")), "{file}: {text}");
        }
    }
}

//! Certificates and kubeconfigs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::addresses::{self, API_SERVICE};
use super::{Plan, node_name};
use crate::IpFamily;
use crate::pki::{Authority, Subject};

const SUPERUSERS: &str = "system:masters";

impl Plan<'_> {
    /// Where a file of the cluster's keys is.
    pub(super) fn pki(&self, file: &str) -> String {
        self.folder.join("pki").join(file).display().to_string()
    }

    /// Certificates and kubeconfigs of the cluster; those that exist stay.
    pub(crate) fn secrets(&self) -> Result<()> {
        let pki = self.folder.join("pki");
        let authority = if pki.join("ca.key").exists() {
            Authority::open(&pki)?
        } else {
            let authority = Authority::create(&pki)?;
            authority.service_account_key()?;
            self.control_plane_certificates(&authority)?;
            authority
        };
        for index in 1..=self.nodes {
            let node = node_name(index);
            let subject = Subject {
                common_name: &format!("system:node:{node}"),
                organization: Some("system:nodes"),
                names: &[&node],
                addresses: &addresses::node(index).of(self.ip_family),
            };
            if !pki.join(format!("kubelet-{node}.kubeconfig")).exists() {
                self.client(&authority, &format!("kubelet-{node}"), &subject)?;
            }
        }
        Ok(())
    }

    fn control_plane_certificates(&self, authority: &Authority) -> Result<()> {
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        ];
        let mut addresses = [addresses::node(1), API_SERVICE].map(|both| both.of(IpFamily::Dual)).concat();
        addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
        let server = Subject {
            common_name: "kube-apiserver",
            organization: None,
            names: &names,
            addresses: &addresses,
        };
        authority.issue("apiserver", &server)?;
        for (file, common_name, organization) in [
            ("apiserver-kubelet", "kube-apiserver-kubelet-client", Some(SUPERUSERS)),
            ("admin", "admin", Some(SUPERUSERS)),
            ("kube-controller-manager", "system:kube-controller-manager", None),
            ("kube-scheduler", "system:kube-scheduler", None),
        ] {
            self.client(authority, file, &Subject { common_name, organization, ..Subject::default() })?;
        }
        Ok(())
    }

    fn client(&self, authority: &Authority, file: &str, subject: &Subject<'_>) -> Result<()> {
        authority.issue(file, subject)?;
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://{}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: u, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n",
            self.api_server(),
            self.pki("ca.crt"),
            self.pki(&format!("{file}.crt")),
            self.pki(&format!("{file}.key")),
        );
        Ok(fs::write(self.pki(&format!("{file}.kubeconfig")), text)?)
    }
}

//! The programs that only the first node runs.

use std::net::{Ipv4Addr, SocketAddr};

use super::{API_PORT, Plan, addresses};
use crate::node::Daemon;
use crate::observe::prometheus;

const ETCD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);

impl Plan<'_> {
    pub(super) fn control_plane(&self) -> Vec<Daemon> {
        let data = self.folder.join("etcd").display().to_string();
        let etcd = [
            "etcd",
            "--unsafe-no-fsync",
            "--logger=zap",
            &format!("--data-dir={data}"),
            &format!("--listen-client-urls=http://{ETCD}"),
            &format!("--advertise-client-urls=http://{ETCD}"),
        ]
        .map(String::from);
        let api = Some(self.api_server());
        vec![
            Daemon { name: "etcd".into(), command: etcd.into(), after: None },
            self.kube("kube-apiserver", &self.apiserver(), Some(ETCD)),
            self.kube(
                "kube-controller-manager",
                &[
                    format!("--kubeconfig={}", self.pki("kube-controller-manager.kubeconfig")),
                    format!("--service-account-private-key-file={}", self.pki("sa.key")),
                    format!("--root-ca-file={}", self.pki("ca.crt")),
                    "--use-service-account-credentials".into(),
                    "--leader-elect=false".into(),
                    "--kube-api-qps=200".into(),
                    "--kube-api-burst=400".into(),
                ],
                api,
            ),
            self.kube(
                "kube-scheduler",
                &[
                    format!("--kubeconfig={}", self.pki("kube-scheduler.kubeconfig")),
                    "--leader-elect=false".into(),
                    "--kube-api-qps=200".into(),
                    "--kube-api-burst=400".into(),
                ],
                api,
            ),
        ]
    }

    fn apiserver(&self) -> Vec<String> {
        vec![
            format!("--etcd-servers=http://{ETCD}"),
            format!("--advertise-address={}", addresses::node(1).first(self.ip_family)),
            format!("--bind-address={}", addresses::any(self.ip_family)),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={}", addresses::services(self.ip_family)),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            format!("--client-ca-file={}", self.pki("ca.crt")),
            format!("--tls-cert-file={}", self.pki("apiserver.crt")),
            format!("--tls-private-key-file={}", self.pki("apiserver.key")),
            format!("--kubelet-certificate-authority={}", self.pki("ca.crt")),
            format!("--kubelet-client-certificate={}", self.pki("apiserver-kubelet.crt")),
            format!("--kubelet-client-key={}", self.pki("apiserver-kubelet.key")),
            "--kubelet-preferred-address-types=InternalIP".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            format!("--service-account-key-file={}", self.pki("sa.pub")),
            format!("--service-account-signing-key-file={}", self.pki("sa.key")),
        ]
    }

    /// It stays down until [`crate::Cluster::observe`] wants it.
    pub(super) fn prometheus(&self) -> Daemon {
        let program = prometheus::program(self.binaries.folder());
        let command = prometheus::command(self.folder, &program, self.ip_family);
        Daemon { name: prometheus::NAME.into(), command, after: Some(self.api_server()) }
    }
}

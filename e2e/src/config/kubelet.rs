//! The programs that every node runs: containerd and the kubelet.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::addresses::{self, DNS_SERVICE};
use super::{Plan, node_name};
use crate::node::Daemon;

impl Plan<'_> {
    pub(super) fn node_programs(&self, index: u8, folder: &Path) -> Result<Vec<Daemon>> {
        let name = node_name(index);
        fs::create_dir_all(folder)?;
        let containerd = folder.join("containerd.toml");
        fs::write(&containerd, CONTAINERD)?;
        let kubelet = folder.join("kubelet.yaml");
        fs::write(&kubelet, self.kubelet(&name))?;
        let arguments = [
            format!("--kubeconfig={}", self.pki(&format!("kubelet-{name}.kubeconfig"))),
            format!("--config={}", kubelet.display()),
            format!("--hostname-override={name}"),
            format!("--node-ip={}", addresses::list(&addresses::node(index).of(self.ip_family))),
        ];
        let command = vec!["containerd".into(), "--config".into(), containerd.display().to_string()];
        Ok(vec![
            Daemon { name: "containerd".into(), command, after: None },
            self.kube("kubelet", &arguments, Some(self.api_server())),
        ])
    }

    fn kubelet(&self, name: &str) -> String {
        let [ca, certificate, key] = [
            self.pki("ca.crt"),
            self.pki(&format!("kubelet-{name}.crt")),
            self.pki(&format!("kubelet-{name}.key")),
        ];
        let dns = DNS_SERVICE.first(self.ip_family);
        format!(
            "authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: '{ca}'}}}}\n\
             tlsCertFile: '{certificate}'\ntlsPrivateKeyFile: '{key}'\nclusterDNS: ['{dns}']\n{KUBELET}"
        )
    }
}

/// Without `restrict_oom_score_adj` runc fails where `CAP_SYS_RESOURCE` is missing.
const CONTAINERD: &str = r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    use_internal_loopback = true
"#;

/// No disk eviction and no image garbage collection: the disk is the machine's.
const KUBELET: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authorization: {mode: Webhook}
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDomain: cluster.local
resolvConf: /etc/resolv.conf
failSwapOn: false
maxPods: 250
serializeImagePulls: false
kubeAPIQPS: 100
kubeAPIBurst: 200
imageGCHighThresholdPercent: 100
evictionHard: {imagefs.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.inodesFree: "0%"}
"#;

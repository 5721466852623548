//! Addresses, configuration files and command lines of the cluster's programs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::IpFamily;
use crate::binaries::Binaries;
use crate::node::{Daemon, Link, Spec};
use crate::observe::{jaeger, prometheus};
use crate::pki::{Authority, Subject};

pub(crate) const FABRIC: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 254);
/// The host outside the cluster, the nodes' default gateway and resolver.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// An address that only the outside host has: `outside.test`.
pub(crate) const OUTSIDE_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The same of IPv6, which nodes have in a dual-stack cluster. Beside it [`FABRIC`] and [`OUTSIDE`] have one always.
pub(crate) const FABRIC_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 0xfe);
pub(crate) const OUTSIDE_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0, 1);
pub(crate) const API_PORT: u16 = 6443;
const SERVICES: &str = "10.96.0.0/16";
const SERVICES_IPV6: &str = "fd00:10:96::/112";
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const DNS_SERVICE: &str = "10.96.0.10";
const SUPERUSERS: &str = "system:masters";
/// Folders of a node that survive its restart: name in the node's folder on the host, path in the node.
const VOLUMES: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("netkeel", "/var/lib/netkeel"),
    ("cni-conf", "/etc/cni/net.d"),
    ("cni-bin", "/opt/cni/bin"),
    ("var-log", "/var/log"),
];

/// The address of node `index`, counted from 1.
pub(crate) fn node_address(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + index)
}

/// The same of IPv6.
pub(crate) fn node_address_ipv6(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x30, 0, 0, 0, 0, 0x1, index.into())
}

/// What every member's configuration is made from.
pub(crate) struct Plan<'a> {
    pub(crate) cluster: &'a str,
    /// The cluster's folder.
    pub(crate) folder: &'a Path,
    pub(crate) nodes: u8,
    pub(crate) ip_family: IpFamily,
    pub(crate) binaries: &'a Binaries,
}

impl Plan<'_> {
    fn pki(&self, file: &str) -> String {
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
                addresses: &[node_address(index).into()],
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
        let addresses: [IpAddr; 3] = [node_address(1).into(), API_SERVICE.into(), Ipv4Addr::LOCALHOST.into()];
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
             clusters: [{{name: c, cluster: {{server: 'https://{}:{API_PORT}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: u, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n",
            node_address(1),
            self.pki("ca.crt"),
            self.pki(&format!("{file}.crt")),
            self.pki(&format!("{file}.key")),
        );
        Ok(fs::write(self.pki(&format!("{file}.kubeconfig")), text)?)
    }

    pub(crate) fn fabric(&self) -> Spec {
        self.member("fabric")
    }

    pub(crate) fn outside(&self, fabric: u32, peer: &Path) -> Spec {
        let addresses = vec![format!("{OUTSIDE}/24"), format!("{OUTSIDE_IPV6}/64")];
        let loopback = vec![format!("{OUTSIDE_SERVER}/32")];
        let command = vec![peer.display().to_string(), "outside".into(), OUTSIDE_SERVER.to_string()];
        Spec {
            link: Some(Link { fabric, addresses, gateways: Vec::new(), loopback }),
            daemons: vec![Daemon { name: "outside".into(), command, after: None }],
            ..self.member("outside")
        }
    }

    /// Node `index`, counted from 1; the first one runs the control plane.
    pub(crate) fn node(&self, index: u8, fabric: u32) -> Result<Spec> {
        let name = node_name(index);
        let address = node_address(index);
        let base = self.member(&name);
        let own = |(name, path): &(&str, &str)| (base.folder.join(name), PathBuf::from(path));
        let mut binds: Vec<_> = VOLUMES.iter().map(own).collect();
        binds.extend([self.folder, self.binaries.folder()].map(|path| (path.into(), path.into())));
        let mut daemons = if index == 1 { self.control_plane() } else { Vec::new() };
        daemons.extend(self.node_programs(&name, index, &base.folder)?);
        if index == 1 {
            daemons.push(self.prometheus());
        }
        let (mut addresses, mut gateways) = (vec![format!("{address}/24")], vec![OUTSIDE.to_string()]);
        if self.is_dual() {
            addresses.push(format!("{}/64", node_address_ipv6(index)));
            gateways.push(OUTSIDE_IPV6.to_string());
        }
        let hosts = (1..=self.nodes).map(|index| format!("{} {}", node_address(index), node_name(index)));
        let hosts = hosts.collect::<Vec<_>>().join("\n");
        Ok(Spec {
            link: Some(Link { fabric, addresses, gateways, loopback: Vec::new() }),
            binds,
            files: vec![
                ("/etc/resolv.conf".into(), format!("nameserver {OUTSIDE}\n")),
                ("/etc/hosts".into(), format!("127.0.0.1 localhost\n{hosts}\n")),
                ("/etc/hostname".into(), format!("{name}\n")),
            ],
            daemons,
            ..base
        })
    }

    fn is_dual(&self) -> bool {
        self.ip_family == IpFamily::Dual
    }

    /// The value of an option that takes one for each family.
    fn in_families(&self, ipv4: &impl ToString, ipv6: &impl ToString) -> String {
        if self.is_dual() { format!("{},{}", ipv4.to_string(), ipv6.to_string()) } else { ipv4.to_string() }
    }

    fn member(&self, name: &str) -> Spec {
        let path =
            format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.binaries.path());
        member(self.cluster, self.folder, name, path)
    }

    fn control_plane(&self) -> Vec<Daemon> {
        let etcd = "http://127.0.0.1:2379";
        let data = self.folder.join("etcd").display().to_string();
        let etcd = [
            "etcd",
            "--unsafe-no-fsync",
            "--logger=zap",
            &format!("--data-dir={data}"),
            &format!("--listen-client-urls={etcd}"),
            &format!("--advertise-client-urls={etcd}"),
        ]
        .map(String::from);
        let api = Some(SocketAddr::from((node_address(1), API_PORT)));
        vec![
            Daemon { name: "etcd".into(), command: etcd.into(), after: None },
            self.kube(
                "kube-apiserver",
                &self.apiserver(),
                Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 2379))),
            ),
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

    /// It stays down until [`crate::Cluster::observe`] wants it.
    fn prometheus(&self) -> Daemon {
        let command = prometheus::command(self.folder, &prometheus::program(self.binaries.folder()));
        let api = Some(SocketAddr::from((node_address(1), API_PORT)));
        Daemon { name: prometheus::NAME.into(), command, after: api }
    }

    /// Jaeger, in the network namespace of the fabric.
    pub(crate) fn jaeger(cluster: &str, folder: &Path, fabric: u32, program: &Path) -> Spec {
        let command = jaeger::command(folder, program);
        Spec {
            link: Some(Link { fabric, addresses: Vec::new(), gateways: Vec::new(), loopback: Vec::new() }),
            daemons: vec![Daemon { name: jaeger::NAME.into(), command, after: None }],
            ..member(cluster, folder, jaeger::NAME, String::new())
        }
    }

    fn apiserver(&self) -> Vec<String> {
        vec![
            "--etcd-servers=http://127.0.0.1:2379".into(),
            format!("--advertise-address={}", node_address(1)),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={}", self.in_families(&SERVICES, &SERVICES_IPV6)),
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

    fn node_programs(&self, name: &str, index: u8, folder: &Path) -> Result<Vec<Daemon>> {
        fs::create_dir_all(folder)?;
        let containerd = folder.join("containerd.toml");
        fs::write(&containerd, CONTAINERD)?;
        let kubelet = folder.join("kubelet.yaml");
        fs::write(&kubelet, self.kubelet(name))?;
        let arguments = [
            format!("--kubeconfig={}", self.pki(&format!("kubelet-{name}.kubeconfig"))),
            format!("--config={}", kubelet.display()),
            format!("--hostname-override={name}"),
            format!("--node-ip={}", self.in_families(&node_address(index), &node_address_ipv6(index))),
        ];
        let command = vec!["containerd".into(), "--config".into(), containerd.display().to_string()];
        Ok(vec![
            Daemon { name: "containerd".into(), command, after: None },
            self.kube("kubelet", &arguments, Some(SocketAddr::from((node_address(1), API_PORT)))),
        ])
    }

    fn kube(&self, program: &str, arguments: &[String], after: Option<SocketAddr>) -> Daemon {
        let mut command = vec![self.binaries.kube().display().to_string(), program.to_owned()];
        command.extend_from_slice(arguments);
        Daemon { name: program.into(), command, after }
    }

    fn kubelet(&self, name: &str) -> String {
        let [ca, certificate, key] = [
            self.pki("ca.crt"),
            self.pki(&format!("kubelet-{name}.crt")),
            self.pki(&format!("kubelet-{name}.key")),
        ];
        format!(
            "authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: '{ca}'}}}}\n\
             tlsCertFile: '{certificate}'\ntlsPrivateKeyFile: '{key}'\nclusterDNS: [{DNS_SERVICE}]\n{KUBELET}"
        )
    }
}

/// A member of the cluster that runs nothing yet.
fn member(cluster: &str, folder: &Path, name: &str, path: String) -> Spec {
    Spec {
        name: name.into(),
        group: format!("{}/{name}", group(cluster)),
        folder: folder.join(name),
        link: None,
        path,
        binds: Vec::new(),
        files: Vec::new(),
        daemons: Vec::new(),
    }
}

pub(crate) fn node_name(index: u8) -> String {
    format!("n{index}")
}

/// The cgroup of a whole cluster.
pub(crate) fn group(cluster: &str) -> String {
    format!("netkeel/{cluster}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_alone_runs_the_control_plane() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::at(Path::new("/opt/bin"));
        let ip_family = IpFamily::Ipv4;
        let plan = Plan { cluster: "t", folder: folder.path(), nodes: 2, ip_family, binaries: &binaries };
        plan.secrets().unwrap();
        let names = |spec: &Spec| spec.daemons.iter().map(|daemon| daemon.name.clone()).collect::<Vec<_>>();
        let first = plan.node(1, 7).unwrap();
        let control = [
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "containerd",
            "kubelet",
            "prometheus",
        ];
        assert_eq!(names(&first), control);
        assert_eq!(names(&plan.node(2, 7).unwrap()), ["containerd", "kubelet"]);
        assert_eq!(first.group, "netkeel/t/n1");
        assert!(folder.path().join("pki/kubelet-n2.kubeconfig").exists());
    }

    #[test]
    fn a_dual_stack_cluster_has_both_families_everywhere_and_another_one_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::at(Path::new("/opt/bin"));
        for (ip_family, count) in [(IpFamily::Ipv4, 1), (IpFamily::Dual, 2)] {
            let plan = Plan { cluster: "t", folder: folder.path(), nodes: 1, ip_family, binaries: &binaries };
            let node = plan.node(1, 7).unwrap();
            let link = node.link.unwrap();
            assert_eq!((link.addresses.len(), link.gateways.len()), (count, count), "{ip_family:?}");
            let given = |option: &str| {
                let mut arguments = node.daemons.iter().flat_map(|daemon| &daemon.command);
                let value = arguments.find_map(|argument| argument.strip_prefix(option)).unwrap();
                value.split(',').count()
            };
            assert_eq!((given("--node-ip="), given("--service-cluster-ip-range=")), (count, count));
        }
    }
}

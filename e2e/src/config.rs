//! Addresses, configuration files and command lines of the cluster's programs.

pub(crate) mod addresses;
mod control_plane;
mod kubelet;
mod secrets;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use self::addresses::{OUTSIDE, OUTSIDE_SERVER};
use crate::IpFamily;
use crate::binaries::Binaries;
use crate::node::{Daemon, Link, Spec};
use crate::observe::jaeger;

const API_PORT: u16 = 6443;
/// Folders of a node that survive its restart: name in the node's folder on the host, path in the node.
const VOLUMES: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("netkeel", "/var/lib/netkeel"),
    ("cni-conf", "/etc/cni/net.d"),
    ("cni-bin", "/opt/cni/bin"),
    ("var-log", "/var/log"),
];

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
    /// Where kube-apiserver is reached.
    fn api_server(&self) -> SocketAddr {
        SocketAddr::new(addresses::node(1).first(self.ip_family), API_PORT)
    }

    pub(crate) fn fabric(&self) -> Spec {
        self.member("fabric")
    }

    /// It has both families, whatever the nodes have.
    pub(crate) fn outside(&self, fabric: u32, peer: &Path) -> Spec {
        let addresses = OUTSIDE.of(IpFamily::Dual).into_iter().map(addresses::on_fabric).collect();
        let servers = OUTSIDE_SERVER.of(IpFamily::Dual);
        let mut command = vec![peer.display().to_string(), "outside".into()];
        command.extend(servers.iter().map(ToString::to_string));
        let loopback = servers.into_iter().map(addresses::single).collect();
        Spec {
            link: Some(Link { fabric, addresses, gateways: Vec::new(), loopback }),
            daemons: vec![Daemon { name: "outside".into(), command, after: None }],
            ..self.member("outside")
        }
    }

    /// Node `index`, counted from 1; the first one runs the control plane.
    pub(crate) fn node(&self, index: u8, fabric: u32) -> Result<Spec> {
        let name = node_name(index);
        let base = self.member(&name);
        let own = |(name, path): &(&str, &str)| (base.folder.join(name), PathBuf::from(path));
        let mut binds: Vec<_> = VOLUMES.iter().map(own).collect();
        binds.extend([self.folder, self.binaries.folder()].map(|path| (path.into(), path.into())));
        let mut daemons = if index == 1 { self.control_plane() } else { Vec::new() };
        daemons.extend(self.node_programs(index, &base.folder)?);
        if index == 1 {
            daemons.push(self.prometheus());
        }
        let addresses = addresses::node(index).of(self.ip_family).into_iter().map(addresses::on_fabric);
        let gateways = OUTSIDE.of(self.ip_family).iter().map(ToString::to_string).collect();
        let resolver = OUTSIDE.first(self.ip_family);
        Ok(Spec {
            link: Some(Link { fabric, addresses: addresses.collect(), gateways, loopback: Vec::new() }),
            binds,
            files: vec![
                ("/etc/resolv.conf".into(), format!("nameserver {resolver}\n")),
                ("/etc/hosts".into(), self.hosts()),
                ("/etc/hostname".into(), format!("{name}\n")),
            ],
            daemons,
            ..base
        })
    }

    fn hosts(&self) -> String {
        let address = |index| addresses::node(index).first(self.ip_family);
        let nodes = (1..=self.nodes).map(|index| format!("{} {}\n", address(index), node_name(index)));
        let loopback: &[&str] = match self.ip_family {
            IpFamily::Ipv4 | IpFamily::Dual => &["127.0.0.1 localhost\n"],
            IpFamily::Ipv6 => &["127.0.0.1 localhost\n", "::1 localhost\n"],
        };
        format!("{}{}", loopback.concat(), nodes.collect::<String>())
    }

    fn member(&self, name: &str) -> Spec {
        let path =
            format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.binaries.path());
        member(self.cluster, self.folder, name, path)
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

    /// One of the programs that are in Kubernetes' binary.
    fn kube(&self, program: &str, arguments: &[String], after: Option<SocketAddr>) -> Daemon {
        let mut command = vec![self.binaries.kube().display().to_string(), program.to_owned()];
        command.extend_from_slice(arguments);
        Daemon { name: program.into(), command, after }
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
    fn nodes_have_the_families_of_the_cluster_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::at(Path::new("/opt/bin"));
        for (ip_family, node_ip, services, dns) in [
            (IpFamily::Ipv4, "172.30.0.11", "10.96.0.0/16", "10.96.0.10"),
            (IpFamily::Ipv6, "fd00:30::1:1", "fd00:10:96::/112", "fd00:10:96::a"),
            (IpFamily::Dual, "172.30.0.11,fd00:30::1:1", "10.96.0.0/16,fd00:10:96::/112", "10.96.0.10"),
        ] {
            let plan = Plan { cluster: "t", folder: folder.path(), nodes: 1, ip_family, binaries: &binaries };
            let node = plan.node(1, 7).unwrap();
            let given = |option: &str| {
                let mut arguments = node.daemons.iter().flat_map(|daemon| &daemon.command);
                arguments.find_map(|argument| argument.strip_prefix(option)).unwrap()
            };
            assert_eq!((given("--node-ip="), given("--service-cluster-ip-range=")), (node_ip, services));
            let link = node.link.unwrap();
            let count = node_ip.split(',').count();
            assert_eq!((link.addresses.len(), link.gateways.len()), (count, count), "{ip_family:?}");
            let foreign = |text: &String| !ip_family.has(text.split('/').next().unwrap().parse().unwrap());
            assert!(!link.addresses.iter().chain(&link.gateways).any(foreign), "{ip_family:?}: {link:?}");
            let kubelet = std::fs::read_to_string(folder.path().join("n1/kubelet.yaml")).unwrap();
            assert!(kubelet.contains(&format!("clusterDNS: ['{dns}']\n")), "{kubelet}");
        }
    }
}

//! `local-rr` and `local-crr`: between two pods of one node, beside the same programs in two network namespaces of that node with
//! nothing but a veth pair between them: no program, no policy, no route.

use std::process::Command;

use anyhow::Result;
use netkeel_e2e::workload::Workload;

use super::bed::Bed;
use super::figure::Figure;
use super::loads::{self, Attached, Exchange, Lane};
use super::pod_path::{self, Names};

const NAMESPACE: &str = "bench-local";
/// Names of the namespaces, and their addresses (RFC 5737, RFC 4193).
const ENDS: [(&str, &str, &str); 2] = [
    ("netkeel-bench-client", "192.0.2.1", "fd00:192::1"),
    ("netkeel-bench-server", "192.0.2.2", "fd00:192::2"),
];

pub(super) fn run(bed: &Bed, exchange: Exchange) -> Result<Vec<Figure>> {
    // The first node also runs the control plane.
    let [_, node] = bed.nodes()?;
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    workload.apply(vec![loads::client("client", node), loads::server("server", node)])?;
    workload.ready()?;
    let pod = bed.pod_address(&workload, "server")?;
    let pair = Pair::new(bed, node)?;
    let [client, server] = ENDS.map(|(name, ..)| name);
    let far = if bed.is_ipv6() { ENDS[1].2 } else { ENDS[1].1 };
    let _servers = [Attached::server(bed, pair.command(server)?)?, Attached::node_server(bed, node)?];
    let lanes = [
        Lane::in_pod(bed, NAMESPACE, "client", &pod)?,
        Lane::with(bed, pair.command(client)?, client, far)?,
        Lane::on_node(bed, node, bed.loopback())?,
    ];
    let names = Names { path: "local", loopback: "local-loopback", suffix: "", exchange };
    let figures = pod_path::compare(bed, &names, lanes)?;
    workload.delete_namespace()?;
    Ok(figures)
}

/// Two network namespaces of a node with a veth pair between them, until it is dropped.
struct Pair<'a> {
    bed: &'a Bed,
    node: &'a str,
}

impl<'a> Pair<'a> {
    fn new(bed: &'a Bed, node: &'a str) -> Result<Self> {
        let pair = Self { bed, node };
        pair.remove();
        let [client, server] = ENDS.map(|(name, ..)| name);
        pair.ip(&["netns", "add", client])?;
        pair.ip(&["netns", "add", server])?;
        let peer = ["type", "veth", "peer", "name", "eth0", "netns", server];
        pair.ip(&[&["link", "add", "eth0", "netns", client], peer.as_slice()].concat())?;
        for (name, ipv4, ipv6) in ENDS {
            pair.ip(&["-n", name, "address", "add", &format!("{ipv4}/24"), "dev", "eth0"])?;
            pair.ip(&["-n", name, "address", "add", &format!("{ipv6}/64"), "dev", "eth0", "nodad"])?;
            pair.ip(&["-n", name, "link", "set", "eth0", "up"])?;
        }
        Ok(pair)
    }

    fn ip(&self, arguments: &[&str]) -> Result<()> {
        self.bed.cluster.node_exec(self.node, &[&["ip"], arguments].concat()).map(drop)
    }

    /// Leads into one of them.
    fn command(&self, name: &str) -> Result<Command> {
        let mut command = self.bed.cluster.node_command(self.node)?;
        command.args(["nsenter", &format!("--net=/run/netns/{name}")]);
        Ok(command)
    }

    fn remove(&self) {
        for (name, ..) in ENDS {
            drop(self.ip(&["netns", "delete", name]));
        }
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

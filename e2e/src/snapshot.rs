//! What a cluster looks like, as comparable text: each node's network state and the API objects.
//! Taken before an install and after an uninstall, the two must be equal.

mod normalise;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result};

use crate::Cluster;
use crate::workload::node_names;

/// Lines of each section; sections are named `node/what` and `objects`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    sections: BTreeMap<String, BTreeSet<String>>,
}

/// What is looked at on a node: section, shell command.
const NODE: &[(&str, &str)] = &[
    ("links", "ip -d -o link show"),
    ("addresses", "ip -o address show"),
    ("routes", "ip -4 route show table all; ip -6 route show table all"),
    ("forwarding", "cat /proc/sys/net/ipv4/ip_forward"),
    ("rules", "ip -4 rule show; ip -6 rule show"),
    ("permanent neighbours", "ip neigh show nud permanent"),
    ("nftables", "nft list ruleset"),
    ("tcx and tc", "bpftool net show"),
    ("pins", "find /sys/fs/bpf -mindepth 1"),
    ("cgroup programs", "bpftool cgroup tree \"$(findmnt -n -t cgroup2 -o TARGET | tail -1)\""),
    ("cni", "find /etc/cni/net.d /opt/cni/bin -mindepth 1"),
    // The two folders themselves are made by the kubelet for the agent's mounts, and stay, empty.
    ("state", "find /run/netkeel /var/lib/netkeel -mindepth 1 2>/dev/null || true"),
];

/// Kinds whose objects come and go by themselves, or that hold only moments.
const VOLATILE: &[&str] =
    &["events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses"];

impl Snapshot {
    /// Looks at every node and at all API objects.
    ///
    /// # Errors
    /// A node or the API server does not answer.
    pub fn take(cluster: &Cluster) -> Result<Self> {
        let mut sections = BTreeMap::new();
        for node in node_names(cluster) {
            for (what, command) in NODE {
                let text = cluster
                    .node_exec(&node, &["sh", "-c", command])
                    .with_context(|| format!("{what} of {node}"))?;
                sections.insert(format!("{node}/{what}"), normalise::lines(what, &text));
            }
        }
        sections.insert("objects".into(), objects(cluster)?);
        Ok(Self { sections })
    }

    /// What `after` has more (`+`) and less (`-`); empty when nothing changed.
    #[must_use]
    pub fn difference(&self, after: &Self) -> String {
        let mut text = String::new();
        let empty = BTreeSet::new();
        for name in self.sections.keys().chain(after.sections.keys()).collect::<BTreeSet<_>>() {
            let old = self.sections.get(name).unwrap_or(&empty);
            let new = after.sections.get(name).unwrap_or(&empty);
            for line in old.difference(new) {
                let _ = writeln!(text, "{name}: - {line}");
            }
            for line in new.difference(old) {
                let _ = writeln!(text, "{name}: + {line}");
            }
        }
        text
    }
}

/// `kind namespace name` of every object but the volatile ones, the CRDs and what lies in the chart's namespace.
fn objects(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"])?;
    let kinds: Vec<&str> =
        kinds.lines().map(str::trim).filter(|kind| !kind.is_empty() && !VOLATILE.contains(kind)).collect();
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name";
    let text = cluster.kubectl(&["get", &kinds.join(","), "-A", "--no-headers", "-o", columns])?;
    Ok(normalise::objects(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(section: &str, lines: &[&str]) -> Snapshot {
        let lines = lines.iter().map(ToString::to_string).collect();
        Snapshot { sections: BTreeMap::from([(section.into(), lines)]) }
    }

    #[test]
    fn equal_snapshots_have_no_difference() {
        let snapshot = one("n1/links", &["eth0"]);
        assert_eq!(snapshot.difference(&snapshot.clone()), "");
    }

    #[test]
    fn what_came_and_what_went_are_both_told() {
        let before = one("n1/links", &["eth0", "old"]);
        let after = one("n1/links", &["eth0", "new"]);
        assert_eq!(before.difference(&after), "n1/links: - old\nn1/links: + new\n");
    }
}

//! What to look at when a step failed: conditions, warnings and the last log lines of Netkeel's programs.

use netkeel_e2e::Cluster;
use netkeel_e2e::workload::install;

const LINES: &str = "--tail=12";

/// What is printed: title, arguments of kubectl.
const LOOK: &[(&str, &[&str])] = &[
    ("nodes", &["get", "nodes", "-o", "wide"]),
    ("pods", &["get", "pods", "-A", "-o", "wide"]),
    ("conditions of the ClusterNetwork", &["get", "clusternetwork", "default", "-o", CONDITIONS]),
    ("conditions of the NodeNetworks", &["get", "nodenetworks", "-o", EACH]),
    ("warnings", &["get", "events", "-A", "--field-selector=type=Warning"]),
    ("operator", &["logs", "-n", install::NAMESPACE, "-l", install::OPERATOR, "--prefix", LINES]),
    ("agents", &["logs", "-n", install::NAMESPACE, "-l", install::AGENT, "--prefix", LINES]),
    ("DNS", &["logs", "-n", "kube-system", "-l", "k8s-app=kube-dns", "--prefix", LINES]),
];
const CONDITIONS: &str =
    "jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{'\\n'}{end}";
const EACH: &str = "jsonpath={range .items[*]}{.metadata.name}: {range .status.conditions[*]}{.type}={.status} {.message}; {end}{'\\n'}{end}";

/// Prints everything that can be had; what cannot is said, and does not hide the rest.
pub(super) fn print(cluster: &Cluster) {
    println!();
    for (title, arguments) in LOOK {
        let text = cluster.kubectl(arguments).unwrap_or_else(|error| format!("cannot be had: {error:#}"));
        let lines: Vec<&str> = text.trim_end().lines().collect();
        println!(
            "--- {title}\n{}",
            lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
        );
    }
    println!("--- logs of the cluster itself: {}/<node>/log/", cluster.folder().display());
}

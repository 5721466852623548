//! Takes out of a command's output what changes by itself: indexes, counters, timers, tentative flags.

use std::collections::BTreeSet;

/// Words followed by a value that says nothing about who configured what.
const WITH_VALUE: &[&str] =
    &["qlen", "expires", "gso_max_size", "gro_max_size", "used", "valid_lft", "preferred_lft"];

/// The lines of one section without their accidental parts.
pub(super) fn lines(section: &str, text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| match section {
            "links" | "addresses" => without_index(line),
            "tcx and tc" | "cgroup programs" => program(line),
            "nftables" => counters(line),
            _ => words(line),
        })
        .filter(|line| !line.is_empty())
        .collect()
}

/// Objects of `kubectl get -A` as `kind namespace name`.
pub(super) fn objects(text: &str) -> BTreeSet<String> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|object| object.len() == 3 && !left_behind(object[0], object[1], object[2]))
        .map(|object| object.join(" "))
        .collect()
}

/// What an uninstall leaves on purpose: the CRDs, and the namespace that helm made with its standard objects.
fn left_behind(kind: &str, namespace: &str, name: &str) -> bool {
    const NAMESPACE: &str = "netkeel-system";
    (kind == "CustomResourceDefinition" && name.ends_with(".netkeel.io"))
        || (kind == "Namespace" && name == NAMESPACE)
        || (namespace == NAMESPACE && (name == "kube-root-ca.crt" || name == "default"))
        // the API server makes one APIService per group of CRDs
        || (kind == "APIService" && name.ends_with(".netkeel.io"))
}

/// `4: eth0@if3: <…> …` without the leading index and the peer's.
fn without_index(line: &str) -> String {
    let line = line.split_once(": ").map_or(line, |(_, rest)| rest);
    words(&line.replace('\\', " "))
        .split(' ')
        .map(|word| word.split_once("@if").map_or(word, |(name, _)| name.trim_end_matches(':')))
        .filter(|word| !matches!(*word, "tentative" | "dynamic"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A line of `bpftool … show` without program and link ids.
fn program(line: &str) -> String {
    line.split_whitespace().filter(|word| word.parse::<u64>().is_err()).collect::<Vec<_>>().join(" ")
}

fn counters(line: &str) -> String {
    let mut out = Vec::new();
    let mut skip = 0;
    for word in line.split_whitespace() {
        match word {
            "packets" | "bytes" => skip = 1,
            _ if skip > 0 => skip -= 1,
            _ => out.push(word),
        }
    }
    out.join(" ")
}

fn words(line: &str) -> String {
    let mut out = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if WITH_VALUE.contains(&word) {
            words.next();
        } else {
            out.push(word);
        }
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_told_without_its_index() {
        let found = lines("links", "4: eth0@if7: <UP> mtu 1500 qlen 1000\\    link/ether aa:bb");
        assert_eq!(found, BTreeSet::from(["eth0 <UP> mtu 1500 link/ether aa:bb".to_owned()]));
    }

    #[test]
    fn crds_and_the_namespace_of_the_chart_may_stay() {
        let text = "Namespace <none> netkeel-system\nCustomResourceDefinition <none> nodenetworks.netkeel.io\n\
                    ConfigMap netkeel-system kube-root-ca.crt\nSecret netkeel-system sh.helm.release\n";
        assert_eq!(objects(text), BTreeSet::from(["Secret netkeel-system sh.helm.release".to_owned()]));
    }

    #[test]
    fn counters_of_rules_do_not_differ() {
        assert_eq!(
            lines("nftables", "counter packets 3 bytes 99 accept"),
            lines("nftables", "counter packets 4 bytes 1 accept")
        );
    }

    #[test]
    fn program_ids_do_not_differ() {
        assert_eq!(
            lines("cgroup programs", "  12  cgroup_inet4_connect multi connect4"),
            lines("cgroup programs", "13 cgroup_inet4_connect multi connect4")
        );
    }
}

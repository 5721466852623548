//! The programs in the cluster: how many are there, and of which version.

use serde::Serialize;

use super::Problem;

/// Label that says which program an object belongs to; one of [`NAMES`].
pub(super) const LABEL: &str = "app.kubernetes.io/component";
/// Programs of Netkeel that run in the cluster.
pub(super) const NAMES: [&str; 3] = ["operator", "agent", "dns"];

/// One program in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Component {
    /// `operator`, `agent` or `dns`.
    pub(crate) name: String,
    /// What runs it: `deployment/netkeel-operator`.
    pub(crate) owner: String,
    pub(crate) namespace: String,
    /// Pods that are ready.
    pub(crate) ready: u64,
    /// Pods that there should be.
    pub(crate) wanted: u64,
    /// Tag of the image that it should run; none where the image is named by digest alone.
    pub(crate) version: Option<String>,
}

/// What is wrong with them. Single pods that are missing are no problem of the operator or DNS; the agents are told by node.
pub(super) fn problems(found: &[Component]) -> Vec<Problem> {
    NAMES.iter().filter_map(|name| problem(name, found.iter().find(|one| one.name == *name))).collect()
}

fn problem(name: &str, found: Option<&Component>) -> Option<Problem> {
    let Some(component) = found else {
        let upgrade = "helm upgrade --install netkeel ./helm/netkeel -n netkeel-system";
        return match name {
            "operator" => Some(Problem::new(format!("operator: not there; {}", without(name)), upgrade)),
            _ => Some(Problem::new(
                format!("{name}: not there; {}", without(name)),
                "kubectl describe clusternetwork default; kubectl -n netkeel-system logs deploy/netkeel-operator",
            )),
        };
    };
    let Component { owner, namespace, ready, wanted, .. } = component;
    if name == "agent" || *ready > 0 {
        return None;
    }
    let what = if *wanted == 0 {
        format!("{name}: scaled to none; {}", without(name))
    } else {
        format!("{name}: none of {wanted} is ready; {}", without(name))
    };
    let next = if *wanted == 0 {
        format!("kubectl -n {namespace} scale {owner} --replicas=2")
    } else {
        format!("kubectl -n {namespace} describe pods -l {LABEL}={name}; kubectl -n {namespace} logs {owner}")
    };
    Some(Problem::new(what, next))
}

/// What goes on and what waits without it.
fn without(name: &str) -> &'static str {
    match name {
        "operator" => {
            "nodes go on as they are, new nodes and changes wait, and the network's conditions may be old"
        }
        "agent" => "connections go on, new pods and changes of Services wait",
        _ => "Netkeel answers no names",
    }
}

//! The `DaemonSet` of the agents (docs/architecture.md, "On a node").

use serde_json::{Value, json};

use super::{labels, part};
use crate::{
    plan::{Part, PartName},
    settings::Settings,
};

/// Folders of the host that the agent sees: name, path on the host, path in the container, type, propagation.
const MOUNTS: [(&str, &str, &str, &str, &str); 7] = [
    ("run", "/run/netkeel", "/run/netkeel", "DirectoryOrCreate", "None"),
    ("state", "/var/lib/netkeel", "/var/lib/netkeel", "DirectoryOrCreate", "None"),
    ("bpffs", "/sys/fs/bpf", "/sys/fs/bpf", "DirectoryOrCreate", "HostToContainer"),
    ("cni-bin", "/opt/cni/bin", "/host/opt/cni/bin", "DirectoryOrCreate", "None"),
    ("cni-conf", "/etc/cni/net.d", "/host/etc/cni/net.d", "DirectoryOrCreate", "None"),
    ("cgroup", "/sys/fs/cgroup", "/host/sys/fs/cgroup", "Directory", "HostToContainer"),
    ("sysctl-net", "/proc/sys/net", "/host/proc/sys/net", "Directory", "None"),
];

/// The name of the `DaemonSet`.
#[must_use]
pub fn name(settings: &Settings) -> PartName {
    PartName {
        api_version: "apps/v1",
        kind: "DaemonSet",
        namespace: settings.namespace.clone(),
        name: "netkeel-agent",
    }
}

/// The agents of all nodes. Nobody owns them: a garbage collector would take them away before they have cleaned up.
#[must_use]
pub fn daemon_set(settings: &Settings) -> Part {
    let spec = json!({
        "selector": {"matchLabels": {"app.kubernetes.io/name": "netkeel-agent"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
        "template": {
            "metadata": {
                "labels": labels("agent"),
                "annotations": {"kubectl.kubernetes.io/default-container": "agent", "prometheus.io/port": "9470", "prometheus.io/scrape": "true"},
            },
            "spec": pod(settings),
        },
    });
    part(name(settings), json!({"labels": labels("agent")}), &spec)
}

fn pod(settings: &Settings) -> Value {
    let volumes: Vec<Value> = MOUNTS
        .iter()
        .map(|(name, host, _, kind, _)| json!({"name": name, "hostPath": {"path": host, "type": kind}}))
        .collect();
    json!({
        "serviceAccountName": "netkeel-agent",
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 10,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "initContainers": [mount_bpffs(settings)],
        "containers": [agent(settings)],
        "volumes": volumes,
    })
}

/// Mounting bpffs for the host takes Bidirectional propagation, which only a privileged container may have.
fn mount_bpffs(settings: &Settings) -> Value {
    json!({
        "name": "mount-bpffs",
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/netkeel-agent", "mount-bpffs"],
        "securityContext": {"privileged": true, "readOnlyRootFilesystem": true},
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "volumeMounts": [{"name": "bpffs", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"}],
    })
}

fn agent(settings: &Settings) -> Value {
    let mounts: Vec<Value> = MOUNTS
        .iter()
        .map(|(name, _, path, _, propagation)| {
            json!({"name": name, "mountPath": path, "mountPropagation": propagation})
        })
        .collect();
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    json!({
        "name": "agent",
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["/netkeel-agent"],
        "env": [
            {"name": "NODE_NAME", "valueFrom": field("spec.nodeName")},
            {"name": "POD_NAME", "valueFrom": field("metadata.name")},
            {"name": "NETKEEL_API_SERVERS", "value": settings.api_servers_text()},
        ],
        "securityContext": {
            "runAsUser": 0,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "startupProbe": {"httpGet": {"path": "/healthz", "port": 9470, "host": "127.0.0.1"}, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": 9470, "host": "127.0.0.1"}, "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9470, "host": "127.0.0.1"}, "periodSeconds": 3},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    })
}

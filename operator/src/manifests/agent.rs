//! The agent's `DaemonSet`: three capabilities, the node's own folders, every taint tolerated.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Release, metadata, probe};

/// Name of the `DaemonSet`, its container and its service account.
pub const NAME: &str = "netkeel-agent";
/// Labels of the `DaemonSet` and its pods.
const LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/name", "netkeel"), ("app.kubernetes.io/component", "agent")];
/// Port of the agent's /metrics, /healthz and /readyz on the node.
const ADMIN_PORT: u16 = 9470;

/// Folders of the node: volume, path on the node, path in the container, kind, propagation.
const FOLDERS: [(&str, &str, &str, &str, &str); 7] = [
    ("run", "/run/netkeel", "/run/netkeel", "DirectoryOrCreate", "None"),
    ("state", "/var/lib/netkeel", "/var/lib/netkeel", "DirectoryOrCreate", "None"),
    ("bpffs", "/sys/fs/bpf", "/sys/fs/bpf", "Directory", "HostToContainer"),
    ("cni-bin", "/opt/cni/bin", "/host/opt/cni/bin", "DirectoryOrCreate", "None"),
    ("cni-conf", "/etc/cni/net.d", "/host/etc/cni/net.d", "DirectoryOrCreate", "None"),
    ("cgroup", "/sys/fs/cgroup", "/host/sys/fs/cgroup", "Directory", "HostToContainer"),
    ("sysctl", "/proc/sys/net", "/host/proc/sys/net", "Directory", "None"),
];

/// The `DaemonSet`. `api_servers` is the agents' first contact: they need neither DNS nor the service network.
#[must_use]
pub fn daemon_set(release: &Release, api_servers: &[SocketAddr]) -> Value {
    let labels: serde_json::Map<_, _> = LABELS.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata(release, &release.namespace, NAME, &LABELS),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod(release, api_servers)},
        },
    })
}

fn pod(release: &Release, api_servers: &[SocketAddr]) -> Value {
    let volume = |(name, node, _, kind, _): &(&str, &str, &str, &str, &str)| json!({"name": name, "hostPath": {"path": node, "type": kind}});
    json!({
        "serviceAccountName": NAME,
        "hostNetwork": true,
        "dnsPolicy": "Default",
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 10,
        "initContainers": [mount_bpffs(release)],
        "containers": [container(release, api_servers)],
        "volumes": FOLDERS.iter().map(volume).collect::<Vec<_>>(),
    })
}

/// Mounts the BPF file system where the node lacks it. Kubernetes lets only a privileged container propagate a mount to the node.
fn mount_bpffs(release: &Release) -> Value {
    json!({
        "name": "mount-bpffs",
        "image": release.image,
        "imagePullPolicy": release.pull_policy,
        "command": ["/netkeel-agent", "mount-bpffs"],
        "securityContext": {"privileged": true, "readOnlyRootFilesystem": true},
        "volumeMounts": [{"name": "bpffs", "mountPath": "/sys/fs/bpf", "mountPropagation": "Bidirectional"}],
    })
}

fn container(release: &Release, api_servers: &[SocketAddr]) -> Value {
    let servers: Vec<String> = api_servers.iter().map(ToString::to_string).collect();
    let mount = |(name, _, path, _, propagation): &(&str, &str, &str, &str, &str)| json!({"name": name, "mountPath": path, "mountPropagation": propagation});
    json!({
        "name": NAME,
        "image": release.image,
        "imagePullPolicy": release.pull_policy,
        "command": ["/netkeel-agent"],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "NETKEEL_API_SERVERS", "value": servers.join(",")},
        ],
        "ports": [{"name": "admin", "containerPort": ADMIN_PORT}],
        "readinessProbe": probe("/readyz", ADMIN_PORT, 2, 2),
        "livenessProbe": probe("/healthz", ADMIN_PORT, 10, 6),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]},
        },
        "volumeMounts": FOLDERS.iter().map(mount).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::tests::release;
    use k8s_openapi::api::apps::v1::DaemonSet;

    #[test]
    fn the_agent_has_three_capabilities_and_every_folder_it_names() {
        let object = daemon_set(&release(), &["10.0.0.1:6443".parse().unwrap()]);
        let typed: DaemonSet = serde_json::from_value(object).unwrap();
        let pod = typed.spec.unwrap().template.spec.unwrap();
        let container = &pod.containers[0];
        let security = container.security_context.clone().unwrap();
        assert_eq!(security.privileged, None);
        assert_eq!(security.capabilities.unwrap().add.unwrap(), ["BPF", "NET_ADMIN", "PERFMON"]);
        let volumes: Vec<_> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
        assert!(container.volume_mounts.iter().flatten().all(|mount| volumes.contains(&mount.name)));
        assert_eq!(container.env.as_ref().unwrap()[1].value.as_deref(), Some("10.0.0.1:6443"));
    }
}

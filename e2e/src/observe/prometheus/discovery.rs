//! What Prometheus' own discovery in Kubernetes would find, with its labels `__meta_kubernetes_*`, as files.
//! <https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config>

use std::fs;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::Cluster;
use crate::config::addresses::before_port;

/// Files of this age are written anew.
const AGE: Duration = Duration::from_secs(3);

/// Writes `pods.json` and `services.json`, unless they are fresh. Prometheus notices.
pub(super) fn refresh(cluster: &Cluster) -> Result<()> {
    let file = cluster.folder().join("services.json");
    let written = fs::metadata(&file).and_then(|data| data.modified());
    if written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < AGE)) {
        return Ok(());
    }
    let of_kind = |kind: &str| cluster.kubectl_json(&["get", kind, "-A"]);
    let targets = pods(&of_kind("pods")?);
    write(cluster, "pods.json", &targets)?;
    write(cluster, "services.json", &services(&of_kind("services")?, &of_kind("endpointslices")?))
}

/// A file is never seen half written.
fn write(cluster: &Cluster, name: &str, targets: &[Value]) -> Result<()> {
    let (file, new) = (cluster.folder().join(name), cluster.folder().join(format!("{name}.new")));
    fs::write(&new, serde_json::to_vec_pretty(targets)?)?;
    Ok(fs::rename(new, file)?)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// Annotations as labels `__meta_kubernetes_<object>_annotation_<name>`.
fn annotations(object: &Value, of: &str) -> Map<String, Value> {
    let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let all = object["metadata"]["annotations"].as_object().into_iter().flatten();
    all.map(|(name, value)| (format!("__meta_kubernetes_{of}_annotation_{}", plain(name)), value.clone()))
        .collect()
}

fn target(address: &Value, mut labels: Map<String, Value>, more: Value) -> Value {
    if let Value::Object(more) = more {
        labels.extend(more.into_iter().filter(|(_, value)| value.is_string()));
    }
    json!({"targets": [address], "labels": labels})
}

fn pods(list: &Value) -> Vec<Value> {
    let with_address = items(list).filter(|pod| pod["status"]["podIP"].is_string());
    with_address
        .map(|pod| {
            let more = json!({
                "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
                "__meta_kubernetes_pod_name": pod["metadata"]["name"],
                "__meta_kubernetes_pod_node_name": pod["spec"]["nodeName"],
                "__meta_kubernetes_pod_phase": pod["status"]["phase"],
                "__meta_kubernetes_pod_ip": pod["status"]["podIP"],
            });
            target(&pod["status"]["podIP"], annotations(pod, "pod"), more)
        })
        .collect()
}

fn services(services: &Value, slices: &Value) -> Vec<Value> {
    let mut targets = Vec::new();
    for slice in items(slices) {
        let name = &slice["metadata"]["labels"]["kubernetes.io/service-name"];
        let same = |service: &&Value| {
            service["metadata"]["name"] == *name
                && service["metadata"]["namespace"] == slice["metadata"]["namespace"]
        };
        let Some(service) = items(services).find(same) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            for port in slice["ports"].as_array().into_iter().flatten() {
                let address = endpoint["addresses"][0].as_str().unwrap_or_default();
                let more = json!({
                    "__meta_kubernetes_namespace": slice["metadata"]["namespace"],
                    "__meta_kubernetes_service_name": name,
                    "__meta_kubernetes_pod_name": endpoint["targetRef"]["name"],
                    "__meta_kubernetes_pod_node_name": endpoint["nodeName"],
                });
                let address = format!("{}:{}", before_port(address), port["port"]).into();
                targets.push(target(&address, annotations(service, "service"), more));
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_with_an_address_are_targets_with_their_annotations() {
        let list = json!({"items": [
            {"metadata": {"name": "a", "namespace": "x", "annotations": {"prometheus.io/port": "9470"}},
             "spec": {"nodeName": "n1"}, "status": {"podIP": "192.0.2.1", "phase": "Running"}},
            {"metadata": {"name": "b", "namespace": "x"}, "spec": {}, "status": {"phase": "Pending"}},
        ]});
        let found = pods(&list);
        assert_eq!((found.len(), &found[0]["targets"]), (1, &json!(["192.0.2.1"])));
        let labels = &found[0]["labels"];
        assert_eq!(labels["__meta_kubernetes_pod_annotation_prometheus_io_port"], "9470");
        assert_eq!(labels["__meta_kubernetes_pod_node_name"], "n1");
    }

    #[test]
    fn endpoints_are_targets_with_the_annotations_of_their_service() {
        let annotated = json!({"metadata": {"name": "s", "namespace": "x", "annotations": {"prometheus.io/scrape": "true"}}});
        let slice = |service: &str| {
            json!({"metadata": {"namespace": "x", "labels": {"kubernetes.io/service-name": service}},
                   "ports": [{"port": 53}, {"port": 9472}],
                   "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n2"}, {"addresses": ["fd00::1"]}]})
        };
        let found = services(&json!({"items": [annotated]}), &json!({"items": [slice("s"), slice("gone")]}));
        let addresses: Vec<&Value> = found.iter().map(|target| &target["targets"][0]).collect();
        assert_eq!(addresses, ["10.0.0.1:53", "10.0.0.1:9472", "[fd00::1]:53", "[fd00::1]:9472"]);
        let labels = &found[0]["labels"];
        assert_eq!(labels["__meta_kubernetes_service_annotation_prometheus_io_scrape"], "true");
        assert!(labels.get("__meta_kubernetes_pod_name").is_none(), "{labels}");
    }
}

//! Prometheus of Debian as a program of the first node, whose datapath leads to every pod. It scrapes what is annotated
//! with `prometheus.io/scrape` and `prometheus.io/port`, by the rules of the usual chart of Prometheus.

mod discovery;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::config::addresses;
use crate::{Cluster, IpFamily, Progress, binaries, http, process};

pub(crate) const NAME: &str = "prometheus";
const PORT: u16 = 9090;

/// One series of an answer, with its present value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Labels, the name of the metric as `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// Value at the time of the query.
    pub value: f64,
}

impl Cluster {
    /// What Prometheus makes of an expression now: the series of an instant vector.
    ///
    /// # Errors
    /// Prometheus does not run, or does not take the expression.
    pub fn prometheus_query(&self, expression: &str) -> Result<Vec<Sample>> {
        discovery::refresh(self)?;
        let path = format!("/api/v1/query?query={}", http::quoted(expression));
        let text = http::get(self, address(self.ip_family()), &path).context(
            "is it running? cargo xtask cluster up starts it, and logs are in n1/log/prometheus.log",
        )?;
        samples(&text).with_context(|| expression.to_owned())
    }

    /// What Prometheus scrapes: job and address, and why the last scrape failed, if it did.
    ///
    /// # Errors
    /// As [`Cluster::prometheus_query`].
    pub fn prometheus_targets(&self) -> Result<Vec<(String, Option<String>)>> {
        let answer: Answer<Targets> = serde_json::from_str(&http::get(
            self,
            address(self.ip_family()),
            "/api/v1/targets?state=active",
        )?)?;
        let told =
            |target: Target| (target.scrape_url, Some(target.last_error).filter(|error| !error.is_empty()));
        Ok(answer.data.active_targets.into_iter().map(told).collect())
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Targets {
    active_targets: Vec<Target>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    scrape_url: String,
    last_error: String,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Found {
    Vector(Vec<Series>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn samples(text: &str) -> Result<Vec<Sample>> {
    let answer: Answer<Found> = serde_json::from_str(text)?;
    let series = match answer.data {
        Found::Vector(series) => series,
        Found::Scalar(value) => vec![Series { metric: BTreeMap::new(), value }],
    };
    let sample = |Series { metric, value }| Ok(Sample { labels: metric, value: value.1.parse()? });
    series.into_iter().map(sample).collect()
}

fn address(families: IpFamily) -> SocketAddr {
    SocketAddr::new(addresses::node(1).first(families), PORT)
}

/// Where the program is, below the folder that every node sees.
pub(crate) fn program(folder: &Path) -> PathBuf {
    folder.join(NAME).join(NAME)
}

pub(crate) fn command(cluster: &Path, program: &Path, families: IpFamily) -> Vec<String> {
    vec![
        program.display().to_string(),
        format!("--config.file={}", cluster.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", cluster.join("prometheus").display()),
        "--storage.tsdb.retention.time=1d".into(),
        format!("--web.listen-address={}", address(families)),
        "--log.level=warn".into(),
    ]
}

/// Takes the program out of Debian's package, which is not installed: that would start it on this machine.
pub(crate) fn fetch(progress: &Progress) -> Result<()> {
    let folder = binaries::cache_root()?.join("bin");
    let target = program(&folder);
    if target.exists() {
        return Ok(());
    }
    progress.say("fetching Debian's package prometheus");
    let part = folder.join(format!("{NAME}.{}", std::process::id()));
    fs::create_dir_all(&part)?;
    if download(&part).is_err() {
        process::run(Command::new("apt-get").args(["update", "-q"]))?;
        download(&part).context("Debian's package prometheus: is there a network?")?;
    }
    let package = package(&part)?;
    process::run(Command::new("dpkg").arg("-x").arg(package).arg(part.join("x")))?;
    fs::create_dir_all(folder.join(NAME))?;
    // Another process may have been faster; its result is the same.
    fs::rename(part.join("x/usr/bin").join(NAME), &target).with_context(|| target.display().to_string())?;
    Ok(fs::remove_dir_all(&part)?)
}

fn download(folder: &Path) -> Result<()> {
    let options = ["download", "-q", "-o", "APT::Sandbox::User=root", NAME];
    process::run(Command::new("apt-get").args(options).current_dir(folder)).map(drop)
}

fn package(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "deb") {
            return Ok(path);
        }
    }
    bail!("apt-get left no package in {}", folder.display())
}

/// Writes its configuration.
pub(crate) fn configure(cluster: &Path) -> Result<()> {
    fs::create_dir_all(cluster)?;
    let text = CONFIGURATION.replace("FOLDER", &cluster.display().to_string());
    Ok(fs::write(cluster.join("prometheus.yml"), text)?)
}

/// Debian builds Prometheus without discovery in Kubernetes, so the targets come from files with the same labels
/// ([`discovery`]). The rules are those of a user: pods and Services that ask for it by annotation, with the labels that dashboards group by.
const CONFIGURATION: &str = r"global: {scrape_interval: 2s, scrape_timeout: 2s}
scrape_configs:
- job_name: kubernetes-pods
  file_sd_configs: [{files: ['FOLDER/pods.json']}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], action: keep, regex: 'true'}
  - {source_labels: [__meta_kubernetes_pod_phase], action: drop, regex: Pending|Succeeded|Failed|Completed}
  - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    regex: ([\d.]+);(\d+)
    replacement: $1:$2
    target_label: __address__
  - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
    regex: (.+:.+);(\d+)
    replacement: '[$1]:$2'
    target_label: __address__
  - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
- job_name: kubernetes-service-endpoints
  file_sd_configs: [{files: ['FOLDER/services.json']}]
  relabel_configs:
  - {source_labels: [__meta_kubernetes_service_annotation_prometheus_io_scrape], action: keep, regex: 'true'}
  - source_labels: [__address__, __meta_kubernetes_service_annotation_prometheus_io_port]
    regex: (.+?)(?::\d+)?;(\d+)
    replacement: $1:$2
    target_label: __address__
  - {source_labels: [__meta_kubernetes_namespace], target_label: namespace}
  - {source_labels: [__meta_kubernetes_service_name], target_label: service}
  - {source_labels: [__meta_kubernetes_pod_name], target_label: pod}
  - {source_labels: [__meta_kubernetes_pod_node_name], target_label: node}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_scalars_are_read_from_the_answer() {
        let text = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","pod":"a"},"value":[1.5,"1"]}]}}"#;
        let found = samples(text).unwrap();
        assert_eq!((found.len(), found[0].value), (1, 1.0));
        assert_eq!(found[0].labels["pod"], "a");
        let scalar = r#"{"data":{"resultType":"scalar","result":[1.5,"2"]}}"#;
        assert!(samples(scalar).unwrap()[0].value > 1.9);
        assert!(samples("{}").is_err());
    }
}

//! `cargo xtask demo`: Netkeel's main job on a real two-node cluster, from nothing, with a checklist as it goes.
//! Every line with a check mark was checked for real, more than once; the cluster stays up at the end.

mod checklist;
mod checks;
mod diagnosis;
mod observed;
mod policies;

use anyhow::Result;
use netkeel_e2e::workload::{Workload, install};
use netkeel_e2e::{Cluster, DEFAULT_NAME, Options, Progress};

use crate::{image, setup};
use checklist::Checklist;

/// Namespace of the sample application.
const NAMESPACE: &str = "sample";

pub(crate) fn run() -> Result<()> {
    let mut list = Checklist::start();
    let cluster = prepare(&mut list)?;
    let outcome = main_job(&mut list, &cluster);
    if outcome.is_err() {
        diagnosis::print(&cluster);
    }
    println!("\n{}", how_to_go_on(cluster.name()));
    outcome?;
    println!("\nAll {} steps passed in {:.1} s.", list.passed(), list.elapsed().as_secs_f64());
    Ok(())
}

/// What the main job needs: packages, the image, a cluster that has it.
fn prepare(list: &mut Checklist) -> Result<Cluster> {
    let progress = Progress::start();
    list.step("needed Debian packages are installed", setup::run)?;
    let archive = list.step("image is built", image::build)?;
    let options = Options::default();
    let cluster = list.step("two-node cluster is up", || Cluster::up(&options, &progress))?;
    list.step("image is loaded on both nodes", || cluster.load_image(&archive))?;
    list.step("Jaeger and Prometheus run beside it", || cluster.observe(&progress))?;
    Ok(cluster)
}

fn main_job(list: &mut Checklist, cluster: &Cluster) -> Result<()> {
    list.step("helm install netkeel ./helm/netkeel, without values", || helm_install(cluster))?;
    list.told("both nodes are Ready", || checks::nodes_ready(cluster))?;
    let workload = Workload::new(cluster, NAMESPACE)?;
    list.step("sample application runs: three pods, a Service, a client on each node", || {
        checks::deploy(&workload, cluster)
    })?;
    list.told("pods on different nodes reach each other", || checks::pods_talk(&workload))?;
    list.told("pods reach the outside", || checks::outside(&workload))?;
    list.told("the Service is reached by name, each backend gets its share", || checks::shares(&workload))?;
    list.told("a backend is scaled away and no connection goes there", || checks::scaled_away(&workload))?;
    list.told("it comes back and gets its share", || checks::scaled_back(&workload))?;
    seen_from_outside(list, cluster, &workload)
}

/// Policy, and what is to be seen of all that.
fn seen_from_outside(list: &mut Checklist, cluster: &Cluster, workload: &Workload<'_>) -> Result<()> {
    list.told("a policy denies, across nodes", || policies::denies(workload))?;
    list.told("another policy allows again", || policies::allows(workload))?;
    list.told("netkeel why names the rule", || policies::why(workload, cluster, NAMESPACE))?;
    list.told("the install is one trace in Jaeger", || observed::install_trace(cluster))?;
    list.told("a pod's start is one trace in Jaeger", || observed::pod_trace(cluster))?;
    list.told("Prometheus answers the dashboard's queries", || observed::dashboard_answers(cluster, workload))
}

fn helm_install(cluster: &Cluster) -> Result<()> {
    if install::is_installed(cluster) {
        println!("  it is installed from before: upgrading it");
        return install::helm_upgrade(cluster, &[]).map(drop);
    }
    install::helm_install(cluster, &[]).map(drop)
}

fn how_to_go_on(cluster: &str) -> String {
    let name = if cluster == DEFAULT_NAME { String::new() } else { format!(" --name {cluster}") };
    format!(
        "The cluster stays up:\n  \
         cargo xtask cluster kubectl{name} -- get pods -A -o wide\n  \
         cargo xtask cluster kubectl{name} -- get clusternetworks,nodenetworks,addressblocks\n  \
         cargo xtask cluster kubectl{name} -- exec -n {NAMESPACE} client-0 -- /netkeel-e2e-peer connect --to echo:7000 --count 300\n  \
         cargo xtask cluster trace{name} --last pod\n  \
         cargo xtask cluster node{name} n1 -- ip route\n\
         Take it down:\n  \
         cargo xtask cluster down{name}"
    )
}

//! `netkeel-operator uninstall`: run by the chart before it deletes the operator.

use std::{io::Write, time::Duration};

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use netkeel_crds::{
    ClusterNetwork, DEFAULT, NodeNetwork,
    condition::{
        is_true,
        kind::{DEGRADED, REMOVED},
    },
};
use tokio::time::{Instant, sleep};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Why the network is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator has not finished.
    #[error(
        "ClusterNetwork default is still there after {seconds} s: {message}; see kubectl -n netkeel-system logs deploy/netkeel-operator"
    )]
    StillThere {
        /// How long was waited.
        seconds: u64,
        /// What the network said last.
        message: String,
    },
}

/// Deletes the `ClusterNetwork` and waits for at most `timeout` until its finalizer is gone.
///
/// # Errors
/// If it is still there after `timeout`; nodes that are not clean are named on stdout.
pub async fn run(client: Client, image: &str, timeout: Duration) -> Result<(), Error> {
    let networks: Api<ClusterNetwork> = Api::all(client.clone());
    let nodes: Api<NodeNetwork> = Api::all(client);
    let start = Instant::now();
    let mut dirty = Vec::new();
    let mut last = String::new();
    let mut asked = false;
    loop {
        match step(&networks, &nodes, &mut asked).await {
            Ok(Some(state)) => {
                if state.message != last {
                    say(&state.message);
                    last = state.message;
                }
                dirty = state.dirty.unwrap_or(dirty);
            }
            Ok(None) => break,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "trying again"),
        }
        if start.elapsed() > timeout {
            by_hand(&dirty, image);
            return Err(Error::StillThere { seconds: timeout.as_secs(), message: last });
        }
        sleep(LOOK).await;
    }
    by_hand(&dirty, image);
    say(
        "Netkeel is removed. Its CRDs stay: kubectl delete crd addressblocks.netkeel.io clusternetworks.netkeel.io nodenetworks.netkeel.io",
    );
    Ok(())
}

/// How far the removal is.
struct State {
    message: String,
    /// Nodes that have not cleaned up; none when it cannot be told any more.
    dirty: Option<Vec<String>>,
}

async fn step(
    networks: &Api<ClusterNetwork>,
    nodes: &Api<NodeNetwork>,
    asked: &mut bool,
) -> Result<Option<State>, kube::Error> {
    let network = match networks.get_opt(DEFAULT).await {
        Ok(Some(network)) => network,
        Ok(None) => return Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(None), // the CRD is gone
        Err(error) => return Err(error),
    };
    if !*asked {
        networks.delete(DEFAULT, &DeleteParams::default()).await?;
        *asked = true;
    }
    let conditions = network.status.map(|status| status.conditions).unwrap_or_default();
    let message =
        conditions.iter().find(|condition| condition.type_ == DEGRADED && condition.status == "True");
    let left = nodes.list(&ListParams::default()).await?.items;
    let dirty: Vec<String> = left
        .iter()
        .filter(|node| !node.status.as_ref().is_some_and(|status| is_true(&status.conditions, REMOVED)))
        .map(ResourceExt::name_any)
        .collect();
    let message = message.map_or_else(|| "removing".to_owned(), |condition| condition.message.clone());
    Ok(Some(State { message, dirty: (!left.is_empty()).then_some(dirty) }))
}

fn by_hand(nodes: &[String], image: &str) {
    for node in nodes {
        say(&format!(
            "node {node} was not cleaned up; when it is back: kubectl debug node/{node} --profile=sysadmin --image={image} -- \
             /netkeel-agent clean --bpffs /host/sys/fs/bpf --run-folder /host/run/netkeel --state-folder /host/var/lib/netkeel"
        ));
    }
}

/// Stdout is what the user sees of the job.
fn say(text: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{text}") {
        tracing::debug!(error = &error as &dyn std::error::Error, text, "nobody listens");
    }
}

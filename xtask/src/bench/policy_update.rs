//! `policy-update`: from the API server's answer to a changed `NetworkPolicy` until both nodes obey it. The policy lets the
//! probers in and keeps them out in turn; each prober tries to connect every two milliseconds to a pod of the other node,
//! whose node decides.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::Workload;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Api, Written};
use super::bed::Bed;
use super::figure::{Figure, Unit};
use super::loads::{self, Attached, CLOSING_PORT, Lane, PEER, endpoint};

const NAMESPACE: &str = "bench-update";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/bench-update/networkpolicies/guard";
const FLIPS: u64 = 200;
/// How long a flip is watched; one that is not in force by then counts as that long.
const WATCHED: Duration = Duration::from_millis(500);
/// Between two tries of a prober.
const INTERVAL: Duration = Duration::from_millis(2);
const IN_FORCE: Duration = Duration::from_secs(20);

/// The prober and the guarded pod that it tries, which runs on the other node.
const PAIRS: [(&str, &str); 2] = [("prober-1", "guarded-2"), ("prober-2", "guarded-1")];

pub(super) fn run(bed: &Bed) -> Result<Vec<Figure>> {
    let workload = Workload::new(&bed.cluster, NAMESPACE)?;
    let mut objects = vec![guard()];
    for (node, [prober, guarded]) in
        bed.nodes()?.into_iter().zip([["prober-1", "guarded-1"], ["prober-2", "guarded-2"]])
    {
        objects.extend([loads::client(prober, node), loads::server(guarded, node)]);
    }
    workload.apply(objects)?;
    workload.ready()?;
    let targets = [bed.pod_address(&workload, PAIRS[0].1)?, bed.pod_address(&workload, PAIRS[1].1)?];
    let api = Api::start(bed)?;
    for open in [false, true] {
        api.merge(POLICY, &rules(open))?;
        wait_in_force(bed, &targets, open)?;
    }
    bed.settle()?;
    let probers = [prober(bed, PAIRS[0].0, &targets[0])?, prober(bed, PAIRS[1].0, &targets[1])?];
    thread::sleep(Duration::from_secs(2));
    let flips: Vec<Flip> = (0..FLIPS).map(|number| flip(&api, number)).collect::<Result<_>>()?;
    let mut seen = Vec::new();
    for prober in probers {
        seen.push(prober.finish::<Seen>()?.accepted_us);
    }
    drop(api);
    workload.delete_namespace()?;
    Ok(figures(&flips, &seen, |text| bed.progress.say(text)))
}

fn prober(bed: &Bed, pod: &str, target: &str) -> Result<Attached> {
    let (to, interval) = (endpoint(target, CLOSING_PORT)?, INTERVAL.as_millis().to_string());
    Attached::in_pod(bed, NAMESPACE, pod, &[PEER, "bench-probe", "--to", &to, "--interval", &interval])
}

fn wait_in_force(bed: &Bed, targets: &[String; 2], open: bool) -> Result<()> {
    for ((pod, guarded), target) in PAIRS.into_iter().zip(targets) {
        let mut lane = Lane::in_pod(bed, NAMESPACE, pod, target)?;
        let what = format!("{pod} {} {guarded}", if open { "reaches" } else { "is kept from" });
        wait_until(&what, IN_FORCE, || {
            ensure!(lane.reaches(target, CLOSING_PORT)? == open, "it is the other way round");
            Ok(())
        })
        .context("the policy is not in force")?;
    }
    Ok(())
}

/// Writes the next state of the policy and waits while the probers see what comes of it. It begins open.
fn flip(api: &Api, number: u64) -> Result<Flip> {
    let open = number % 2 == 1;
    let written = api.merge(POLICY, &rules(open))?;
    // Uneven, so that no beat of the machine meets every flip.
    thread::sleep(WATCHED + Duration::from_millis(number * 7 % 19));
    Ok(Flip { open, written })
}

/// What a prober says.
#[derive(Deserialize)]
struct Seen {
    /// When each try that was accepted began, microseconds since 1970, ascending.
    accepted_us: Vec<u64>,
}

/// One change of the policy.
struct Flip {
    /// Whether it lets the probers in.
    open: bool,
    written: Written,
}

impl Flip {
    /// Microseconds from the API server's answer until a prober saw the new state and no longer the old one. A try that is
    /// accepted proves that policy allowed it; one that is not proves nothing on a busy machine. So the first accepted
    /// try opens, and the try after the last accepted one closes.
    fn in_force(&self, accepted: &[u64]) -> u64 {
        let watched = micros(WATCHED);
        let end = self.written.answered + watched;
        let from = accepted.partition_point(|at| *at < self.written.sent);
        let to = accepted.partition_point(|at| *at < end);
        let window = accepted.get(from..to).unwrap_or_default();
        let at = if self.open {
            window.first().copied().unwrap_or(end)
        } else {
            window.last().map_or(self.written.sent, |last| last + micros(INTERVAL))
        };
        at.saturating_sub(self.written.answered).min(watched)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The slower node counts.
fn figures(flips: &[Flip], seen: &[Vec<u64>], say: impl Fn(String)) -> Vec<Figure> {
    let slowest = |flip: &Flip| seen.iter().map(|accepted| flip.in_force(accepted)).max().unwrap_or_default();
    let times = |flips: &mut dyn Iterator<Item = &Flip>| {
        let mut times: Vec<u64> = flips.map(slowest).collect();
        times.sort_unstable();
        times
    };
    for (what, open) in [("let in", true), ("keep out", false)] {
        let times = times(&mut flips.iter().filter(|flip| flip.open == open));
        let [p50, p99] = [500, 990].map(|share| millis(percentile(&times, share)));
        say(format!("{} flips that {what}: p50 {p50:.1} ms, p99 {p99:.1} ms", times.len()));
    }
    let all = times(&mut flips.iter());
    let late = all.iter().filter(|time| **time >= micros(WATCHED)).count();
    if late > 0 {
        say(format!("{late} flips were not in force within {} ms and count as that", WATCHED.as_millis()));
    }
    let figure = |name, share| Figure::new(name, millis(percentile(&all, share)), Unit::Milliseconds);
    vec![figure("policy-update-p50", 500), figure("policy-update-p99", 990)]
}

/// The smallest time that at least `share` per mille of the times, which are sorted, do not exceed.
pub(super) fn percentile(times: &[u64], share: usize) -> u64 {
    times.get((times.len() * share).div_ceil(1000).saturating_sub(1)).copied().unwrap_or_default()
}

pub(super) fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// Selects the guarded pods.
fn guard() -> Value {
    let select =
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["guarded-1", "guarded-2"]}]});
    let mut policy = rules(true);
    policy["apiVersion"] = json!("networking.k8s.io/v1");
    policy["kind"] = json!("NetworkPolicy");
    policy["metadata"] = json!({"name": "guard"});
    policy["spec"]["podSelector"] = select;
    policy["spec"]["policyTypes"] = json!(["Ingress"]);
    policy
}

/// The part of the policy that changes: whom it lets in.
fn rules(open: bool) -> Value {
    let who = if open { json!(["prober-1", "prober-2"]) } else { json!(["nobody"]) };
    let peer =
        json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": who}]}});
    json!({"spec": {"ingress": [{"from": [peer]}]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flip(open: bool) -> Flip {
        Flip { open, written: Written { sent: 1_000_000, answered: 1_010_000 } }
    }

    #[test]
    fn a_flip_is_in_force_at_the_first_try_let_in_or_after_the_last() {
        let cases: [(bool, &[u64], u64); 7] = [
            // Let in before the answer came back: no time passed.
            (true, &[900_000, 1_005_000, 1_020_000], 0),
            (true, &[900_000, 1_030_000, 1_032_000], 20_000),
            // Never let in while it was watched.
            (true, &[900_000, 1_600_000], 500_000),
            (false, &[900_000, 1_004_000], 0),
            (false, &[1_004_000, 1_028_000], 20_000),
            // A try that got in late is what counts.
            (false, &[1_004_000, 1_012_000, 1_408_000], 400_000),
            // Still let in at the end.
            (false, &[1_004_000, 1_509_500], 500_000),
        ];
        for (open, accepted, expected) in cases {
            assert_eq!(flip(open).in_force(accepted), expected, "{open} {accepted:?}");
        }
    }

    #[test]
    fn the_slower_node_counts_and_percentiles_are_nearest_ranks() {
        let flips = [flip(true), flip(false)];
        let seen = [vec![1_015_000], vec![1_040_000]];
        let expected = [("policy-update-p50", 30.0), ("policy-update-p99", 32.0)];
        assert_eq!(
            figures(&flips, &seen, drop),
            expected.map(|(name, value)| Figure::new(name, value, Unit::Milliseconds))
        );
        assert_eq!([percentile(&[1, 2, 3], 990), percentile(&[], 500)], [3, 0]);
    }

    #[test]
    fn only_whom_the_policy_lets_in_changes() {
        let [open, closed] = [true, false].map(|open| rules(open).to_string());
        assert!(open.contains("prober-1") && open.contains("prober-2") && !closed.contains("prober"));
        assert_eq!(guard()["spec"]["ingress"], rules(true)["spec"]["ingress"]);
    }
}

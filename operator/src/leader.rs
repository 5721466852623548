//! One operator of several leads. The lease spares double work and keeps status to one writer; it is no fence,
//! so nothing relies on it for correctness (ADR 0002). The chart brings the Lease object, and takes it away; one that
//! somebody else deletes is made anew.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, api::PostParams};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const LEASE: &str = "netkeel-operator";
/// A holder that has not renewed for this time has lost the lease.
const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this time steps down, before another may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks at the lease.
const RETRY: Duration = Duration::from_secs(2);
/// Time that a look at the lease may take, writing it included.
const ATTEMPT: Duration = Duration::from_secs(4);

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nobody holds it, or its holder is gone: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Another holds it.
    Wait,
}

/// What this operator saw of the lease. Ages are measured by its own clock from when it saw a change: clocks of
/// different nodes are never compared.
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    since: Instant,
}

impl Seen {
    fn update(seen: &mut Option<Self>, spec: &LeaseSpec, now: Instant) {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !seen.as_ref().is_some_and(|seen| seen.holder == holder && seen.renewed == spec.renew_time) {
            *seen = Some(Self { holder, renewed: spec.renew_time.clone(), since: now });
        }
    }
}

fn decide(seen: Option<&Seen>, me: &str, now: Instant) -> Step {
    match seen {
        None => Step::Take,
        Some(seen) if seen.holder == me => Step::Renew,
        Some(seen) if seen.holder.is_empty() || now.duration_since(seen.since) > DURATION => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// The lease as `me` writes it.
fn written(old: Option<&LeaseSpec>, me: &str, step: Step, now: Timestamp) -> LeaseSpec {
    let old = old.cloned().unwrap_or_default();
    let taken = step == Step::Take;
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: if taken { Some(MicroTime(now)) } else { old.acquire_time },
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(old.lease_transitions.unwrap_or(0) + i32::from(taken)),
        ..LeaseSpec::default()
    }
}

/// A candidate for the lease.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    seen: Option<Seen>,
    /// When the last attempt that took or renewed the lease began: nobody saw that renewal earlier.
    renewed: Option<Instant>,
}

/// What is left at `now` of the time to lead; nothing when the lease is not held or was not renewed for too long.
fn left(renewed: Option<Instant>, now: Instant) -> Option<Duration> {
    renewed.and_then(|at| (at + RENEW_DEADLINE).checked_duration_since(now)).filter(|left| !left.is_zero())
}

/// `time`, but no longer than this operator may lead: a leader steps down on time whatever it waits for.
fn within(left: Option<Duration>, time: Duration) -> Duration {
    left.map_or(time, |left| left.min(time))
}

impl Candidate {
    /// A candidate named `identity`, unique among the operators: the pod's name.
    #[must_use]
    pub fn new(leases: Api<Lease>, identity: String) -> Self {
        Self { leases, identity, seen: None, renewed: None }
    }

    /// Seeks and keeps the lease until `stop`, then gives it up at once. `leading` says at any time whether this operator leads.
    pub async fn run(mut self, leading: watch::Sender<bool>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let began = Instant::now();
            match timeout(within(self.tell(&leading), ATTEMPT), self.attempt()).await {
                Ok(Ok(Step::Wait)) => self.renewed = None,
                Ok(Ok(Step::Take | Step::Renew)) => self.renewed = Some(began),
                Ok(Err(error)) => {
                    tracing::warn!(lease = LEASE, error = &error as &dyn std::error::Error, "lease");
                }
                Err(_) => tracing::warn!(lease = LEASE, "lease: the API server does not answer"),
            }
            let pause = within(self.tell(&leading), RETRY);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        if leading.send_replace(false) && timeout(ATTEMPT, self.release()).await.is_err() {
            tracing::warn!(lease = LEASE, "giving up the lease: the API server does not answer");
        }
    }

    /// Says whether this operator leads, and for how long it may if it cannot renew.
    fn tell(&self, leading: &watch::Sender<bool>) -> Option<Duration> {
        let left = left(self.renewed, Instant::now());
        let leads = left.is_some();
        if leading.send_replace(leads) != leads {
            tracing::info!(lease = LEASE, identity = self.identity, leads, "leadership changed");
        }
        left
    }

    async fn attempt(&mut self) -> Result<Step, kube::Error> {
        let Some(lease) = self.leases.get_opt(LEASE).await? else {
            return self.create().await;
        };
        let now = Instant::now();
        match &lease.spec {
            Some(spec) => Seen::update(&mut self.seen, spec, now),
            None => self.seen = None,
        }
        let step = decide(self.seen.as_ref(), &self.identity, now);
        if step == Step::Wait {
            return Ok(step);
        }
        let spec = written(lease.spec.as_ref(), &self.identity, step, Timestamp::now());
        match self.write(lease, spec).await {
            Ok(()) => Ok(step),
            // Another candidate was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Step::Wait),
            Err(error) => Err(error),
        }
    }

    /// Makes the lease that somebody deleted, and holds it; of several that try, the API server lets one.
    async fn create(&mut self) -> Result<Step, kube::Error> {
        self.seen = None;
        tracing::warn!(lease = LEASE, "the Lease is gone, making it anew");
        let mut lease = Lease {
            spec: Some(written(None, &self.identity, Step::Take, Timestamp::now())),
            ..Lease::default()
        };
        lease.metadata.name = Some(LEASE.to_owned());
        match self.leases.create(&PostParams::default(), &lease).await {
            Ok(_) => Ok(Step::Take),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Step::Wait),
            Err(error) => Err(error),
        }
    }

    /// Replaces the lease; the resource version makes it fail if another wrote in between.
    async fn write(&self, old: Lease, spec: LeaseSpec) -> Result<(), kube::Error> {
        let new = Lease { spec: Some(spec), ..old };
        self.leases.replace(LEASE, &PostParams::default(), &new).await.map(drop)
    }

    /// Lets another take over without waiting for the lease to run out.
    async fn release(&self) {
        let Ok(Some(lease)) = self.leases.get_opt(LEASE).await else { return };
        let Some(spec) = lease.spec.clone() else { return };
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            let given_up = LeaseSpec { holder_identity: Some(String::new()), ..spec };
            if let Err(error) = self.write(lease, given_up).await {
                tracing::warn!(
                    lease = LEASE,
                    error = &error as &dyn std::error::Error,
                    "giving up the lease"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use netkeel_testkit::api::FakeApi;

    use super::*;

    fn spec(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_its_holder_stopped_renewing() {
        let start = Instant::now();
        let mut seen = None;
        assert_eq!(decide(seen.as_ref(), "b", start), Step::Take, "nobody has held it yet");
        Seen::update(&mut seen, &spec("a", 1), start);
        assert_eq!(decide(seen.as_ref(), "b", start + DURATION), Step::Wait);
        assert_eq!(decide(seen.as_ref(), "b", start + DURATION + RETRY), Step::Take);
        Seen::update(&mut seen, &spec("a", 2), start + DURATION);
        assert_eq!(decide(seen.as_ref(), "b", start + DURATION + RETRY), Step::Wait, "it was renewed");
        assert_eq!(decide(seen.as_ref(), "a", start + DURATION * 9), Step::Renew);
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once() {
        let mut seen = None;
        Seen::update(&mut seen, &spec("", 1), Instant::now());
        assert_eq!(decide(seen.as_ref(), "b", Instant::now()), Step::Take);
    }

    #[test]
    fn renewing_keeps_the_time_of_acquisition_and_taking_counts() {
        let first = written(None, "a", Step::Take, Timestamp::from_second(1).unwrap());
        let renewed = written(Some(&first), "a", Step::Renew, Timestamp::from_second(2).unwrap());
        assert_eq!((renewed.acquire_time.clone(), renewed.lease_transitions), (first.acquire_time, Some(1)));
        let taken = written(Some(&renewed), "b", Step::Take, Timestamp::from_second(3).unwrap());
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(2)));
    }

    #[test]
    fn a_leader_steps_down_before_another_may_take_over() {
        let start = Instant::now();
        assert_eq!(left(None, start), None);
        let mut now = start;
        while let Some(left) = left(Some(start), now) {
            now += within(Some(left), ATTEMPT);
        }
        assert_eq!(now.duration_since(start), RENEW_DEADLINE, "an attempt that hangs does not prolong it");
        assert!(RENEW_DEADLINE + RETRY < DURATION);
    }

    #[tokio::test]
    async fn a_lease_that_is_deleted_is_made_anew_and_has_one_holder() {
        let api = FakeApi::start().await.unwrap();
        let leases = || Api::<Lease>::namespaced(api.client().unwrap(), "netkeel-system");
        let stop = CancellationToken::new();
        let candidates = ["a", "b"].map(|name| {
            let (leading, leads) = watch::channel(false);
            (leads, tokio::spawn(Candidate::new(leases(), name.to_owned()).run(leading, stop.clone())))
        });
        let held = async || loop {
            let lease = leases().get_opt(LEASE).await.unwrap();
            let holder = lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity);
            if let Some(holder) = holder.filter(|holder| !holder.is_empty()) {
                break holder;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let in_time = RETRY * 5;
        timeout(in_time, held()).await.expect("somebody leads where there was no lease");
        api.delete("coordination.k8s.io/v1", "Lease", Some("netkeel-system"), LEASE);
        let holder = timeout(in_time, held()).await.expect("somebody leads again");
        let settled = async || loop {
            let leading = candidates.each_ref().map(|(leads, _)| *leads.borrow());
            if leading == [holder == "a", holder == "b"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        timeout(in_time, settled()).await.expect("the holder of the lease leads, and nobody else");
        stop.cancel();
        for (_, candidate) in candidates {
            candidate.await.unwrap();
        }
    }
}

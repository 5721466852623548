//! The trace of a change: from the pass that sees it first until every node has applied what came of it. All passes
//! in between are spans of it, and each NodeNetwork that they write carries it on to its agent.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use netkeel_crds::{ClusterNetwork, TRACEPARENT};
use netkeel_telemetry::{
    context,
    spans::{self, Recorded},
};

use crate::{cluster::Effect, observed::Observed, plan::Step, status::is_updated};

/// A change that is not in force everywhere after this time ends its trace: a node may be down for days.
const PATIENCE: Duration = Duration::from_mins(5);

/// The change that is under way, if one is.
#[derive(Debug, Default)]
pub struct Story(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    open: Option<Open>,
    /// The user's traceparent that was taken up last: one that is left over from an earlier edit is not meant again.
    annotation: Option<String>,
}

#[derive(Clone, Debug)]
struct Open {
    name: &'static str,
    uid: Option<String>,
    generation: Option<i64>,
    context: String,
    parent: Option<String>,
    began: SystemTime,
}

/// What a pass needs to be traced.
#[derive(Clone, Copy)]
pub struct Traces<'a> {
    /// The change that is under way.
    pub story: &'a Story,
    /// Sends traces to an endpoint from now on, or nowhere.
    pub send_to: &'a (dyn Fn(Option<&str>) + Sync),
}

/// One pass as a part of the trace.
#[derive(Debug)]
pub struct Chapter {
    context: String,
    parent: String,
    generation: i64,
    began: SystemTime,
}

impl Story {
    /// A pass that began at `began` and has `steps` to do; none when there is nothing to tell of it.
    pub fn pass(&self, network: &ClusterNetwork, steps: usize, began: SystemTime) -> Option<Chapter> {
        let mut told = self.lock();
        if annotation(network).is_none() {
            told.annotation = None;
        }
        let generation = network.metadata.generation;
        let goes_on = |open: &Open| {
            let late = began.duration_since(open.began).is_ok_and(|time| time > PATIENCE);
            open.uid == network.metadata.uid && open.generation == generation && !late
        };
        if let Some(open) = told.open.take_if(|open| !goes_on(open)) {
            open.end(began);
        }
        let edited = network.status.as_ref().and_then(|status| status.observed_generation) != generation;
        if steps == 0 && !edited {
            return None;
        }
        if told.open.is_none() {
            let parent = if edited { told.parent(network) } else { None };
            told.open = Some(Open::new(network, edited, parent, began));
        }
        let context = told.open.as_ref()?.context.clone();
        Some(Chapter {
            parent: context.clone(),
            context: child(&context),
            generation: generation.unwrap_or_default(),
            began,
        })
    }

    /// Ends the trace once there was nothing left to do and every node has applied what it should.
    pub fn settle(&self, seen: &Observed, steps: usize) {
        let applied = |node: &crate::observed::Node| {
            seen.node_networks
                .iter()
                .any(|network| network.metadata.name.as_ref() == Some(&node.name) && is_updated(network))
        };
        if steps == 0
            && seen.nodes.iter().all(applied)
            && let Some(open) = self.lock().open.take()
        {
            open.end(SystemTime::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    /// The user's traceparent of this edit.
    fn parent(&mut self, network: &ClusterNetwork) -> Option<String> {
        let given = annotation(network).cloned();
        if given == self.annotation {
            return None;
        }
        self.annotation.clone_from(&given);
        given.filter(|given| context::is_valid(given))
    }
}

impl Open {
    fn new(network: &ClusterNetwork, edited: bool, parent: Option<String>, began: SystemTime) -> Self {
        let name = match network.status {
            _ if network.metadata.deletion_timestamp.is_some() => "remove",
            None => "install",
            Some(_) if edited => "edit",
            Some(_) => "follow",
        };
        Self {
            name,
            uid: network.metadata.uid.clone(),
            generation: network.metadata.generation,
            context: parent.as_deref().map_or_else(context::new_traceparent, child),
            parent,
            began,
        }
    }

    fn end(&self, end: SystemTime) {
        let span = Recorded::new(self.name, &self.context, self.parent.as_deref(), (self.began, end));
        spans::record(span.with("netkeel.generation", self.generation.unwrap_or_default()));
    }
}

impl Chapter {
    /// A part of the pass that is over.
    pub fn part(&self, name: &str, begin: SystemTime, end: SystemTime) {
        spans::record(Recorded::new(name, &child(&self.context), Some(&self.context), (begin, end)));
    }

    /// The traceparent of one more part, which others hang on.
    #[must_use]
    pub fn branch(&self) -> String {
        child(&self.context)
    }

    /// A step that is over, and what it did or what kept it from being done.
    pub fn step(&self, step: &Step, context: &str, begin: SystemTime, done: Result<Effect, String>) {
        spans::record(self.recorded(step, context, (begin, SystemTime::now()), done));
    }

    fn recorded<'a>(
        &'a self,
        step: &Step,
        context: &'a str,
        times: (SystemTime, SystemTime),
        done: Result<Effect, String>,
    ) -> Recorded<'a> {
        let (name, object) = told(step);
        let mut span =
            Recorded::new(name, context, Some(&self.context), times).with("netkeel.object", object);
        if let Step::WriteNodeNetwork { spec, .. } = step {
            span = span.with("netkeel.revision", spec.revision.as_str());
        }
        match done {
            Ok(Effect::Done) => span,
            Ok(Effect::Stale) => span.with("netkeel.effect", "stale"),
            Err(error) => Recorded { error: Some(error), ..span.with("error.type", "api") },
        }
    }

    /// The pass is over.
    pub fn end(self, steps: usize) {
        let times = (self.began, SystemTime::now());
        let span = Recorded::new("reconcile", &self.context, Some(&self.parent), times);
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        spans::record(span.with("netkeel.generation", self.generation).with("netkeel.steps", steps));
    }
}

/// What a step does, and to which object.
fn told(step: &Step) -> (&'static str, String) {
    match step {
        Step::HoldNetwork => ("hold ClusterNetwork", netkeel_crds::DEFAULT.to_owned()),
        Step::LetNetworkGo => ("let ClusterNetwork go", netkeel_crds::DEFAULT.to_owned()),
        Step::CreateNodeNetwork { node, .. } => ("create NodeNetwork", node.clone()),
        Step::DeleteNodeNetwork { name, .. } => ("delete NodeNetwork", name.clone()),
        Step::ClaimBlock { cidr, .. } => ("claim AddressBlock", cidr.to_string()),
        Step::ReleaseBlock { name, .. } => ("release AddressBlock", name.clone()),
        Step::ReturnBlock { name, .. } => ("return AddressBlock", name.clone()),
        Step::WriteNodeNetwork { node, .. } => ("write NodeNetwork", node.clone()),
        Step::TakeOver(part) => ("take over", format!("{} {}", part.name.kind, part.name.name)),
        Step::Apply(part) => ("apply object", format!("{} {}", part.name.kind, part.name.name)),
        Step::Delete(name) => ("delete object", format!("{} {}", name.kind, name.name)),
    }
}

fn annotation(network: &ClusterNetwork) -> Option<&String> {
    network.metadata.annotations.as_ref()?.get(TRACEPARENT)
}

fn child(parent: &str) -> String {
    context::child_of(parent).unwrap_or_else(context::new_traceparent)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use netkeel_crds::{ClusterNetworkSpec, ClusterNetworkStatus};

    use super::*;

    fn network(generation: i64, observed: Option<i64>, annotation: Option<&str>) -> ClusterNetwork {
        let mut network = ClusterNetwork::new("default", ClusterNetworkSpec::default());
        network.metadata.generation = Some(generation);
        network.metadata.annotations =
            annotation.map(|text| [(TRACEPARENT.to_owned(), text.to_owned())].into());
        network.status = observed.map(|observed| ClusterNetworkStatus {
            observed_generation: Some(observed),
            ..ClusterNetworkStatus::default()
        });
        network
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn name(story: &Story) -> Option<&'static str> {
        story.lock().open.as_ref().map(|open| open.name)
    }

    #[test]
    fn all_passes_of_an_edit_are_one_trace_and_the_next_edit_is_another() {
        let story = Story::default();
        let first = story.pass(&network(2, Some(1), None), 3, at(0)).unwrap();
        assert_eq!(name(&story), Some("edit"));
        let second = story.pass(&network(2, Some(2), None), 1, at(1)).unwrap();
        assert_eq!(second.parent, first.parent);
        assert_ne!(second.context, first.context);
        assert!(story.pass(&network(2, Some(2), None), 0, at(2)).is_none());
        let third = story.pass(&network(3, Some(2), None), 0, at(3)).unwrap();
        assert_ne!(third.parent[..35], first.parent[..35]);
    }

    #[test]
    fn a_change_without_an_edit_is_a_trace_of_its_own_and_an_install_is_named() {
        let story = Story::default();
        story.pass(&network(1, None, None), 1, at(0)).unwrap();
        assert_eq!(name(&story), Some("install"));
        story.settle(&Observed::default(), 1);
        assert_eq!(name(&story), Some("install"), "something was left to do");
        story.settle(&Observed::default(), 0);
        assert_eq!(name(&story), None);
        story.pass(&network(1, Some(1), None), 1, at(9)).unwrap();
        assert_eq!(name(&story), Some("follow"));
    }

    #[test]
    fn a_trace_waits_for_the_agents_but_not_for_ever() {
        let story = Story::default();
        let first = story.pass(&network(2, Some(1), None), 1, at(0)).unwrap();
        let node = crate::observed::Node { name: "a".to_owned(), ..Default::default() };
        story.settle(&Observed { nodes: vec![node], ..Observed::default() }, 0);
        assert_eq!(name(&story), Some("edit"));
        let late = story.pass(&network(2, Some(2), None), 1, at(1000)).unwrap();
        assert_eq!(name(&story), Some("follow"));
        assert_ne!(late.parent, first.parent);
    }

    #[test]
    fn the_users_trace_goes_on_once() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let story = Story::default();
        let first = story.pass(&network(2, Some(1), Some(given)), 1, at(0)).unwrap();
        assert_eq!(first.context[..35], given[..35]);
        assert_eq!(story.lock().open.as_ref().unwrap().parent.as_deref(), Some(given));
        let later = story.pass(&network(3, Some(2), Some(given)), 1, at(1)).unwrap();
        assert_ne!(later.context[..35], given[..35], "left over from the edit before");
        assert!(story.pass(&network(3, Some(3), None), 0, at(1)).is_none());
        let again = story.pass(&network(4, Some(3), Some(given)), 1, at(1)).unwrap();
        assert_eq!(again.context[..35], given[..35], "it was taken away and given anew");
        let nonsense = story.pass(&network(5, Some(4), Some("nonsense")), 1, at(2)).unwrap();
        assert!(context::is_valid(&nonsense.context));
    }

    #[test]
    fn a_step_says_what_kept_it_from_taking_effect() {
        let pass = Story::default().pass(&network(2, Some(1), None), 1, at(0)).unwrap();
        let of = |done| {
            let span = pass.recorded(&Step::HoldNetwork, "", (at(0), at(1)), done);
            (span.attributes.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), span.error)
        };
        assert_eq!(of(Ok(Effect::Done)), (vec!["netkeel.object"], None));
        assert_eq!(of(Ok(Effect::Stale)), (vec!["netkeel.object", "netkeel.effect"], None));
        let failed = of(Err("no answer".to_owned()));
        assert_eq!(failed, (vec!["netkeel.object", "error.type"], Some("no answer".to_owned())));
    }
}

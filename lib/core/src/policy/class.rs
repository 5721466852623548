//! Who is the same to every policy, and the numbers that stand for them in the kernel's tables.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ipnet::IpNet;
use netkeel_dataplane_common::identities::{FIRST, NODE, WORLD};
use serde::{Deserialize, Serialize};

use super::{Labels, Peer, RuleName};

/// Addresses that no policy tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Class {
    /// Whose they are.
    pub who: Who,
    /// The smallest CIDR of all policies that contains them.
    pub leaf: Option<IpNet>,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Who {
    /// Nobody's in the cluster.
    World,
    /// A node's.
    Node,
    /// A pod's.
    Pod {
        /// Name of its namespace.
        namespace: Arc<str>,
        /// Labels of its namespace that rules ask for; `None` while the namespace is not known: then no namespace selector selects it.
        namespace_labels: Option<Labels>,
        /// Its own labels that rules ask for.
        labels: Labels,
    },
}

impl Peer {
    /// Whether a peer of a policy of this namespace means the class.
    #[must_use]
    pub fn matches(&self, namespace: &str, class: &Class) -> bool {
        match self {
            Self::Block { cidr, except } => class.leaf.is_some_and(|leaf| {
                cidr.contains(&leaf) && !except.iter().any(|except| except.contains(&leaf))
            }),
            Self::Pods { namespaces, pods } => {
                let Who::Pod { namespace: of, namespace_labels, labels } = &class.who else { return false };
                let in_namespace = match namespaces {
                    None => &**of == namespace,
                    Some(selector) => {
                        namespace_labels.as_ref().is_some_and(|labels| selector.matches(labels))
                    }
                };
                in_namespace && pods.matches(labels)
            }
        }
    }
}

/// The numbers of classes and rules. A number means the same from its first use on, and is never given again: tables of old content
/// may still hold it. To be kept over a restart of the program, not over a reboot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Numbers {
    classes: HashMap<Class, u32>,
    rules: BTreeMap<RuleName, u32>,
    next_class: u32,
    next_rule: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { classes: HashMap::new(), rules: BTreeMap::new(), next_class: FIRST, next_rule: 1 }
    }
}

impl Numbers {
    /// Gives no numbers up to these: the kernel holds them of an earlier agent whose file is lost.
    pub fn skip(&mut self, class: u32, rule: u32) {
        self.next_class = self.next_class.max(class.saturating_add(1));
        self.next_rule = self.next_rule.max(rule.saturating_add(1));
    }

    /// The identity of a class; a new one where it has none. `None` when no number is left: nothing may be allowed by such a class.
    pub fn class(&mut self, class: &Class) -> Option<u32> {
        match class {
            Class { who: Who::World, leaf: None } => Some(WORLD),
            Class { who: Who::Node, leaf: None } => Some(NODE),
            class => {
                if let Some(&number) = self.classes.get(class) {
                    return Some(number);
                }
                let number = take(&mut self.next_class)?;
                self.classes.insert(class.clone(), number);
                Some(number)
            }
        }
    }

    /// The number of a rule, 1 or more; a new one where it has none. Zero when no number is left.
    pub fn rule(&mut self, rule: &RuleName) -> u32 {
        if let Some(&number) = self.rules.get(rule) {
            return number;
        }
        let Some(number) = take(&mut self.next_rule) else { return 0 };
        self.rules.insert(rule.clone(), number);
        number
    }

    /// Forgets a class without members: its number will mean nothing from now on.
    pub(super) fn forget(&mut self, class: &Class) {
        self.classes.remove(class);
    }

    /// Forgets the classes whose numbers `keep` refuses.
    pub(super) fn retain_classes(&mut self, keep: impl Fn(u32) -> bool) {
        self.classes.retain(|_, number| keep(*number));
    }

    /// Forgets the rules whose numbers `keep` refuses.
    pub(super) fn retain_rules(&mut self, keep: impl Fn(u32) -> bool) {
        self.rules.retain(|_, number| keep(*number));
    }

    /// The classes that have a number of their own, in no order.
    pub fn classes(&self) -> impl Iterator<Item = (&Class, u32)> {
        self.classes.iter().map(|(class, number)| (class, *number))
    }
}

/// The next number; the last one is never given, so that the count cannot start again.
fn take(next: &mut u32) -> Option<u32> {
    let number = *next;
    *next = number.checked_add(1)?;
    Some(number)
}

/// [`Numbers`] as a file holds them.
#[derive(Serialize, Deserialize)]
struct Saved {
    next_class: u32,
    next_rule: u32,
    classes: Vec<(Class, u32)>,
    rules: Vec<(RuleName, u32)>,
}

impl From<Numbers> for Saved {
    fn from(numbers: Numbers) -> Self {
        let Numbers { classes, rules, next_class, next_rule } = numbers;
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_unstable_by_key(|(_, number)| *number);
        Self { next_class, next_rule, classes, rules: rules.into_iter().collect() }
    }
}

impl From<Saved> for Numbers {
    /// Two classes of one number cannot come from here: such a file must not give one the other's traffic.
    fn from(saved: Saved) -> Self {
        let (mut seen_class, mut seen_rule) = (HashSet::new(), HashSet::new());
        let classes =
            saved.classes.into_iter().filter(|(_, number)| *number >= FIRST && seen_class.insert(*number));
        let classes: HashMap<_, _> = classes.collect();
        let rules = saved.rules.into_iter().filter(|(_, number)| *number > 0 && seen_rule.insert(*number));
        let rules: BTreeMap<_, _> = rules.collect();
        let above =
            |last: Option<&u32>, next: u32| last.map_or(next, |last| next.max(last.saturating_add(1)));
        Self {
            next_class: above(classes.values().max(), saved.next_class.max(FIRST)),
            next_rule: above(rules.values().max(), saved.next_rule.max(1)),
            classes,
            rules,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{name::ObjectName, policy::Direction};

    fn class(app: &str) -> Class {
        let labels = Arc::new([("app".to_owned(), app.to_owned())].into());
        let who = Who::Pod { namespace: "shop".into(), namespace_labels: None, labels };
        Class { who, leaf: Some(IpNet::default()) }
    }

    fn rule(index: usize) -> RuleName {
        RuleName { policy: ObjectName::new("shop", "web"), direction: Direction::Egress, index }
    }

    fn text(numbers: &Numbers) -> String {
        serde_json::to_string(numbers).unwrap()
    }

    #[test]
    fn numbers_survive_a_restart_and_forgotten_ones_are_not_given_again() {
        let mut numbers = Numbers::default();
        assert_eq!([numbers.class(&class("a")), numbers.class(&class("b"))], [Some(FIRST), Some(FIRST + 1)]);
        assert_eq!([numbers.rule(&rule(0)), numbers.rule(&rule(1)), numbers.rule(&rule(0))], [1, 2, 1]);
        numbers.forget(&class("b"));
        numbers.retain_rules(|number| number == 1);
        let mut kept: Numbers = serde_json::from_str(&text(&numbers)).unwrap();
        assert_eq!(kept, numbers);
        assert_eq!([kept.class(&class("b")), kept.class(&class("a"))], [Some(FIRST + 2), Some(FIRST)]);
        assert_eq!([kept.rule(&rule(1)), kept.rule(&rule(0))], [3, 1]);
    }

    #[test]
    fn the_world_and_nodes_outside_of_every_cidr_have_fixed_numbers() {
        let mut numbers = Numbers::default();
        let plain = |who| Class { who, leaf: None };
        assert_eq!(numbers.class(&plain(Who::World)), Some(WORLD));
        assert_eq!(numbers.class(&plain(Who::Node)), Some(NODE));
        assert_eq!(numbers.classes().count(), 0);
    }

    #[test]
    fn a_damaged_file_gives_no_class_the_number_of_another() {
        let mut numbers = Numbers::default();
        for app in ["a", "b", "c"] {
            numbers.class(&class(app));
        }
        // The second class has the first one's number, the third one that of nodes, and the count is behind.
        let damaged = text(&numbers).replace("257", "256").replace("258", "2").replace("259", "0");
        let mut read: Numbers = serde_json::from_str(&damaged).unwrap();
        let given = ["a", "b", "c", "d"].map(|app| read.class(&class(app)).unwrap());
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), 4, "{given:?}");
        assert!(given.iter().all(|number| *number >= FIRST), "{given:?}");
    }

    #[test]
    fn when_the_numbers_are_used_up_there_are_none_rather_than_old_ones() {
        let full = format!(r#"{{"next_class":{0},"next_rule":{0},"classes":[],"rules":[]}}"#, u32::MAX - 1);
        let mut numbers: Numbers = serde_json::from_str(&full).unwrap();
        assert_eq!([numbers.class(&class("a")), numbers.class(&class("b"))], [Some(u32::MAX - 1), None]);
        assert_eq!([numbers.rule(&rule(0)), numbers.rule(&rule(1))], [u32::MAX - 1, 0]);
    }
}

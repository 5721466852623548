//! Label selectors.

use std::collections::BTreeSet;

use crate::labels::LabelSet;

/// What labels have to be. All requirements must hold; the empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub Vec<Requirement>);

/// What one label has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label exists, with one of the values.
    In(String, BTreeSet<String>),
    /// The label has none of the values, or does not exist.
    NotIn(String, BTreeSet<String>),
    /// The label exists, whatever its value.
    Exists(String),
    /// The label does not exist.
    DoesNotExist(String),
}

impl Selector {
    /// Whether these labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &LabelSet) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &LabelSet) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(ToString::to_string).collect()
    }

    fn selects(requirement: Requirement, label: Option<&str>) -> bool {
        let labels = label.map(|value| ("app", value)).into_iter().collect();
        Selector(vec![requirement]).matches(&labels)
    }

    #[test]
    fn every_operator_says_what_a_missing_label_means() {
        let app = || "app".to_owned();
        let table = [
            (Requirement::In(app(), values(&["a", "b"])), [true, false, false]),
            (Requirement::NotIn(app(), values(&["a", "b"])), [false, true, true]),
            (Requirement::Exists(app()), [true, true, false]),
            (Requirement::DoesNotExist(app()), [false, false, true]),
            (Requirement::In(app(), values(&[])), [false, false, false]),
        ];
        for (requirement, expected) in table {
            let found = [Some("a"), Some("c"), None].map(|label| selects(requirement.clone(), label));
            assert_eq!(found, expected, "{requirement:?} on app=a, app=c, no label");
        }
    }

    #[test]
    fn all_requirements_must_hold_and_none_is_everything() {
        let labels = [("app", "a")].into();
        let (yes, no) = (Requirement::Exists("app".into()), Requirement::Exists("tier".into()));
        assert!(Selector::default().matches(&labels));
        assert!(Selector(vec![yes.clone()]).matches(&labels));
        assert!(!Selector(vec![yes, no]).matches(&labels));
    }
}

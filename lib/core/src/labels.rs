//! Labels of an object, small: every pod of a cluster has some.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Labels, shared by who looks at them.
pub type Labels = Arc<LabelSet>;

/// Keys with a value each, ascending by key. A B-tree has room for eleven of them in every leaf; this has what it holds.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct LabelSet(Box<[(Arc<str>, Arc<str>)]>);

impl LabelSet {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let place = self.0.binary_search_by(|(held, _)| (**held).cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| &**value)
    }

    /// Whether the key is there.
    #[must_use]
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Keys and values, ascending by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// As the API has them.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for LabelSet {
    /// Of two values of one key the last counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let labels = labels.into_iter().map(|(key, value)| (key.into(), value.into()));
        Self(labels.collect::<BTreeMap<_, _>>().into_iter().collect())
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>, const N: usize> From<[(K, V); N]> for LabelSet {
    fn from(labels: [(K, V); N]) -> Self {
        labels.into_iter().collect()
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for LabelSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for LabelSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<String, String>::deserialize(deserializer).map(|labels| labels.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_by_key_and_written_as_a_map() {
        let labels = LabelSet::from([("tier", "x"), ("app", "cart"), ("tier", "web")]);
        assert_eq!(
            (labels.get("app"), labels.get("tier"), labels.get("b")),
            (Some("cart"), Some("web"), None)
        );
        assert!(labels.contains_key("tier") && !labels.contains_key("") && !labels.contains_key("zone"));
        let text = serde_json::to_string(&labels).unwrap();
        assert_eq!(text, r#"{"app":"cart","tier":"web"}"#, "files of earlier agents have maps");
        assert_eq!(serde_json::from_str::<LabelSet>(&text).unwrap(), labels);
        assert_eq!(labels.to_map().into_iter().collect::<LabelSet>(), labels);
        assert_eq!(LabelSet::default().iter().count(), 0);
    }
}

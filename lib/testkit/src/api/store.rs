//! Objects by resource, and the history that watches resume from.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// `apis/group/version/plural` or `api/v1/plural`.
pub(crate) type Resource = String;

#[derive(Debug, Default)]
pub(crate) struct Store {
    version: u64,
    /// Versions up to this one are forgotten.
    compacted: u64,
    objects: BTreeMap<Resource, BTreeMap<(String, String), Value>>,
    history: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: Resource,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn put(&mut self, mut object: Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let resource = plural(&text(&object["apiVersion"]), &text(&object["kind"]));
        let key = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.objects.entry(resource.clone()).or_default().insert(key, object.clone());
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.history.push(Change { version: self.version, resource, kind, object });
    }

    pub(crate) fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(mut object) = self.objects.get_mut(resource).and_then(|all| all.remove(&key)) else {
            return;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.history.push(Change {
            version: self.version,
            resource: resource.to_owned(),
            kind: "DELETED",
            object,
        });
    }

    pub(crate) fn compact(&mut self) {
        self.version += 1;
        self.compacted = self.version;
        self.history.clear();
    }

    /// All objects of `resource`, of one namespace where one is given.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<Value> {
        let all = self.objects.get(resource).into_iter().flatten();
        all.filter(|((of, _), _)| namespace.is_none_or(|wanted| wanted == of))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// What changed after `version`; `None` where that is forgotten.
    pub(crate) fn since(&self, resource: &str, namespace: Option<&str>, version: u64) -> Option<Vec<Change>> {
        let wanted = |change: &&Change| {
            change.version > version
                && change.resource == resource
                && namespace.is_none_or(|wanted| change.object["metadata"]["namespace"] == wanted)
        };
        (version >= self.compacted).then(|| self.history.iter().filter(wanted).cloned().collect())
    }
}

/// The path of a kind's resource, after the rules that built-in kinds follow.
pub(crate) fn plural(api_version: &str, kind: &str) -> Resource {
    let kind = kind.to_lowercase();
    let plural = match kind.strip_suffix('y') {
        _ if kind.ends_with("endpoints") => kind,
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    let root = if api_version.contains('/') { "apis" } else { "api" };
    format!("{root}/{api_version}/{plural}")
}

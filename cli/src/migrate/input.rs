//! What is read: a Corefile, or objects of the cluster that hold one or what kube-dns is told.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::ConfigMap;
use serde::Deserialize as _;
use serde_json::Value;
use thiserror::Error;

use super::{finding::Place, kube_dns, lexer::Source};

/// A text that is neither.
#[derive(Debug, Error)]
pub(super) enum InputError {
    #[error("two Corefiles: give the one that serves the cluster")]
    TwoCorefiles,
    #[error("{file}: not a Kubernetes object")]
    Object {
        file: String,
        #[source]
        source: serde_yaml_ng::Error,
    },
    #[error(
        "no Corefile, stubDomains or upstreamNameservers in it: kubectl -n kube-system get configmap coredns -o yaml"
    )]
    Nothing,
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) corefile: Option<Source>,
    /// Texts that the Corefile may import, by the name of their file.
    pub(super) files: BTreeMap<String, Source>,
    /// What kube-dns is told, by its key.
    pub(super) kube_dns: BTreeMap<String, Source>,
    /// The address at which the cluster's DNS is asked.
    pub(super) cluster_ip: Option<IpAddr>,
}

impl Input {
    /// Takes a text: the first is what is asked about, the others are what it may import.
    pub(super) fn take(&mut self, name: &str, text: &str) -> Result<(), InputError> {
        let main = self.corefile.is_none() && self.kube_dns.is_empty() && self.files.is_empty();
        let start = if main { Place::first() } else { Place::of(name) };
        if is_manifest(text) {
            let broken = |source| InputError::Object { file: name.to_owned(), source };
            for document in serde_yaml_ng::Deserializer::from_str(text) {
                self.object(Value::deserialize(document).map_err(broken)?, text, &start)?;
            }
        } else if main {
            self.corefile = Some(Source { text: text.to_owned(), start });
        } else {
            self.files.insert(base(name).to_owned(), Source { text: text.to_owned(), start });
        }
        Ok(())
    }

    /// Takes an object of the cluster.
    pub(super) fn config_map(&mut self, object: ConfigMap) -> Result<(), InputError> {
        let name = object.metadata.name.unwrap_or_default();
        for (key, text) in object.data.unwrap_or_default() {
            let start = if key == "Corefile" { Place::first() } else { Place::of(&format!("{name}/{key}")) };
            self.value(&key, Source { text, start })?;
        }
        Ok(())
    }

    /// An error where there is nothing to map.
    pub(super) fn checked(self) -> Result<Self, InputError> {
        if self.corefile.is_none() && self.kube_dns.is_empty() { Err(InputError::Nothing) } else { Ok(self) }
    }

    fn object(&mut self, mut object: Value, text: &str, start: &Place) -> Result<(), InputError> {
        if let Some(items) = object.get_mut("items").and_then(Value::as_array_mut) {
            let items = std::mem::take(items);
            return items.into_iter().try_for_each(|item| self.object(item, text, start));
        }
        let Some(data) =
            object.get("data").and_then(Value::as_object).filter(|_| object["kind"] == "ConfigMap")
        else {
            return Ok(());
        };
        for (key, value) in data {
            let value = value.as_str().unwrap_or_default();
            let start = match first_line(text, key, value) {
                Some(line) => start.below(line),
                None => Place::of(key),
            };
            self.value(key, Source { text: value.to_owned(), start })?;
        }
        Ok(())
    }

    fn value(&mut self, key: &str, source: Source) -> Result<(), InputError> {
        match key {
            "Corefile" if self.corefile.is_some() => return Err(InputError::TwoCorefiles),
            "Corefile" => self.corefile = Some(source),
            _ if kube_dns::KEYS.contains(&key) => {
                self.kube_dns.insert(key.to_owned(), source);
            }
            _ => {
                self.files.insert(key.to_owned(), source);
            }
        }
        Ok(())
    }
}

/// The name of a file without its folder.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a text is an object, in YAML or JSON: no Corefile has a line that begins so.
fn is_manifest(text: &str) -> bool {
    let yaml = |line: &str| line.starts_with("kind:") || line.starts_with("apiVersion:");
    text.lines().any(yaml) || (text.trim_start().starts_with('{') && text.contains("\"kind\""))
}

/// Where in a manifest a value's first line is, from 0, where it stands there line by line (`KEY: |`).
fn first_line(manifest: &str, key: &str, value: &str) -> Option<usize> {
    let lines: Vec<&str> = manifest.lines().collect();
    let begins = |line: &str| {
        let behind = line.trim().strip_prefix(key).and_then(|rest| rest.trim_start().strip_prefix(':'));
        behind.is_some_and(|behind| behind.trim_start().starts_with('|'))
    };
    let same = |start: usize| value.lines().zip(&lines[start..]).all(|(own, line)| line.trim() == own.trim());
    let candidates = lines.iter().enumerate().filter(|(_, line)| begins(line)).map(|(number, _)| number + 1);
    candidates.into_iter().find(|start| *start + value.lines().count() <= lines.len() && same(*start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: coredns\ndata:\n  Corefile: |\n    .:53 {\n        errors\n    }\n  NodeHosts: \"192.0.2.1 n1\\n\"\n";

    #[test]
    fn the_lines_of_a_corefile_are_those_of_its_manifest() {
        let mut input = Input::default();
        input.take("coredns.yaml", MANIFEST).unwrap();
        let corefile = input.corefile.unwrap();
        assert_eq!(corefile.start.to_string(), "line 7");
        assert_eq!(corefile.text, ".:53 {\n    errors\n}\n");
        assert_eq!(input.files["NodeHosts"].start.to_string(), "NodeHosts line 1");
    }

    #[test]
    fn a_text_in_quotes_has_lines_of_its_own() {
        let mut input = Input::default();
        let json = r#"{"apiVersion": "v1", "kind": "List", "items": [{"kind": "ConfigMap", "data": {"Corefile": ". {\n}\n"}}]}"#;
        input.take("-", json).unwrap();
        assert_eq!(input.corefile.unwrap().start.to_string(), "Corefile line 1");
    }

    #[test]
    fn further_files_are_what_may_be_imported() {
        let mut input = Input::default();
        input.take("Corefile", ". {\n import custom/*.override\n}\n").unwrap();
        input.take("/tmp/custom/a.override", "log\n").unwrap();
        input.take("custom.yaml", &MANIFEST.replace("Corefile", "b.server")).unwrap();
        let places: Vec<String> = input.files.values().map(|source| source.start.to_string()).collect();
        assert_eq!(places, ["NodeHosts line 1", "/tmp/custom/a.override line 1", "custom.yaml line 7"]);
    }

    #[test]
    fn what_holds_no_configuration_is_told() {
        let mut input = Input::default();
        input.take("x.yaml", "kind: Pod\n").unwrap();
        assert!(matches!(input.checked(), Err(InputError::Nothing)));
        let mut input = Input::default();
        input.take("x.yaml", MANIFEST).unwrap();
        assert!(matches!(input.take("y.yaml", MANIFEST), Err(InputError::TwoCorefiles)));
        assert!(matches!(Input::default().take("z.yaml", "kind: [\n"), Err(InputError::Object { .. })));
    }
}

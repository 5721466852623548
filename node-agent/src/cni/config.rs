//! The network configuration that the runtime sends on standard input. Unknown keys are somebody else's and are kept.

use std::path::PathBuf;

use netkeel_core::ipam::Owner;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::failure::{Failure, INCOMPATIBLE_VERSION, INVALID_CONFIG, UNDECODABLE};

/// Versions of the specification that are spoken, oldest first.
pub const VERSIONS: [&str; 3] = ["0.4.0", "1.0.0", "1.1.0"];

/// Where the agent keeps its socket and files.
pub const STATE_FOLDER: &str = "/run/netkeel";

/// What is read of the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// Version of the specification, also of the result.
    #[serde(default)]
    pub cni_version: String,
    /// Name of the network.
    #[serde(default)]
    pub name: String,
    /// The agent's socket, `agent.sock` in the state folder where not given.
    #[serde(default)]
    pub agent_socket: Option<PathBuf>,
    /// The agent's folder, `/run/netkeel` where not given.
    #[serde(default)]
    pub state_dir: Option<PathBuf>,
    /// Name servers and so on, handed back as they came.
    #[serde(default)]
    pub dns: Option<Value>,
    /// ADD: what earlier plugins of the chain made. CHECK: what ADD answered.
    #[serde(default)]
    pub prev_result: Option<Value>,
    /// What the runtime says of this very pod, for the capabilities that the configuration declares.
    #[serde(default)]
    pub runtime_config: Value,
    /// GC: the interfaces that still exist. `null` is an empty list, a missing key is none at all.
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "present")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// One interface that GC must leave alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

impl From<Attachment> for Owner {
    fn from(attachment: Attachment) -> Self {
        Self { container_id: attachment.container_id, interface: attachment.ifname }
    }
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Option::<Vec<Attachment>>::deserialize(from).map(|list| Some(list.unwrap_or_default()))
}

impl NetworkConfig {
    /// Reads standard input.
    ///
    /// # Errors
    /// No JSON object, a key of the wrong type, or a version that is not spoken, each with its own code.
    pub fn parse(input: &[u8]) -> Result<(Self, Value), Failure> {
        let value: Value = serde_json::from_slice(input).map_err(|error| {
            Failure::caused(UNDECODABLE, "the network configuration on standard input is not JSON", &error)
        })?;
        if !value.is_object() {
            return Err(Failure::new(
                UNDECODABLE,
                "the network configuration on standard input is not a JSON object",
            ));
        }
        let version = value.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
        if !VERSIONS.contains(&version) {
            return Err(Failure {
                code: INCOMPATIBLE_VERSION,
                msg: format!("cniVersion {version:?} of the network configuration is not supported"),
                details: format!("supported versions: {}", VERSIONS.join(", ")),
            });
        }
        let config: Self = serde_json::from_value(value.clone()).map_err(|error| {
            Failure::caused(INVALID_CONFIG, "a key of the network configuration has the wrong form", &error)
        })?;
        if !is_network_name(&config.name) {
            let msg = format!("name {:?} of the network configuration is not a network name", config.name);
            return Err(Failure::new(INVALID_CONFIG, msg));
        }
        Ok((config, value))
    }

    /// The agent's folder.
    #[must_use]
    pub fn state_folder(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| STATE_FOLDER.into())
    }

    /// The agent's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.agent_socket.clone().unwrap_or_else(|| self.state_folder().join("agent.sock"))
    }
}

/// The specification's form of network names and container ids.
pub(super) fn is_network_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(input: &str) -> u32 {
        NetworkConfig::parse(input.as_bytes()).unwrap_err().code
    }

    #[test]
    fn each_kind_of_bad_input_has_its_code() {
        assert_eq!(code(""), UNDECODABLE);
        assert_eq!(code("{"), UNDECODABLE);
        assert_eq!(code("[]"), UNDECODABLE);
        assert_eq!(code(r#"{"name":"a"}"#), INCOMPATIBLE_VERSION);
        assert_eq!(code(r#"{"cniVersion":"0.3.1","name":"a"}"#), INCOMPATIBLE_VERSION);
        assert_eq!(code(r#"{"cniVersion":"2.0.0","name":"a"}"#), INCOMPATIBLE_VERSION);
        assert_eq!(code(r#"{"cniVersion":"1.1.0"}"#), INVALID_CONFIG);
        assert_eq!(code(r#"{"cniVersion":"1.1.0","name":"/"}"#), INVALID_CONFIG);
        assert_eq!(code(r#"{"cniVersion":"1.1.0","name":"a","agentSocket":7}"#), INVALID_CONFIG);
    }

    #[test]
    fn unknown_keys_are_kept_and_paths_have_defaults() {
        let (config, value) =
            NetworkConfig::parse(br#"{"cniVersion":"0.4.0","name":"netkeel","x":{"y":1}}"#).unwrap();
        assert_eq!(config.socket(), PathBuf::from("/run/netkeel/agent.sock"));
        assert_eq!(value["x"]["y"], 1);
        assert_eq!(config.valid_attachments, None);
    }

    #[test]
    fn a_null_list_of_attachments_is_an_empty_one() {
        let input = br#"{"cniVersion":"1.1.0","name":"netkeel","cni.dev/valid-attachments":null}"#;
        assert_eq!(NetworkConfig::parse(input).unwrap().0.valid_attachments, Some(vec![]));
    }
}

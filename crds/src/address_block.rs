//! `AddressBlock`: creating the object is the claim of a block, since a name exists once.

use ipnet::IpNet;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{rule::rules, text::CidrText};

/// Who has a block of addresses. It cannot be changed, only deleted.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "netkeel.io",
    version = "v1alpha1",
    kind = "AddressBlock",
    category = "netkeel",
    derive = "PartialEq",
    doc = "A block of pods' addresses that belongs to one node. Creating the object is the claim: its name is its CIDR, and a name exists once.",
    validation = Rule::new("self.metadata.name == self.spec.cidr.replace('.', '-').replace(':', '-').replace('/', '-')")
        .message("the name of an AddressBlock is its CIDR with dashes: 10-244-0-64-26"),
    printcolumn = r#"{"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".spec.node"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("self == oldSelf", "an AddressBlock cannot be changed: delete it and create another"),
])))]
#[serde(rename_all = "camelCase")]
pub struct AddressBlockSpec {
    /// The block.
    #[schemars(with = "CidrText")]
    pub cidr: IpNet,
    /// Name of the node that has the block.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// UID of that Node object: another node of the same name does not inherit the block.
    #[serde(rename = "nodeUID")]
    #[schemars(length(min = 1, max = 64))]
    pub node_uid: String,
}

/// Name of the object that claims `cidr`.
#[must_use]
pub fn block_name(cidr: &IpNet) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

//! CEL rules as the schema's extension, for types whose rules stand outside `#[kube(...)]`.

use serde_json::{Value, json};

/// The value of `x-kubernetes-validations`: each rule with the message that a user reads.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect()
}

/// Two CIDRs of the variables `a` and `b` have no address in common.
pub(crate) const DISJOINT: &str = "self.all(a, self.all(b, a == b || !(cidr(a).containsIP(cidr(b).ip()) || cidr(b).containsIP(cidr(a).ip()))))";

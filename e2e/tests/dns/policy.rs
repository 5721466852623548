//! Policies that would cut the DNS servers off.

use std::time::Duration;

use anyhow::{Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::shared;
use serde_json::json;

use super::{AsItWas, names, set};

const NAME: &str = "web.dns.svc.cluster.local.";
const SOON: Duration = Duration::from_secs(15);
const DENY: &str = "deny-everything";

/// Takes the policy away, also after a failure.
struct Denied;

impl Denied {
    fn apply() -> Result<Self> {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": DENY, "namespace": "kube-system"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        });
        shared().apply(&policy.to_string())?;
        Ok(Self)
    }
}

impl Drop for Denied {
    fn drop(&mut self) {
        let delete = ["delete", "networkpolicy", "-n", "kube-system", DENY, "--ignore-not-found"];
        if let Err(error) = shared().kubectl(&delete) {
            println!("{DENY} is left: {error:#}");
        }
    }
}

#[test]
fn a_policy_that_denies_everything_cuts_dns_off_only_where_that_is_asked_for() -> Result<()> {
    let client = names().workload.client("client-0")?;
    let resolves = || Ok::<_, anyhow::Error>(client.resolve(NAME, "A", false)?.code == "NOERROR");
    let _settings = AsItWas;
    let _denied = Denied::apply()?;
    ensure!(resolves()?, "a policy for all pods of kube-system cut DNS off");
    // Shows that the policy is in force, which it need not have been before; what "Exempt" does then comes last.
    set(&json!({"networkPolicies": "Enforced"}))?;
    wait_until("DNS is cut off", SOON, || {
        ensure!(!resolves().unwrap_or(false), "names are answered");
        Ok(())
    })?;
    set(&json!({"networkPolicies": "Exempt"}))?;
    wait_until("DNS is let through", SOON, || {
        ensure!(resolves()?, "no answer");
        Ok(())
    })
}

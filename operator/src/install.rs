//! What must be there before the first pass. CRDs: helm installs them once and never upgrades them.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use netkeel_crds::CRD_VERSION;

use crate::cluster::{
    Error,
    api::{MANAGER, api_error},
};

/// Labels of the namespace: agents use the host's network, and one init container mounts bpffs.
const POD_SECURITY: &str = "pod-security.kubernetes.io/enforce";

/// The CRDs, and a namespace in which agents may run. One that leads brings older CRDs up to its own; others make those that are
/// missing alone, so that two builds do not write in turns during a roll-out.
///
/// # Errors
/// When the API server refuses.
pub async fn install(client: &Client, namespace: &str, leads: bool) -> Result<(), Error> {
    crds(client, leads).await?;
    let body = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {POD_SECURITY: "privileged"}},
    });
    let api: Api<Namespace> = Api::all(client.clone());
    let applied = api.patch(namespace, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
    applied.map(drop).map_err(api_error("labelling", "Namespace", namespace))
}

/// Applies every CRD that is missing, as one that leads also those that are not newer: two builds may have one version, and an equal
/// CRD changes nothing.
///
/// # Errors
/// When the API server refuses.
async fn crds(client: &Client, leads: bool) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in netkeel_crds::all() {
        let name = crd.name_any();
        let failed = |verb| api_error(verb, "CustomResourceDefinition", &name);
        let present = api.get_opt(&name).await.map_err(failed("reading"))?;
        let installed = present.as_ref().map(|crd| crd.labels().get(CRD_VERSION).map_or("", String::as_str));
        if installed.is_some_and(|installed| !leads || is_newer(installed, env!("CARGO_PKG_VERSION"))) {
            continue;
        }
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&crd)).await.map_err(failed("applying"))?;
        tracing::info!(name, installed, "CRD applied");
    }
    Ok(())
}

/// Whether `installed` comes after `ours`; a version that cannot be read does not.
fn is_newer(installed: &str, ours: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    numbers(installed).is_some_and(|installed| numbers(ours).is_some_and(|ours| installed > ours))
}

#[cfg(test)]
mod tests {
    use super::is_newer;

    #[test]
    fn newer_crds_are_left_alone_and_equal_ones_are_not() {
        for (installed, newer) in [
            ("0.1.0", false),
            ("0.2.0", false),
            ("0.10.0", true),
            ("", false),
            ("dev", false),
            ("0.2.0-rc1", false),
        ] {
            assert_eq!(is_newer(installed, "0.2.0"), newer, "{installed}");
        }
    }
}

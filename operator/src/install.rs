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

/// CRDs of this version, and a namespace in which agents may run.
///
/// # Errors
/// When the API server refuses.
pub async fn install(client: &Client, namespace: &str) -> Result<(), Error> {
    crds(client).await?;
    let body = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {POD_SECURITY: "privileged"}},
    });
    let api: Api<Namespace> = Api::all(client.clone());
    let applied = api.patch(namespace, &PatchParams::apply(MANAGER).force(), &Patch::Apply(body)).await;
    applied.map(drop).map_err(api_error("labelling", "Namespace", namespace))
}

/// Applies every CRD that is missing or of an older version.
///
/// # Errors
/// When the API server refuses.
async fn crds(client: &Client) -> Result<(), Error> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in netkeel_crds::all() {
        let name = crd.name_any();
        let failed = |verb| api_error(verb, "CustomResourceDefinition", &name);
        let present = api.get_opt(&name).await.map_err(failed("reading"))?;
        let installed = present.as_ref().map(|crd| crd.labels().get(CRD_VERSION).map_or("", String::as_str));
        if installed.is_some_and(|installed| !is_older(installed, env!("CARGO_PKG_VERSION"))) {
            continue;
        }
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&crd)).await.map_err(failed("applying"))?;
        tracing::info!(name, installed, "CRD applied");
    }
    Ok(())
}

/// Whether `installed` comes before `ours`; a version that cannot be read does.
fn is_older(installed: &str, ours: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split(['-', '+']).next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    numbers(installed).is_none_or(|installed| numbers(ours).is_some_and(|ours| installed < ours))
}

#[cfg(test)]
mod tests {
    use super::is_older;

    #[test]
    fn newer_and_equal_crds_are_left_alone() {
        for (installed, older) in [
            ("0.1.0", true),
            ("0.2.0", false),
            ("0.10.0", false),
            ("", true),
            ("dev", true),
            ("0.2.0-rc1", false),
        ] {
            assert_eq!(is_older(installed, "0.2.0"), older, "{installed}");
        }
    }
}

//! What DNS over TLS adds to the DNS servers and to their Service.

use netkeel_crds::cluster_network::Tls;
use serde_json::{Value, json};

const PORT: u16 = 853;
const FOLDER: &str = "/etc/netkeel/tls";

/// The port of the Service, into its spec.
pub(super) fn add_to_service(service: &mut Value) {
    push(
        &mut service["ports"],
        json!({"name": "dns-over-tls", "port": PORT, "protocol": "TCP", "targetPort": PORT}),
    );
}

/// The certificate, the argument that names its folder, and the port. A Secret that is not there keeps no server from starting.
pub(super) fn add_to_pod(pod: &mut Value, tls: &Tls) {
    push(
        &mut pod["volumes"],
        json!({"name": "tls", "secret": {"secretName": tls.secret_name, "optional": true}}),
    );
    let server = &mut pod["containers"][0];
    push(&mut server["volumeMounts"], json!({"name": "tls", "mountPath": FOLDER, "readOnly": true}));
    push(&mut server["ports"], json!({"name": "dns-over-tls", "containerPort": PORT, "protocol": "TCP"}));
    push(&mut server["command"], "--tls".into());
    push(&mut server["command"], FOLDER.into());
}

/// Appends to a list, which is made where there is none.
fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

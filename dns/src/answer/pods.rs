//! Names made of a pod's address: `10-1-2-3.NAMESPACE.pod.DOMAIN`. They are no part of the specification; kube-dns had them first.

use std::net::IpAddr;

use netkeel_crds::cluster_network::PodRecords;

use crate::name::undashed;
use crate::zone::Zone;

/// Whether names of pods can lie in this namespace.
pub(super) fn has_names(zone: &Zone, namespace: &str) -> bool {
    zone.settings().pod_records != PodRecords::Disabled && zone.has_namespace(namespace)
}

/// The address at the name of a pod, where there is such a name.
pub(super) fn address(zone: &Zone, pod: &str, namespace: &str) -> Option<IpAddr> {
    let address = undashed(pod)?;
    let exists = match zone.settings().pod_records {
        PodRecords::Insecure => has_names(zone, namespace),
        // No pods are followed, so none is known.
        PodRecords::Disabled | PodRecords::Verified => false,
    };
    exists.then_some(address)
}

//! Names made of a pod's address: `10-1-2-3.NAMESPACE.pod.DOMAIN`. They are no part of the specification; kube-dns had them first.

use hickory_proto::rr::RecordType;
use netkeel_crds::cluster_network::PodRecords;

use super::Answer;
use super::record::Maker;
use crate::name::undashed;
use crate::zone::Zone;

/// Whether names of pods can lie in this namespace.
pub(super) fn has_names(zone: &Zone, namespace: &str) -> bool {
    zone.settings().pod_records != PodRecords::Disabled && zone.has_namespace(namespace)
}

/// Answers at the name of a pod.
pub(super) fn answer(zone: &Zone, make: &Maker<'_>, pod: &str, namespace: &str, rtype: RecordType) -> Answer {
    let Some(address) = undashed(pod) else { return make.nxdomain() };
    let exists = match zone.settings().pod_records {
        PodRecords::Disabled => Some(false),
        PodRecords::Insecure => Some(has_names(zone, namespace)),
        PodRecords::Verified => zone.pods().has(address, namespace),
    };
    match exists {
        Some(true) => make.addresses(&[address], rtype),
        Some(false) => make.nxdomain(),
        None => Answer::Failure, // not all pods are known yet
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;

    use crate::answer::{Answer, answer};
    use crate::zone::{ObjectKey, Pod, PodKey, Service, Settings, Zone};

    use super::*;

    fn zone(pod_records: PodRecords) -> Zone {
        let settings = Settings { pod_records, ..Settings::new(Name::from_ascii("cluster.local.").unwrap()) };
        let mut zone = Zone::new(settings, 1);
        zone.put_service(&ObjectKey::new("shop", "web"), Service::Headless);
        zone
    }

    fn pod(namespace: &str) -> Pod {
        let addresses = ["10.1.0.7", "fd00::7"].map(|text| text.parse().unwrap());
        Pod::new(PodKey::new(namespace, "web"), 1, false, addresses)
    }

    fn said(zone: &Zone, name: &str, rtype: RecordType) -> String {
        match answer(zone, &Name::from_ascii(format!("{name}.pod.cluster.local.")).unwrap(), rtype) {
            Answer::Records { answers, .. } => answers.iter().map(|record| record.data.to_string()).collect(),
            Answer::NoData(_) => "nodata".to_owned(),
            Answer::NxDomain(_) => "nxdomain".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_verified_name_is_that_of_a_pod_in_its_namespace() {
        use RecordType::{A, AAAA};
        let mut zone = zone(PodRecords::Verified);
        let asked = |zone: &Zone| {
            [
                ("10-1-0-7.shop", A),
                ("10-1-0-7.SHOP", AAAA),
                ("fd00--7.shop", AAAA),
                ("a.b.10-1-0-7.shop", A),
                ("10-1-0-7.bank", A),
                ("10-1-0-8.shop", A),
                ("web.shop", A),
            ]
            .map(|(name, rtype)| said(zone, name, rtype))
        };
        let unknown = ["Failure", "Failure", "Failure", "Failure", "Failure", "Failure", "nxdomain"];
        assert_eq!(asked(&zone), unknown, "pods are not known yet");
        zone.put_pod(&pod("shop"));
        let known = ["10.1.0.7", "nodata", "fd00::7", "10.1.0.7"];
        assert_eq!(asked(&zone)[..4], known);
        assert_eq!(asked(&zone)[4..], ["Failure", "Failure", "nxdomain"], "nor is the rest of them");
        zone.reset_pods([pod("shop")], &[]);
        assert_eq!(asked(&zone)[..4], known);
        assert_eq!(asked(&zone)[4..], ["nxdomain", "nxdomain", "nxdomain"]);
        zone.remove_pod(PodKey::new("shop", "web"));
        assert_eq!(asked(&zone), ["nxdomain"; 7]);
    }

    #[test]
    fn other_names_of_pods_need_none() {
        let (insecure, disabled) = (zone(PodRecords::Insecure), zone(PodRecords::Disabled));
        for (name, expected) in [
            ("10-1-0-7.shop", "10.1.0.7"),
            ("10-1-0-7.nowhere", "nxdomain"),
            ("web.shop", "nxdomain"),
            ("10-1-0-256.shop", "nxdomain"),
            ("shop", "nodata"),
            ("nowhere", "nxdomain"),
        ] {
            assert_eq!(said(&insecure, name, RecordType::A), expected, "{name}");
            assert_eq!(said(&disabled, name, RecordType::A), "nxdomain", "{name}");
        }
    }
}

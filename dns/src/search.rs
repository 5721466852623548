//! The search list of a pod's `resolv.conf`, tried here in place of there (`spec.dns.searchPath`): a pod asks for `NAME.NAMESPACE.svc.DOMAIN`
//! first, and would go on with the names below, one question after the other. Pure. CoreDNS calls it `autopath`.

use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::zone::Zone;

/// The names that the pod at `client` would ask for after `name`, in order; none where `name` is not the first of its search list, or nobody
/// knows in whose namespace the client is. Search domains of the node itself are not known here, and left out.
pub(crate) fn names(zone: &Zone, client: IpAddr, name: &Name) -> Vec<Name> {
    let domain = &zone.settings().domain;
    let labels = name.iter().len();
    // The namespace, `svc`, and a label at least before them.
    let (in_namespace, in_svc, in_domain) =
        (domain.iter().len() + 2, domain.iter().len() + 1, domain.iter().len());
    if !domain.zone_of(name) || labels <= in_namespace {
        return vec![];
    }
    let mut below = name.iter().skip(labels - in_namespace);
    let [Some(namespace), Some(svc)] = [below.next(), below.next()] else { return vec![] };
    let namespace = String::from_utf8_lossy(namespace).to_ascii_lowercase();
    if !svc.eq_ignore_ascii_case(b"svc") || zone.pods().has(client.to_canonical(), &namespace) != Some(true) {
        return vec![];
    }
    let Ok(mut bare) = Name::from_labels(name.iter().take(labels - in_namespace)) else { return vec![] };
    bare.set_fqdn(true);
    // Their tails as the client spells them.
    let inside = [in_svc, in_domain].map(|kept| bare.clone().append_domain(&name.trim_to(kept)));
    inside.into_iter().flatten().chain([bare]).collect()
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::zone::{Pod, PodKey, Settings};

    const POD: &str = "10.1.0.7";

    fn zone(domain: &str) -> Zone {
        let settings = Settings::new(Name::from_ascii(domain).unwrap());
        let mut zone = Zone::new(settings, 1);
        let pod = |namespace: &str, address: &str| {
            Pod::new(PodKey::new(namespace, "pod"), 1, false, [address.parse().unwrap()])
        };
        zone.reset_pods([pod("shop", POD), pod("bank", "10.1.0.8"), pod("shop2", "fd00::7")], &[]);
        zone
    }

    fn tried(domain: &str, client: &str, name: &str) -> Vec<String> {
        let names = names(&zone(domain), client.parse().unwrap(), &Name::from_ascii(name).unwrap());
        names.iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn the_first_name_of_a_pods_search_list_leads_to_the_others() {
        let external =
            ["www.example.com.svc.cluster.local.", "www.example.com.cluster.local.", "www.example.com."];
        for (client, name, expected) in [
            (POD, "www.example.com.shop.svc.cluster.local.", external.as_slice()),
            ("::ffff:10.1.0.7", "www.example.com.shop.svc.cluster.local.", &external),
            ("fd00::7", "www.example.com.shop2.svc.cluster.local.", &external),
            (
                POD,
                "Web.Bank.SHOP.Svc.Cluster.LOCAL.",
                &["Web.Bank.Svc.Cluster.LOCAL.", "Web.Bank.Cluster.LOCAL.", "Web.Bank."],
            ),
            (
                POD,
                "_x._tcp.a.shop.svc.cluster.local.",
                &["_x._tcp.a.svc.cluster.local.", "_x._tcp.a.cluster.local.", "_x._tcp.a."],
            ),
            (
                POD,
                "web.shop.svc.cluster.local.shop.svc.cluster.local.",
                &[
                    "web.shop.svc.cluster.local.svc.cluster.local.",
                    "web.shop.svc.cluster.local.cluster.local.",
                    "web.shop.svc.cluster.local.",
                ],
            ),
            // The second and third of the list: the client is past the first.
            (POD, "www.example.com.svc.cluster.local.", &[]),
            (POD, "www.example.com.cluster.local.", &[]),
            (POD, "www.example.com.", &[]),
            // No name before the list.
            (POD, "shop.svc.cluster.local.", &[]),
            // Another's list.
            ("10.1.0.8", "www.example.com.shop.svc.cluster.local.", &[]),
            ("10.1.0.9", "www.example.com.shop.svc.cluster.local.", &[]),
            (POD, "10-1-0-7.shop.pod.cluster.local.", &[]),
        ] {
            assert_eq!(tried("cluster.local.", client, name), expected, "{client} {name}");
        }
        assert_eq!(tried("k8s.", POD, "a.shop.svc.k8s."), ["a.svc.k8s.", "a.k8s.", "a."]);
    }
}

//! Corefiles as they run in clusters, what becomes of them, and what is told.

use super::{allowing, dns_of, migrate, schema::Schema};

/// One of them.
pub(super) struct Case {
    name: &'static str,
    pub(super) input: &'static str,
    patch: &'static str,
    told: &'static str,
}

macro_rules! cases {
    ($($name:literal),* $(,)?) => {
        [$(Case {
            name: $name,
            input: include_str!(concat!("cases/", $name, ".corefile")),
            patch: include_str!(concat!("cases/", $name, ".yaml")),
            told: include_str!(concat!("cases/", $name, ".told")),
        }),*]
    };
}

/// All of them.
pub(super) fn all() -> [Case; 12] {
    cases![
        "aks",
        "eks-stub",
        "full",
        "gke-kube-dns",
        "k3s",
        "kubeadm-1.13",
        "kubeadm-1.35",
        "no-aaaa",
        "nodelocal",
        "nothing-fits",
        "openshift",
        "rancher",
    ]
}

#[test]
fn corefiles_of_real_clusters_become_what_they_mean() {
    let schema = Schema::of_dns();
    for case in all() {
        let (patch, told, _) = migrate(&[("-", case.input)], &allowing());
        assert_eq!(told, case.told.lines().collect::<Vec<_>>(), "what is told of {}", case.name);
        assert_eq!(patch, case.patch, "the patch of {}", case.name);
        assert_eq!(schema.problems(&dns_of(&patch)), Vec::<String>::new(), "{}", case.name);
    }
}

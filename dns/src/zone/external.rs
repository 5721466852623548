//! The outside addresses of Services. Only Services that have some are in here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};

use super::{ObjectKey, Zone};
use crate::name::names;

/// Where a Service is found from outside the cluster.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Addresses in `status.loadBalancer`.
    pub load_balancer: Vec<IpAddr>,
    /// Host names there.
    #[serde(with = "names")]
    pub host_names: Vec<Name>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
}

impl External {
    fn is_empty(&self) -> bool {
        self.load_balancer.is_empty() && self.host_names.is_empty() && self.external_ips.is_empty()
    }
}

impl Zone {
    /// Where a Service (dotted) is found from outside, if at all.
    pub(crate) fn external(&self, dotted: &str) -> Option<&External> {
        self.externals.get(dotted).map(AsRef::as_ref)
    }

    /// Takes the outside addresses of a new or changed Service. Returns whether anything changed.
    pub fn put_external(&mut self, key: &ObjectKey, external: Option<External>) -> bool {
        let (dotted, external) = (key.dotted(), external.filter(|external| !external.is_empty()));
        if self.external(&dotted) == external.as_ref() {
            return false;
        }
        match external {
            Some(external) => self.externals.insert(dotted, external.into()),
            None => self.externals.remove(&dotted),
        }
        self.serial = self.serial.wrapping_add(1);
        true
    }

    /// Makes `externals` all there are. Those of `unreadable` Services stay as they were last seen.
    pub fn reset_externals(
        &mut self,
        externals: Vec<(ObjectKey, External)>,
        unreadable: &[ObjectKey],
    ) -> bool {
        let stay: BTreeSet<String> =
            externals.iter().map(|(key, _)| key).chain(unreadable).map(ObjectKey::dotted).collect();
        let gone: Vec<String> = self
            .externals
            .iter()
            .map(|(dotted, _)| dotted.clone())
            .filter(|dotted| !stay.contains(dotted))
            .collect();
        let changed = !gone.is_empty();
        for dotted in &gone {
            self.externals.remove(dotted);
        }
        if changed {
            self.serial = self.serial.wrapping_add(1);
        }
        externals
            .into_iter()
            .fold(changed, |changed, (key, external)| self.put_external(&key, Some(external)) || changed)
    }
}

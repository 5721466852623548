//! What the file of one address says. Unknown fields are skipped, so that agents of two versions read each other's.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use netkeel_core::{
    address::Address,
    ipam::{Held, Owner, ipv4},
};
use serde::{Deserialize, Serialize};

use super::Details;
use crate::{bandwidth::Bandwidth, host_port::HostPort, policy::PodRef};

/// One address that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The address; also the file's name.
    pub address: Address,
    /// Who holds it, or held it last.
    pub owner: Owner,
    /// What was known of the pod.
    pub details: Details,
    /// When it was given, since boot.
    pub since: Duration,
    /// When it was freed, since boot; `None` while it is held.
    pub freed: Option<Duration>,
}

/// The file's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    #[serde(flatten)]
    owner: Owner,
    #[serde(default)]
    network: String,
    #[serde(default)]
    pod: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<HostPort>,
    #[serde(default, skip_serializing_if = "Bandwidth::is_free")]
    bandwidth: Bandwidth,
    #[serde(default)]
    since_boot_millis: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    freed_boot_millis: Option<u64>,
}

impl Record {
    pub(super) fn used(address: Address, owner: Owner, details: Details, since: Duration) -> Self {
        Self { address, owner, details, since, freed: None }
    }

    pub(super) fn resting(self, freed: Duration) -> Self {
        Self { freed: Some(freed), ..self }
    }

    /// Whether the address is held or rests.
    #[must_use]
    pub fn held(&self) -> Held {
        self.freed.map_or_else(|| Held::By(self.owner.clone()), Held::RestingSince)
    }

    /// Whose it is to policy.
    #[must_use]
    pub fn pod(&self) -> PodRef {
        PodRef::new(&self.details.pod, &self.details.uid)
    }

    /// The address as IPv4, where it is one.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        ipv4(self.address)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let form = Form {
            owner: self.owner.clone(),
            network: self.details.network.clone(),
            pod: self.details.pod.clone(),
            uid: self.details.uid.clone(),
            ports: self.details.ports.clone(),
            bandwidth: self.details.bandwidth,
            since_boot_millis: millis(self.since),
            freed_boot_millis: self.freed.map(millis),
        };
        serde_json::to_vec(&form).expect("a struct of strings and numbers is JSON")
    }

    /// Reads the file called `name`; `None` for a name that is no address. Content that cannot be understood
    /// leaves the address with an owner that no runtime knows: it stays taken until it is seen to be unused.
    pub(super) fn read(name: &str, content: &[u8]) -> Option<Self> {
        let address: Address = name.parse::<IpAddr>().ok()?.into();
        let form: Form = serde_json::from_slice(content).unwrap_or_else(|error| {
            tracing::error!(file = name, %error, "an address's record cannot be understood, the address stays taken");
            let owner = Owner { container_id: format!("unreadable-{name}"), interface: String::new() };
            Form { owner, network: String::new(), pod: String::new(), uid: String::new(), ports: Vec::new(), bandwidth: Bandwidth::default(), since_boot_millis: 0, freed_boot_millis: None }
        });
        let Form { network, pod, uid, ports, bandwidth, .. } = form;
        Some(Self {
            address,
            owner: form.owner,
            details: Details { network, pod, uid, ports, bandwidth },
            since: Duration::from_millis(form.since_boot_millis),
            freed: form.freed_boot_millis.map(Duration::from_millis),
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

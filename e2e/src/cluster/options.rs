//! What a cluster is to be like.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::DEFAULT_NAME;

/// What to bring up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub name: String,
    /// 1 to 100.
    pub nodes: u8,
    /// Of nodes and Services.
    pub ip_family: IpFamily,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: DEFAULT_NAME.into(), nodes: 2, ip_family: IpFamily::Ipv4 }
    }
}

/// Which families of addresses nodes and Services have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv6 alone.
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

impl IpFamily {
    /// Whether the address is of one of them.
    #[must_use]
    pub fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
            Self::Dual => true,
        }
    }
}

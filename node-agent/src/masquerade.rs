//! Masquerading of pods' traffic to the outside, and no connection tracking for the tunnel's outer packets:
//! one nftables table `inet netkeel`, replaced whole in one transaction. Other tables are never touched.

use std::ops::RangeInclusive;

use ipnet::IpNet;

pub use crate::nftables::Error;
use crate::{
    nftables::{
        encode::{self, Hook, Rule, Table},
        nfnetlink,
    },
    overlay,
};

/// Name of the table, family `inet`.
pub const TABLE: &str = "netkeel";

const RAW: i32 = -300;
const SRCNAT: i32 = 100;

/// What the table has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// UDP port of the overlay.
    pub vxlan_port: u16,
    /// Where pods' addresses lie. Pods are not masqueraded towards each other.
    pub pods: Vec<IpNet>,
    /// Pods that are masqueraded towards others; none switches masquerading off.
    pub masqueraded: Vec<IpNet>,
    /// Destinations that see their own addresses all the same.
    pub excluded: Vec<IpNet>,
}

/// What was done to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as wanted.
    Unchanged,
    /// It was made or replaced.
    Replaced,
}

/// Makes the table what it must be, where it is not.
///
/// # Errors
/// When the kernel refuses, or has no nftables.
pub fn converge(wanted: &Wanted) -> Result<Outcome, Error> {
    let table = table(wanted);
    let mut kernel = nfnetlink::Nfnetlink::open()?;
    if kernel.holds(&table)? {
        return Ok(Outcome::Unchanged);
    }
    kernel.commit(&encode::replace(&table)).map(|()| Outcome::Replaced)
}

/// Deletes the table; none is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove() -> Result<(), Error> {
    nfnetlink::Nfnetlink::open()?.commit(&encode::delete(TABLE))
}

fn table(wanted: &Wanted) -> Table {
    let untracked = || vec![Rule::new().udp_destination(wanted.vxlan_port).notrack()];
    let mut table = Table::new(TABLE);
    table.chain("prerouting", "filter", Hook::Prerouting, RAW, untracked());
    table.chain("output", "filter", Hook::Output, RAW, untracked());
    if !wanted.masqueraded.is_empty() {
        let inside = wanted.pods.iter().chain(&wanted.excluded);
        let mut rules: Vec<Rule> = vec![Rule::new().output_device(overlay::DEVICE).accept()];
        rules.extend(inside.map(|&net| Rule::new().destination(net).accept()));
        let ports = ports(wanted.vxlan_port);
        rules.extend(wanted.masqueraded.iter().map(|&net| Rule::new().source(net).masquerade(&ports)));
        table.chain("postrouting", "nat", Hook::Postrouting, SRCNAT, rules);
    }
    table
}

/// The ports that masquerading may choose: the unprivileged ones on the longer side of the overlay's port. An answer
/// to that port itself would not be tracked, and lost.
fn ports(vxlan_port: u16) -> RangeInclusive<u16> {
    const FIRST: u16 = 1024;
    let below = FIRST..=vxlan_port.saturating_sub(1);
    let above = vxlan_port.saturating_add(1).max(FIRST)..=u16::MAX;
    if below.len() > above.len() { below } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masquerading_never_chooses_the_overlays_port() {
        for (port, chosen) in [
            (1, 1024..=65535),
            (1024, 1025..=65535),
            (8472, 8473..=65535),
            (50_000, 1024..=49_999),
            (65535, 1024..=65534),
        ] {
            assert_eq!(ports(port), chosen);
        }
    }
}

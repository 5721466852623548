//! `cargo xtask bench`: Netkeel's figures, measured on a cluster of their own. docs/performance.md says how to read them.
//! Figures go to stdout, progress to stderr. A missed goal is a result, not an error.

mod api;
mod awake;
mod bed;
mod cilium;
mod cni_add;
mod dns_abuse;
mod dns_change;
mod dns_footprint;
mod dns_half_load;
mod dns_qps;
mod figure;
mod flannel;
mod footprint;
mod large;
mod loads;
mod local;
mod machine;
mod native;
mod overlay;
mod pod_path;
mod policy_crr;
mod policy_update;
mod ratio;
mod service_crr;
mod verdict;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use netkeel_e2e::IpFamily;

use crate::image;
use bed::{Bed, Network};
use figure::{Figure, Unit};
use loads::Exchange;

#[derive(Args)]
pub(crate) struct Options {
    /// What to measure; without a name, everything.
    names: Vec<Name>,
    /// One JSON object a line and figure instead of a table.
    #[arg(long)]
    json: bool,
    /// Measure `pod-rr` and `pod-crr` also on a cluster with another network, and `overlay-rr`, `overlay-crr` and
    /// `overlay-gbit` on both clusters in turns.
    #[arg(long)]
    peer: Option<Peer>,
    /// Measure by addresses of IPv6, on a dual-stack cluster; names of figures end with `-ipv6`.
    #[arg(long)]
    ipv6: bool,
    /// Leave the cluster `bench` up; the next run uses it as it is.
    #[arg(long)]
    keep: bool,
}

/// Whom Netkeel is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Cilium 1.15, built from its Go module.
    Cilium,
    /// flannel 0.28 and kube-proxy, built from their Go modules.
    Flannel,
}

impl Peer {
    fn network(self) -> Network {
        match self {
            Self::Cilium => Network::Cilium,
            Self::Flannel => Network::Flannel,
        }
    }
}

/// Measured in this order: the footprint comes last, after the load of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Name {
    /// Size of the image as it is published.
    Image,
    /// What the kernel program takes for a packet of an established connection.
    VerdictNs,
    /// Connections a second through a `ClusterIP`, beside those directly to its pod.
    ServiceCrr,
    /// Round trips a second from pod to pod across nodes, beside those from node to node.
    PodRr,
    /// Connections a second from pod to pod across nodes, beside those from node to node.
    PodCrr,
    /// Round trips a second between two pods of a node, beside those over a bare veth pair.
    LocalRr,
    /// Connections a second between two pods of a node, beside those over a bare veth pair.
    LocalCrr,
    /// Round trips a second from pod to pod across nodes without an overlay, beside those from node to node.
    NativeRr,
    /// Connections a second from pod to pod across nodes without an overlay, beside those from node to node.
    NativeCrr,
    /// Connections a second with a hundred policies, beside those without any.
    PolicyCrr,
    /// Time from a written policy to one that both nodes obey.
    PolicyUpdate,
    /// Time and rate of the CNI plugin's ADD.
    CniAdd,
    /// Questions that DNS answers on one CPU, beside the real `CoreDNS`.
    DnsQps,
    /// Memory of DNS with 150,000 endpoints and 8,200 Services.
    DnsFootprintLarge,
    /// How clients of DNS fare while another one floods it.
    DnsAbuse,
    /// Memory of the programs and of the agent's maps.
    Footprint,
    /// The same with 250 pods on a node and 50,000 on others.
    FootprintLarge,
}

impl Name {
    /// Whether its cluster is good for nothing else afterwards.
    fn spoils(self) -> bool {
        matches!(self, Self::DnsQps | Self::DnsFootprintLarge | Self::FootprintLarge)
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut names = options.names.clone();
    if names.is_empty() {
        names.extend(Name::value_variants());
    }
    names.sort_unstable();
    names.dedup();
    let cilium = options.peer == Some(Peer::Cilium);
    ensure!(!(options.ipv6 && cilium), "Cilium is measured with IPv4 alone: leave out --ipv6");
    let own: Vec<Name> = names.iter().copied().filter(|name| name.spoils()).collect();
    let mut report = figure::Report::new(options.json);
    if names.contains(&Name::Image) {
        report.add(image_size()?)?;
    }
    if names.contains(&Name::VerdictNs) {
        report.add(verdict::run()?)?;
    }
    names.retain(|name| !matches!(name, Name::Image | Name::VerdictNs) && !name.spoils());
    let (ip_family, suffix) =
        if options.ipv6 { (IpFamily::Dual, figure::IPV6) } else { (IpFamily::Ipv4, "") };
    report.suffix = suffix;
    measure_on(Network::Netkeel, ip_family, &names, options.keep, &mut report)?;
    for name in own {
        measure_on(Network::NetkeelLarge, ip_family, &[name], false, &mut report)?;
    }
    names.retain(|name| matches!(name, Name::PodRr | Name::PodCrr));
    if let Some(peer) = options.peer.map(Peer::network) {
        measure_on(peer, ip_family, &names, options.keep, &mut report)?;
        compare(peer, ip_family, options.keep, &mut report)?;
    }
    report.finish();
    Ok(())
}

/// Measures Netkeel's overlay and another network's in turns.
fn compare(peer: Network, ip_family: IpFamily, keep: bool, report: &mut figure::Report) -> Result<()> {
    let beds = [Bed::up(Network::Netkeel, ip_family)?, Bed::up(peer, ip_family)?];
    report.extend(overlay::run(&beds[0], &beds[1])?)?;
    beds.into_iter().try_for_each(|bed| bed.end(keep))
}

/// Measures on a cluster that is there for nothing else.
fn measure_on(
    network: Network,
    ip_family: IpFamily,
    names: &[Name],
    keep: bool,
    report: &mut figure::Report,
) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let bed = Bed::up(network, ip_family)?;
    names.iter().try_for_each(|name| report.extend(measure(*name, &bed)?))?;
    bed.end(keep)
}

fn measure(name: Name, bed: &Bed) -> Result<Vec<Figure>> {
    match name {
        Name::Image => Ok(vec![image_size()?]),
        Name::VerdictNs => Ok(vec![verdict::run()?]),
        Name::ServiceCrr => service_crr::run(bed),
        Name::PodRr => pod_path::run(bed, Exchange::RoundTrip),
        Name::PodCrr => pod_path::run(bed, Exchange::Connection),
        Name::LocalRr => local::run(bed, Exchange::RoundTrip),
        Name::LocalCrr => local::run(bed, Exchange::Connection),
        Name::NativeRr => native::run(bed, Exchange::RoundTrip),
        Name::NativeCrr => native::run(bed, Exchange::Connection),
        Name::PolicyCrr => policy_crr::run(bed),
        Name::PolicyUpdate => policy_update::run(bed),
        Name::CniAdd => cni_add::run(bed),
        Name::DnsQps => dns_qps::run(bed),
        Name::DnsFootprintLarge => dns_footprint::run(bed),
        Name::DnsAbuse => dns_abuse::run(bed),
        Name::Footprint => footprint::run(bed),
        Name::FootprintLarge => large::run(bed),
    }
}

fn image_size() -> Result<Figure> {
    let bytes = std::fs::metadata(image::build_compressed()?)?.len();
    Ok(Figure::new("image", figure::mebibytes(bytes), Unit::Mebibytes))
}

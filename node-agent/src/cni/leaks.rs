//! Addresses whose link is gone without a DEL, and links that belong to no address and no pod. Nothing is taken on one look: it
//! must have been wrong twice, a minute apart, so that no call under way is mistaken for a leak. What may be in use is none: a link whose
//! records were lost is a pod's as long as its other side is up in a namespace, or a route leads to an address over it.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use netkeel_core::ipam::Owner;

use crate::{
    ipam::record::Record,
    link::{name, veth::seen},
};

/// How often one looks.
pub(super) const PERIOD: Duration = Duration::from_secs(30);
/// How long something must have been wrong.
const GRACE: Duration = Duration::from_mins(1);

/// What the kernel holds.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Host sides by name, and whether somebody uses them whatever the records say.
    links: HashMap<String, bool>,
    /// Addresses that a route of ours leads to.
    routed: HashSet<IpAddr>,
}

/// What looks like a leak.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Suspect {
    /// An address without a link.
    Record(Owner),
    /// A host side without an address.
    Link(String),
}

/// What looked wrong so far, and since when.
#[derive(Debug, Default)]
pub(super) struct Leaks {
    since: HashMap<Suspect, Duration>,
}

impl Seen {
    /// Of all host sides and of all routes to pods.
    pub(super) fn of(links: &HashMap<String, seen::Link>, routes: &HashMap<IpAddr, seen::PodRoute>) -> Self {
        let led_to: HashSet<u32> = routes.values().map(|route| route.link).collect();
        let in_use = |link: &seen::Link| link.operational || led_to.contains(&link.index);
        let links = links.iter().map(|(name, link)| (name.clone(), in_use(link))).collect();
        Self { links, routed: routes.keys().copied().collect() }
    }
}

impl Leaks {
    /// The suspects that have been ones for long enough; `now` is the time since boot. Those that are none any more
    /// are forgotten.
    pub(super) fn judge(&mut self, records: &[Record], seen: &Seen, now: Duration) -> Vec<Suspect> {
        let before = std::mem::take(&mut self.since);
        let since = |suspect: Suspect| (before.get(&suspect).copied().unwrap_or(now), suspect);
        let (ripe, young): (Vec<_>, Vec<_>) =
            suspects(records, seen).map(since).partition(|(since, _)| now.saturating_sub(*since) >= GRACE);
        self.since = young.into_iter().map(|(since, suspect)| (suspect, since)).collect();
        ripe.into_iter().map(|(_, suspect)| suspect).collect()
    }
}

fn suspects(records: &[Record], seen: &Seen) -> impl Iterator<Item = Suspect> {
    let routed = |record: &&Record| seen.routed.contains(&record.address.ip());
    let kept: HashSet<_> = records.iter().filter(routed).map(|record| record.owner.clone()).collect();
    let gone =
        move |owner: &&Owner| !seen.links.contains_key(&name::host_side(owner)) && !kept.contains(owner);
    let owners: HashSet<_> = records.iter().map(|record| &record.owner).collect();
    let known: HashSet<_> = records.iter().map(|record| name::host_side(&record.owner)).collect();
    let unused = seen.links.iter().filter(|(_, in_use)| !**in_use).map(|(link, _)| link);
    let stray = unused.filter(move |link| !known.contains(*link)).cloned().map(Suspect::Link);
    owners.into_iter().filter(gone).cloned().map(Suspect::Record).chain(stray)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ipam::Details;

    fn record(number: u8) -> Record {
        Record {
            address: Ipv4Addr::new(10, 244, 0, number).into(),
            owner: Owner { container_id: number.to_string(), interface: "eth0".to_owned() },
            details: Details::default(),
            since: Duration::ZERO,
            freed: None,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_address_whose_link_is_gone_is_taken_back_after_a_minute() {
        let (mut leaks, records) = (Leaks::default(), [record(1)]);
        assert!(leaks.judge(&records, &Seen::default(), at(1000)).is_empty());
        assert!(leaks.judge(&records, &Seen::default(), at(1059)).is_empty());
        assert_eq!(leaks.judge(&records, &Seen::default(), at(1060)), [Suspect::Record(record(1).owner)]);
    }

    #[test]
    fn a_link_that_comes_back_starts_the_minute_anew() {
        let (mut leaks, records) = (Leaks::default(), [record(1)]);
        leaks.judge(&records, &Seen::default(), at(0));
        let there =
            Seen { links: [(name::host_side(&record(1).owner), false)].into(), routed: HashSet::new() };
        assert!(leaks.judge(&records, &there, at(70)).is_empty());
        assert!(leaks.judge(&records, &Seen::default(), at(80)).is_empty());
    }

    #[test]
    fn a_route_alone_keeps_an_address() {
        let routed = Seen { links: HashMap::new(), routed: [Ipv4Addr::new(10, 244, 0, 1).into()].into() };
        let mut leaks = Leaks::default();
        assert!([0, 100].into_iter().all(|time| leaks.judge(&[record(1)], &routed, at(time)).is_empty()));
    }

    #[test]
    fn a_route_of_one_family_keeps_both_addresses_and_both_go_as_one() {
        let second = Record { address: "fd00::1".parse::<IpAddr>().unwrap().into(), ..record(1) };
        let records = [record(1), second];
        let routed = Seen { links: HashMap::new(), routed: [Ipv4Addr::new(10, 244, 0, 1).into()].into() };
        let mut leaks = Leaks::default();
        assert!([0, 100].into_iter().all(|time| leaks.judge(&records, &routed, at(time)).is_empty()));
        assert!(leaks.judge(&records, &Seen::default(), at(200)).is_empty());
        assert_eq!(leaks.judge(&records, &Seen::default(), at(260)), [Suspect::Record(record(1).owner)]);
    }

    /// The records of a pod that runs are lost.
    #[test]
    fn a_link_without_a_record_stays_while_its_other_side_is_up_or_a_route_leads_over_it() {
        let link = |operational| seen::Link {
            index: 7,
            name: "nk0123456789ab".to_owned(),
            mac: None,
            mtu: 1450,
            up: true,
            queue: String::new(),
            operational,
        };
        let route = |index| seen::PodRoute { link: index, source: None };
        for (operational, index, goes) in
            [(true, 8, false), (false, 7, false), (true, 7, false), (false, 8, true)]
        {
            let links = [("nk0123456789ab".to_owned(), link(operational))].into();
            let routes = [(Ipv4Addr::new(10, 244, 0, 1).into(), route(index))].into();
            let (mut leaks, seen) = (Leaks::default(), Seen::of(&links, &routes));
            assert!(leaks.judge(&[], &seen, at(0)).is_empty());
            assert_eq!(!leaks.judge(&[], &seen, at(61)).is_empty(), goes, "{operational} {index}");
        }
    }

    #[test]
    fn a_link_of_nobody_goes_after_a_minute() {
        let stray = Seen { links: [("nk0123456789ab".to_owned(), false)].into(), routed: HashSet::new() };
        let mut leaks = Leaks::default();
        assert!(leaks.judge(&[], &stray, at(0)).is_empty());
        assert_eq!(leaks.judge(&[], &stray, at(61)), [Suspect::Link("nk0123456789ab".to_owned())]);
    }
}

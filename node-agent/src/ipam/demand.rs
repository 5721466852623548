//! Which blocks pods wait for. The operator reads it from the node's status and gives what there is.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use netkeel_core::ipam::{Ask, Family, Layout, Refused};

use super::PATIENCE;

/// So much fits into the status.
const MOST: usize = 64;

/// What was asked for in vain, and when last.
#[derive(Debug, Default)]
pub(super) struct Demand(BTreeMap<IpNet, Duration>);

impl Demand {
    /// Somebody was refused. Whether that is news.
    pub(super) fn note(&mut self, layout: &Layout, ask: &Ask<'_>, refused: &Refused, now: Duration) -> bool {
        let Some(wanted) = wanted(layout, ask, refused) else { return false };
        let known = self.0.contains_key(&wanted);
        if !known && self.0.len() >= MOST {
            return false;
        }
        self.0.insert(wanted, now);
        !known
    }

    /// The node has other blocks: who still lacks something will say so.
    pub(super) fn forget(&mut self, layout: &Layout) {
        let open = layout.blocks.iter().filter(|block| !layout.is_releasing(block));
        self.0.retain(|wanted, _| !open.clone().any(|b| b.contains(wanted) || wanted.contains(b)));
    }

    /// What has been asked for lately.
    pub(super) fn list(&mut self, now: Duration) -> Vec<IpNet> {
        self.0.retain(|_, asked| now.saturating_sub(*asked) < PATIENCE);
        self.0.keys().copied().collect()
    }
}

/// The CIDR of the best pool that was asked, or the address; nothing where a block would not help.
fn wanted(layout: &Layout, ask: &Ask<'_>, refused: &Refused) -> Option<IpNet> {
    match refused {
        Refused::Exhausted(exhausted) => {
            let pools = ask.pools.iter().filter_map(|name| layout.pool(name));
            let mut cidrs = pools.flat_map(|pool| &pool.cidrs);
            cidrs.find(|cidr| Family::of_net(cidr) == exhausted.family).copied()
        }
        Refused::Elsewhere { address } | Refused::Releasing { address } => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netkeel_core::ipam::{Exhausted, Pool, Usage};

    use super::*;

    fn layout(blocks: &[&str]) -> Layout {
        let net = |text: &&str| text.parse::<IpNet>().unwrap();
        let pool = |name: &str, cidrs: &[&str]| Pool {
            name: name.into(),
            cidrs: cidrs.iter().map(net).collect(),
            ..Pool::default()
        };
        let pools = vec![pool("v4", &["10.1.0.0/16"]), pool("both", &["10.2.0.0/16", "fd00::/64"])];
        Layout { pools, blocks: blocks.iter().map(net).collect(), ..Layout::default() }
    }

    fn exhausted(family: Family) -> Refused {
        Exhausted { family, blocks: String::new(), usage: Usage::default() }.into()
    }

    fn list(demand: &mut Demand, now: u64) -> Vec<String> {
        demand.list(Duration::from_secs(now)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_best_pool_of_the_family_is_wanted_or_the_address_and_forgotten_in_time() {
        let (mut demand, layout) = (Demand::default(), layout(&[]));
        let pools = ["v4".into(), "both".into()];
        let ask = Ask { families: &[Family::V4], pools: &pools, addresses: &[] };
        let at = Duration::from_secs;
        assert!(demand.note(&layout, &ask, &exhausted(Family::V4), at(0)));
        assert!(!demand.note(&layout, &ask, &exhausted(Family::V4), at(60)), "no news");
        assert!(demand.note(&layout, &ask, &exhausted(Family::V6), at(0)));
        let address = "10.1.0.7".parse().unwrap();
        assert!(demand.note(&layout, &ask, &Refused::Elsewhere { address }, at(100)));
        assert!(!demand.note(&layout, &ask, &Refused::Resting { address }, at(100)), "no block would help");
        assert_eq!(list(&mut demand, 100), ["10.1.0.0/16", "10.1.0.7/32", "fd00::/64"]);
        assert_eq!(list(&mut demand, 120), ["10.1.0.0/16", "10.1.0.7/32"]);
        assert_eq!(list(&mut demand, 180), ["10.1.0.7/32"]);
    }

    #[test]
    fn a_block_that_came_ends_the_wait() {
        let mut demand = Demand::default();
        let pools = ["v4".into()];
        let ask = Ask { families: &[Family::V4], pools: &pools, addresses: &[] };
        demand.note(&layout(&[]), &ask, &exhausted(Family::V4), Duration::ZERO);
        demand.forget(&layout(&["10.2.0.0/26"]));
        assert_eq!(list(&mut demand, 1).len(), 1);
        demand.forget(&layout(&["10.1.0.0/26"]));
        assert!(list(&mut demand, 1).is_empty());
    }
}

//! Which pools may give a pod its addresses, and which addresses it asks for by name.

use std::{net::IpAddr, sync::Arc};

use super::{Family, Layout, Pool};
use crate::labels::Labels;

/// What is known of a pod that wants addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Labels of its namespace; `None` while they are not known.
    pub namespace: Option<Labels>,
    /// Names of pools from the annotation of the pod, else of its namespace: comma separated.
    pub pools: Option<String>,
    /// Addresses from the annotation of the pod: comma separated.
    pub addresses: Option<String>,
}

/// Where a pod's addresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The pools that may give them, best first.
    pub pools: Vec<Arc<str>>,
    /// Those that the pod asks for, at most one of each family.
    pub addresses: Vec<IpAddr>,
}

/// What a pod asks for cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No pool is open to the pod's namespace.
    #[error("no pool is open to the pod's namespace: see namespaceSelector in spec.podNetwork.pools")]
    NoPool,
    /// A pool that there is not.
    #[error("there is no pool {0}: the annotation names one of spec.podNetwork.pools")]
    UnknownPool(String),
    /// A pool that is not for the pod.
    #[error(
        "pool {0} is not open to the pod's namespace: see its namespaceSelector in spec.podNetwork.pools"
    )]
    NotOpen(String),
    /// A pool that gives nothing any more.
    #[error("pool {0} is being drained and gives no addresses: ask for another pool, or for none")]
    Draining(Arc<str>),
    /// Text that is no address.
    #[error("{0:?} is no address")]
    NoAddress(String),
    /// Two addresses of one family.
    #[error("a pod has one address of each family, and {0} and {1} are both {2}")]
    TwoOfAFamily(IpAddr, IpAddr, Family),
    /// An address of no pool that the pod may use.
    #[error("{0} lies in no pool that the pod may use")]
    Outside(IpAddr),
    /// An address that nobody is given.
    #[error("{0} is reserved in spec.podNetwork.pools")]
    Reserved(IpAddr),
}

/// Chooses.
///
/// # Errors
/// [`Denied`] when the pod asks for what it cannot have; it gets nothing else instead.
pub fn choose(layout: &Layout, wish: &Wish) -> Result<Choice, Denied> {
    let pools = match items(wish.pools.as_deref()).as_slice() {
        [] => layout.pools.iter().filter(|pool| is_open(pool, wish)).collect(),
        names => names.iter().map(|name| named(layout, wish, name)).collect::<Result<Vec<_>, _>>()?,
    };
    let draining = pools.iter().find(|pool| pool.draining).map(|pool| pool.name.clone());
    let pools: Vec<Arc<str>> =
        pools.into_iter().filter(|pool| !pool.draining).map(|pool| pool.name.clone()).collect();
    if pools.is_empty() {
        return Err(draining.map_or(Denied::NoPool, Denied::Draining));
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in items(wish.addresses.as_deref()) {
        let address: IpAddr = text.parse().map_err(|_| Denied::NoAddress(text.to_owned()))?;
        let family = Family::of(address);
        if let Some(other) = addresses.iter().find(|other| Family::of(**other) == family) {
            return Err(Denied::TwoOfAFamily(*other, address, family));
        }
        match layout.pool_of(address) {
            Some(pool) if pools.contains(&pool.name) => {}
            Some(pool) if pool.draining => return Err(Denied::Draining(pool.name.clone())),
            _ => return Err(Denied::Outside(address)),
        }
        if layout.is_reserved(address) {
            return Err(Denied::Reserved(address));
        }
        addresses.push(address);
    }
    Ok(Choice { pools, addresses })
}

fn named<'a>(layout: &'a Layout, wish: &Wish, name: &str) -> Result<&'a Pool, Denied> {
    let pool = layout.pool(name).ok_or_else(|| Denied::UnknownPool(name.to_owned()))?;
    if is_open(pool, wish) { Ok(pool) } else { Err(Denied::NotOpen(name.to_owned())) }
}

/// A pool with a selector is closed to a namespace that is not known.
fn is_open(pool: &Pool, wish: &Wish) -> bool {
    match &pool.namespaces {
        None => true,
        Some(selector) => wish.namespace.as_ref().is_some_and(|labels| selector.matches(labels)),
    }
}

/// The items of a comma separated list. Empty text asks for nothing.
fn items(text: Option<&str>) -> Vec<&str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Requirement, Selector};

    fn layout() -> Layout {
        let pool = |name: &str, cidrs: &[&str], team: Option<&str>| Pool {
            name: name.into(),
            cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            reserved: vec!["10.1.0.9/32".parse().unwrap()],
            namespaces: team
                .map(|team| Selector(vec![Requirement::In("team".to_owned(), [team.to_owned()].into())])),
            draining: false,
        };
        let pools = vec![
            pool("pay", &["10.2.0.0/16"], Some("pay")),
            pool("fast", &["10.1.0.0/16", "fd00:1::/64"], None),
            pool("default", &["10.244.0.0/16"], None),
        ];
        Layout { pools, blocks: Vec::new(), ..Layout::default() }
    }

    fn wish(team: Option<&str>, pools: &str, addresses: &str) -> Wish {
        let labels = |team: &str| Labels::new([("team", team)].into());
        Wish {
            namespace: team.map(labels),
            pools: Some(pools.to_owned()),
            addresses: Some(addresses.to_owned()),
        }
    }

    #[test]
    fn pools_are_those_open_to_the_namespace_or_those_named() {
        let cases: [(Option<&str>, &str, &[&str]); 5] = [
            (Some("shop"), "", &["fast", "default"]),
            (Some("pay"), "", &["pay", "fast", "default"]),
            (None, "", &["fast", "default"]),
            (Some("shop"), "default", &["default"]),
            (Some("pay"), " default, pay", &["default", "pay"]),
        ];
        for (team, pools, expected) in cases {
            let chosen = choose(&layout(), &wish(team, pools, "")).unwrap().pools;
            assert_eq!(chosen.iter().map(|name| &**name).collect::<Vec<_>>(), expected, "{team:?} {pools}");
        }
        assert_eq!(choose(&layout(), &Wish::default()).unwrap().pools.len(), 2);
    }

    #[test]
    fn addresses_are_taken_from_the_pools_that_the_pod_may_use() {
        let chosen = choose(&layout(), &wish(None, "fast", "10.1.0.7, fd00:1::7")).unwrap();
        assert_eq!(chosen.addresses, ["10.1.0.7".parse::<IpAddr>().unwrap(), "fd00:1::7".parse().unwrap()]);
        let chosen = choose(&layout(), &wish(None, "", "10.244.0.7")).unwrap();
        assert_eq!(chosen.addresses.len(), 1);
    }

    #[test]
    fn a_pool_that_is_drained_gives_nothing_and_says_so_to_who_asks_for_it_alone() {
        let mut layout = layout();
        layout.pools[1].draining = true;
        let names = |wish| choose(&layout, &wish).map(|choice| choice.pools.len());
        assert_eq!(names(wish(None, "", "")), Ok(1));
        assert_eq!(names(wish(None, "fast,default", "")), Ok(1), "the other one is asked for too");
        for wish in [wish(None, "fast", ""), wish(None, "", "10.1.0.7"), wish(None, "default", "10.1.0.7")] {
            assert_eq!(names(wish), Err(Denied::Draining("fast".into())));
        }
        layout.pools.iter_mut().for_each(|pool| pool.draining = true);
        assert!(matches!(choose(&layout, &wish(None, "", "")), Err(Denied::Draining(_))));
    }

    #[test]
    fn what_cannot_be_is_denied_and_says_why() {
        let cases = [
            (wish(None, "slow", ""), "there is no pool slow"),
            (wish(Some("shop"), "pay", ""), "pool pay is not open to the pod's namespace"),
            (wish(None, "pay", ""), "pool pay is not open"),
            (wish(None, "", "10.1.0.7/32"), "\"10.1.0.7/32\" is no address"),
            (wish(None, "", "10.1.0.7,10.1.0.8"), "10.1.0.7 and 10.1.0.8 are both IPv4"),
            (wish(None, "default", "10.1.0.7"), "10.1.0.7 lies in no pool that the pod may use"),
            (wish(Some("shop"), "", "10.2.0.7"), "10.2.0.7 lies in no pool"),
            (wish(None, "", "10.1.0.9"), "10.1.0.9 is reserved"),
        ];
        for (wish, said) in cases {
            let denied = choose(&layout(), &wish).unwrap_err().to_string();
            assert!(denied.contains(said), "{denied}");
        }
        let closed = Layout { pools: layout().pools[..1].to_vec(), blocks: Vec::new(), ..Layout::default() };
        assert_eq!(choose(&closed, &Wish::default()), Err(Denied::NoPool));
    }
}

//! Random histories against a plain model, with restarts from the records and blocks added on the way.

use std::collections::HashSet;

use proptest::{collection::vec, prelude::*};

use super::*;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

fn pool(name: &str, cidrs: &[&str]) -> Pool {
    Pool { name: name.into(), cidrs: nets(cidrs), ..Pool::default() }
}

/// One pool of IPv4 and these blocks of it.
fn layout(blocks: &[&str]) -> Arc<Layout> {
    Arc::new(Layout {
        pools: vec![pool("default", &["10.244.0.0/16"])],
        blocks: nets(blocks),
        ..Layout::default()
    })
}

fn allocator(blocks: &[&str]) -> Allocator {
    Allocator::new(layout(blocks), [])
}

fn names(pools: &[&str]) -> Vec<Arc<str>> {
    pools.iter().map(|name| (*name).into()).collect()
}

/// One address of IPv4 from the pool `default`.
fn give(allocator: &mut Allocator, number: u8, now: Duration) -> Result<Address, Refused> {
    let pools = names(&["default"]);
    Ok(allocator.allocate(&owner(number), &Ask { families: &[V4], pools: &pools, addresses: &[] }, now)?[0])
}

fn exhausted(refused: Refused) -> Exhausted {
    let Refused::Exhausted(exhausted) = refused else { unreachable!("{refused}") };
    exhausted
}

fn release(allocator: &mut Allocator, number: u8, now: Duration) -> Option<Address> {
    let address = allocator.addresses_of(&owner(number)).into_iter().next()?;
    assert!(allocator.release(address, now));
    Some(address)
}

fn owner(number: u8) -> Owner {
    Owner { container_id: format!("sandbox-{number}"), interface: "eth0".to_owned() }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[derive(Clone, Debug)]
enum Event {
    Allocate(u8),
    Release(u8),
    Cancel(u8),
    Pass(u64),
    Restart,
    AddBlock,
    Wake,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..24_u8).prop_map(Event::Allocate),
        5 => (0..24_u8).prop_map(Event::Release),
        1 => (0..24_u8).prop_map(Event::Cancel),
        3 => (1..20_u64).prop_map(Event::Pass),
        1 => Just(Event::Restart),
        1 => Just(Event::AddBlock),
        1 => Just(Event::Wake),
    ]
}

/// What must be true, kept in the plainest form.
#[derive(Default)]
struct Model {
    now: Duration,
    owned: HashMap<u8, Address>,
    freed: HashMap<Address, Duration>,
    blocks: Vec<IpNet>,
}

impl Model {
    fn step(&mut self, allocator: &mut Allocator, event: &Event) {
        match event {
            Event::Allocate(number) => self.allocate(allocator, *number),
            Event::Release(number) => {
                let address = release(allocator, *number, self.now);
                assert_eq!(address, self.owned.remove(number));
                self.freed.extend(address.map(|address| (address, self.now)));
            }
            Event::Cancel(number) => {
                let address = allocator.addresses_of(&owner(*number)).into_iter().next();
                assert_eq!(address, self.owned.remove(number));
                assert!(address.is_none_or(|address| allocator.cancel(address)));
            }
            Event::Pass(seconds) => self.now += at(*seconds),
            Event::Restart => {
                let records: Vec<_> = allocator.held().map(|(a, held)| (a, held.clone())).collect();
                *allocator = Allocator::new(self.layout(), records);
            }
            Event::AddBlock => {
                self.blocks.push(net(&format!("10.244.1.{}/29", 8 * self.blocks.len())));
                allocator.set_layout(self.layout());
            }
            Event::Wake => drop(allocator.wake(self.now)),
        }
    }

    fn layout(&self) -> Arc<Layout> {
        let pools = vec![pool("default", &["10.244.0.0/16"])];
        Arc::new(Layout { pools, blocks: self.blocks.clone(), ..Layout::default() })
    }

    fn allocate(&mut self, allocator: &mut Allocator, number: u8) {
        match (give(allocator, number, self.now), self.owned.get(&number)) {
            (Ok(address), Some(before)) => assert_eq!(address, *before, "an owner keeps its address"),
            (Ok(address), None) => {
                assert!(self.owned.values().all(|other| *other != address), "{address} has two owners");
                let rest = self.freed.remove(&address).map(|freed| self.now.saturating_sub(freed));
                assert!(rest.is_none_or(|rest| rest >= REST), "{address} rested only {rest:?}");
                let ip = address.ip();
                assert!(self.blocks.iter().all(|block| block.network() != ip), "{ip} may be the overlay's");
                assert!(self.blocks.iter().any(|block| block.contains(&ip)));
                self.owned.insert(number, address);
            }
            (Err(refused), had) => {
                assert!(had.is_none(), "an owner lost its address");
                let exhausted = exhausted(refused);
                let Usage { used, resting, capacity } = exhausted.usage;
                assert_eq!(used + resting, capacity, "{exhausted} though some are free");
            }
        }
    }

    fn agrees_with(&self, allocator: &Allocator) {
        let usage = allocator.usage(self.now);
        assert_eq!(usage.used as usize, self.owned.len());
        assert!(usage.used + usage.resting <= usage.capacity);
        let held: HashSet<_> =
            allocator.held().filter(|(_, held)| matches!(held, Held::By(_))).map(|(a, _)| a).collect();
        assert_eq!(held, self.owned.values().copied().collect());
    }
}

proptest! {
    #[test]
    fn no_history_gives_one_address_to_two_owners_or_skips_a_rest(events in vec(event(), 1..200)) {
        let mut model = Model { blocks: nets(&["10.244.1.0/29"]), ..Model::default() };
        let mut allocator = Allocator::new(model.layout(), []);
        for event in &events {
            model.step(&mut allocator, event);
            model.agrees_with(&allocator);
        }
    }
}

#[test]
fn a_block_gives_all_but_the_overlay_address() {
    let mut allocator = allocator(&["10.244.0.64/26"]);
    assert_eq!(allocator.layout().overlay_address(V4), Some(Ipv4Addr::new(10, 244, 0, 64).into()));
    let given: HashSet<_> = (0..63).map(|n| give(&mut allocator, n, at(0)).unwrap()).collect();
    assert_eq!(given.len(), 63);
    assert!(given.contains(&Ipv4Addr::new(10, 244, 0, 127).into()), "the last address is an ordinary one");
    let full = give(&mut allocator, 63, at(0)).unwrap_err();
    assert_eq!(
        full.to_string(),
        "all 63 IPv4 addresses of 10.244.0.64/26 are taken (63 by pods, 0 freed less than 30s ago)"
    );
}

#[test]
fn the_first_address_of_a_later_block_is_no_pods_when_that_block_becomes_the_first() {
    let mut allocator = allocator(&["10.244.0.0/30", "10.244.1.0/30"]);
    let given: HashSet<_> = (0..6).map(|n| give(&mut allocator, n, at(0)).unwrap()).collect();
    assert!(give(&mut allocator, 6, at(0)).is_err());
    allocator.set_layout(layout(&["10.244.1.0/30"]));
    assert!(!given.contains(&allocator.layout().overlay_address(V4).unwrap()));
}

#[test]
fn a_freed_address_comes_back_last_and_after_its_rest() {
    let mut allocator = allocator(&["10.244.0.0/30"]);
    let first = give(&mut allocator, 1, at(0)).unwrap();
    release(&mut allocator, 1, at(10));
    assert_ne!(give(&mut allocator, 2, at(100)).unwrap(), first, "round robin goes on");
    assert_ne!(give(&mut allocator, 3, at(100)).unwrap(), first);
    release(&mut allocator, 2, at(100));
    assert_eq!(give(&mut allocator, 4, at(100)).unwrap(), first, "the only rested one");
    assert!(give(&mut allocator, 5, at(129)).is_err());
    assert!(give(&mut allocator, 5, at(130)).is_ok());
}

#[test]
fn a_cancelled_address_is_free_at_once() {
    let mut allocator = allocator(&["10.244.0.0/31"]);
    give(&mut allocator, 1, at(0)).unwrap();
    let cancelled = allocator.addresses_of(&owner(1));
    assert!(cancelled.into_iter().all(|address| allocator.cancel(address)));
    assert!(give(&mut allocator, 2, at(0)).is_ok());
}

#[test]
fn rested_records_are_named_once_so_that_their_files_can_go() {
    let mut allocator = allocator(&["10.244.0.0/30"]);
    let address = give(&mut allocator, 1, at(0)).unwrap();
    release(&mut allocator, 1, at(0));
    assert!(allocator.wake(at(29)).is_empty());
    assert_eq!(allocator.wake(at(30)), [address]);
    assert!(allocator.wake(at(31)).is_empty());
}

#[test]
fn without_a_block_nothing_is_given() {
    let full = give(&mut Allocator::default(), 1, at(0)).unwrap_err();
    assert!(full.to_string().contains("no block"), "{full}");
}

#[test]
fn an_address_of_a_block_that_is_gone_stays_its_owners() {
    let mut allocator = allocator(&["10.244.0.0/30"]);
    let address = give(&mut allocator, 1, at(0)).unwrap();
    allocator.set_layout(layout(&["10.244.9.0/30"]));
    assert_eq!(give(&mut allocator, 1, at(1)).unwrap(), address);
    assert_ne!(give(&mut allocator, 2, at(1)).unwrap(), address);
}

/// Two pools: `fast` with both families, `default` with IPv4 alone.
fn two_pools(reserved: &[&str]) -> Arc<Layout> {
    let fast = Pool { reserved: nets(reserved), ..pool("fast", &["10.1.0.0/16", "fd00:1::/64"]) };
    let blocks = nets(&["10.244.0.0/30", "10.1.0.0/30", "fd00:1::40/126"]);
    Arc::new(Layout { pools: vec![fast, pool("default", &["10.244.0.0/16"])], blocks, ..Layout::default() })
}

fn texts(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn an_owner_gets_one_address_of_each_family_and_the_first_pool_that_has_one_gives_it() {
    let mut allocator = Allocator::new(two_pools(&[]), []);
    let both = |pools: &[Arc<str>], allocator: &mut Allocator, number| {
        let given =
            allocator.allocate(&owner(number), &Ask { families: &[V4, V6], pools, addresses: &[] }, at(0));
        given.map(|given| texts(&given))
    };
    let (fast, all) = (names(&["fast"]), names(&["fast", "default"]));
    assert_eq!(both(&all, &mut allocator, 1).unwrap(), ["10.1.0.1", "fd00:1::41"]);
    assert_eq!(both(&all, &mut allocator, 1).unwrap(), ["10.1.0.1", "fd00:1::41"], "again the same");
    assert_eq!(both(&fast, &mut allocator, 2).unwrap(), ["10.1.0.2", "fd00:1::42"]);
    let four =
        allocator.allocate(&owner(3), &Ask { families: &[V4], pools: &fast, addresses: &[] }, at(0)).unwrap();
    assert_eq!(texts(&four), ["10.1.0.3"]);
    let refused = exhausted(both(&fast, &mut allocator, 4).unwrap_err());
    assert_eq!((refused.family, &*refused.blocks), (V4, "10.1.0.0/30"));
    assert_eq!(
        both(&all, &mut allocator, 4).unwrap(),
        ["10.244.0.1", "fd00:1::43"],
        "the next pool helps out"
    );
    let used = allocator.usage(at(0)).used;
    let refused = exhausted(both(&all, &mut allocator, 5).unwrap_err());
    assert_eq!(refused.family, V6);
    assert_eq!(allocator.usage(at(0)).used, used, "half of what was asked for is nothing");
    assert_eq!(texts(&allocator.addresses_of(&owner(4))), ["10.244.0.1", "fd00:1::43"]);
}

#[test]
fn a_family_that_comes_later_is_added_to_what_the_owner_has() {
    let mut allocator = Allocator::new(two_pools(&[]), []);
    let pools = names(&["fast"]);
    allocator.allocate(&owner(1), &Ask { families: &[V6], pools: &pools, addresses: &[] }, at(0)).unwrap();
    let both = allocator
        .allocate(&owner(1), &Ask { families: &[V4, V6], pools: &pools, addresses: &[] }, at(0))
        .unwrap();
    assert_eq!(texts(&both), ["10.1.0.1", "fd00:1::41"]);
}

#[test]
fn reserved_addresses_are_never_given_and_do_not_count() {
    let mut allocator = Allocator::new(two_pools(&["10.1.0.0/31", "10.1.0.3/32", "fd00:1::/64"]), []);
    let pools = names(&["fast"]);
    let mut one = |number, family| {
        allocator.allocate(&owner(number), &Ask { families: &[family], pools: &pools, addresses: &[] }, at(0))
    };
    assert_eq!(texts(&one(1, V4).unwrap()), ["10.1.0.2"]);
    assert_eq!(exhausted(one(2, V4).unwrap_err()).usage, Usage { used: 1, resting: 0, capacity: 1 });
    assert_eq!(exhausted(one(2, V6).unwrap_err()).usage.capacity, 0);
}

#[test]
fn use_is_told_block_by_block() {
    let mut allocator = Allocator::new(two_pools(&[]), []);
    let pools = names(&["default"]);
    allocator.allocate(&owner(1), &Ask { families: &[V4], pools: &pools, addresses: &[] }, at(0)).unwrap();
    allocator.allocate(&owner(2), &Ask { families: &[V4], pools: &pools, addresses: &[] }, at(0)).unwrap();
    assert!(allocator.release(Address::from(Ipv4Addr::new(10, 244, 0, 1)), at(1)));
    let told: Vec<_> = allocator.usage_by_block(at(2)).into_iter().map(|(_, usage)| usage).collect();
    let empty = Usage { capacity: 3, ..Usage::default() };
    assert_eq!(told, [Usage { used: 1, resting: 1, capacity: 3 }, empty, empty]);
    assert_eq!(allocator.usage(at(2)).capacity, 9);
    assert_eq!(allocator.usage_by_block(at(31))[0].1, Usage { used: 1, resting: 0, capacity: 3 });
}

#[test]
fn the_first_blocks_are_filled_first_so_that_the_last_one_empties() {
    let mut allocator = allocator(&["10.244.0.0/30", "10.244.1.0/30"]);
    for number in 1..=4 {
        give(&mut allocator, number, at(0)).unwrap();
    }
    release(&mut allocator, 1, at(0));
    assert_eq!(give(&mut allocator, 5, at(30)).unwrap().to_string(), "10.244.0.1");
}

#[test]
fn an_address_asked_for_is_given_or_refused_with_the_reason() {
    let mut allocator = Allocator::new(two_pools(&[]), []);
    let pools = names(&["fast"]);
    let mut one = |number, text: &str, now| {
        let addresses = [text.parse().unwrap()];
        allocator.allocate(
            &owner(number),
            &Ask { families: &[V4], pools: &pools, addresses: &addresses },
            at(now),
        )
    };
    let address: IpAddr = "10.1.0.3".parse().unwrap();
    assert_eq!(texts(&one(1, "10.1.0.3", 0).unwrap()), ["10.1.0.3"]);
    assert_eq!(texts(&one(1, "10.1.0.2", 0).unwrap()), ["10.1.0.3"], "what it has stays");
    assert_eq!(one(2, "10.1.0.3", 0), Err(Refused::Taken { address, owner: owner(1) }));
    assert!(matches!(one(2, "10.1.0.0", 0), Err(Refused::First { .. })));
    assert!(matches!(one(2, "10.1.9.3", 0), Err(Refused::Elsewhere { .. })));
    assert!(allocator.release(address.into(), at(1)));
    let addresses = [address];
    let ask = Ask { families: &[V4], pools: &pools, addresses: &addresses };
    assert_eq!(allocator.allocate(&owner(2), &ask, at(30)), Err(Refused::Resting { address }));
    assert_eq!(texts(&allocator.allocate(&owner(2), &ask, at(31)).unwrap()), ["10.1.0.3"]);
}

#[test]
fn a_block_that_is_given_back_gives_nothing_and_is_named_when_it_is_empty() {
    let mut allocator = allocator(&["10.244.0.0/30", "10.244.1.0/30"]);
    let taken: Vec<_> = (1..=4).map(|number| give(&mut allocator, number, at(0)).unwrap()).collect();
    assert_eq!(taken[3].to_string(), "10.244.1.1");
    let releasing = vec![Releasing { block: net("10.244.1.0/30"), ticket: "7".into() }];
    let open = layout(&["10.244.0.0/30", "10.244.1.0/30"]);
    allocator.set_layout(Arc::new(Layout { releasing: releasing.clone(), ..(*open).clone() }));
    let full = give(&mut allocator, 5, at(1)).unwrap_err().to_string();
    assert!(full.contains("all 3 IPv4 addresses of 10.244.0.0/30"), "{full}");
    assert_eq!(give(&mut allocator, 4, at(1)).unwrap(), taken[3], "who has one keeps it");
    let (pools, addresses) = (names(&["default"]), ["10.244.1.2".parse().unwrap()]);
    let fixed = Ask { families: &[V4], pools: &pools, addresses: &addresses };
    let refused = allocator.allocate(&owner(6), &fixed, at(1)).unwrap_err();
    assert_eq!(refused, Refused::Releasing { address: addresses[0] });
    assert!(allocator.released(at(1)).is_empty());
    release(&mut allocator, 4, at(10));
    assert!(allocator.released(at(39)).is_empty(), "it rests");
    assert_eq!(allocator.released(at(40)), releasing);
    allocator.set_layout(Arc::new(Layout { releasing, ..(*layout(&["10.244.0.0/30"])).clone() }));
    assert!(allocator.released(at(40)).is_empty(), "it is the node's no longer");
}

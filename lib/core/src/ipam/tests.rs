//! Random histories against a plain model, with restarts from the records and blocks added on the way.

use std::collections::HashSet;

use proptest::{collection::vec, prelude::*};

use super::*;

fn block(text: &str) -> Ipv4Net {
    text.parse().unwrap()
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
    blocks: Vec<Ipv4Net>,
}

impl Model {
    fn step(&mut self, allocator: &mut Allocator, event: &Event) {
        match event {
            Event::Allocate(number) => self.allocate(allocator, *number),
            Event::Release(number) => {
                let address = allocator.release(&owner(*number), self.now);
                assert_eq!(address, self.owned.remove(number));
                self.freed.extend(address.map(|address| (address, self.now)));
            }
            Event::Cancel(number) => {
                assert_eq!(allocator.cancel(&owner(*number)), self.owned.remove(number));
            }
            Event::Pass(seconds) => self.now += at(*seconds),
            Event::Restart => {
                let records: Vec<_> = allocator.held().map(|(a, held)| (a, held.clone())).collect();
                *allocator = Allocator::new(self.blocks.clone(), records);
            }
            Event::AddBlock => {
                let next =
                    Ipv4Net::new(Ipv4Addr::new(10, 244, 1, 8 * u8::try_from(self.blocks.len()).unwrap()), 29);
                self.blocks.push(next.unwrap());
                allocator.set_blocks(self.blocks.clone());
            }
            Event::Wake => drop(allocator.wake(self.now)),
        }
    }

    fn allocate(&mut self, allocator: &mut Allocator, number: u8) {
        match (allocator.allocate(&owner(number), self.now), self.owned.get(&number)) {
            (Ok(address), Some(before)) => assert_eq!(address, *before, "an owner keeps its address"),
            (Ok(address), None) => {
                assert!(self.owned.values().all(|other| *other != address), "{address} has two owners");
                let rest = self.freed.remove(&address).map(|freed| self.now.saturating_sub(freed));
                assert!(rest.is_none_or(|rest| rest >= REST), "{address} rested only {rest:?}");
                let ip = ipv4(address).unwrap();
                assert!(self.blocks.iter().all(|block| block.network() != ip), "{ip} may be the overlay's");
                assert!(self.blocks.iter().any(|block| block.contains(&ip)));
                self.owned.insert(number, address);
            }
            (Err(exhausted), had) => {
                assert!(had.is_none(), "an owner lost its address");
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
        let mut model = Model { blocks: vec![block("10.244.1.0/29")], ..Model::default() };
        let mut allocator = Allocator::new(model.blocks.clone(), []);
        for event in &events {
            model.step(&mut allocator, event);
            model.agrees_with(&allocator);
        }
    }
}

#[test]
fn a_block_gives_all_but_the_overlay_address() {
    let mut allocator = Allocator::new(vec![block("10.244.0.64/26")], []);
    assert_eq!(allocator.overlay_address(), Some(Ipv4Addr::new(10, 244, 0, 64).into()));
    let given: HashSet<_> = (0..63).map(|n| allocator.allocate(&owner(n), at(0)).unwrap()).collect();
    assert_eq!(given.len(), 63);
    assert!(given.contains(&Ipv4Addr::new(10, 244, 0, 127).into()), "the last address is an ordinary one");
    let full = allocator.allocate(&owner(63), at(0)).unwrap_err();
    assert_eq!(
        full.to_string(),
        "all 63 addresses of 10.244.0.64/26 are taken (63 by pods, 0 freed less than 30s ago)"
    );
}

#[test]
fn the_first_address_of_a_later_block_is_no_pods_when_that_block_becomes_the_first() {
    let mut allocator = Allocator::new(vec![block("10.244.0.0/30"), block("10.244.1.0/30")], []);
    let given: HashSet<_> = (0..6).map(|n| allocator.allocate(&owner(n), at(0)).unwrap()).collect();
    assert!(allocator.allocate(&owner(6), at(0)).is_err());
    allocator.set_blocks(vec![block("10.244.1.0/30")]);
    assert!(!given.contains(&allocator.overlay_address().unwrap()));
}

#[test]
fn a_freed_address_comes_back_last_and_after_its_rest() {
    let mut allocator = Allocator::new(vec![block("10.244.0.0/30")], []);
    let first = allocator.allocate(&owner(1), at(0)).unwrap();
    allocator.release(&owner(1), at(10));
    assert_ne!(allocator.allocate(&owner(2), at(100)).unwrap(), first, "round robin goes on");
    assert_ne!(allocator.allocate(&owner(3), at(100)).unwrap(), first);
    allocator.release(&owner(2), at(100));
    assert_eq!(allocator.allocate(&owner(4), at(100)).unwrap(), first, "the only rested one");
    assert!(allocator.allocate(&owner(5), at(129)).is_err());
    assert!(allocator.allocate(&owner(5), at(130)).is_ok());
}

#[test]
fn a_cancelled_address_is_free_at_once() {
    let mut allocator = Allocator::new(vec![block("10.244.0.0/31")], []);
    allocator.allocate(&owner(1), at(0)).unwrap();
    allocator.cancel(&owner(1));
    assert!(allocator.allocate(&owner(2), at(0)).is_ok());
}

#[test]
fn rested_records_are_named_once_so_that_their_files_can_go() {
    let mut allocator = Allocator::new(vec![block("10.244.0.0/30")], []);
    let address = allocator.allocate(&owner(1), at(0)).unwrap();
    allocator.release(&owner(1), at(0));
    assert!(allocator.wake(at(29)).is_empty());
    assert_eq!(allocator.wake(at(30)), [address]);
    assert!(allocator.wake(at(31)).is_empty());
}

#[test]
fn without_a_block_nothing_is_given() {
    let full = Allocator::default().allocate(&owner(1), at(0)).unwrap_err();
    assert!(full.to_string().contains("no block"), "{full}");
}

#[test]
fn an_address_of_a_block_that_is_gone_stays_its_owners() {
    let mut allocator = Allocator::new(vec![block("10.244.0.0/30")], []);
    let address = allocator.allocate(&owner(1), at(0)).unwrap();
    allocator.set_blocks(vec![block("10.244.9.0/30")]);
    assert_eq!(allocator.allocate(&owner(1), at(1)).unwrap(), address);
    assert_ne!(allocator.allocate(&owner(2), at(1)).unwrap(), address);
}

//! The files beside the allocator: what survives a restart, a crash between steps and a strange file.

mod histories;

use std::{
    collections::HashMap,
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use netkeel_core::{
    address::Addresses,
    ipam::{self, Family, Layout},
};
use proptest::{collection::vec, prelude::*};
use tokio::sync::watch;

use super::*;
use crate::{
    bandwidth::{Bandwidth, Limit},
    node::NodeState,
};

fn owner(number: u8) -> Owner {
    Owner { container_id: format!("sandbox-{number}"), interface: "eth0".to_owned() }
}

/// A pool of both families with a block of eight addresses of each.
fn layout() -> Arc<Layout> {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let cidrs = vec![net("10.244.0.0/16"), net("fd00::/64")];
    let pool = ipam::Pool { name: "default".into(), cidrs, ..ipam::Pool::default() };
    Arc::new(Layout {
        pools: vec![pool],
        blocks: vec![net("10.244.0.0/29"), net("fd00::/125")],
        ..Layout::default()
    })
}

/// A node with these pools and blocks.
fn node(layout: Arc<Layout>) -> (watch::Sender<Option<Arc<NodeState>>>, NodeWatch) {
    let addresses = Addresses::default();
    let state = NodeState { ready: true, layout, addresses, mtu: 1450, revision: String::new() };
    watch::channel(Some(Arc::new(state)))
}

fn allocate_all(
    pool: &Pool,
    number: u8,
    families: &[Family],
    details: &Details,
) -> Result<Vec<Address>, Error> {
    let pools = ["default".into()];
    pool.allocate(&owner(number), &Ask { families, pools: &pools, addresses: &[] }, details)
}

fn allocate(pool: &Pool, number: u8) -> Result<Address, Error> {
    Ok(allocate_all(pool, number, &[Family::V4], &Details::default())?[0])
}

fn open(folder: &Path, clock: fn() -> Duration) -> Pool {
    let pool = Pool::with_clock(folder, clock).unwrap();
    pool.follow(&node(layout()).1);
    pool
}

/// Names in the folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_restart_knows_owners_and_addresses_at_rest() {
    let folder = tempfile::tempdir().unwrap();
    let details = Details {
        network: "netkeel".to_owned(),
        pod: "shop/cart-0".to_owned(),
        uid: "7".to_owned(),
        ports: Vec::new(),
        bandwidth: Bandwidth { ingress: Some(Limit { rate: 1000, burst: Some(8) }), egress: None },
    };
    let pool = open(folder.path(), || Duration::from_secs(100));
    let kept = allocate_all(&pool, 1, &[Family::V4], &details).unwrap()[0];
    let freed = allocate(&pool, 2).unwrap();
    pool.release(&owner(2)).unwrap();
    drop(pool);
    let pool = open(folder.path(), || Duration::from_secs(129));
    assert_eq!(allocate(&pool, 1).unwrap(), kept);
    assert_eq!(pool.record(&owner(1)).unwrap().details, details);
    let others: Vec<_> = (3..8).map_while(|n| allocate(&pool, n).ok()).collect();
    assert_eq!(others.len(), 5, "eight addresses without the overlay's, the kept and the resting one");
    assert!(!others.contains(&freed));
}

#[test]
fn a_rested_address_loses_its_file() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::from_secs(NOW.load(Ordering::Relaxed)));
    allocate(&pool, 1).unwrap();
    pool.release(&owner(1)).unwrap();
    pool.wake().unwrap();
    assert_eq!(files(folder.path()), ["10.244.0.1"]);
    NOW.store(30, Ordering::Relaxed);
    pool.wake().unwrap();
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_strange_file_keeps_its_address_taken_and_a_half_written_one_goes() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("10.244.0.1"), "{").unwrap();
    fs::write(folder.path().join(".10.244.0.2.new"), "{").unwrap();
    fs::write(folder.path().join("README"), "not an address").unwrap();
    let pool = open(folder.path(), || Duration::ZERO);
    let given: Vec<_> = (0..8).map_while(|n| allocate(&pool, n).ok()).map(|a| a.to_string()).collect();
    assert_eq!(given, ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5", "10.244.0.6", "10.244.0.7"]);
    assert!(!files(folder.path()).contains(&".10.244.0.2.new".to_owned()));
}

#[test]
fn an_address_that_cannot_be_written_down_is_not_given() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::ZERO);
    // Somebody else's file appears: the rename must not replace it.
    fs::write(folder.path().join("10.244.0.1"), "{}").unwrap();
    let refused = allocate(&pool, 1).unwrap_err();
    assert!(matches!(refused, Error::Store { .. }), "{refused}");
    assert_eq!(pool.usage().used, 0);
}

#[test]
fn both_families_are_given_and_freed_together_and_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let both = [Family::V4, Family::V6];
    let pool = open(folder.path(), || Duration::ZERO);
    let given = allocate_all(&pool, 1, &both, &Details::default()).unwrap();
    assert_eq!(files(folder.path()), ["10.244.0.1", "fd00::1"]);
    let pool = open(folder.path(), || Duration::ZERO);
    assert_eq!(allocate_all(&pool, 1, &both, &Details::default()).unwrap(), given);
    let known: Vec<_> = pool.records_of(&owner(1)).into_iter().map(|record| record.address).collect();
    assert_eq!(known, given);
    assert_eq!(pool.release(&owner(1)).unwrap(), given);
    assert_eq!((pool.usage().used, pool.usage().resting), (0, 2));
}

#[test]
fn half_an_allocation_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::ZERO);
    fs::write(folder.path().join("fd00::1"), "{}").unwrap();
    let refused = allocate_all(&pool, 1, &[Family::V4, Family::V6], &Details::default()).unwrap_err();
    assert!(matches!(refused, Error::Store { .. }), "{refused}");
    assert_eq!((pool.usage().used, pool.records().len()), (0, 0));
    assert_eq!(files(folder.path()), ["fd00::1"]);
}

#[test]
fn a_shortage_ends_with_an_address_a_block_or_the_patience_of_who_asked() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::from_secs(NOW.load(Ordering::Relaxed)));
    assert!((1..=7).all(|number| allocate(&pool, number).is_ok()));
    let send_away = |number| {
        let Err(Error::Refused(Refused::Exhausted(full))) = allocate(&pool, number) else { unreachable!() };
        pool.sent_away(&full);
    };
    send_away(8);
    NOW.store(10, Ordering::Relaxed);
    send_away(9);
    let told = pool.shortage().unwrap();
    assert_eq!((told.since, pool.refusals()), (Duration::ZERO, 2));
    assert!(told.message.contains("all 7 IPv4 addresses"), "{}", told.message);
    pool.release(&owner(1)).unwrap();
    NOW.store(39, Ordering::Relaxed);
    assert!(allocate(&pool, 8).is_err(), "the freed one rests");
    NOW.store(40, Ordering::Relaxed);
    allocate(&pool, 8).expect("the rest is over");
    assert_eq!(pool.shortage(), None);
    send_away(9);
    NOW.store(161, Ordering::Relaxed);
    assert_eq!(pool.shortage(), None, "nobody asks any more");
    send_away(9);
    let more = Layout { blocks: vec!["10.244.0.0/28".parse().unwrap()], ..(*layout()).clone() };
    pool.follow(&node(Arc::new(more)).1);
    assert_eq!(pool.shortage(), None);
}

fn releasing(ticket: &str) -> Arc<Layout> {
    let mark = Releasing { block: "10.244.0.0/29".parse().unwrap(), ticket: ticket.into() };
    Arc::new(Layout { releasing: vec![mark], ..(*layout()).clone() })
}

#[test]
fn a_block_is_released_when_all_that_is_in_use_is_known_and_none_of_it_lies_there() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::from_secs(NOW.load(Ordering::Relaxed)));
    let address = allocate(&pool, 1).unwrap();
    pool.hold([]);
    pool.follow(&node(releasing("7")).1);
    assert!(pool.released().is_empty());
    pool.release(&owner(1)).unwrap();
    NOW.store(30, Ordering::Relaxed);
    assert_eq!(pool.released(), releasing("7").releasing);
    assert!(matches!(allocate(&pool, 2), Err(Error::Refused(Refused::Exhausted(_)))));
    // The next agent finds no record of a pod that runs: only its route tells.
    let pool = open(folder.path(), || Duration::from_mins(1));
    pool.follow(&node(releasing("7")).1);
    assert!(pool.released().is_empty(), "it is not known yet what is in use");
    pool.hold([address]);
    assert!(pool.released().is_empty());
}

#[test]
fn a_block_is_idle_a_minute_after_its_last_address_has_rested() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::from_secs(NOW.load(Ordering::Relaxed)));
    let idle_at = |second| {
        NOW.store(second, Ordering::Relaxed);
        pool.usage_by_block().iter().map(|used| used.idle).collect::<Vec<_>>()
    };
    assert_eq!(idle_at(0), [false, false], "a block that has just come");
    allocate(&pool, 1).unwrap();
    assert_eq!(idle_at(70), [false, true]);
    pool.release(&owner(1)).unwrap();
    assert_eq!(idle_at(100), [false, true]);
    assert_eq!(idle_at(159), [false, true]);
    assert_eq!(idle_at(160), [true, true]);
}

#[test]
fn a_call_that_was_under_way_does_not_bring_back_blocks_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let pool = open(folder.path(), || Duration::ZERO);
    let (sender, call) = node(layout());
    pool.follow(&call);
    allocate(&pool, 1).unwrap();
    let of_the_call = call.clone();
    sender.send_replace(node(releasing("7")).1.borrow().clone());
    pool.follow(&call);
    pool.follow(&of_the_call);
    assert!(allocate(&pool, 2).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Restarts anywhere in a random history, from the files alone.
    #[test]
    fn what_the_files_say_is_what_the_pool_knew(events in vec((0..3_u8, 0..10_u8), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut pool = open(folder.path(), || Duration::from_secs(5));
        let mut owned = HashMap::new();
        for (what, number) in events {
            match what {
                0 => drop(allocate(&pool, number).map(|a| owned.insert(number, a))),
                1 => prop_assert_eq!(pool.release(&owner(number)).unwrap().pop(), owned.remove(&number)),
                _ => pool = open(folder.path(), || Duration::from_secs(5)),
            }
            let known: HashMap<_, _> = pool.records().into_iter().map(|r| (r.owner, r.address)).collect();
            prop_assert_eq!(known, owned.iter().map(|(n, a)| (owner(*n), *a)).collect::<HashMap<_, _>>());
            let usage = pool.usage();
            prop_assert_eq!(files(folder.path()).len(), (usage.used + usage.resting) as usize);
        }
    }
}

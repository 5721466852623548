//! Ten thousand random histories of CNI calls and accidents, each compared step by step with a model that is nothing but maps.

use std::{collections::BTreeMap, net::IpAddr};

use netkeel_core::ipam::REST;
use netkeel_testkit::random::Random;

use super::*;

/// Histories, and calls in each.
const HISTORIES: u64 = 10_000;
const STEPS: usize = 24;
/// Sandboxes that take part.
const SANDBOXES: usize = 10;

thread_local! {
    static NOW: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn now() -> Duration {
    Duration::from_secs(NOW.get())
}

/// Who holds what, and what was freed when.
#[derive(Default)]
struct Model {
    held: BTreeMap<u8, Vec<Address>>,
    freed: BTreeMap<Address, Duration>,
}

impl Model {
    fn is_free(&self, address: Address) -> bool {
        let rested = self.freed.get(&address).is_none_or(|freed| now().saturating_sub(*freed) >= REST);
        rested && self.held.values().flatten().all(|held| *held != address)
    }

    /// The addresses of a family that pods can have.
    fn all(family: Family) -> impl Iterator<Item = Address> {
        (1..=7_u16).map(move |number| match family {
            Family::V4 => IpAddr::from([10, 244, 0, number.to_be_bytes()[1]]).into(),
            Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, number]).into(),
        })
    }

    fn had(&self, number: u8, family: Family) -> Option<Address> {
        let of_family = |address: &&Address| Family::of(address.ip()) == family;
        self.held.get(&number).into_iter().flatten().find(of_family).copied()
    }

    /// ADD, first or again, with or without an address that it must be.
    fn add(&mut self, pool: &Pool, number: u8, families: &[Family], asked: Option<Address>) {
        let addresses: Vec<IpAddr> = asked.map(|address| address.ip()).into_iter().collect();
        let pools = ["default".into()];
        let ask = Ask { families, pools: &pools, addresses: &addresses };
        let of_family = |family| asked.filter(|address| Family::of(address.ip()) == family);
        let possible = families.iter().all(|family| {
            let new = match of_family(*family) {
                Some(address) => self.is_free(address),
                None => Self::all(*family).any(|address| self.is_free(address)),
            };
            self.had(number, *family).is_some() || new
        });
        let given = pool.allocate(&owner(number), &ask, &Details::default());
        assert_eq!(given.is_ok(), possible, "{given:?}");
        for (address, family) in given.into_iter().flatten().zip(families) {
            match (self.had(number, *family), of_family(*family)) {
                (Some(had), _) => assert_eq!(address, had, "a repeated ADD has the same address"),
                (None, asked) => {
                    assert!(self.is_free(address) && asked.is_none_or(|asked| asked == address), "{address}");
                    self.freed.remove(&address);
                    self.held.entry(number).or_default().push(address);
                }
            }
        }
    }

    /// DEL, first or again, of a sandbox that may never have been.
    fn del(&mut self, pool: &Pool, number: u8) {
        let released = pool.release(&owner(number)).unwrap();
        let mut held = self.held.remove(&number).unwrap_or_default();
        held.sort_unstable_by_key(Address::ip);
        assert_eq!(released, held);
        self.freed.extend(held.into_iter().map(|address| (address, now())));
    }

    /// CHECK goes by the records, and changes nothing.
    fn check(&self, pool: &Pool, number: u8) {
        let mut held = self.held.get(&number).cloned().unwrap_or_default();
        held.sort_unstable_by_key(Address::ip);
        let known: Vec<Address> =
            pool.records_of(&owner(number)).iter().map(|record| record.address).collect();
        assert_eq!(known, held);
        let details = pool.record(&owner(number)).map(|record| record.details);
        assert_eq!(details, (!held.is_empty()).then(Details::default));
    }

    fn agrees(&self, pool: &Pool) {
        let mut known: BTreeMap<Address, Owner> = BTreeMap::new();
        for record in pool.records() {
            assert!(known.insert(record.address, record.owner).is_none(), "two records of one address");
        }
        let all = self.held.iter().flat_map(|(number, all)| all.iter().map(|a| (*a, owner(*number))));
        assert_eq!(known, all.collect());
    }
}

/// The agent dies, perhaps in the middle of a write, and starts again.
fn crash(folder: &Path, random: &mut Random) -> Pool {
    if random.below(2) == 0 {
        fs::write(folder.join(".10.244.0.3.new"), "{\"containerId\":").unwrap();
    }
    open(folder, now)
}

#[test]
fn ten_thousand_histories_end_as_the_model_says() {
    // In memory, as /run is.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for seed in 1..=HISTORIES {
        let mut random = Random::new(seed);
        let mut model = Model::default();
        for name in files(folder.path()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        let mut pool = open(folder.path(), now);
        for _ in 0..STEPS {
            let number = u8::try_from(random.below(SANDBOXES)).unwrap();
            match random.below(20) {
                0..8 => {
                    let families: &[Family] =
                        [&[Family::V4][..], &[Family::V6], &Family::ALL][random.below(3)];
                    let family = Family::ALL[random.below(2)];
                    let asked = Model::all(family).nth(random.below(40));
                    model.add(&pool, number, families, asked);
                }
                8..13 => model.del(&pool, number),
                13 => model.check(&pool, number),
                14..17 => NOW.set(NOW.get() + random.below(40) as u64),
                17 => pool = crash(folder.path(), &mut random),
                18 => pool.wake().unwrap(),
                // A reboot: nothing of /run is left, and no sandbox.
                _ if random.below(4) == 0 => {
                    for name in files(folder.path()) {
                        fs::remove_file(folder.path().join(name)).unwrap();
                    }
                    model = Model::default();
                    pool = open(folder.path(), now);
                }
                _ => {}
            }
            model.agrees(&pool);
        }
    }
}

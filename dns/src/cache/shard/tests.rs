use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::reply::{Bounds, Reply};
use super::*;

/// An answer under the key of `number`, whose message has about `size` bytes.
fn entry(number: u32, size: usize, now: u64) -> Arc<Entry> {
    let key = [&[4][..], &number.to_be_bytes(), &[0, 0, 16, 0]].concat();
    let question = crate::cache::key::question(&key);
    let mut packet = vec![0, 7, 0x80, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    packet.extend(&question);
    packet.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
    packet.extend(u16::try_from(size).unwrap().to_be_bytes());
    packet.extend(vec![0; size]);
    let bounds = Bounds::of(&netkeel_crds::cluster_network::dns::Cache::default());
    Arc::new(Entry::new(&key, 0, Reply::read(&packet, &question, &bounds).unwrap(), now))
}

fn put(shard: &mut Shard, number: u32, size: usize) -> Moved {
    shard.put(u64::from(number), entry(number, size, 0), (0, 0))
}

fn has(shard: &mut Shard, number: u32) -> bool {
    let key = entry(number, 0, 0).key.clone();
    shard.get(u64::from(number), &key).is_some()
}

#[test]
fn a_flood_of_names_that_nobody_asks_for_twice_drops_no_name_that_is_in_use() {
    let mut shard = Shard::new(Limits { entries: 200, bytes: 10 << 20 });
    for name in 0..50 {
        put(&mut shard, name, 100);
        assert!(has(&mut shard, name));
    }
    // 50 names that are asked for once in 16,650 of the flood
    for flood in 1000..60_000 {
        put(&mut shard, flood, 100);
        if flood % 333 == 0 {
            assert!(has(&mut shard, flood / 333 % 50), "after {flood}");
        }
    }
}

#[test]
fn what_was_dropped_and_comes_back_stays() {
    let mut shard = Shard::new(Limits { entries: 100, bytes: 10 << 20 });
    put(&mut shard, 0, 10);
    for name in 1..=120 {
        put(&mut shard, name, 10);
    }
    assert!(!has(&mut shard, 0));
    put(&mut shard, 0, 10);
    for name in 200..1000 {
        put(&mut shard, name, 10);
    }
    assert!(has(&mut shard, 0));
}

#[test]
fn an_answer_that_is_over_goes_before_one_that_is_not() {
    let mut shard = Shard::new(Limits { entries: 10, bytes: 10 << 20 });
    for name in 0..10 {
        put(&mut shard, name, 10);
    }
    (0..10).for_each(|name| assert!(has(&mut shard, name)));
    // used all of them, but over for long
    let late = 200_000;
    for name in 10..20 {
        shard.put(name.into(), entry(name, 10, late), (late, 1000));
    }
    assert!((0..10).all(|name| !has(&mut shard, name)));
}

#[test]
fn an_answer_that_would_take_a_large_part_of_the_room_is_not_kept() {
    let mut shard = Shard::new(Limits { entries: 100, bytes: 65_536 });
    put(&mut shard, 1, 100);
    assert_eq!(put(&mut shard, 2, 20_000), Moved::default());
    assert!(has(&mut shard, 1) && !has(&mut shard, 2));
}

proptest! {
    /// Against a map that forgets nothing: what is found is the last that was put, what is counted is what is there, and bounds hold.
    #[test]
    fn it_holds_what_was_put_within_its_bounds(
        steps in vec((0..60_u32, 0..2000_usize, any::<bool>(), 0..100_u64), 1..300), entries in 1..40_usize,
        bytes in 4096..60_000_usize,
    ) {
        let limits = Limits { entries, bytes };
        let (mut shard, mut all, mut counted, mut time) = (Shard::new(limits), HashMap::new(), [0; 2], 0);
        for (number, size, puts, passed) in steps {
            time += passed * 100;
            let new = entry(number, size, time);
            if puts {
                let moved = shard.put(number.into(), new.clone(), (time, 1000));
                counted = [counted[0] + moved.added[0], counted[1] + moved.added[1]];
                if new.cost() <= bytes / LARGEST {
                    all.insert(number, new);
                }
            } else if let Some(found) = shard.get(number.into(), &new.key) {
                prop_assert!(Arc::ptr_eq(found, &all[&number]));
            }
            let there: Vec<_> = shard.entries().cloned().collect();
            prop_assert!(there.len() <= entries && shard.bytes() <= bytes);
            prop_assert_eq!(there.iter().map(|entry| entry.cost()).sum::<usize>(), shard.bytes());
            prop_assert_eq!(i64::try_from(there.len()).unwrap(), counted[0] + counted[1]);
            prop_assert_eq!(there.len(), shard.found.len());
            prop_assert!(shard.dropped.len() <= there.len());
            let small: usize = shard.small.iter().map(|place| shard.nodes[*place as usize].as_ref().unwrap().entry.cost()).sum();
            prop_assert_eq!(small, shard.small_bytes);
        }
    }

    #[test]
    fn nothing_goes_while_there_is_room(numbers in vec(0..50_u32, 1..200)) {
        let mut shard = Shard::new(Limits { entries: 50, bytes: 10 << 20 });
        for number in &numbers {
            prop_assert_eq!(put(&mut shard, *number, 10).evicted, [0, 0]);
        }
        prop_assert!(numbers.iter().all(|number| has(&mut shard, *number)));
    }
}

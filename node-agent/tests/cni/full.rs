//! A node without a free address, and the moment when one has rested.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::host::{Host, Pod, address, pass};

#[test]
fn an_add_that_was_refused_works_within_a_second_of_the_end_of_an_addresss_rest() {
    let host = Host::started("10.244.0.0/30");
    let pods: Vec<_> = (0..4).map(|number| Pod::new(format!("pod-{number}"))).collect();
    let given: Vec<_> = pods[..3].iter().map(|pod| address(&host.add(pod).ok())).collect();
    let (code, text) = host.add(&pods[3]).refused();
    assert!(code == 11 && text.contains("all 3 IPv4 addresses of 10.244.0.0/30"), "{text}");
    host.del(&pods[0]).ok();
    let freed = Instant::now();
    let (code, text) = host.add(&pods[3]).refused();
    assert!(code == 11 && text.contains("1 freed less than 30s ago"), "{text}");
    // 28 s later the kubelet tries again, and is still waiting when the rest ends.
    pass(Duration::from_secs(28).saturating_sub(freed.elapsed()));
    let early = Instant::now();
    assert_eq!(address(&host.add(&pods[3]).ok()), given[0]);
    let took = early.elapsed();
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_secs(3),
        "{took:?} for the last 2 s of a rest"
    );
    // One that comes after the end finds it at once.
    host.del(&pods[1]).ok();
    pass(Duration::from_secs(30));
    let late = Instant::now();
    assert_eq!(address(&host.add(&pods[0]).ok()), given[1]);
    assert!(late.elapsed() < Duration::from_secs(1), "{:?}", late.elapsed());
    assert_eq!(host.pool().shortage(), None);
    thread::scope(|scope| pods.iter().for_each(|pod| drop(scope.spawn(|| host.del(pod).ok()))));
}

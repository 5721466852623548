//! Random histories of Services against a model of the kernel's maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use netkeel_core::{
    address::Address,
    name::ObjectName,
    service::{
        Backend, Frontend, Protocol,
        endpoints::Frontends,
        layout::{Dump, Layout, Write},
    },
};
use netkeel_dataplane_common::{backends::Slot, services::Service};
use proptest::prelude::*;

/// The kernel's two maps, with the promise to readers checked after every single write.
#[derive(Default)]
struct Kernel {
    maps: Dump,
    writes: usize,
}

impl Kernel {
    fn apply(&mut self, writes: &[Write]) {
        for write in writes {
            self.write(*write);
            self.writes += 1;
            self.assert_no_holes();
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::PutBackend(slot, backend) => {
                self.maps.backends.insert(slot, backend);
            }
            Write::PutService(frontend, service) => {
                self.maps.services.insert(frontend, service);
            }
            Write::DeleteService(frontend) => {
                self.maps.services.remove(&frontend);
            }
            Write::DeleteBackend(slot) => {
                self.maps.backends.remove(&slot);
            }
        }
    }

    fn assert_no_holes(&self) {
        for (frontend, service) in &self.maps.services {
            for slot in slots(*service) {
                assert!(self.maps.backends.contains_key(&slot), "{frontend:?} has a hole in {slot:?}");
            }
        }
    }

    /// What a client can reach, and proof that nothing else lies in the maps.
    fn meaning(&self) -> Frontends {
        let held: u32 = self.maps.services.values().map(|service| service.count).sum();
        assert_eq!(self.maps.backends.len(), held as usize, "slots that belong to nothing: {:?}", self.maps);
        let backends = |service: &Service| slots(*service).map(|slot| self.maps.backends[&slot]).collect();
        let meaning: Frontends = self.maps.services.iter().map(|(f, row)| (*f, backends(row))).collect();
        let distinct: usize = meaning.values().map(BTreeSet::len).sum();
        assert_eq!(distinct, held as usize, "a backend lies in two slots");
        meaning
    }
}

fn slots(service: Service) -> impl Iterator<Item = Slot> + use<> {
    let Service { id, count } = service;
    (0..count).map(move |slot| Slot { service: id, slot })
}

fn address(last: u8) -> Address {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn frontend(last: u8) -> Frontend {
    Frontend::new(address(last), 80, Protocol::Tcp)
}

fn backends(ports: impl IntoIterator<Item = u16>) -> BTreeSet<Backend> {
    ports.into_iter().map(|port| Backend::new(address(1), port)).collect()
}

fn name(number: usize) -> ObjectName {
    ObjectName::new("shop", &format!("service-{number:05}"))
}

/// What must be in the maps when these Services are wanted: a frontend belongs to its first claimant by name.
fn expected(wanted: &BTreeMap<ObjectName, Frontends>) -> Frontends {
    wanted.values().rev().fold(Frontends::new(), |mut all, frontends| {
        all.extend(frontends.clone());
        all
    })
}

/// A Service's new frontends: few addresses, so that Services fight for them; few ports, so that backends come and go.
fn frontends() -> impl Strategy<Value = Frontends> {
    let backends = proptest::collection::btree_set(1u16..12, 0..8).prop_map(backends);
    proptest::collection::btree_map((0u8..6).prop_map(frontend), backends, 0..3)
}

fn history() -> impl Strategy<Value = Vec<(usize, Frontends)>> {
    proptest::collection::vec((0usize..5, frontends()), 1..40)
}

proptest! {
    #[test]
    fn any_history_ends_where_a_fresh_start_does(history in history()) {
        let (mut layout, mut kernel, mut wanted) = (Layout::default(), Kernel::default(), BTreeMap::new());
        for (service, frontends) in history {
            kernel.apply(&layout.update(&name(service), &frontends));
            wanted.insert(name(service), frontends);
            prop_assert_eq!(kernel.meaning(), expected(&wanted));
        }
        let again: Vec<Write> = wanted.into_iter().flat_map(|(service, fs)| layout.update(&service, &fs)).collect();
        prop_assert_eq!(again, []);
    }

    #[test]
    fn writes_are_bounded_by_what_changed(before in 0u16..40, after in proptest::collection::btree_set(1u16..60, 0..40)) {
        let (before, after) = (backends(1..=before), backends(after));
        let mut layout = Layout::default();
        layout.update(&name(1), &[(frontend(1), before.clone())].into());
        let writes = layout.update(&name(1), &[(frontend(1), after.clone())].into());
        let changed = before.symmetric_difference(&after).count();
        prop_assert!(writes.len() <= 2 * changed + usize::from(changed > 0), "{} writes for {changed} changes", writes.len());
    }

    #[test]
    fn a_restart_writes_only_what_changed_meanwhile(history in history(), meanwhile in history()) {
        let (mut layout, mut kernel, mut wanted) = (Layout::default(), Kernel::default(), BTreeMap::new());
        for (service, frontends) in history {
            kernel.apply(&layout.update(&name(service), &frontends));
            wanted.insert(name(service), frontends);
        }
        kernel.writes = 0;
        let ids = kernel.maps.services.clone();
        let mut unchanged = Layout::restore(&kernel.maps);
        for (service, frontends) in &wanted {
            kernel.apply(&unchanged.update(service, frontends));
        }
        kernel.apply(&unchanged.sweep());
        // Services that fight for one frontend may take it from each other on the way; the others cost nothing.
        let mut seen = BTreeSet::new();
        if wanted.values().flat_map(BTreeMap::keys).all(|frontend| seen.insert(frontend)) {
            prop_assert_eq!(kernel.writes, 0);
        }
        prop_assert_eq!(kernel.meaning(), expected(&wanted));

        let mut restarted = Layout::restore(&kernel.maps);
        wanted.extend(meanwhile.into_iter().map(|(service, frontends)| (name(service), frontends)));
        for (service, frontends) in &wanted {
            kernel.apply(&restarted.update(service, frontends));
        }
        kernel.apply(&restarted.sweep());
        prop_assert_eq!(kernel.meaning(), expected(&wanted));
        for (frontend, service) in &kernel.maps.services {
            prop_assert!(ids.get(frontend).is_none_or(|old| old.id == service.id), "{:?} got a new id", frontend);
        }
    }

    #[test]
    fn damaged_maps_are_repaired(
        services in proptest::collection::hash_map((0u8..6).prop_map(frontend), (0u32..5, 0u32..9).prop_map(|(id, count)| Service { id, count }), 0..5),
        slots in proptest::collection::hash_map((0u32..7, 0u32..9).prop_map(|(service, slot)| Slot { service, slot }), (1u16..12).prop_map(|port| Backend::new(address(1), port)), 0..20),
        wanted in proptest::collection::btree_map((0usize..3).prop_map(name), frontends(), 0..3),
    ) {
        let maps = Dump { services, backends: slots };
        let mut layout = Layout::restore(&maps);
        let mut kernel = Kernel { maps, writes: 0 };
        let mut writes: Vec<Write> = wanted.iter().flat_map(|(service, fs)| layout.update(service, fs)).collect();
        writes.extend(layout.sweep());
        for write in writes {
            kernel.write(write);
        }
        prop_assert_eq!(kernel.meaning(), expected(&wanted));
    }
}

/// Writes for one endpoint more and for one endpoint less in a cluster of `size` Services with three endpoints each.
fn writes_for_one_endpoint(size: u32) -> (usize, usize) {
    let mut layout = Layout::default();
    for number in 0..size {
        let address = Address::from(Ipv4Addr::from(0x0a60_0000 + number));
        let frontend = Frontend::new(address, 80, Protocol::Tcp);
        layout.update(&name(number as usize), &[(frontend, backends([1, 2, 3]))].into());
    }
    let frontend = Frontend::new(Ipv4Addr::new(10, 96, 0, 0).into(), 80, Protocol::Tcp);
    let more = layout.update(&name(0), &[(frontend, backends([1, 2, 3, 4]))].into());
    let less = layout.update(&name(0), &[(frontend, backends([2, 3, 4]))].into());
    (more.len(), less.len())
}

#[test]
fn one_endpoints_change_costs_the_same_in_any_cluster() {
    for size in [1, 1_000, 10_000] {
        assert_eq!(writes_for_one_endpoint(size), (2, 3), "with {size} Services");
    }
}

#[test]
fn a_removed_backend_is_overwritten_before_the_count_falls() {
    let mut layout = Layout::default();
    layout.update(&name(1), &[(frontend(1), backends([1, 2, 3]))].into());
    let writes = layout.update(&name(1), &[(frontend(1), backends([2, 3]))].into());
    let expected = [
        Write::PutBackend(Slot { service: 1, slot: 0 }, Backend::new(address(1), 3)),
        Write::PutService(frontend(1), Service { id: 1, count: 2 }),
        Write::DeleteBackend(Slot { service: 1, slot: 2 }),
    ];
    assert_eq!(writes, expected);
}

#[test]
fn a_service_made_anew_under_another_name_keeps_its_address_working() {
    let mut layout = Layout::default();
    let mut kernel = Kernel::default();
    kernel.apply(&layout.update(&name(2), &[(frontend(1), backends([1]))].into()));
    kernel.apply(&layout.update(&name(1), &[(frontend(1), backends([5]))].into()));
    kernel.apply(&layout.update(&name(2), &Frontends::new()));
    assert_eq!(kernel.meaning(), [(frontend(1), backends([5]))].into());
}

//! A zone reached by changes equals the zone built from what is left at the end.

use hickory_proto::rr::Name;
use proptest::prelude::*;

use super::*;

fn empty() -> Zone {
    let settings = Settings::new(Name::from_ascii("cluster.local.").unwrap());
    Zone::new(settings, 0)
}

#[derive(Clone, Debug)]
enum Change {
    PutService(u8, Service),
    Unreadable(u8),
    RemoveService(u8),
    PutSlice(u8, u8, PackedSlice),
    RemoveSlice(u8),
    ResetServices(Vec<(u8, Service)>),
    ResetSlices(Vec<(u8, u8, PackedSlice)>),
    PodNames(bool),
}

fn service_key(number: u8) -> ObjectKey {
    ObjectKey::new(&format!("ns{}", number % 2), &format!("svc{}", number / 2))
}

fn slice_key(number: u8) -> ObjectKey {
    ObjectKey::new(&format!("ns{}", number % 2), &format!("slice{}", number / 2))
}

fn owner(number: u8) -> String {
    format!("svc{number}")
}

fn address() -> impl Strategy<Value = IpAddr> {
    (1..9_u8).prop_map(|last| [10, 0, 0, last].into())
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let port =
        ("[ab]?", 80..82_u16).prop_map(|(name, number)| Port { name, protocol: Protocol::Tcp, number });
    proptest::collection::vec(port, 0..3)
}

fn service() -> impl Strategy<Value = Service> {
    prop_oneof![
        Just(Service::Headless),
        Just(Service::ExternalName(None)),
        (proptest::collection::vec(address(), 1..3), ports())
            .prop_map(|(addresses, ports)| Service::ClusterIp { addresses, ports }),
    ]
}

fn slice() -> impl Strategy<Value = PackedSlice> {
    let label = prop_oneof!["[xy]".prop_map(Label::Host), "[yz]".prop_map(Label::Pod)];
    let member = (address(), proptest::option::of(label));
    (proptest::collection::vec(member, 0..4), ports())
        .prop_map(|(members, ports)| PackedSlice::new(members, ports))
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..6_u8, service()).prop_map(|(key, service)| Change::PutService(key, service)),
        1 => (0..6_u8).prop_map(Change::Unreadable),
        2 => (0..6_u8).prop_map(Change::RemoveService),
        6 => (0..6_u8, 0..3_u8, slice()).prop_map(|(key, owner, slice)| Change::PutSlice(key, owner, slice)),
        3 => (0..6_u8).prop_map(Change::RemoveSlice),
        1 => proptest::collection::vec((0..6_u8, service()), 0..5).prop_map(Change::ResetServices),
        1 => proptest::collection::vec((0..6_u8, 0..3_u8, slice()), 0..5).prop_map(Change::ResetSlices),
        1 => any::<bool>().prop_map(Change::PodNames),
    ]
}

/// What is left after a history, kept the simple way.
#[derive(Default)]
struct Model {
    services: BTreeMap<u8, Service>,
    slices: BTreeMap<u8, (u8, PackedSlice)>,
    pod_names: bool,
}

impl Model {
    fn apply(&mut self, change: Change) {
        match change {
            Change::PutService(key, service) => drop(self.services.insert(key, service)),
            Change::Unreadable(key) => drop(self.services.entry(key).or_insert(Service::Unreadable)),
            Change::RemoveService(key) => drop(self.services.remove(&key)),
            Change::PutSlice(key, owner, slice) => drop(self.slices.insert(key, (owner, slice))),
            Change::RemoveSlice(key) => drop(self.slices.remove(&key)),
            Change::ResetServices(all) => self.services = all.into_iter().collect(),
            Change::PodNames(pod_names) => self.pod_names = pod_names,
            Change::ResetSlices(all) => {
                self.slices = all.into_iter().map(|(key, owner, slice)| (key, (owner, slice))).collect();
            }
        }
    }

    fn build(&self) -> Zone {
        let mut zone = empty();
        call_by_pods(&mut zone, self.pod_names);
        for (key, (number, slice)) in &self.slices {
            zone.put_slice(&slice_key(*key), &owner(*number), slice.clone());
        }
        for (key, service) in &self.services {
            zone.put_service(&service_key(*key), service.clone());
        }
        zone
    }
}

fn call_by_pods(zone: &mut Zone, pod_names: bool) -> bool {
    zone.set_settings(Settings { endpoint_pod_names: pod_names, ..zone.settings().clone() })
}

fn apply(zone: &mut Zone, change: Change) -> bool {
    match change {
        Change::PutService(key, service) => zone.put_service(&service_key(key), service),
        Change::Unreadable(key) => zone.put_unreadable_service(&service_key(key)),
        Change::RemoveService(key) => zone.remove_service(&service_key(key)),
        Change::PutSlice(key, number, slice) => zone.put_slice(&slice_key(key), &owner(number), slice),
        Change::PodNames(pod_names) => call_by_pods(zone, pod_names),
        Change::RemoveSlice(key) => zone.remove_slice(&slice_key(key)),
        Change::ResetServices(all) => {
            let unique: BTreeMap<u8, Service> = all.into_iter().collect();
            zone.reset_services(
                unique.into_iter().map(|(key, service)| (service_key(key), service)).collect(),
                &[],
            )
        }
        Change::ResetSlices(all) => {
            let unique: BTreeMap<u8, (u8, PackedSlice)> =
                all.into_iter().map(|(key, number, slice)| (key, (number, slice))).collect();
            let all = unique.into_iter().map(|(key, (number, slice))| (slice_key(key), owner(number), slice));
            zone.reset_slices(all.collect(), &[])
        }
    }
}

proptest! {
    #[test]
    fn a_zone_reached_by_changes_equals_one_built_from_scratch(history in proptest::collection::vec(change(), 0..60)) {
        let (mut zone, mut model) = (empty(), Model::default());
        for change in history {
            let before = zone.clone();
            let changed = apply(&mut zone, change.clone());
            model.apply(change);
            prop_assert_eq!(zone.contents(), model.build().contents());
            prop_assert_eq!(zone.services(), model.services.len());
            prop_assert_eq!(changed, zone.serial() != before.serial());
        }
    }
}

#[test]
fn one_service_more_copies_a_few_shards_of_a_large_zone() {
    let mut zone = empty();
    for number in 0..10_000_u32 {
        let [_, b, c, d] = number.to_be_bytes();
        let service = Service::ClusterIp { addresses: vec![[10, b, c, d].into()], ports: vec![] };
        zone.put_service(&ObjectKey::new("ns", &format!("svc{number}")), service);
    }
    let published = zone.clone();
    let service = Service::ClusterIp { addresses: vec![[10, 99, 0, 1].into()], ports: vec![] };
    assert!(zone.put_service(&ObjectKey::new("ns", "svc5"), service));
    assert!(zone.entries.copied_since(&published.entries) <= 1);
    assert!(zone.pointers.copied_since(&published.pointers) <= 2);
    let pod = Pod::new(PodKey::new("ns", "pod"), 1, false, [[10, 99, 0, 2].into()]);
    assert!(zone.put_pod(&pod) && published.pods().has([10, 99, 0, 2].into(), "ns").is_none());
}

#[test]
fn an_unreadable_object_keeps_what_was_known_of_it() {
    let mut zone = empty();
    let (service, slice) = (ObjectKey::new("ns", "db"), ObjectKey::new("ns", "db-1"));
    let endpoints = Slice { endpoints: vec![(None, vec![[10, 0, 0, 1].into()])], ports: vec![] };
    zone.put_service(&service, Service::Headless);
    zone.put_slice(&slice, "db", endpoints);
    let before = zone.contents();
    assert!(!zone.put_unreadable_service(&service));
    assert!(!zone.reset_services(vec![], std::slice::from_ref(&service)));
    assert!(!zone.reset_slices(Vec::<(_, _, Slice)>::new(), std::slice::from_ref(&slice)));
    assert_eq!(zone.contents(), before);
}

#[test]
fn outside_addresses_are_kept_for_services_that_have_some() {
    let external =
        |last: u8| External { load_balancer: vec![[192, 0, 2, last].into()], ..External::default() };
    let (web, db) = (ObjectKey::new("shop", "Web"), ObjectKey::new("shop", "db"));
    let mut zone = empty();
    let serial = zone.serial();
    assert!(!zone.put_external(&web, None) && !zone.put_external(&web, Some(External::default())));
    assert_eq!(zone.serial(), serial);
    assert!(zone.put_external(&web, Some(external(1))) && !zone.put_external(&web, Some(external(1))));
    assert!(zone.put_external(&db, Some(external(2))));
    assert_eq!(zone.external("web.shop"), Some(&external(1)));
    assert_ne!(zone.serial(), serial, "it is published");
    let before = zone.clone();

    assert!(zone.reset_externals(vec![(web.clone(), external(3))], std::slice::from_ref(&db)));
    assert_eq!(
        (zone.external("web.shop"), zone.external("db.shop")),
        (Some(&external(3)), Some(&external(2)))
    );
    assert!(zone.reset_externals(vec![(web.clone(), external(3))], &[]));
    assert_eq!(zone.external("db.shop"), None);
    assert!(zone.put_external(&web, None));
    assert_eq!((zone.external("web.shop"), before.external("web.shop")), (None, Some(&external(1))));
}

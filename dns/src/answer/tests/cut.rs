//! What is not made for a reply that has no room for it.

use super::*;

#[test]
fn a_reply_that_is_cut_is_made_of_no_more_records_than_it_takes_to_see_that() {
    let mut zone = Zone::new(Settings::new(Name::from_ascii("cluster.local.").unwrap()), 7);
    zone.put_service(&ObjectKey::new("shop", "huge"), Service::Headless);
    let port = |name| port(name, Protocol::Tcp, 5432);
    for (slice, ports) in [(0, vec![port("sql")]), (1, vec![port("sql"), port("other")]), (2, vec![])] {
        let address = |last| vec![IpAddr::from([10, 1, slice, last])];
        let endpoints = (0..100).map(|last| (None, address(last))).collect();
        zone.put_slice(&ObjectKey::new("shop", &format!("huge-{slice}")), "huge", Slice { endpoints, ports });
    }
    for (name, whole, most, made) in [
        ("huge.shop.svc.cluster.local.", 200, 100, 101),
        ("_sql._tcp.huge.shop.svc.cluster.local.", 200, 199, 200),
        ("_sql._tcp.huge.shop.svc.cluster.local.", 200, 200, 200),
        ("_other._tcp.huge.shop.svc.cluster.local.", 100, 100, 100),
    ] {
        let name = Name::from_ascii(name).unwrap();
        let records = |answer| match answer {
            Answer::Records { answers, .. } => answers,
            other => panic!("{other:?}"),
        };
        let all = records(answer(&zone, &name, RecordType::SRV));
        let some = records(answer_within(&zone, &name, RecordType::SRV, most));
        assert_eq!((all.len(), some.len()), (whole, made), "{name}");
        assert!(some.iter().all(|record| all.contains(record)), "{name}: {some:?}");
    }
}

//! Snapshots that are whole come back, and nothing else does.

use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;
use netkeel_crds::{ClusterNetwork, ClusterNetworkSpec};
use netkeel_telemetry::metrics::Registry;
use sha2::{Digest, Sha256};

use super::*;
use crate::zone::{ObjectKey, Port, Protocol, Service, Settings, Slice};

fn empty() -> Zone {
    let settings = Settings::new(Name::from_ascii("cluster.local.").unwrap());
    Zone::new(settings, 1)
}

fn port(name: &str) -> Port {
    Port { name: name.to_owned(), protocol: Protocol::Sctp, number: 53 }
}

/// One of everything.
pub(crate) fn contents() -> Contents {
    let mut zone = empty();
    let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
    let services = [
        (
            "web",
            Service::ClusterIp {
                addresses: vec![[10, 96, 0, 7].into(), v6("fd00::7")],
                ports: vec![port("web")],
            },
        ),
        ("many", Service::Headless),
        ("out", Service::ExternalName(Some(Name::from_ascii("WWW.ex\\.ample.com.").unwrap()))),
        ("ip", Service::ExternalName(None)),
        ("bad", Service::Unreadable),
    ];
    for (name, service) in services {
        zone.put_service(&ObjectKey::new("shop", name), service);
    }
    let endpoints = vec![(Some("db-0".to_owned()), vec![[10, 1, 0, 1].into()]), (None, vec![v6("fd01::2")])];
    zone.put_slice(&ObjectKey::new("shop", "many-1.x"), "many", Slice { endpoints, ports: vec![port("")] });
    zone.put_slice(&ObjectKey::new("shop", "ghost-1"), "ghost", Slice::default());
    let mut network = ClusterNetwork::new("default", ClusterNetworkSpec::default());
    network.metadata.uid = Some("uid".to_owned());
    network.spec.dns.ttl_seconds = 77;
    Contents { zone, network: Some(SeenNetwork::read(&network)) }
}

pub(crate) fn bytes_of(contents: &Contents, version: &str) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    let length = format::write(contents, version, LIMIT, &mut bytes).unwrap();
    assert_eq!(length, bytes.get_ref().len() as u64);
    bytes.into_inner()
}

pub(crate) fn refused(bytes: &[u8]) -> &'static str {
    format::read(bytes, VERSION, empty()).map_or_else(|error| error.reason(), |_| "read")
}

#[test]
fn what_is_kept_comes_back_as_it_was() {
    let kept = contents();
    let back = format::read(&bytes_of(&kept, VERSION), VERSION, empty()).unwrap();
    assert_eq!(back.zone.contents(), kept.zone.contents());
    assert_eq!((back.zone.services(), back.network), (5, kept.network));
}

#[test]
fn what_another_version_kept_is_not_used() {
    assert_eq!(refused(&bytes_of(&contents(), "9.9.9")), "foreign");
}

#[test]
fn what_was_cut_or_changed_is_not_used() {
    let good = bytes_of(&contents(), VERSION);
    for length in 0..good.len() {
        assert_ne!(refused(&good[..length]), "read", "cut at {length}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_ne!(refused(&bad), "read", "changed at {at}");
    }
    assert_eq!(refused(&[good, b"\n".to_vec()].concat()), "truncated");
}

/// Any rest behind a true first line, as one who wants to do harm would write it.
pub(crate) fn with_true_head(body: &[u8]) -> Vec<u8> {
    [format::head(VERSION, body.len() as u64, &Sha256::digest(body)).as_bytes(), body].concat()
}

#[test]
fn deep_nesting_ends_in_an_error() {
    assert_eq!(refused(&with_true_head(&vec![b'['; 1 << 20])), "undecodable");
}

#[test]
fn more_than_the_limit_is_not_written() {
    let whole = bytes_of(&contents(), VERSION).len() as u64;
    let written = |limit| format::write(&contents(), VERSION, limit, &mut Cursor::new(vec![]));
    for limit in [0, 100, whole - 1] {
        assert_eq!(written(limit).unwrap_err().reason(), "oversized", "{limit}");
    }
    assert_eq!(written(whole).unwrap(), whole, "as long as a file may be that is read");
}

#[test]
fn a_file_beyond_the_limit_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join(FILE)).unwrap();
    file.set_len(LIMIT + 1).unwrap();
    let (registry, address) = (Registry::new("dns", "0"), ([127, 0, 0, 1], 53).into());
    assert!(load(folder.path(), &empty(), &Metrics::new(&registry, address, "cluster.local.")).is_none());
    let text = registry.encode();
    assert!(text.contains(r#"netkeel_dns_snapshot_loads_total{result="oversized"} 1"#), "{text}");
}

/// The largest cluster that is supported: 8,200 Services, half of them headless, and 150,000 endpoints in slices of a hundred.
fn largest() -> Contents {
    let mut zone = empty();
    for number in 0..8200_u32 {
        let address = Ipv4Addr::from(0x0a60_0000 + number);
        let service = match number % 2 {
            0 => Service::Headless,
            _ => Service::ClusterIp { addresses: vec![address.into()], ports: vec![port("http")] },
        };
        zone.put_service(
            &ObjectKey::new(&format!("namespace-{}", number % 100), &format!("service-{number}")),
            service,
        );
    }
    for slice in 0..1500_u32 {
        let endpoints =
            (0..100).map(|last| (None, vec![Ipv4Addr::from(0x0af4_0000 + slice * 100 + last).into()]));
        let slice_of = Slice { endpoints: endpoints.collect(), ports: vec![port("http")] };
        let key = ObjectKey::new(&format!("namespace-{}", slice % 100), &format!("service-{slice}-abcde"));
        zone.put_slice(&key, &format!("service-{slice}"), slice_of);
    }
    Contents { zone, network: None }
}

#[test]
fn the_largest_cluster_is_kept_in_little_space_and_read_in_little_time() {
    let (folder, all) = (tempfile::tempdir().unwrap(), largest());
    let began = Instant::now();
    let length = save(folder.path(), &all).unwrap();
    let wrote = began.elapsed();
    let began = Instant::now();
    let back = read(&folder.path().join(FILE), empty()).unwrap().unwrap();
    let (read, services) = (began.elapsed(), back.zone.services());
    println!("{length} bytes, written in {wrote:.0?}, read in {read:.0?}");
    assert_eq!(services, 8200);
    assert!(length < 8 << 20, "{length} bytes");
    // a build for tests on a busy machine: it takes a hundredth of that at rest, to write
    assert!(wrote < Duration::from_secs(20) && read < Duration::from_secs(20), "{wrote:?} {read:?}");
}

#[tokio::test]
async fn many_changes_are_few_writes_and_the_last_one_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, address) = (Registry::new("dns", "0"), ([127, 0, 0, 1], 53).into());
    let metrics = Metrics::new(&registry, address, "cluster.local.");
    let (sender, receiver) = tokio::sync::watch::channel(None);
    let pause = Duration::from_millis(300);
    let keeper = tokio::spawn(keep(folder.path().to_owned(), receiver, pause, metrics));
    let mut now = contents();
    for number in 0..100_u8 {
        let addresses = vec![[10, 96, 1, number].into()];
        now.zone.put_service(&ObjectKey::new("shop", "web"), Service::ClusterIp { addresses, ports: vec![] });
        sender.send_replace(Some(std::sync::Arc::new(now.clone())));
        tokio::task::yield_now().await;
    }
    drop(sender);
    keeper.await.unwrap();
    let kept = read(&folder.path().join(FILE), empty()).unwrap().unwrap();
    assert_eq!(kept.zone.contents(), now.zone.contents());
    let text = registry.encode();
    let writes = (1..=3).filter(|count| {
        text.contains(&format!("netkeel_dns_snapshot_writes_total{{result=\"ok\"}} {count}\n"))
    });
    assert_eq!(writes.count(), 1, "{text}");
    assert!(!folder.path().join(DRAFT).exists());
}

#[tokio::test]
async fn a_disk_that_refuses_is_counted_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("later");
    let (registry, address) = (Registry::new("dns", "0"), ([127, 0, 0, 1], 53).into());
    let metrics = Metrics::new(&registry, address, "cluster.local.");
    let (sender, receiver) = tokio::sync::watch::channel(None);
    let keeper = tokio::spawn(keep(missing.clone(), receiver, Duration::from_millis(10), metrics));
    sender.send_replace(Some(std::sync::Arc::new(contents())));
    let failed = r#"netkeel_dns_snapshot_writes_total{result="failed"} 1"#;
    while !registry.encode().contains(failed) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fs::create_dir(&missing).unwrap();
    sender.send_replace(Some(std::sync::Arc::new(contents())));
    drop(sender);
    keeper.await.unwrap();
    assert!(missing.join(FILE).exists());
}

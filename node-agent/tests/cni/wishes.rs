//! Pools and addresses that a pod asks for by annotation.

use netkeel_agent::pods::{SeenPodReader, SlimPod};
use netkeel_client::Event;
use serde_json::{Value, json};

use crate::host::{Host, Pod, address, eventually, ready};

/// The API server tells of the pod `shop/cart-0`, which all sandboxes here are of.
fn told(host: &Host, annotations: &Value) {
    let pod: SlimPod = serde_json::from_value(json!({
        "metadata": {"name": "cart-0", "namespace": "shop", "uid": "u1", "annotations": annotations},
        "spec": {"nodeName": "node-1"},
    }))
    .expect("a pod");
    let pod = SeenPodReader::new("node-1").read(pod);
    host.pool().wishes.pod_event(&Event::Reset { objects: vec![pod], undecodable: Vec::new() });
}

#[test]
fn a_fixed_address_is_given_once_and_refused_with_the_holders_name() {
    let host = Host::started("10.244.0.0/26");
    told(&host, &json!({"netkeel.io/ip-addresses": "10.244.0.42"}));
    let (first, second) = (Pod::new("a"), Pod::new("b"));
    assert_eq!(address(&host.add(&first).ok()), "10.244.0.42");
    let (code, text) = host.add(&second).refused();
    assert!(code == 11 && text.contains("10.244.0.42 is held by another pod: shop/cart-0"), "{text}");
    host.del(&first).ok();
    let (code, text) = host.add(&second).refused();
    assert!(code == 11 && text.contains("10.244.0.42 was freed less than 30s ago"), "{text}");
    assert_eq!(host.pool().usage().used, 0);
}

#[test]
fn what_a_pod_cannot_ask_for_is_refused_and_leaves_nothing() {
    let host = Host::started("10.244.0.0/26");
    for (annotations, said) in [
        (json!({"netkeel.io/pool": "slow"}), "there is no pool slow"),
        (json!({"netkeel.io/ip-addresses": "10.99.0.1"}), "10.99.0.1 lies in no pool"),
        (json!({"netkeel.io/ip-addresses": "ten"}), "is no address"),
    ] {
        told(&host, &annotations);
        let (code, text) = host.add(&Pod::new("a")).refused();
        assert!(code == 102 && text.contains(said) && text.contains("shop/cart-0"), "{text}");
    }
    assert_eq!((host.pool().usage().used, host.links().len()), (0, 0));
}

#[test]
fn an_address_of_another_block_is_waited_for_and_told_as_wanted() {
    let host = Host::started("10.244.0.0/26");
    told(&host, &json!({"netkeel.io/ip-addresses": "10.244.7.9"}));
    let (code, text) = host.add(&Pod::new("a")).refused();
    assert!(
        code == 11 && text.contains("10.244.7.9 lies in no block of this node, which is node-1"),
        "{text}"
    );
    assert_eq!(host.pool().wanted(), ["10.244.7.9/32".parse().unwrap()]);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| address(&host.add(&Pod::new("b")).ok()));
        host.node.send_replace(Some(ready(&["10.244.0.0/26", "10.244.7.0/26"])));
        assert_eq!(adding.join().unwrap(), "10.244.7.9");
    });
    eventually("nothing is wanted any more", || host.pool().wanted().is_empty());
}

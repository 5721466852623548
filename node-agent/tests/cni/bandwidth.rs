//! Limits of bandwidth: the queues of both sides of a pod's link, what passes them, and what becomes of them.
#![expect(clippy::unwrap_used, reason = "a failure of the fixture is a failure of the test")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use netkeel_dataplane_loader::{Datapath, Table};
use netkeel_testkit::lab::Namespace;
use serde_json::{Value, json};

use super::{
    host::{Answer, Host, Pod, address},
    real::{Kernel, use_datapath},
};

/// 20 Mbit/s each way, as containerd says it.
fn twenty() -> Value {
    json!({"IngressRate": 20_000_000, "IngressBurst": u32::MAX, "EgressRate": 20_000_000, "EgressBurst": u32::MAX})
}

/// What `tc` says of 20 Mbit/s on a link whose frames have 1464 bytes at most: 10 ms at once, 25 ms of waiting.
const TWENTY: &str = "rate 20Mbit burst 25000b lat 25ms";

fn add(host: &Host, pod: &Pod, bandwidth: &Value) -> Answer {
    let mut config = host.config();
    config["runtimeConfig"] = json!({ "bandwidth": bandwidth, "portMappings": [] });
    host.call("ADD", pod, &config)
}

fn link(result: &Value) -> String {
    result["interfaces"][0]["name"].as_str().unwrap().to_owned()
}

fn queue(namespace: &Namespace, device: &str) -> String {
    namespace.run("tc", &["qdisc", "show", "dev", device, "root"]).unwrap()
}

fn tc(namespace: &Namespace, line: &str) {
    namespace.run("tc", &line.split(' ').collect::<Vec<_>>()).unwrap();
}

/// Whether the tables send what comes to this pod through its queue.
fn shaped(host: &Host, address: &str) -> bool {
    let pods = host.datapath.pods();
    pods.values().find(|pod| pod.pod_address.to_string() == address).unwrap().shaped
}

#[test]
fn a_pod_gets_the_queues_that_it_asks_for_and_keeps_them_until_it_goes() {
    let mut host = Host::started("10.244.0.0/26");
    let (pod, free, receiving) = (Pod::new("a"), Pod::new("b"), Pod::new("c"));
    let result = add(&host, &pod, &twenty()).ok();
    let others =
        [add(&host, &free, &json!(null)).ok(), add(&host, &receiving, &json!({"ingressRate": 1000})).ok()];
    let (outer, inner) = (queue(&host.namespace, &link(&result)), queue(&pod.namespace, "eth0"));
    assert!(outer.contains(TWENTY), "{outer}");
    assert!(inner.contains(TWENTY), "{inner}");
    assert_eq!(add(&host, &pod, &twenty()).ok(), result, "a repeated ADD finds all as it was");
    let sides = [
        (&host.namespace, link(&others[0])),
        (&free.namespace, "eth0".to_owned()),
        (&receiving.namespace, "eth0".to_owned()),
    ];
    for (namespace, device) in sides {
        assert!(queue(namespace, &device).contains("noqueue"), "{device}");
    }
    let slow = queue(&host.namespace, &link(&others[1]));
    assert!(slow.contains("rate 1Kbit burst 2928b"), "{slow}");
    let whole = |host: &Host| {
        for pod in [&pod, &free, &receiving] {
            host.check(pod).ok();
        }
        for (result, limited) in [(&result, true), (&others[0], false), (&others[1], true)] {
            assert_eq!(shaped(host, &address(result)), limited);
        }
    };
    whole(&host);
    host.kill();
    host.datapath = Arc::default();
    host.start();
    whole(&host);
    host.del(&pod).ok();
    host.del(&free).ok();
    host.del(&receiving).ok();
    assert_eq!(host.pool().usage().used, 0);
}

#[test]
fn a_rate_that_cannot_be_had_is_refused_by_name_and_nothing_is_left() {
    let host = Host::started("10.244.0.0/26");
    for (bandwidth, said) in [
        (json!({"IngressRate": 999}), "kubernetes.io/ingress-bandwidth allows 1k to 1P"),
        (json!({"EgressRate": 2_000_000_000_000_000_u64}), "kubernetes.io/egress-bandwidth allows 1k to 1P"),
        (json!({"egressRate": "fast"}), "egressRate is \\\"fast\\\", not a number of bits"),
    ] {
        let (code, text) = add(&host, &Pod::new("a"), &bandwidth).refused();
        let pod = "pod shop/cart-0 cannot have its limits of bandwidth";
        assert!(code == 102 && text.contains(pod) && text.contains(said), "{text}");
    }
    assert_eq!(host.pool().usage().used, 0);
    assert!(host.links().is_empty() && host.datapath.pods().is_empty());
}

#[test]
fn check_finds_a_limit_that_is_not_kept() {
    let host = Host::started("10.244.0.0/26");
    let pod = Pod::new("a");
    let outer = link(&add(&host, &pod, &twenty()).ok());
    let rate = |namespace: &Namespace, device: &str, rate: &str| {
        tc(namespace, &format!("qdisc change dev {device} root tbf rate {rate} burst 25000 limit 87500"));
    };
    let broken = |said: &str| {
        let (code, text) = host.check(&pod).refused();
        assert!(code == 101 && text.contains(said), "{text}");
    };
    rate(&pod.namespace, "eth0", "1gbit");
    broken("link eth0 in the pod does not limit what it sends to 20M bit/s: its queue tbf has another rate");
    tc(&pod.namespace, "qdisc del dev eth0 root");
    broken("link eth0 in the pod does not limit what it sends to 20M bit/s: its queue is noqueue, not tbf");
    rate(&host.namespace, &outer, "1gbit");
    broken(&format!("link {outer} does not limit what is sent to the pod to 20M bit/s: its queue tbf has"));
    rate(&host.namespace, &outer, "20mbit");
    broken("link eth0 in the pod");
    let result = add(&host, &pod, &twenty()).ok();
    host.check(&pod).ok();
    let inner = queue(&pod.namespace, "eth0");
    assert!(inner.contains(TWENTY), "a repeated ADD makes the pod anew: {inner} {result}");
}

#[test]
fn the_hosts_queue_that_somebody_takes_is_back_within_a_second_or_at_the_next_look() {
    let mut host = Host::new("10.244.0.0/26");
    host.watches = true;
    host.start();
    let pod = Pod::new("a");
    let outer = link(&add(&host, &pod, &twenty()).ok());
    host.check(&pod).ok();
    // The look at the agent's start is over: only a notice can repair anything then.
    thread::sleep(Duration::from_millis(300));
    for change in ["del dev {} root", "replace dev {} root pfifo"] {
        tc(&host.namespace, &format!("qdisc {}", change.replace("{}", &outer)));
        let since = Instant::now();
        while !queue(&host.namespace, &outer).contains(TWENTY) {
            assert!(since.elapsed() < Duration::from_secs(1), "{change} took more than a second");
            thread::sleep(Duration::from_millis(5));
        }
    }
    // The kernel tells that it changed, and not what: the regular look finds it, as that at a start.
    host.stop();
    tc(&host.namespace, &format!("qdisc change dev {outer} root tbf rate 1gbit burst 25000 limit 87500"));
    host.start();
    super::host::eventually("the rate at the start", || host.check(&pod).success);
    assert!(queue(&host.namespace, &outer).contains(TWENTY));
}

/// Sends so many bytes and gives the rate at which they arrived, in bits per second.
fn throughput((from, to): (&Pod, &Pod), at: (&str, u16), bytes: usize) -> f64 {
    let listener = to.namespace.enter(|| TcpListener::bind(("0.0.0.0", at.1))).unwrap();
    let receiving = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (began, mut buffer, mut all) = (Instant::now(), vec![0; 1 << 16], 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                more => all += more,
            }
        }
        (all, began.elapsed())
    });
    let mut stream = from.namespace.enter(|| TcpStream::connect(at)).unwrap();
    stream.write_all(&vec![7; bytes]).unwrap();
    drop(stream);
    let (all, time) = receiving.join().unwrap();
    assert_eq!(all, bytes);
    f64::from(u32::try_from(bytes).unwrap()) * 8.0 / time.as_secs_f64()
}

#[test]
fn a_stream_takes_its_limit_and_no_more_in_both_directions_and_other_pods_are_not_slowed() {
    const BYTES: usize = 6_000_000;
    let kernel = Kernel::new("shaped");
    let datapath = kernel.load();
    let mut host = Host::new("10.244.0.0/26");
    use_datapath(&mut host, &datapath);
    host.start();
    let (limited, one, two) = (&Pod::new("limited"), &Pod::new("one"), &Pod::new("two"));
    let there = address(&add(&host, limited, &twenty()).ok());
    let [first, second] = [one, two].map(|pod| address(&host.add(pod).ok()));
    assert_eq!(marked(&datapath), 1);
    let free = throughput((one, two), (&second, 81), BYTES);
    assert!(free > 100e6, "{free} bit/s between pods without limits");
    // At once: one direction's acknowledgements are next to nothing of the other's limit.
    let (sent, received) = thread::scope(|scope| {
        let sent = scope.spawn(|| throughput((limited, one), (&first, 80), BYTES));
        (throughput((two, limited), (&there, 80), BYTES), sent.join().unwrap())
    });
    let rates = ["is sent to the pod", "the pod sends"].into_iter().zip([sent, received]);
    for (story, rate) in rates {
        println!("what {story}: {:.3} of the limit", rate / 20e6);
        // Headers take their part, and a machine that is busy with other tests is late with the next packet now and then.
        assert!((0.7..1.1).contains(&(rate / 20e6)), "what {story}: {rate} bit/s");
    }
    host.stop();
    use_datapath(&mut host, &datapath);
    host.start();
    host.check(limited).ok();
    assert_eq!(marked(&datapath), 1, "the next agent says so too");
    host.del(limited).ok();
    assert_eq!(marked(&datapath), 0);
}

/// Pods that are marked in the kernel's table.
fn marked(datapath: &Datapath) -> usize {
    datapath.endpoints().unwrap().dump().unwrap().values().filter(|pod| pod.side.is_shaped()).count()
}

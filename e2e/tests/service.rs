//! Services: shares, replies, scaling, refusal, from pods, host-network pods and node processes.
//! All tests share one cluster with Netkeel installed without values.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netkeel_e2e::workload::{Client, ECHO_PORT, Workload, node_names, shared};
use netkeel_e2e::{assertions, wait_until};

const CONNECTIONS: u32 = 300;
/// A change of endpoints is in force on every node after this long.
const PROGRAMMED: Duration = Duration::from_secs(5);

fn workload() -> &'static Workload<'static> {
    static WORKLOAD: OnceLock<Workload<'static>> = OnceLock::new();
    WORKLOAD.get_or_init(|| make_workload().expect("the clients of the service tests"))
}

fn make_workload() -> Result<Workload<'static>> {
    let workload = Workload::new(shared(), "service")?;
    for (index, node) in node_names(shared()).iter().enumerate().take(2) {
        workload.pod(&format!("client-{index}"), node)?;
        workload.host_client(&format!("host-{index}"), node)?;
    }
    workload.ready()?;
    Ok(workload)
}

/// Every kind of client: pods, host-network pods and processes of both nodes.
fn clients() -> Vec<Client<'static>> {
    let mut clients = pod_clients();
    for (index, node) in node_names(shared()).iter().enumerate().take(2) {
        clients.push(workload().client(&format!("host-{index}")).expect("a host-network pod"));
        clients.push(Client::on_node(shared(), node).expect("a process of a node"));
    }
    clients
}

fn pod_clients() -> Vec<Client<'static>> {
    [0, 1].map(|index| workload().client(&format!("client-{index}")).expect("a pod of a node")).into()
}

/// A Service with that many ready endpoints that answers every client; returns its address.
fn service(name: &str, replicas: usize) -> Result<String> {
    workload().deployment(name, replicas)?;
    let address = workload().service(name)?;
    workload().wait_endpoints(name, replicas)?;
    for client in clients() {
        wait_until(&format!("{client} reaches all of {name}"), PROGRAMMED, || {
            let seen = client.connect(&address, ECHO_PORT, 50)?;
            ensure!(
                seen.errors.is_empty() && seen.backends.len() == replicas,
                "{:?} {:?}",
                seen.backends,
                seen.errors
            );
            Ok(())
        })?;
    }
    Ok(address)
}

/// Waits until each client is refused at once: ECONNREFUSED within 100 ms.
fn refused(address: &str) -> Result<()> {
    for client in clients() {
        wait_until(&format!("{client} is refused"), PROGRAMMED, || {
            let seen = client.connect(address, ECHO_PORT, 5)?;
            ensure!(seen.refused() == 5, "{:?} {:?}", seen.backends, seen.errors);
            assertions::within("a refusal", seen.mean(), Duration::from_millis(100))
        })?;
    }
    Ok(())
}

#[test]
fn each_of_three_endpoints_gets_its_share_of_connections_from_every_client() {
    let address = service("shares", 3).unwrap();
    for client in clients() {
        let seen = client.connect(&address, ECHO_PORT, CONNECTIONS).unwrap();
        assert!(seen.errors.is_empty(), "{client}: {:?}", seen.errors);
        assertions::fair_share(&seen.backends, 3).unwrap();
        println!("{client}: {:?}", seen.backends);
    }
    workload().remove_service("shares").unwrap();
}

#[test]
fn udp_answers_come_from_the_service_address_for_every_client() {
    let address = service("udp", 3).unwrap();
    for client in clients() {
        for connected in [true, false] {
            // A client with an unconnected socket takes an answer from any other address as an error.
            let seen = client.udp(&address, ECHO_PORT, 60, connected).unwrap();
            assert!(seen.errors.is_empty(), "{client}, connected {connected}: {:?}", seen.errors);
            assert_eq!(seen.backends.len(), 3, "{client}: {:?}", seen.backends);
        }
    }
    workload().remove_service("udp").unwrap();
}

#[test]
fn a_pod_that_is_its_own_endpoint_reaches_itself_through_the_service() {
    let address = service("hairpin", 1).unwrap();
    let pods = workload().endpoint_pods("hairpin").unwrap();
    let own = workload().client(&pods[0]).unwrap().connect(&address, ECHO_PORT, 20).unwrap();
    assert!(own.errors.is_empty(), "{:?}", own.errors);
    workload().remove_service("hairpin").unwrap();
}

#[test]
fn no_connection_goes_to_an_endpoint_that_was_scaled_away() {
    let address = service("scaled", 3).unwrap();
    workload().scale("scaled", 2).unwrap();
    workload().wait_endpoints("scaled", 2).unwrap();
    let left = workload().endpoint_pods("scaled").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    for client in clients() {
        let seen = client.connect(&address, ECHO_PORT, CONNECTIONS).unwrap();
        assert!(seen.errors.is_empty(), "{client}: {:?}", seen.errors);
        assert_eq!(seen.backends.keys().cloned().collect::<Vec<_>>(), left, "{client}");
    }
    workload().scale("scaled", 4).unwrap();
    workload().wait_endpoints("scaled", 4).unwrap();
    for client in pod_clients() {
        wait_until("new endpoints get their share", PROGRAMMED, || {
            assertions::fair_share(&client.connect(&address, ECHO_PORT, CONNECTIONS)?.backends, 4)
        })
        .unwrap();
    }
    workload().remove_service("scaled").unwrap();
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_serves_when_they_come_back() {
    let address = service("empty", 1).unwrap();
    workload().scale("empty", 0).unwrap();
    workload().wait_endpoints("empty", 0).unwrap();
    // One that ends still serves, and is asked while there is no other (KEP-1669).
    workload().kubectl(&["wait", "--for=delete", "pod", "-l", "app=empty", "--timeout=60s"]).unwrap();
    refused(&address).unwrap();
    let udp = pod_clients()[0].udp(&address, ECHO_PORT, 3, true).unwrap();
    assert_eq!(udp.refused(), 3, "UDP: {:?}", udp.errors);
    workload().scale("empty", 1).unwrap();
    workload().wait_endpoints("empty", 1).unwrap();
    for client in clients() {
        wait_until("served again", PROGRAMMED, || {
            let seen = client.connect(&address, ECHO_PORT, 5)?;
            ensure!(seen.errors.is_empty(), "{client}: {:?}", seen.errors);
            Ok(())
        })
        .unwrap();
    }
    workload().remove_service("empty").unwrap();
}

#[test]
fn a_deleted_service_answers_no_more() {
    let address = service("deleted", 2).unwrap();
    workload().delete("service", "deleted").unwrap();
    for client in clients() {
        wait_until("no server behind the address", PROGRAMMED, || {
            let seen = client.connect(&address, ECHO_PORT, 1)?;
            ensure!(seen.backends.is_empty(), "{client} still reaches {:?}", seen.backends);
            Ok(())
        })
        .unwrap();
    }
    workload().delete("deployment", "deleted").unwrap();
}

#[test]
fn kubectl_in_a_pod_reaches_the_api_server_over_tls_by_address_and_by_name() {
    let address =
        shared().kubectl(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]).unwrap();
    for (index, node) in node_names(shared()).iter().enumerate() {
        let name = format!("kubectl-{index}");
        workload().kubectl_pod(&name, node).unwrap();
        workload().wait_ready(&name).unwrap();
        let client = workload().client(&name).unwrap();
        for host in [address.as_str(), "kubernetes.default.svc"] {
            let version = client.api_version(host).unwrap();
            assert!(version.contains("gitVersion"), "{client} of {node} -> {host}: {version}");
        }
        workload().delete("pod", &name).unwrap();
    }
}

#[test]
fn a_new_service_is_reachable_soon_after_its_creation() {
    service("late", 2).unwrap();
    let client = &pod_clients()[1];
    let mut took = Vec::new();
    for round in 0..5 {
        let name = format!("late-{round}");
        let address = workload().service_for(&name, "late").unwrap();
        let started = Instant::now();
        wait_until("the new service answers", PROGRAMMED, || {
            let seen = client.connect(&address, ECHO_PORT, 1)?;
            ensure!(seen.errors.is_empty(), "{:?}", seen.errors);
            Ok(())
        })
        .unwrap();
        took.push(started.elapsed());
        workload().delete("service", &name).unwrap();
    }
    println!("a new Service answered after (kubectl and exec included): {took:.0?}");
    workload().remove_service("late").unwrap();
}

//! `NetworkPolicy` on the real cluster: who is let in, from where, by which way, and what `netkeel why` says of it.
//! All tests share one cluster with Netkeel installed without values.

use std::time::Duration;

use anyhow::{Result, ensure};
use netkeel_e2e::wait_until;
use netkeel_e2e::workload::{Client, ECHO_PORT, HTTP_PORT, Workload, install, node_names, shared};
use serde_json::{Value, json};

/// A policy is in force on every node, or an object is told of, within this.
const SOON: Duration = Duration::from_secs(15);

/// A server on the second node; a client and a stranger on each.
struct Shop {
    workload: Workload<'static>,
    server: Client<'static>,
    clients: [Client<'static>; 2],
    strangers: [Client<'static>; 2],
    service: String,
}

impl Shop {
    fn new(namespace: &str) -> Result<Self> {
        let workload = Workload::new(shared(), namespace)?;
        let nodes = node_names(shared());
        workload.pod("server", &nodes[1])?;
        for (index, node) in nodes.iter().enumerate().take(2) {
            workload.pod(&format!("client-{index}"), node)?;
            workload.pod(&format!("stranger-{index}"), node)?;
        }
        let service = workload.service("server")?;
        workload.ready()?;
        workload.wait_endpoints("server", 1)?;
        let pair = |name: &str| -> Result<[Client<'static>; 2]> {
            Ok([workload.client(&format!("{name}-0"))?, workload.client(&format!("{name}-1"))?])
        };
        Ok(Self {
            server: workload.client("server")?,
            clients: pair("client")?,
            strangers: pair("stranger")?,
            service,
            workload,
        })
    }

    fn policy(&self, name: &str, spec: &Value) -> Result<()> {
        self.workload.policy(name, spec)
    }

    /// Everybody's way to the server, by address and through its Service.
    fn everybody(&self) -> impl Iterator<Item = &Client<'static>> {
        self.clients.iter().chain(&self.strangers)
    }

    fn gets_in(&self, client: &Client<'_>) -> Result<()> {
        for to in [&self.server.address, &self.service] {
            client.connect(to, ECHO_PORT, 3)?.none_failed()?;
        }
        client.udp(&self.server.address, ECHO_PORT, 3, false)?.none_failed()
    }

    fn stays_out(&self, client: &Client<'_>) -> Result<()> {
        for to in [&self.server.address, &self.service] {
            let seen = client.try_connect(to, ECHO_PORT)?;
            ensure!(seen.ok == 0, "{client} gets through to {to}: {seen:?}");
        }
        let seen = client.try_udp(&self.server.address, ECHO_PORT)?;
        ensure!(seen.ok == 0, "{client} gets datagrams through: {seen:?}");
        Ok(())
    }

    /// Asks the same of several clients, side by side.
    fn each<'a>(
        &self,
        clients: impl Iterator<Item = &'a Client<'static>>,
        check: impl Fn(&Self, &Client<'_>) -> Result<()> + Sync,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let check = &check;
            let threads: Vec<_> = clients.map(|client| scope.spawn(move || check(self, client))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("the check ends"))
        })
    }

    fn done(self) -> Result<()> {
        self.workload.end()
    }
}

/// What `netkeel why` says, and whether its answer was "allowed".
fn why(from: &str, to: &str) -> Result<(String, bool)> {
    match install::run_netkeel(shared(), &["why", from, to])? {
        (Some(code @ (0 | 1)), text) => Ok((text, code == 0)),
        (_, text) => anyhow::bail!("netkeel why {from} {to}: {text}"),
    }
}

fn selects(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

#[test]
fn a_closed_pod_answers_what_it_began_and_its_own_node_and_nobody_else() {
    let shop = Shop::new("policy-closed").unwrap();
    shop.each(shop.everybody(), Shop::gets_in).unwrap();
    shop.policy("closed", &json!({"podSelector": selects("server"), "policyTypes": ["Ingress"]})).unwrap();
    wait_until("the server is closed", SOON, || shop.each(shop.everybody(), Shop::stays_out)).unwrap();
    let own = Client::on_node(shared(), &node_names(shared())[1]).unwrap();
    own.connect(&shop.server.address, ECHO_PORT, 3).unwrap().none_failed().unwrap();
    let other = Client::on_node(shared(), &node_names(shared())[0]).unwrap();
    let seen = other.try_connect(&shop.server.address, ECHO_PORT).unwrap();
    assert_eq!(seen.ok, 0, "another node is not its own: {seen:?}");
    for peer in &shop.clients {
        shop.server.connect(&peer.address, ECHO_PORT, 5).unwrap().none_failed().unwrap();
        shop.server.udp(&peer.address, ECHO_PORT, 5, false).unwrap().none_failed().unwrap();
    }
    assert_eq!(
        shop.server.resolve("kubernetes.default.svc.cluster.local", "A", false).unwrap().code,
        "NOERROR"
    );
    shop.workload.ready().unwrap(); // probes of the kubelet pass
    shop.policy("closed", &json!({"podSelector": selects("server"), "policyTypes": ["Ingress", "Egress"]}))
        .unwrap();
    wait_until("nothing leaves the server", SOON, || {
        let seen = shop.server.try_connect(&shop.clients[0].address, ECHO_PORT)?;
        ensure!(seen.ok == 0, "{seen:?}");
        Ok(())
    })
    .unwrap();
    shop.workload.delete("networkpolicy", "closed").unwrap();
    wait_until("all is open again", SOON, || shop.each(shop.everybody(), Shop::gets_in)).unwrap();
    shop.done().unwrap();
}

#[test]
fn labels_namespaces_and_ports_let_in_exactly_whom_they_name() {
    let shop = Shop::new("policy-labels").unwrap();
    let other = Workload::new(shared(), "policy-other").unwrap();
    other.pod("visitor", &node_names(shared())[0]).unwrap();
    other.ready().unwrap();
    let visitor = other.client("visitor").unwrap();
    let from = json!([
        {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["client-0", "client-1"]}]}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "policy-other"}}},
    ]);
    let ports = json!([{"protocol": "TCP", "port": ECHO_PORT}, {"protocol": "UDP", "port": ECHO_PORT}]);
    let spec = json!({"podSelector": selects("server"), "ingress": [{"from": from, "ports": ports}]});
    shop.policy("named", &spec).unwrap();
    wait_until("the strangers are out and all others in", SOON, || {
        shop.each(shop.strangers.iter(), Shop::stays_out)?;
        shop.each(shop.clients.iter().chain([&visitor]), Shop::gets_in)
    })
    .unwrap();
    for client in [&shop.clients[0], &shop.clients[1], &visitor] {
        let seen = client.try_connect(&shop.server.address, HTTP_PORT).unwrap();
        assert_eq!(seen.ok, 0, "{client} gets in by another port: {seen:?}");
    }
    // A label changes sides.
    shop.workload.kubectl(&["label", "pod", "stranger-0", "app=client-0", "--overwrite"]).unwrap();
    wait_until("the relabelled stranger is in", SOON, || shop.gets_in(&shop.strangers[0])).unwrap();
    shop.workload.kubectl(&["label", "pod", "stranger-0", "app=stranger-0", "--overwrite"]).unwrap();
    wait_until("and out again", SOON, || shop.stays_out(&shop.strangers[0])).unwrap();
    other.end().unwrap();
    shop.done().unwrap();
}

#[test]
fn a_connection_that_becomes_forbidden_ends_and_one_that_stays_allowed_does_not() {
    let shop = Shop::new("policy-established").unwrap();
    let mut allowed = shop.clients[0].streams(&shop.server.address, ECHO_PORT, 5, 25).unwrap();
    let mut forbidden = shop.strangers[0].streams(&shop.server.address, ECHO_PORT, 5, 25).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(allowed.runs().unwrap() && forbidden.runs().unwrap());
    let from = json!([{"podSelector": selects("client-0")}]);
    shop.policy("one", &json!({"podSelector": selects("server"), "ingress": [{"from": from}]})).unwrap();
    let allowed = allowed.finish().unwrap();
    assert!(allowed.errors.is_empty() && allowed.exchanges > 100, "{allowed:?}");
    let forbidden = forbidden.finish().unwrap();
    assert!(!forbidden.errors.is_empty() && forbidden.exchanges > 10, "{forbidden:?}");
    shop.done().unwrap();
}

#[test]
fn what_is_not_implemented_allows_nothing_and_is_named() {
    let shop = Shop::new("policy-unsupported").unwrap();
    let ports = json!([{"protocol": "TCP", "port": "echo"}, {"protocol": "SCTP", "port": 7}]);
    shop.policy("by-name", &json!({"podSelector": selects("server"), "ingress": [{"ports": ports}]}))
        .unwrap();
    wait_until("nobody gets in", SOON, || shop.each(shop.everybody(), Shop::stays_out)).unwrap();
    let events = wait_until("an Event on the policy", SOON, || {
        let events = shop.workload.kubectl(&["get", "events", "-o", "json"])?;
        let events: Value = serde_json::from_str(&events)?;
        let ours = |event: &&Value| event["involvedObject"]["name"] == "by-name";
        let ours: Vec<Value> =
            events["items"].as_array().into_iter().flatten().filter(ours).cloned().collect();
        ensure!(!ours.is_empty(), "no Event: {events}");
        Ok(ours)
    })
    .unwrap();
    println!("{}", events[0]["message"]);
    assert!(events.iter().any(|event| event.to_string().contains("echo")), "{events:?}");
    wait_until("a condition names it", SOON, || {
        let path = "jsonpath={.status.conditions[?(@.type=='PolicyReady')]}";
        let said = shared().kubectl(&["get", "clusternetwork", "default", "-o", path])?;
        ensure!(said.contains("policy-unsupported/by-name") && said.contains("\"False\""), "{said}");
        Ok(())
    })
    .unwrap();
    shop.done().unwrap();
    install::wait_available(shared()).unwrap();
}

#[test]
fn a_pod_is_closed_from_its_first_packet_on() {
    let shop = Shop::new("policy-newborn").unwrap();
    let late =
        json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["client-0", "server"]}]});
    let from = json!([{"podSelector": selects("client-0")}]);
    shop.policy("late", &json!({"podSelector": late, "ingress": [{"from": from}]})).unwrap();
    for round in 0..5 {
        let name = format!("late-{round}");
        shop.workload.pod(&name, &node_names(shared())[1]).unwrap();
        let address = wait_until("an address", SOON, || {
            let address = shop.workload.kubectl(&["get", "pod", &name, "-o", "jsonpath={.status.podIP}"])?;
            ensure!(!address.is_empty());
            Ok(address)
        })
        .unwrap();
        let seen = shop.strangers[0].connect(&address, ECHO_PORT, 2).unwrap();
        assert_eq!(seen.ok, 0, "{seen:?}");
        shop.workload.ready().unwrap();
        wait_until("whom the policy names gets in", SOON, || {
            shop.clients[0].connect(&address, ECHO_PORT, 3)?.none_failed()
        })
        .unwrap();
    }
    shop.done().unwrap();
}

#[test]
fn why_names_the_rule_and_the_policy_that_isolates() {
    let shop = Shop::new("policy-why").unwrap();
    let (client, stranger) = ("policy-why/client-0", "policy-why/stranger-0");
    let server = format!("policy-why/server:{ECHO_PORT}");
    let (text, allowed) = why(stranger, &server).unwrap();
    assert!(allowed, "{text}");
    let from = json!([{"podSelector": selects("client-0")}]);
    shop.policy("one", &json!({"podSelector": selects("server"), "ingress": [{"from": from}]})).unwrap();
    wait_until("the policy is in force", SOON, || shop.stays_out(&shop.strangers[0])).unwrap();
    let (text, allowed) = why(client, &server).unwrap();
    println!("{text}");
    assert!(allowed && text.contains("policy-why/one, ingress rule 0"), "{text}");
    let (text, allowed) = why(stranger, &server).unwrap();
    println!("{text}");
    assert!(!allowed && text.contains("policy-why/one"), "{text}");
    // Also with the operator away.
    let scale = |replicas: &str| {
        shared().kubectl(&["-n", install::NAMESPACE, "scale", "deployment/netkeel-operator", replicas])
    };
    scale("--replicas=0").unwrap();
    let answer = why(stranger, &server);
    scale("--replicas=2").unwrap();
    assert!(!answer.unwrap().1);
    shop.done().unwrap();
    install::wait_available(shared()).unwrap();
}

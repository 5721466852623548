//! A made-up cluster: Services of every kind with endpoints in slices of every shape, the same for the same seed.

use serde_json::{Value, json};

/// Numbers without a pattern, the same for the same seed (splitmix64; Steele, Lea and Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("less than a usize")
    }

    /// True once in so many times.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}

/// Where the Services are; nothing is in the third.
pub(crate) const NAMESPACES: [&str; 3] = ["diff-one", "diff-two", "diff-quiet"];
/// Services with addresses, and as many headless ones, in each namespace.
const SERVICES: usize = 12;
const PORTS: [(&str, &str, u16); 6] = [
    ("http", "TCP", 80),
    ("https", "TCP", 443),
    ("dns", "UDP", 53),
    ("dns-tcp", "TCP", 53),
    ("m3ua", "SCTP", 2905),
    ("metrics", "TCP", 9153),
];
/// What `ExternalName` Services point to; the first namespace has a Service `cluster-0`, and the aliases `loop-…` a ring.
const TARGETS: [(&str, &str); 12] = [
    ("outside", "outside.test"),
    ("outside-alias", "alias.outside.test"),
    ("outside-none", "missing.test"),
    ("inside", "cluster-0.diff-one.svc.cluster.local"),
    ("inside-headless", "headless-0.diff-one.svc.cluster.local"),
    ("inside-none", "missing.diff-one.svc.cluster.local"),
    ("inside-pod", "10-1-2-3.diff-one.pod.cluster.local"),
    ("chain", "inside.diff-two.svc.cluster.local"),
    ("chain-outside", "outside.diff-one.svc.cluster.local"),
    ("literal", "192.0.2.1"),
    ("loop-one", "loop-two.diff-one.svc.cluster.local"),
    ("loop-two", "loop-one.diff-one.svc.cluster.local"),
];

/// All objects but the namespaces, each with its own.
pub(crate) fn objects(random: &mut Random) -> Vec<Value> {
    let mut all = Vec::new();
    for namespace in &NAMESPACES[..2] {
        for (name, target) in TARGETS {
            all.push(service(namespace, name, &json!({"type": "ExternalName", "externalName": target})));
        }
        for index in 0..SERVICES {
            for (name, headless) in [(format!("cluster-{index}"), false), (format!("headless-{index}"), true)]
            {
                let ports = ports(random, headless);
                all.push(service(namespace, &name, &spec(random, headless, &ports)));
                all.extend(slices(random, namespace, &name, &ports));
            }
        }
        // Too many for a datagram.
        let ports = [json!({"name": "http", "port": 80}), json!({"name": "https", "port": 443})];
        all.push(service(namespace, "many", &json!({"clusterIP": "None", "ports": ports})));
        let endpoints: Vec<Value> =
            (0..120).map(|last| json!({"addresses": [format!("10.2.0.{last}")]})).collect();
        all.push(slice(namespace, ("many", "many-0"), "IPv4", (json!(endpoints), &ports)));
        all.extend(slices(random, namespace, "nobody", &[json!({"name": "http", "port": 80})]));
    }
    all
}

fn service(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// None only for a headless Service; a single one may have no name.
fn ports(random: &mut Random, headless: bool) -> Vec<Value> {
    if headless && random.once_in(5) {
        return vec![];
    }
    let (name, protocol, number) = *random.of(&PORTS);
    if random.once_in(5) {
        return vec![json!({"port": number, "protocol": protocol})];
    }
    let mut chosen = vec![(name, protocol, number)];
    chosen.extend(PORTS.iter().filter(|port| port.0 != name && random.once_in(3)));
    let port = |(name, protocol, number)| json!({"name": name, "port": number, "protocol": protocol});
    chosen.into_iter().map(port).collect()
}

fn spec(random: &mut Random, headless: bool, ports: &[Value]) -> Value {
    let mut spec = json!({"ports": ports});
    let families: &[&[&str]] = &[&["IPv4"], &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]];
    let families = *random.of(families);
    spec["ipFamilies"] = json!(families);
    spec["ipFamilyPolicy"] = json!(if families.len() == 2 { "RequireDualStack" } else { "SingleStack" });
    if headless {
        spec["clusterIP"] = json!("None");
    } else {
        spec["type"] = json!(random.of(&["ClusterIP", "ClusterIP", "NodePort", "LoadBalancer"]));
    }
    spec
}

/// Up to three of each family, with the same ports, as the controller makes them. The pods of one host name have the same in each.
fn slices(random: &mut Random, namespace: &str, service: &str, ports: &[Value]) -> Vec<Value> {
    let mut all = Vec::new();
    let named = random.once_in(2);
    for family in ["IPv4", "IPv6"] {
        for index in 0..random.below(4) {
            let endpoints: Vec<Value> =
                (0..random.below(5)).map(|number| endpoint(random, family, (named, index, number))).collect();
            let name = format!("{service}-{}-{index}", family.to_lowercase());
            all.push(slice(namespace, (service, &name), family, (json!(endpoints), ports)));
        }
    }
    all
}

fn slice(
    namespace: &str,
    (service, name): (&str, &str),
    family: &str,
    (endpoints, ports): (Value, &[Value]),
) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family, "endpoints": endpoints, "ports": ports,
        "metadata": {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": service}},
    })
}

fn endpoint(random: &mut Random, family: &str, (named, index, number): (bool, usize, usize)) -> Value {
    // One of its own for each endpoint of a Service; other Services may have it too.
    let (high, low) = (random.below(2), 40 * index + 8 * number + random.below(8));
    let address = match (family, index + number) {
        ("IPv4", _) => format!("10.1.{high}.{low}"),
        (_, 0) if random.once_in(3) => format!("fd00:1:{}::", low + 1), // ends in a dash
        _ => format!("fd00:1::{}:{low:x}", high + 1),
    };
    let mut endpoint = json!({"addresses": [address]});
    if named && !random.once_in(4) {
        endpoint["hostname"] = json!(format!("pod-{index}-{number}"));
    }
    match random.below(6) {
        0 => endpoint["conditions"] = json!({"ready": false}),
        1 => endpoint["conditions"] = json!({"ready": false, "serving": true, "terminating": true}),
        2 => {}
        _ => endpoint["conditions"] = json!({"ready": true, "serving": true, "terminating": false}),
    }
    endpoint
}

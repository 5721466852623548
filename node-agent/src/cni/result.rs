//! The result of ADD in the form of the version that the configuration asks for. Values only.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::link::{
    name::mac_text,
    veth::{PodVeth, gateway},
};

/// What ADD prints.
#[must_use]
pub fn success(version: &str, veth: &PodVeth, netns: &str, dns: Option<&Value>) -> Value {
    let mut interfaces = [
        json!({"name": veth.host_name, "mac": mac_text(veth.host_mac)}),
        json!({"name": veth.pod_name, "mac": mac_text(veth.pod_mac), "sandbox": netns}),
    ];
    if version == "1.1.0" {
        for interface in &mut interfaces {
            interface["mtu"] = veth.mtu.into();
        }
    }
    let ips: Vec<Value> = veth.addresses.iter().map(|address| ip(version, address)).collect();
    let default = |address: IpAddr| {
        let all = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        json!({"dst": all, "gw": gateway(address)})
    };
    json!({
        "cniVersion": version,
        "interfaces": interfaces,
        "ips": ips,
        "routes": veth.addresses.iter().map(default).collect::<Vec<_>>(),
        "dns": dns.cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}

/// The result of a plugin that others came before in their chain: all that they made, and ours behind it.
#[must_use]
pub fn behind(earlier: &Value, mut ours: Value) -> Value {
    let list =
        |result: &Value, key: &str| result.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let interfaces = list(earlier, "interfaces");
    for ip in ours["ips"].as_array_mut().into_iter().flatten() {
        if let Some(index) = ip["interface"].as_u64() {
            ip["interface"] = (index + interfaces.len() as u64).into();
        }
    }
    for key in ["interfaces", "ips", "routes"] {
        let mut all = list(earlier, key);
        all.extend(list(&ours, key));
        ours[key] = all.into();
    }
    let said_nothing = ours["dns"].as_object().is_none_or(Map::is_empty);
    if let Some(dns) = earlier.get("dns").filter(|_| said_nothing) {
        ours["dns"] = dns.clone();
    }
    ours
}

/// Whether an earlier plugin of the chain has made this interface in the pod.
#[must_use]
pub fn has_made(earlier: &Value, interface: &str) -> bool {
    let in_pod = |made: &Value| made["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty());
    let interfaces = earlier.get("interfaces").and_then(Value::as_array);
    interfaces.is_some_and(|all| all.iter().any(|made| made["name"] == interface && in_pod(made)))
}

/// An address of the pod side, with its gateway.
fn ip(version: &str, address: IpAddr) -> Value {
    let (bits, family) = if address.is_ipv4() { (32, "4") } else { (128, "6") };
    let mut ip = json!({"address": format!("{address}/{bits}"), "gateway": gateway(address), "interface": 1});
    if version == "0.4.0" {
        ip["version"] = family.into();
    }
    ip
}

/// The addresses of an earlier result, without their prefix length; `None` where there is no list of them.
#[must_use]
pub fn addresses(result: &Value) -> Option<Vec<&str>> {
    let ips = result.get("ips")?.as_array()?;
    Some(ips.iter().filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()).collect())
}

#[cfg(test)]
mod tests {
    use netkeel_core::{address::Addresses, ipam::Owner};

    use super::*;

    fn result(version: &str) -> Value {
        let owner = Owner { container_id: "a".to_owned(), interface: "eth0".to_owned() };
        let addresses = Addresses::of(["10.244.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()));
        let veth = PodVeth::new(&owner, addresses, 1450);
        success(version, &veth, "/run/netns/a", Some(&json!({"nameservers": ["10.96.0.10"]})))
    }

    #[test]
    fn a_result_of_1_1_names_both_interfaces_with_mac_mtu_and_sandbox() {
        let result = result("1.1.0");
        assert_eq!(result["interfaces"][0]["mtu"], 1450);
        assert!(result["interfaces"][0].get("sandbox").is_none());
        assert_eq!(result["interfaces"][1]["sandbox"], "/run/netns/a");
        assert_eq!(result["interfaces"][1]["name"], "eth0");
        assert_eq!(
            result["ips"],
            json!([{"address": "10.244.0.1/32", "gateway": "169.254.1.1", "interface": 1},
                   {"address": "fd00::1/128", "gateway": "fe80::1", "interface": 1}])
        );
        assert_eq!(
            result["routes"],
            json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}])
        );
        assert_eq!(result["dns"]["nameservers"][0], "10.96.0.10");
    }

    #[test]
    fn older_versions_have_their_own_form() {
        assert_eq!(result("0.4.0")["ips"][0]["version"], "4");
        assert_eq!(result("0.4.0")["ips"][1]["version"], "6");
        assert!(result("1.0.0")["ips"][0].get("version").is_none());
        assert!(result("1.0.0")["interfaces"][0].get("mtu").is_none());
        assert_eq!(result("0.4.0")["cniVersion"], "0.4.0");
    }

    #[test]
    fn what_earlier_plugins_made_stays_and_our_address_points_to_our_interface() {
        let earlier = json!({
            "interfaces": [{"name": "net1", "sandbox": "/run/netns/a"}],
            "ips": [{"address": "192.0.2.7/24", "interface": 0}],
            "routes": [{"dst": "192.0.2.0/24"}],
            "dns": {"nameservers": ["192.0.2.53"]},
        });
        let all = behind(&earlier, result("1.1.0"));
        let names: Vec<_> =
            all["interfaces"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
        assert_eq!((names[0], names[2], names.len()), ("net1", "eth0", 3));
        assert_eq!(all["ips"][0], earlier["ips"][0]);
        assert_eq!(
            (&all["ips"][1]["address"], &all["ips"][1]["interface"]),
            (&json!("10.244.0.1/32"), &json!(2))
        );
        assert_eq!(all["routes"].as_array().unwrap().len(), 3, "of both families of ours");
        assert_eq!(all["dns"]["nameservers"][0], "10.96.0.10", "what the configuration says counts");
        let mut silent = result("1.1.0");
        silent["dns"] = json!({});
        assert_eq!(behind(&earlier, silent)["dns"], earlier["dns"]);
        assert_eq!(behind(&json!({}), result("1.0.0")), result("1.0.0"));
        assert!(has_made(&earlier, "net1") && !has_made(&earlier, "eth0") && !has_made(&json!(7), "eth0"));
    }

    #[test]
    fn an_earlier_result_gives_its_addresses() {
        assert_eq!(addresses(&result("1.1.0")), Some(vec!["10.244.0.1", "fd00::1"]));
        assert_eq!(addresses(&json!({})), None);
    }
}

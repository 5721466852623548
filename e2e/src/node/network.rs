//! The fabric: a bridge in its own network namespace, and the veth pairs that join everything to it.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::Spec;
use crate::config::addresses::{FABRIC, on_fabric};
use crate::{IpFamily, process, wait_until};

const BRIDGE: &str = "fabric";

/// Makes the bridge in the current network namespace.
pub(super) fn bridge() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    for address in FABRIC.of(IpFamily::Dual).into_iter().map(on_fabric) {
        ip(&[&["address", "add", &address, "dev", BRIDGE], at_once(&address)].concat())?;
    }
    ip(&["link", "set", BRIDGE, "up"])?;
    // Absent where the kernel has no br_netfilter; where it is on, iptables would see bridged frames.
    drop(std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"));
    Ok(())
}

/// Joins the current network namespace to the fabric.
pub(super) fn connect(spec: &Spec) -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    let Some(link) = &spec.link else { return Ok(()) };
    let fabric = format!("/proc/{}/ns/net", link.fabric);
    let port = spec.name.as_str();
    // The kernel takes the port of a node that ended away a moment later.
    wait_until(&format!("port {port} of the fabric is free"), Duration::from_secs(10), || {
        ip(&["link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", &fabric])
    })?;
    let enter = format!("--net={fabric}");
    process::run(Command::new("nsenter").args([&enter, "ip", "link", "set", port, "master", BRIDGE, "up"]))?;
    for address in &link.addresses {
        ip(&[&["address", "add", address, "dev", "eth0"], at_once(address)].concat())?;
    }
    ip(&["link", "set", "eth0", "up"])?;
    for address in &link.loopback {
        ip(&["address", "add", address, "dev", "lo"])?;
    }
    for gateway in &link.gateways {
        ip(&["route", "add", "default", "via", gateway])?;
    }
    Ok(())
}

/// Nobody is asked whether another has an IPv6 address, so that programs can use it at once.
fn at_once(address: &str) -> &'static [&'static str] {
    if address.contains(':') { &["nodad"] } else { &[] }
}

fn ip(arguments: &[&str]) -> Result<()> {
    process::run(Command::new("ip").args(arguments)).map(|_| ())
}

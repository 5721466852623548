//! CHECK: whether everything that ADD made is still there, in the pod, on the host and in the tables.

use std::sync::Arc;

use netkeel_core::ipam::Owner;

use super::{
    failure::{BROKEN, Failure},
    holding::Holding,
    queues, result,
    server::{Call, Pod, Server, datapath_link},
};
use crate::{
    bandwidth::Direction,
    link::{
        netlink::Rtnetlink,
        veth::{PodVeth, gateway, seen},
    },
    policy::PodRef,
};

pub(super) fn check(server: &Server, mut call: Call) -> Result<(), Failure> {
    let mut pod = call.pod()?;
    let (veth, who) = held(server, &call.owner).ok_or_else(|| broken("the pod holds no address"))?;
    let earlier = call.config.prev_result.as_ref().and_then(result::addresses);
    for address in veth.addresses.iter() {
        let named = earlier.as_ref().is_none_or(|all| all.contains(&address.to_string().as_str()));
        expect(named, || format!("the pod holds {address}, which prevResult does not name"))?;
    }
    on_host(server, &veth, who)?;
    server.holds_ports(&server.context.pool.records_of(&call.owner))?;
    in_pod(&veth, &mut pod)
}

/// The link that an earlier ADD of this owner made, where it is whole and in this very namespace.
pub(super) fn existing(
    server: &Arc<Server>,
    owner: &Owner,
    pod: &mut Pod,
) -> Result<Option<PodVeth>, Failure> {
    let Some((mut veth, who)) = held(server, owner) else { return Ok(None) };
    let ports = server.holds_ports(&server.context.pool.records_of(owner));
    if on_host(server, &veth, who).and(ports).is_err() || in_pod(&veth, pod).is_err() {
        return Ok(None);
    }
    veth.mtu = seen::link(&mut pod.socket, &veth.pod_name)?.map_or(0, |link| link.mtu);
    Ok(Some(veth))
}

fn held(server: &Server, owner: &Owner) -> Option<(PodVeth, PodRef)> {
    let held = Holding::of(&server.context.pool.records_of(owner))?;
    Some((held.veth(), held.pod))
}

fn on_host(server: &Server, veth: &PodVeth, who: PodRef) -> Result<(), Failure> {
    let mut host = Rtnetlink::open()?;
    let name = &veth.host_name;
    let link = seen::link(&mut host, name)?.ok_or_else(|| broken(format!("link {name} is missing")))?;
    expect(link.up, || format!("link {name} is down"))?;
    expect(link.mac == Some(veth.host_mac), || format!("link {name} has another MAC address"))?;
    queues::check(&mut host, veth.bandwidth.ingress, &link, Direction::Ingress)?;
    let routes = seen::pod_routes(&mut host)?;
    for address in veth.addresses.iter() {
        let route = routes.get(&address).map(|route| route.link);
        expect(route == Some(link.index), || format!("the route to {address} over {name} is missing"))?;
    }
    let known = server.context.datapath.holds(&datapath_link(veth, link.index, who))?;
    expect(known, || format!("the data path does not know {}", veth.addresses))
}

fn in_pod(veth: &PodVeth, pod: &mut Pod) -> Result<(), Failure> {
    let name = &veth.pod_name;
    let link = seen::link(&mut pod.socket, name)?;
    let link = link.ok_or_else(|| broken(format!("link {name} in the pod is missing")))?;
    expect(link.up, || format!("link {name} in the pod is down"))?;
    expect(link.mac == Some(veth.pod_mac), || format!("link {name} in the pod has another MAC address"))?;
    queues::check(&mut pod.socket, veth.bandwidth.egress, &link, Direction::Egress)?;
    let held = seen::addresses(&mut pod.socket, link.index)?;
    let routes = seen::default_routes(&mut pod.socket)?;
    for address in veth.addresses.iter() {
        expect(held.contains(&address), || format!("{name} in the pod lacks {address}"))?;
        let route = (gateway(address), link.index);
        expect(routes.contains(&route), || {
            format!("the pod has no default route over {name} for {address}")
        })?;
    }
    Ok(())
}

fn expect(fine: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if fine { Ok(()) } else { Err(broken(otherwise())) }
}

fn broken(what: impl Into<String>) -> Failure {
    Failure::new(BROKEN, what)
}

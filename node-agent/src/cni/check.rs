//! CHECK: whether everything that ADD made is still there, in the pod, on the host and in the tables.

use std::{net::Ipv4Addr, sync::Arc};

use netkeel_core::ipam::Owner;

use super::{
    failure::{BROKEN, Failure},
    result,
    server::{Call, Pod, Server, datapath_link},
};
use crate::{
    link::{
        netlink::Rtnetlink,
        veth::{GATEWAY, PodVeth, seen},
    },
    policy::PodRef,
};

pub(super) fn check(server: &Server, mut call: Call) -> Result<(), Failure> {
    let mut pod = call.pod()?;
    let (veth, who) = held(server, &call.owner).ok_or_else(|| broken("the pod holds no address"))?;
    let earlier = call.config.prev_result.as_ref().and_then(result::addresses);
    if earlier.is_some_and(|addresses| !addresses.contains(&veth.address.to_string().as_str())) {
        return Err(broken(format!("the pod holds {}, which prevResult does not name", veth.address)));
    }
    on_host(server, &veth, who)?;
    in_pod(&veth, &mut pod)
}

/// The link that an earlier ADD of this owner made, where it is whole and in this very namespace.
pub(super) fn existing(
    server: &Arc<Server>,
    owner: &Owner,
    pod: &mut Pod,
) -> Result<Option<PodVeth>, Failure> {
    let Some((mut veth, who)) = held(server, owner) else { return Ok(None) };
    if on_host(server, &veth, who).is_err() || in_pod(&veth, pod).is_err() {
        return Ok(None);
    }
    veth.mtu = seen::link(&mut pod.socket, &veth.pod_name)?.map_or(0, |link| link.mtu);
    Ok(Some(veth))
}

fn held(server: &Server, owner: &Owner) -> Option<(PodVeth, PodRef)> {
    let record = server.context.pool.record(owner)?;
    Some((PodVeth::new(owner, record.ipv4()?, 0), record.pod()))
}

fn on_host(server: &Server, veth: &PodVeth, who: PodRef) -> Result<(), Failure> {
    let mut host = Rtnetlink::open()?;
    let name = &veth.host_name;
    let link = seen::link(&mut host, name)?.ok_or_else(|| broken(format!("link {name} is missing")))?;
    expect(link.up, || format!("link {name} is down"))?;
    expect(link.mac == Some(veth.host_mac), || format!("link {name} has another MAC address"))?;
    let route = seen::pod_routes(&mut host)?.get(&veth.address).map(|route| route.link);
    expect(route == Some(link.index), || format!("the route to {} over {name} is missing", veth.address))?;
    let known = server.context.datapath.holds(&datapath_link(veth, link.index, who))?;
    expect(known, || format!("the data path does not know {}", veth.address))
}

fn in_pod(veth: &PodVeth, pod: &mut Pod) -> Result<(), Failure> {
    let name = &veth.pod_name;
    let link = seen::link(&mut pod.socket, name)?;
    let link = link.ok_or_else(|| broken(format!("link {name} in the pod is missing")))?;
    expect(link.up, || format!("link {name} in the pod is down"))?;
    expect(link.mac == Some(veth.pod_mac), || format!("link {name} in the pod has another MAC address"))?;
    let addresses: Vec<Ipv4Addr> = seen::addresses(&mut pod.socket, link.index)?;
    expect(addresses.contains(&veth.address), || format!("{name} in the pod lacks {}", veth.address))?;
    let route = seen::default_route(&mut pod.socket)?;
    expect(route == Some((GATEWAY, link.index)), || format!("the pod has no default route over {name}"))
}

fn expect(fine: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if fine { Ok(()) } else { Err(broken(otherwise())) }
}

fn broken(what: impl Into<String>) -> Failure {
    Failure::new(BROKEN, what)
}

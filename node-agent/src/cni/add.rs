//! ADD: address, link, tables, in this order; the pod is up only when the data path knows it. A failed step takes all
//! earlier ones back. An ADD that is repeated finds what the first one made, or makes it anew with the same address.

use std::{
    thread,
    time::{Duration, Instant},
};

use netkeel_core::{
    address::{Address, Addresses},
    ipam::{Ask, Choice, Family, Owner, Refused, choose},
};
use serde_json::Value;
use tracing::info_span;

use super::{
    check, del,
    failure::{Failure, IMPOSSIBLE, INVALID_CONFIG, TRY_AGAIN, chain},
    ports, queues, result,
    server::{Call, Pod, Server, datapath_link},
};
use crate::{
    bandwidth, host_port,
    ipam::{Details, Error as IpamError},
    link::{
        netlink::Rtnetlink,
        veth::{self, PodVeth, seen},
    },
    node::NodeState,
    policy::{Entered, PodRef},
};

/// How long an ADD waits for the API server to tell of the pod, as long as that is heard at all.
const POD_WAIT: Duration = Duration::from_secs(2);
/// How long an ADD waits for another block, or for the end of an address's rest.
const BLOCK_WAIT: Duration = Duration::from_secs(3);
/// Between two attempts meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

pub(super) fn add(server: &std::sync::Arc<Server>, mut call: Call) -> Result<Value, Failure> {
    let mut pod = call.pod()?;
    if call
        .config
        .prev_result
        .as_ref()
        .is_some_and(|earlier| result::has_made(earlier, &call.owner.interface))
    {
        let interface = &call.owner.interface;
        let msg = format!(
            "an earlier plugin of the chain has made {interface} in the pod: netkeel-cni makes it, put it first"
        );
        return Err(Failure::new(INVALID_CONFIG, msg));
    }
    if server.journal.has(&call.owner) {
        // A DEL of an earlier life of this sandbox waits: it must not take what is made now.
        del::del(server, &call.owner)?;
    }
    let node = server.ready_node()?;
    let answer = |veth: &PodVeth| {
        let (version, netns) = (&call.config.cni_version, &call.request.netns);
        let ours = result::success(version, veth, netns, call.config.dns.as_ref());
        Ok(match &call.config.prev_result {
            Some(earlier) => result::behind(earlier, ours),
            None => ours,
        })
    };
    if let Some(veth) = check::existing(server, &call.owner, &mut pod)? {
        return answer(&veth);
    }
    let mut attempt = Attempt::new(server, &call.owner);
    let details = Details {
        network: call.config.name.clone(),
        pod: call.request.pod(),
        uid: call.request.pod_uid().to_owned(),
        ports: host_port::read(&call.config.runtime_config)
            .map_err(|refused| ports::impossible(&call.request.pod(), &refused))?,
        bandwidth: bandwidth::read(&call.config.runtime_config)
            .map_err(|refused| queues::impossible(&call.request.pod(), &refused))?,
    };
    let who = PodRef::new(&details.pod, &details.uid);
    let addresses = info_span!("allocate").in_scope(|| attempt.allocate(&node, &details, &who))?;
    let veth = PodVeth {
        source: node.addresses,
        bandwidth: details.bandwidth,
        ..PodVeth::new(&call.owner, addresses, node.mtu)
    };
    attempt.link(&veth, &mut pod, who)?;
    if !details.ports.is_empty() {
        info_span!("ports.open").in_scope(|| server.open_ports(&call.owner))?;
    }
    attempt.done = true;
    answer(&veth)
}

/// One try. What it made goes away with it unless it is `done`.
struct Attempt<'a> {
    server: &'a Server,
    owner: &'a Owner,
    addresses: Vec<Address>,
    /// The host side's index.
    link: Option<u32>,
    /// The pod may have sent or received something with its address, so that the address must rest.
    exposed: bool,
    done: bool,
}

impl<'a> Attempt<'a> {
    fn new(server: &'a Server, owner: &'a Owner) -> Self {
        let exposed = server.context.pool.record(owner).is_some();
        Self { server, owner, addresses: Vec::new(), link: None, exposed, done: false }
    }

    fn allocate(&mut self, node: &NodeState, details: &Details, who: &PodRef) -> Result<Addresses, Failure> {
        let pool = &self.server.context.pool;
        // The server follows the node by itself; this ADD may be faster.
        pool.follow(&self.server.context.node);
        let wish = pool.wishes.of(who, POD_WAIT);
        let choice = choose(&node.layout, &wish).map_err(|denied| {
            let msg = format!("pod {} cannot have the address that it asks for: {denied}", details.pod);
            let details = "correct the annotations netkeel.io/pool and netkeel.io/ip-addresses of the pod, or the pools";
            Failure { code: IMPOSSIBLE, msg, details: details.to_owned() }
        })?;
        let families: Vec<Family> = node.layout.families_of(&choice.pools).collect();
        self.addresses = self.await_addresses(&choice, &families, details)?;
        let has = |four| self.addresses.iter().any(|address| address.is_v4() == four);
        host_port::check_families(&details.ports, has)
            .map_err(|refused| ports::impossible(&details.pod, &refused))?;
        self.server.check_ports(self.owner, &details.pod, &details.ports)?;
        Ok(Addresses::of(self.addresses.iter().map(Address::ip)))
    }

    /// Tries until there are addresses, shortly: the operator may give the node another block.
    fn await_addresses(
        &self,
        choice: &Choice,
        families: &[Family],
        details: &Details,
    ) -> Result<Vec<Address>, Failure> {
        let pool = &self.server.context.pool;
        let ask = Ask { families, pools: &choice.pools, addresses: &choice.addresses };
        let began = Instant::now();
        loop {
            match pool.allocate(self.owner, &ask, details) {
                Err(IpamError::Refused(refused)) if began.elapsed() < BLOCK_WAIT && may_pass(&refused) => {
                    thread::sleep(AGAIN);
                }
                Err(IpamError::Refused(refused)) => {
                    if let Refused::Exhausted(exhausted) = &refused {
                        pool.sent_away(exhausted);
                    }
                    return Err(self.refusal(&refused, choice));
                }
                given => return Ok(given?),
            }
        }
    }

    fn refusal(&self, refused: &Refused, choice: &Choice) -> Failure {
        let node = &self.server.context.node_name;
        let (msg, details) = match refused {
            Refused::Exhausted(exhausted) => (
                format!("node {node} has no free pod address in pool {}: {exhausted}", choice.pools.join(", ")),
                "delete pods of this node, or add a CIDR to spec.podNetwork.pools of ClusterNetwork default and wait for \
                 another block"
                    .to_owned(),
            ),
            Refused::Taken { owner, .. } => {
                let holder = self.server.context.pool.record(owner).map(|record| record.details.pod);
                let holder = holder.filter(|pod| !pod.is_empty()).unwrap_or_else(|| owner.container_id.clone());
                (format!("{refused}: {holder}"), "delete that pod, or ask for another address".to_owned())
            }
            Refused::Elsewhere { .. } => (
                format!("{refused}, which is {node}"),
                "see kubectl get addressblocks which node has it, and let the pod run there".to_owned(),
            ),
            Refused::Releasing { .. } => (refused.to_string(), "wait until the operator has given it to a node again".to_owned()),
            Refused::Resting { .. } => (refused.to_string(), "wait".to_owned()),
            Refused::First { .. } => (refused.to_string(), "ask for another address".to_owned()),
        };
        Failure { code: TRY_AGAIN, msg, details }
    }

    fn link(&mut self, veth: &PodVeth, pod: &mut Pod, who: PodRef) -> Result<(), Failure> {
        let mut host = Rtnetlink::open()?;
        let index = info_span!("link.create").in_scope(|| create(veth, &mut host, pod))?;
        self.link = Some(index);
        let datapath = &self.server.context.datapath;
        let known = info_span!("policy").in_scope(|| datapath.await_policy(&who));
        let link = datapath_link(veth, index, who);
        let entered = info_span!("datapath.add").in_scope(|| datapath.add(&link))?;
        self.exposed = true;
        if entered == Entered::Closed {
            let pod = &link.pod.name;
            tracing::warn!(%pod, known, "the pod is closed but for its own node until its policy is known and fits");
        }
        info_span!("link.configure")
            .in_scope(|| {
                veth.configure_host(&mut host, index, &self.server.context.settings)?;
                veth.configure_pod(&mut pod.socket)?;
                veth.await_host(&mut host)
            })
            .map_err(|error| queues::failed(&self.server.context.node_name, error))
    }

    fn roll_back(&self) {
        let log = |what: &str, error: &dyn std::error::Error| {
            tracing::error!(
                error = chain(error),
                "a failed ADD left {what}; the sweep for leaks takes it away"
            );
        };
        let context = &self.server.context;
        let closed = self.server.close_ports(&context.pool.records_of(self.owner));
        if let Err(error) = &closed {
            log("a host port", error);
        }
        for address in &self.addresses {
            if let Err(error) = context.datapath.remove(*address) {
                log("an entry in the tables", &error);
            }
        }
        if let Some(index) = self.link
            && let Err(error) = Rtnetlink::open().and_then(|mut host| veth::delete(&mut host, index))
        {
            log("a link", &error);
        }
        let taken_back = if self.exposed {
            context.pool.release(self.owner).map(drop)
        } else {
            context.pool.cancel(self.owner)
        };
        if let Err(error) = taken_back {
            log("an address", &error);
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.roll_back();
        }
    }
}

/// Whether waiting for a moment may help.
fn may_pass(refused: &Refused) -> bool {
    matches!(refused, Refused::Exhausted(_) | Refused::Elsewhere { .. } | Refused::Releasing { .. })
}

/// Makes the pair. A host side of that name is left from an earlier try of the same sandbox and makes room.
fn create(veth: &PodVeth, host: &mut Rtnetlink, pod: &Pod) -> Result<u32, crate::link::Error> {
    match veth.create(host, pod.netns()) {
        Err(error) if error.errno() == Some(nix::libc::EEXIST) => match seen::link(host, &veth.host_name)? {
            Some(old) => {
                veth::delete(host, old.index)?;
                veth.create(host, pod.netns())
            }
            None => Err(error),
        },
        made => made,
    }
}

//! One CNI call from its first byte to its last, and what the server knows across calls.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use netkeel_core::{address::Address, ipam::Owner};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;
use tokio::{runtime::Handle, time::timeout};

use super::{
    CniContext, add, check,
    config::NetworkConfig,
    datapath::PodLink,
    del,
    failure::{Failure, INVALID_ENVIRONMENT, IO, KERNEL, TRY_AGAIN, UNAVAILABLE, UNDECODABLE},
    heartbeat,
    journal::Journal,
    leaks::Leaks,
    protocol::{self, Reply, Request, Verb},
    traced::Plugin,
    wire,
};
use crate::{
    ipam::Error as IpamError,
    link::{self, netlink::Rtnetlink, veth::PodVeth},
    node::NodeState,
    policy::PodRef,
};

/// How long an ADD waits for a node that is about to be ready.
const READY_WAIT: Duration = Duration::from_secs(4);
/// How long one read or write on a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Locks for calls of one pod; two pods may share one, which only delays.
const LOCKS: usize = 64;

pub(super) struct Server {
    pub(super) context: CniContext,
    pub(super) journal: Journal,
    pub(super) runtime: Handle,
    locks: [Mutex<()>; LOCKS],
    pub(super) leaks: Mutex<Leaks>,
    pub(super) ports: Ports,
    /// Since when the node has not been ready; `None` while it is.
    unready: Mutex<Option<Instant>>,
}

/// Host ports.
pub(super) struct Ports {
    /// Held by whoever changes them.
    pub(super) one: Mutex<()>,
    /// There may be some in the kernel.
    pub(super) there: AtomicBool,
}

/// One call, decoded.
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) config: NetworkConfig,
    pub(super) owner: Owner,
    descriptors: Vec<OwnedFd>,
}

/// The pod's side of a call. Dropped at its end: a descriptor that is kept keeps the pod's namespace alive.
pub(super) struct Pod {
    netns: OwnedFd,
    pub(super) socket: Rtnetlink,
}

impl Pod {
    pub(super) fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }
}

impl Call {
    fn new(message: &[u8], descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        let request: Request = serde_json::from_slice(message).map_err(|error| {
            Failure::caused(UNDECODABLE, "the plugin's request cannot be understood", &error)
        })?;
        if request.protocol > protocol::VERSION {
            return Err(Failure::new(
                TRY_AGAIN,
                "the plugin is newer than the agent, which is being replaced",
            ));
        }
        let config = serde_json::from_value(request.config.clone()).map_err(|error| {
            Failure::caused(UNDECODABLE, "the network configuration cannot be understood", &error)
        })?;
        let owner =
            Owner { container_id: request.container_id.clone(), interface: request.interface.clone() };
        Ok(Self { request, config, owner, descriptors })
    }

    /// The pod's descriptors, once.
    pub(super) fn pod(&mut self) -> Result<Pod, Failure> {
        let mut descriptors = std::mem::take(&mut self.descriptors).into_iter();
        let (Some(netns), Some(socket)) = (descriptors.next(), descriptors.next()) else {
            return Err(Failure::new(INVALID_ENVIRONMENT, "the pod's namespace did not come with the call"));
        };
        Ok(Pod { netns, socket: Rtnetlink::over(socket)? })
    }
}

impl Server {
    pub(super) fn new(context: CniContext, runtime: Handle) -> Self {
        Self {
            journal: Journal::new(&context.state_folder),
            context,
            runtime,
            locks: std::array::from_fn(|_| Mutex::new(())),
            leaks: Mutex::default(),
            ports: Ports { one: Mutex::new(()), there: AtomicBool::new(true) },
            unready: Mutex::new(Some(Instant::now())),
        }
    }

    /// Takes one call and answers it. Whatever fails here is logged; the plugin tries again or gives up by itself.
    pub(super) fn answer(self: &Arc<Self>, stream: &UnixStream) {
        if let Err(error) = self.exchange(stream) {
            tracing::warn!(%error, "a CNI connection broke off");
        }
    }

    fn exchange(self: &Arc<Self>, stream: &UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = getsockopt(stream, PeerCredentials)?;
        if peer.uid() != 0 {
            return Err(io::Error::other(format!(
                "user {} may not call the agent, only root may",
                peer.uid()
            )));
        }
        let (message, descriptors) = wire::receive(stream)?;
        let done = Call::new(&message, descriptors).and_then(|call| self.traced(call));
        let reply = done.map_or_else(Reply::Failed, Reply::Done);
        wire::send(stream, &serde_json::to_vec(&reply)?, &[])
    }

    fn traced(self: &Arc<Self>, call: Call) -> Result<Option<Value>, Failure> {
        let (verb, pod) = (call.request.verb.as_str(), call.request.pod());
        let plugin = Plugin::new(&call.request);
        let span = plugin.as_ref().map_or_else(tracing::Span::none, Plugin::agent_span);
        let _inside = span.enter();
        let before = since_start(call.request.started_unix_nanos);
        let start = Instant::now();
        let done = self.handle(call);
        let (micros, plugin_micros) = (start.elapsed().as_micros(), before.as_micros());
        match &done {
            Ok(_) if verb == "STATUS" => {}
            Ok(_) => tracing::info!(verb, pod, micros, plugin_micros, "CNI call done"),
            Err(failure) => {
                let Failure { code, msg, details } = failure;
                tracing::error!(verb, pod, micros, code, details, "CNI call failed: {msg}");
            }
        }
        if let Some(plugin) = plugin {
            plugin.end(done.as_ref().err());
        }
        done
    }

    fn handle(self: &Arc<Self>, call: Call) -> Result<Option<Value>, Failure> {
        match call.request.verb {
            Verb::Status => self.status().map(|()| None),
            Verb::Gc => del::collect(self, &call).map(|()| None),
            Verb::Add => {
                let _one = self.lock(&call.owner.clone());
                add::add(self, call).map(Some)
            }
            Verb::Del => {
                let _one = self.lock(&call.owner);
                del::del(self, &call.owner).map(|()| None)
            }
            Verb::Check => {
                let _one = self.lock(&call.owner.clone());
                check::check(self, call).map(|()| None)
            }
        }
    }

    /// One call for a pod at a time.
    pub(super) fn lock(&self, owner: &Owner) -> MutexGuard<'_, ()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(owner);
        let index = usize::try_from(hash % LOCKS as u64).unwrap_or_default();
        self.locks[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's state, waited for shortly where it is not ready.
    pub(super) fn ready_node(&self) -> Result<Arc<NodeState>, Failure> {
        let mut node = self.context.node.clone();
        let ready = |state: &Option<Arc<NodeState>>| state.as_ref().is_some_and(|state| state.ready);
        let waited = self.runtime.block_on(timeout(READY_WAIT, node.wait_for(ready)));
        let state = waited.ok().and_then(Result::ok).and_then(|state| state.clone());
        state.ok_or_else(|| {
            let msg = format!("the agent of node {} is not ready", self.context.node_name);
            let details = "its NodeNetwork has not been applied or the Services are not known yet: see its \
                           conditions and the agent's log"
                .to_owned();
            Failure { code: TRY_AGAIN, msg, details }
        })
    }

    pub(super) fn node_changed(&self, state: Option<&NodeState>) {
        let ready = state.is_some_and(|state| state.ready);
        let mut unready = self.unready.lock().unwrap_or_else(PoisonError::into_inner);
        *unready = if ready { None } else { unready.or_else(|| Some(Instant::now())) };
        self.context.pool.follow(&self.context.node);
    }

    fn status(&self) -> Result<(), Failure> {
        let unready = *self.unready.lock().unwrap_or_else(PoisonError::into_inner);
        status(&self.context.node_name, unready.map(|since| since.elapsed()))
    }
}

/// What STATUS says of a node that has not been ready for some time; `None` is one that is.
fn status(node: &str, unready: Option<Duration>) -> Result<(), Failure> {
    match unready.filter(|time| *time > heartbeat::ABSENCE) {
        None => Ok(()),
        Some(time) => {
            let msg = format!("the agent of node {node} has not been ready for {} s", time.as_secs());
            let details = format!("see the conditions of NodeNetwork {node}");
            Err(Failure { code: UNAVAILABLE, msg, details })
        }
    }
}

pub(super) fn datapath_link(veth: &PodVeth, index: u32, pod: PodRef) -> PodLink {
    PodLink {
        pod,
        host_name: veth.host_name.clone(),
        host_ifindex: index,
        pod_address: veth.addresses.first().map_or(Address::UNSPECIFIED, Address::from),
        other_address: veth.addresses.iter().nth(1).map(Address::from),
        pod_mac: veth.pod_mac,
        host_mac: veth.host_mac,
        shaped: veth.bandwidth.ingress.is_some(),
    }
}

/// Time that passed in the plugin.
fn since_start(started_unix_nanos: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(started_unix_nanos))
}

impl From<link::Error> for Failure {
    fn from(error: link::Error) -> Self {
        Self::caused(KERNEL, "the kernel refused a step of the pod's link", &error)
    }
}

impl From<super::datapath::Error> for Failure {
    fn from(error: super::datapath::Error) -> Self {
        Self::caused(KERNEL, "the kernel refused the pod's entry in the data path", &error)
    }
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        Self::caused(IO, "the pod's address could not be written down", &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_fails_only_when_the_node_has_not_been_ready_for_minutes_and_says_where_to_look() {
        assert!(status("node-1", None).is_ok());
        assert!(status("node-1", Some(heartbeat::ABSENCE)).is_ok());
        let failure = status("node-1", Some(heartbeat::ABSENCE + Duration::from_secs(1))).unwrap_err();
        assert_eq!(failure.code, UNAVAILABLE);
        assert_eq!(failure.msg, "the agent of node node-1 has not been ready for 181 s");
        assert!(failure.details.contains("NodeNetwork node-1"), "{}", failure.details);
    }
}

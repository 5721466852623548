//! The queues that limit a pod's rates: what ADD says when it cannot make one, and whether they are there. Nothing is asked about a pod
//! without limits.

use super::failure::{BROKEN, Failure, IMPOSSIBLE, KERNEL, chain};
use crate::{
    bandwidth::{Direction, Limit, Refused},
    link::{
        self,
        netlink::Rtnetlink,
        shaper::{self, KIND},
        veth::{PodVeth, seen},
    },
};

/// What a pod is told that asks for impossible rates.
pub(super) fn impossible(pod: &str, refused: &Refused) -> Failure {
    let details = "correct the annotations kubernetes.io/ingress-bandwidth and kubernetes.io/egress-bandwidth of the pod";
    let msg = format!("pod {pod} cannot have its limits of bandwidth: {refused}");
    Failure { code: IMPOSSIBLE, msg, details: details.to_owned() }
}

/// What a pod is told whose link could not be set up. A kernel without `tbf` does not know the kind (`ENOENT`).
pub(super) fn failed(node: &str, error: link::Error) -> Failure {
    if !shaper::is_unknown(&error) {
        return error.into();
    }
    let msg = format!(
        "the pod asks for a limit of its bandwidth, and the kernel of node {node} has no {KIND} to keep one: give it \
         CONFIG_NET_SCH_TBF (module sch_tbf), or take the annotations from the pod"
    );
    Failure { code: KERNEL, msg, details: chain(&error) }
}

/// Whether a limit is kept by the queue of this link, as CHECK says it.
pub(super) fn check(
    socket: &mut Rtnetlink,
    limit: Option<Limit>,
    link: &seen::Link,
    direction: Direction,
) -> Result<(), Failure> {
    let Some(limit) = limit else { return Ok(()) };
    let (name, queue) = (&link.name, &link.queue);
    let whose = match direction {
        Direction::Ingress => format!("link {name} does not limit what is sent to the pod to {limit}"),
        Direction::Egress => format!("link {name} in the pod does not limit what it sends to {limit}"),
    };
    if queue != KIND {
        return Err(Failure::new(BROKEN, format!("{whose}: its queue is {queue}, not {KIND}")));
    }
    if holds(socket, limit, link)? {
        return Ok(());
    }
    Err(Failure::new(BROKEN, format!("{whose}: its queue {KIND} has another rate")))
}

/// Whether the host side's queue keeps the limit on what is sent to the pod.
pub(super) fn is_right(veth: &PodVeth, link: &seen::Link) -> Result<bool, link::Error> {
    match veth.bandwidth.ingress {
        None => Ok(true),
        Some(limit) => holds(&mut Rtnetlink::open()?, limit, link),
    }
}

fn holds(socket: &mut Rtnetlink, limit: Limit, link: &seen::Link) -> Result<bool, link::Error> {
    let held = shaper::held(socket, link.index)?;
    Ok(held.is_some_and(|held| held.is(&limit.bucket(link.mtu))))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_kernel_without_the_queue_is_named_and_no_other_refusal_is_taken_for_it() {
        let refused = |what: &str, errno| link::Error::Refused {
            what: what.to_owned(),
            source: io::Error::from_raw_os_error(errno),
        };
        let step = "limit what the pod sends";
        let unknown = failed("node-1", refused(step, nix::libc::ENOENT));
        assert_eq!(unknown.code, KERNEL);
        assert!(unknown.msg.contains("the kernel of node node-1 has no tbf"), "{unknown}");
        assert!(unknown.details.contains("limit what the pod sends: No such file"), "{}", unknown.details);
        for other in [refused(step, nix::libc::EINVAL), refused("bring up", nix::libc::ENOENT)] {
            let other = failed("node-1", other);
            assert!(!other.msg.contains("tbf"), "{other}");
        }
    }
}

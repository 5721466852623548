//! Proof that full-size packets reach other nodes: agents send them to each other, from overlay address to overlay address, so over the way
//! that pods' packets take, and a node answers each with a few bytes. A size that does not arrive is searched for the largest that does.

mod echo;
mod round;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use netkeel_core::address::Addresses;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use self::echo::Echo;
pub use self::{
    echo::PORT,
    round::{Asked, Found, Search, Turn, next},
};

/// Nodes that are asked in a round, whatever the size of the cluster.
const SAMPLE: usize = 8;
/// Nodes that are named.
const NAMED: usize = 3;

/// How often it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two rounds.
    pub pause: Duration,
    /// After a change of the node's network, before it is asked what that means.
    pub settle: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: Duration::from_mins(1), settle: Duration::from_secs(5) }
    }
}

/// Who is asked, and with which packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The node's own addresses on the overlay.
    pub own: Addresses,
    /// MTU of pods, bytes.
    pub mtu: u32,
    /// Other nodes by name.
    pub peers: BTreeMap<Arc<str>, Peer>,
}

impl Targets {
    /// What goes to every node, bytes.
    fn least(&self) -> u32 {
        self.peers.values().map(|peer| peer.mtu).min().unwrap_or(self.mtu)
    }
}

/// Another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its addresses on the overlay.
    pub addresses: Addresses,
    /// The largest packets that go there, bytes: the MTU of pods, or that of the tunnel where there is one and it carries less.
    pub mtu: u32,
}

/// A node that full-size packets do not reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its address on the overlay.
    pub address: IpAddr,
    /// What was sent, bytes.
    pub full: u32,
    /// The largest that arrived, bytes.
    pub fits: u32,
}

/// What is known of the ways to other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The size that was tried with all nodes, bytes; 0 before any has answered.
    pub mtu: u32,
    /// Nodes that it does not reach.
    pub too_large: BTreeMap<Arc<str>, TooLarge>,
    /// Questions that a full-size packet carried and that were answered.
    pub arrived: u64,
    /// Those that were not, of nodes that answer to smaller ones.
    pub lost: u64,
    /// Nodes that answered to nothing.
    pub silent: u64,
}

impl Proof {
    /// What is wrong and what to do; `None` where nothing is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let smallest = self.too_large.values().map(|it| it.fits).min()?;
        let named: Vec<String> = self.too_large.iter().take(NAMED).map(told).collect();
        let more = self.too_large.len() - named.len();
        let and_more =
            if more > 0 { format!(", and {more} more nodes do not get all") } else { String::new() };
        Some(format!(
            "{}{and_more}: set spec.podNetwork.mtu of ClusterNetwork default to {smallest}, or let the network between the nodes carry \
             what their interfaces say",
            named.join(", ")
        ))
    }

    /// Takes in what was found with packets of `full` bytes. A node that answers nothing says nothing of sizes either.
    fn note(&mut self, name: &Arc<str>, address: IpAddr, full: u32, found: Found) {
        self.too_large.retain(|of, it| of != name || it.address != address);
        match found {
            Found::Arrives => self.arrived += 1,
            Found::Silent => self.silent += 1,
            Found::UpTo(fits) => {
                self.lost += 1;
                self.too_large.insert(name.clone(), TooLarge { address, full, fits });
            }
        }
    }
}

fn told((name, it): (&Arc<str>, &TooLarge)) -> String {
    format!(
        "packets of {} bytes do not arrive at node {name} ({}), those of {} do",
        it.full, it.address, it.fits
    )
}

/// Answers and asks, round after round, until `stop`.
pub async fn prove(
    targets: watch::Receiver<Targets>,
    proof: watch::Sender<Proof>,
    pace: Pace,
    stop: CancellationToken,
) {
    let prover = Prover { targets, proof, pace };
    stop.run_until_cancelled_owned(prover.run()).await;
}

struct Prover {
    targets: watch::Receiver<Targets>,
    proof: watch::Sender<Proof>,
    pace: Pace,
}

impl Prover {
    /// Begins anew when the node's addresses or the MTU change: all that was learned may be different then.
    async fn run(mut self) {
        let mut turn = Turn::default();
        loop {
            let begun = self.targets.borrow_and_update().clone();
            let mut targets = self.targets.clone();
            let is_other = |now: &Targets| (now.own, now.mtu) != (begun.own, begun.mtu);
            let work = async {
                match Echo::open(begun.own, &self.targets) {
                    Ok(echo) => self.rounds(&echo, &mut turn).await,
                    Err(error) => {
                        // The addresses are on their way, or the last sockets not closed yet.
                        tracing::debug!(%error, "full-size packets are not tried yet");
                        sleep(self.pace.settle).await;
                    }
                }
            };
            let ends = async { targets.wait_for(is_other).await.is_err() };
            tokio::select! {
                ends = ends => if ends { return },
                () = work => {}
            }
        }
    }

    async fn rounds(&self, echo: &Echo, turn: &mut Turn) {
        sleep(self.pace.settle).await;
        loop {
            let targets = self.targets.borrow().clone();
            self.proof.send_if_modified(|proof| forget(proof, &targets));
            let doubted: BTreeSet<Arc<str>> = self.proof.borrow().too_large.keys().cloned().collect();
            for name in next(targets.peers.keys(), turn, &doubted, SAMPLE) {
                let Peer { addresses, mtu } = targets.peers.get(&name).copied().unwrap_or_default();
                for address in addresses.iter().filter(|address| targets.own.like(*address).is_some()) {
                    let found = search(echo, Search::new(address, mtu), address).await;
                    self.proof.send_modify(|proof| {
                        proof.note(&name, address, mtu, found);
                        if found != Found::Silent {
                            proof.mtu = targets.least();
                        }
                    });
                }
                turn.pass(name, &doubted);
            }
            sleep(self.pace.pause).await;
        }
    }
}

async fn search(echo: &Echo, mut search: Search, address: IpAddr) -> Found {
    loop {
        match search.size() {
            Ok(size) => search = search.after(echo.ask(address, size).await),
            Err(found) => return found,
        }
    }
}

/// Nodes that are gone, and another MTU of pods or of the way to a node, take with them what was known.
fn forget(proof: &mut Proof, targets: &Targets) -> bool {
    let before = proof.clone();
    if proof.mtu != targets.least() {
        proof.mtu = 0;
    }
    let is_asked = |it: &TooLarge, of: &Peer| of.addresses.contains(it.address) && of.mtu == it.full;
    proof.too_large.retain(|name, it| targets.peers.get(name).is_some_and(|of| is_asked(it, of)));
    *proof != before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_full_packets_do_not_reach_are_named_with_a_size_that_does() {
        let mut proof = Proof::default();
        assert_eq!(proof.problem(), None);
        let address = |n: u8| IpAddr::from([10, 244, n, 0]);
        for n in 1..=5 {
            proof.note(&format!("n{n}").into(), address(n), 1450, Found::UpTo(1400 - u32::from(n)));
        }
        let told = proof.problem().unwrap();
        assert!(
            told.starts_with("packets of 1450 bytes do not arrive at node n1 (10.244.1.0), those of 1399 do"),
            "{told}"
        );
        assert!(
            told.contains("and 2 more nodes") && told.contains("ClusterNetwork default to 1395,"),
            "{told}"
        );
        for n in 1..=5 {
            proof.note(&format!("n{n}").into(), address(n), 1450, Found::Arrives);
        }
        assert_eq!((proof.problem(), proof.arrived, proof.lost), (None, 5, 5));
    }

    #[test]
    fn what_was_known_of_another_mtu_or_of_nodes_that_are_gone_is_forgotten() {
        let address = IpAddr::from([10, 244, 1, 0]);
        let mut targets = Targets { mtu: 1450, ..Targets::default() };
        let peer = Peer { addresses: Addresses::of([address]), mtu: 1450 };
        targets.peers.insert("n1".into(), peer);
        let mut proof = Proof { mtu: 1450, ..Proof::default() };
        proof.note(&"n1".into(), address, 1450, Found::UpTo(1400));
        assert!(!forget(&mut proof, &targets) && proof.problem().is_some());
        let mut other = proof.clone();
        let peers = BTreeMap::from([("n1".into(), Peer { mtu: 1400, ..peer })]);
        assert!(forget(&mut other, &Targets { peers, ..targets.clone() }));
        assert_eq!((other.mtu, other.problem()), (0, None), "another size goes there");
        targets.peers.clear();
        assert!(forget(&mut proof, &targets) && proof.problem().is_none());
    }

    #[test]
    fn a_node_that_says_nothing_is_another_matter() {
        let mut proof = Proof::default();
        let [one, two] = [1, 2].map(|n| IpAddr::from([10, 244, n, 0]));
        proof.note(&"n1".into(), one, 1450, Found::Silent);
        assert_eq!((proof.problem(), proof.mtu, proof.silent), (None, 0, 1));
        proof.note(&"n1".into(), one, 1450, Found::UpTo(1400));
        proof.note(&"n1".into(), two, 1450, Found::Silent);
        assert!(proof.problem().is_some(), "the other address is silent");
        proof.note(&"n1".into(), one, 1450, Found::Silent);
        assert_eq!((proof.problem(), proof.lost, proof.silent), (None, 1, 3));
    }
}

//! Which nodes are asked next, and which sizes. No input or output of its own.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// IPv4 packets of this size pass everywhere (RFC 791, section 3.1).
const LEAST_IPV4: u32 = 576;
/// The same of IPv6 (RFC 8200, section 5).
const LEAST_IPV6: u32 = 1280;

/// What became of one packet of some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It arrived, and the answer did.
    Arrived,
    /// No answer came, or the size is more than the interface takes.
    Lost,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Full-size packets arrive.
    Arrives,
    /// Packets up to this size arrive, bytes.
    UpTo(u32),
    /// Not even small packets are answered: an agent that is away or older, or no network at all.
    Silent,
}

/// A search for the largest packet that arrives at a node: full size first, and where that is lost and small packets are not, by halves. What
/// was lost first is asked again at the end: a busy moment is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    full: u32,
    /// Arrives, as far as is known.
    fits: u32,
    /// Is lost.
    lost: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Full,
    Least,
    Between,
    Again,
    Over(Found),
}

impl Search {
    /// A search at the node with this address for packets of at most `full` bytes.
    #[must_use]
    pub fn new(to: IpAddr, full: u32) -> Self {
        let least = if to.is_ipv4() { LEAST_IPV4 } else { LEAST_IPV6 };
        Self { full, fits: least.min(full), lost: full, stage: Stage::Full }
    }

    /// The size to be asked next.
    ///
    /// # Errors
    /// What was found, when there is nothing more to ask.
    pub fn size(&self) -> Result<u32, Found> {
        match self.stage {
            Stage::Full | Stage::Again => Ok(self.full),
            Stage::Least => Ok(self.fits),
            Stage::Between => Ok(self.fits.midpoint(self.lost)),
            Stage::Over(found) => Err(found),
        }
    }

    /// The search after what became of the size that was asked.
    #[must_use]
    pub fn after(self, asked: Asked) -> Self {
        let (mut fits, mut lost) = (self.fits, self.lost);
        let stage = match (self.stage, asked) {
            (Stage::Full | Stage::Again, Asked::Arrived) => Stage::Over(Found::Arrives),
            (Stage::Full, Asked::Lost) if fits < self.full => Stage::Least,
            (Stage::Full | Stage::Least, Asked::Lost) => Stage::Over(Found::Silent),
            (Stage::Again, Asked::Lost) => Stage::Over(Found::UpTo(fits)),
            (Stage::Over(found), _) => Stage::Over(found),
            (stage @ (Stage::Least | Stage::Between), asked) => {
                if stage == Stage::Between {
                    let middle = fits.midpoint(lost);
                    *(if asked == Asked::Arrived { &mut fits } else { &mut lost }) = middle;
                }
                if lost - fits > 1 { Stage::Between } else { Stage::Again }
            }
        };
        Self { fits, lost, stage, ..self }
    }
}

/// Who was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Of those that are not doubted.
    pub last: Option<Arc<str>>,
    /// Of those that are.
    pub last_doubted: Option<Arc<str>>,
}

impl Turn {
    /// The turn after that of a node.
    pub fn pass(&mut self, node: Arc<str>, doubted: &BTreeSet<Arc<str>>) {
        let last = if doubted.contains(&node) { &mut self.last_doubted } else { &mut self.last };
        *last = Some(node);
    }
}

/// At most `count` of `nodes`, which are in their order: for one half those that are doubted, then others, both from the ones behind the
/// last of their kind, round and round.
#[must_use]
pub fn next<'a>(
    nodes: impl Iterator<Item = &'a Arc<str>>,
    turn: &Turn,
    doubted: &BTreeSet<Arc<str>>,
    count: usize,
) -> Vec<Arc<str>> {
    let (suspects, others): (Vec<_>, Vec<_>) = nodes.partition(|node| doubted.contains(*node));
    let mut chosen = behind(suspects, turn.last_doubted.as_ref(), count.div_ceil(2));
    chosen.extend(behind(others, turn.last.as_ref(), count - chosen.len()));
    chosen
}

fn behind(nodes: Vec<&Arc<str>>, last: Option<&Arc<str>>, count: usize) -> Vec<Arc<str>> {
    let (behind, before): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| Some(*node) > last);
    behind.into_iter().chain(before).take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches over a way that carries packets up to `carries` bytes; returns what was found and the sizes that were asked.
    fn search(to: &str, full: u32, carries: u32) -> (Found, Vec<u32>) {
        let (mut search, mut asked) = (Search::new(to.parse().unwrap(), full), Vec::new());
        loop {
            match search.size() {
                Err(found) => return (found, asked),
                Ok(size) => {
                    asked.push(size);
                    search = search.after(if size <= carries { Asked::Arrived } else { Asked::Lost });
                }
            }
        }
    }

    #[test]
    fn the_largest_size_that_arrives_is_found_with_few_packets() {
        assert_eq!(search("10.244.1.0", 1450, 9000), (Found::Arrives, vec![1450]));
        assert_eq!(search("10.244.1.0", 1450, 0), (Found::Silent, vec![1450, 576]));
        assert_eq!(search("fd00::1", 1450, 1279), (Found::Silent, vec![1450, 1280]));
        assert_eq!(search("fd00::1", 1280, 1000), (Found::Silent, vec![1280]));
        for carries in [576, 577, 1000, 1399, 1400, 1448, 1449] {
            let (found, asked) = search("10.244.1.0", 1450, carries);
            assert_eq!(found, Found::UpTo(carries));
            assert!(asked.len() <= 14, "{carries}: {asked:?}");
        }
        for carries in 1280..1430 {
            assert_eq!(search("fd00::1", 1430, carries).0, Found::UpTo(carries));
        }
        let (found, asked) = search("10.244.1.0", 8950, 1450);
        assert_eq!(found, Found::UpTo(1450), "a jumbo frame that a switch does not carry");
        assert!(asked.len() <= 17, "{asked:?}");
    }

    #[test]
    fn one_lost_packet_of_a_busy_moment_is_no_verdict() {
        let mut search = Search::new(IpAddr::from([10, 244, 1, 0]), 1450).after(Asked::Lost);
        while search.size().is_ok() {
            search = search.after(Asked::Arrived);
        }
        assert_eq!(search.size(), Err(Found::Arrives));
    }

    #[test]
    fn every_node_has_its_turn_and_doubted_ones_more_often() {
        let nodes: BTreeSet<Arc<str>> = (0..20).map(|n| Arc::from(format!("n{n:02}"))).collect();
        let doubted =
            |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<Arc<str>>>();
        // None is doubted, then all are, and half as many asked in a round.
        for (doubted, asked, rounds) in [(doubted(&[]), 4, 5), (nodes.clone(), 2, 10)] {
            let (mut seen, mut turn) = (BTreeSet::new(), Turn::default());
            for _ in 0..rounds {
                let chosen = next(nodes.iter(), &turn, &doubted, 4);
                assert_eq!(chosen.len(), asked);
                for node in chosen {
                    seen.insert(node.clone());
                    turn.pass(node, &doubted);
                }
            }
            assert_eq!(seen, nodes, "all of them after {rounds} rounds");
        }
        let three = doubted(&["n03", "n07", "n11"]);
        let mut turn = Turn { last: Some("n18".into()), last_doubted: None };
        for expected in [["n03", "n07", "n19", "n00"], ["n11", "n03", "n01", "n02"]] {
            let chosen = next(nodes.iter(), &turn, &three, 4);
            assert_eq!(chosen.iter().map(|name| &**name).collect::<Vec<_>>(), expected);
            for node in chosen {
                turn.pass(node, &three);
            }
        }
        let first = Turn::default();
        assert_eq!(next(nodes.iter().take(2), &first, &doubted(&[]), 8).len(), 2, "no node twice");
        assert!(next(nodes.iter().take(0), &first, &three, 8).is_empty());
    }
}

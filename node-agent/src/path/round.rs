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

/// At most `count` of `nodes`, which are in their order: for one half those that are doubted, then the ones behind `last`, round and round.
#[must_use]
pub fn next<'a>(
    nodes: impl Iterator<Item = &'a Arc<str>> + Clone,
    last: Option<&Arc<str>>,
    doubted: &BTreeSet<Arc<str>>,
    count: usize,
) -> Vec<Arc<str>> {
    let mut chosen: Vec<Arc<str>> =
        nodes.clone().filter(|node| doubted.contains(*node)).take(count.div_ceil(2)).cloned().collect();
    let others = nodes.filter(|node| !doubted.contains(*node));
    let (behind, before): (Vec<_>, Vec<_>) = others.partition(|node| Some(*node) > last);
    let rest = count - chosen.len();
    chosen.extend(behind.into_iter().chain(before).take(rest).cloned());
    chosen
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
        let (mut seen, mut last) = (BTreeSet::new(), None);
        for _ in 0..5 {
            let chosen = next(nodes.iter(), last.as_ref(), &doubted(&[]), 4);
            assert_eq!(chosen.len(), 4);
            last = chosen.last().cloned();
            seen.extend(chosen);
        }
        assert_eq!(seen, nodes, "all of them after five rounds");
        let two = doubted(&["n03", "n07", "n11"]);
        let chosen = next(nodes.iter(), Some(&"n18".into()), &two, 4);
        assert_eq!(chosen.iter().map(|name| &**name).collect::<Vec<_>>(), ["n03", "n07", "n19", "n00"]);
        assert_eq!(next(nodes.iter().take(2), None, &doubted(&[]), 8).len(), 2, "no node twice");
        assert!(next(nodes.iter().take(0), None, &two, 8).is_empty());
    }
}

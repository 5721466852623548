//! Which blocks a node gives back, one step a time (docs/adr/0010): a block is marked, its agent says that it is empty, it is taken
//! out of the NodeNetwork, the agent says that it has applied that, and only then its claim is deleted.

use ipnet::IpNet;
use netkeel_crds::{
    AddressBlock, NodeNetwork,
    cluster_network::AddressPool,
    node_network::{BlockRelease, NodePool},
};

use super::{
    Step,
    nodes::has_applied,
    pools::{Holdings, PLENTY, RESERVE, is_v4},
};
use crate::observed::Node;

/// What a node gives back.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// Blocks on their way back, as the NodeNetwork has to name them.
    pub(super) releasing: Vec<BlockRelease>,
    /// Those of them that are not among its blocks any more.
    pub(super) out: Vec<IpNet>,
    /// Blocks that were on their way back and stay after all.
    pub(super) kept: Vec<IpNet>,
    /// Deletes the claims that can go.
    pub(super) steps: Vec<Step>,
}

impl Returns {
    /// Whether a block is on its way back.
    pub(super) fn has(&self, block: &IpNet) -> bool {
        self.releasing.iter().any(|release| release.cidr == *block)
    }
}

/// What a node with these claims gives back. `all_known` is false while a claim cannot be read: then everything stays as it is.
pub(super) fn plan(
    node: &Node,
    network: Option<&NodeNetwork>,
    (owned, all_known): (&[&AddressBlock], bool),
    (pools, in_force): (&[AddressPool], &[NodePool]),
) -> Returns {
    let Some(network) = network else { return Returns::default() };
    if !all_known {
        return unchanged(network);
    }
    let marks = &network.spec.releasing;
    let marked = |block: &AddressBlock| marks.iter().any(|mark| mark.cidr == block.spec.cidr);
    let active: Vec<_> = owned.iter().copied().filter(|block| !marked(block)).collect();
    let holdings = Holdings { owned: &active, network: Some(network) };
    let giving = Giving { node, network, holdings, pools, in_force };
    let mut returns = Returns::default();
    for mark in marks {
        let claim = owned.iter().find(|block| block.spec.cidr == mark.cidr);
        let Some(claim) = claim else { continue };
        giving.go_on(mark, claim, &mut returns);
    }
    giving.mark(&mut returns);
    returns
}

/// A node, and whether it gives something back.
struct Giving<'a> {
    node: &'a Node,
    network: &'a NodeNetwork,
    holdings: Holdings<'a>,
    /// The spec's.
    pools: &'a [AddressPool],
    /// Those that the nodes know.
    in_force: &'a [NodePool],
}

impl Giving<'_> {
    /// The next step of a block that is marked.
    fn go_on(&self, mark: &BlockRelease, claim: &AddressBlock, returns: &mut Returns) {
        let block = mark.cidr;
        if !self.network.spec.blocks.contains(&block) {
            returns.out.push(block);
            returns.steps.extend(return_block(claim).filter(|_| has_applied(self.network)));
        } else if !self.drains(&block) && self.does_without(&block, RESERVE) == Some(false) {
            returns.kept.push(block);
            return;
        } else if has_applied(self.network) && self.told().contains(mark) {
            returns.out.push(block);
        }
        returns.releasing.push(mark.clone());
    }

    /// Marks more: of a pool that drains all, but for the last block of a family, in which the node has its own address on the overlay;
    /// else of each CIDR of a pool one at a time, those that came last first.
    fn mark(&self, returns: &mut Returns) {
        let Some(ticket) = &self.network.metadata.resource_version else { return };
        let mut done: Vec<IpNet> = Vec::new();
        for claim in self.last_first() {
            let block = claim.spec.cidr;
            if returns.has(&block) {
                continue;
            }
            if self.drains(&block) && self.has_another(&block, returns) {
                returns.releasing.push(BlockRelease { cidr: block, ticket: ticket.clone() });
                continue;
            }
            let spare = !self.is_first(&block)
                && self.holdings.is_idle(&block)
                && self.does_without(&block, PLENTY) == Some(true);
            let cidr = self.pools.iter().flat_map(|pool| &pool.cidrs).find(|cidr| cidr.contains(&block));
            if spare && !cidr.is_some_and(|cidr| done.contains(cidr)) {
                done.extend(cidr);
                returns.releasing.push(BlockRelease { cidr: block, ticket: ticket.clone() });
            }
        }
    }

    /// The claims of the node's blocks that are not marked.
    fn last_first(&self) -> impl Iterator<Item = &AddressBlock> {
        let blocks = self.network.spec.blocks.iter().rev();
        blocks.filter_map(|block| self.holdings.owned.iter().copied().find(|claim| claim.spec.cidr == *block))
    }

    /// Whether no pod gets addresses of the block's pool any more.
    fn drains(&self, block: &IpNet) -> bool {
        let pool = self.in_force.iter().find(|pool| pool.cidrs.iter().any(|cidr| cidr.contains(block)));
        pool.is_some_and(|pool| !pool.state.is_active())
    }

    /// Whether the node keeps another block of the family.
    fn has_another(&self, block: &IpNet, returns: &Returns) -> bool {
        let mut others =
            self.network.spec.blocks.iter().filter(|other| *other != block && !returns.has(other));
        others.any(|other| is_v4(other) == is_v4(block))
    }

    /// Whether the node has its own address on the overlay in the block.
    fn is_first(&self, block: &IpNet) -> bool {
        self.network.spec.blocks.iter().find(|other| is_v4(other) == is_v4(block)) == Some(block)
    }

    fn does_without(&self, block: &IpNet, reserve: u32) -> Option<bool> {
        self.holdings.does_without(block, &self.node.labels, self.pools, reserve)
    }

    fn told(&self) -> &[BlockRelease] {
        self.network.status.as_ref().map_or(&[], |status| &status.released)
    }
}

fn unchanged(network: &NodeNetwork) -> Returns {
    let releasing = network.spec.releasing.clone();
    let blocks = releasing.iter().map(|release| release.cidr);
    let out = blocks.filter(|block| !network.spec.blocks.contains(block)).collect();
    Returns { releasing, out, ..Returns::default() }
}

fn return_block(block: &AddressBlock) -> Option<Step> {
    Some(Step::ReturnBlock {
        name: block.metadata.name.clone()?,
        uid: block.metadata.uid.clone()?,
        resource_version: block.metadata.resource_version.clone()?,
    })
}

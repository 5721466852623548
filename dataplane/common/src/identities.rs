//! `IDENTITIES`: who has an address: pods of the whole cluster, and nodes. A hash from an [`Address`](crate::Address) to a number
//! that means the same labels in every policy table of this node. An address that is not there is looked for in
//! [`cidrs`](crate::cidrs), and is [`WORLD`] when it is in neither.

/// Name of the map, without the layout version.
pub const NAME: &str = "IDENTITIES";
/// Pods and nodes of the cluster.
pub const MAX: u32 = 262_144;

/// In a rule: everybody.
pub const ANY: u32 = 0;
/// An address that is nobody's and in no CIDR of a policy.
pub const WORLD: u32 = 1;
/// An address of a node; that of a pod's own node too.
pub const NODE: u32 = 2;
/// The first number of a set of labels or a CIDR.
pub const FIRST: u32 = 256;

/// Who an address is: `exact` is its entry in this map, `block` finds its entry in [`cidrs`](crate::cidrs).
#[must_use]
#[inline(always)]
pub fn identity(exact: Option<u32>, block: impl FnOnce() -> Option<u32>) -> u32 {
    exact.or_else(block).unwrap_or(WORLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_itself_then_its_block_then_the_world() {
        assert_eq!(identity(Some(300), || panic!("not asked")), 300);
        assert_eq!(identity(None, || Some(301)), 301);
        assert_eq!(identity(None, || None), WORLD);
    }
}

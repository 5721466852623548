//! Tables of nftables, as messages of netlink: written whole in one transaction, or entry by entry where maps change. And the
//! flows that were translated by them.

pub(crate) mod attribute;
pub(crate) mod conntrack;
pub(crate) mod encode;
pub(crate) mod nfnetlink;

pub use self::nfnetlink::Error;

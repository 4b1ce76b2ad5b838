//! Hook priorities of the chains, and conntrack states that rules match.

use kernel::nft::{Expr, Hook};

/// `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h: the destination was changed.
pub(crate) const DNATED: u32 = 1 << 5;
/// `NF_CT_STATE_BIT` of established and related.
pub(crate) const KNOWN: u32 = 1 << 1 | 1 << 2;

/// The priorities of iptables' tables (linux/netfilter_ipv4.h).
pub(super) const RAW: i32 = -300;
pub(super) const DNAT: i32 = -100;
pub(super) const SNAT: i32 = 100;
/// Before masquerading by kube-proxy and others, which takes the address of the output interface: the pods'
/// bridge has none.
pub(super) const BEFORE_SNAT: i32 = SNAT - 1;
pub(crate) const BEFORE_FILTER: i32 = -1;

/// A chain at a hook, with its rules.
pub(super) struct ChainWithRules {
    pub name: &'static str,
    pub hook: Hook,
    pub rules: Vec<Vec<Expr>>,
}

//! Matches of rules, built from single expressions.

use ipnet::IpNet;
use kernel::nft::{self, Base, Ct, Expr, Field, Meta, Reg, TableFamily};

/// The loopback interface, of which each namespace has one.
const LOOPBACK: &str = "lo";

const FIRST: Reg = Reg(0);

/// `meta nfproto ipv4`: the address family, in a table that sees both.
pub fn family(family: TableFamily) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::TableFamily, to: FIRST },
        Expr::Equal { reg: FIRST, value: vec![family as u8] },
    ]
}

/// Loads `ip saddr` into a register. An earlier expression must have checked the family.
pub fn address(family: TableFamily, field: Field, to: Reg) -> Expr {
    let (offset, length) = match (family, field) {
        (TableFamily::Ipv6, Field::Source) => (8, 16),
        (TableFamily::Ipv6, Field::Destination) => (24, 16),
        (_, Field::Source) => (12, 4),
        (_, Field::Destination) => (16, 4),
    };
    Expr::Payload { base: Base::Network, offset, length, to }
}

/// `ip saddr set ADDRESS`, with the address in a register. An earlier expression must have checked that the
/// packet is IPv4.
pub fn set_address(field: Field, from: Reg) -> Expr {
    let offset = if field == Field::Source { 12 } else { 16 };
    const CHECKSUM: u32 = 10;
    Expr::SetPayload { base: Base::Network, offset, length: 4, from, checksum: CHECKSUM, pseudo_header: true }
}

/// `ip saddr NET`
pub fn within(field: Field, net: &IpNet) -> Vec<Expr> {
    let mut exprs = masked(field, net);
    exprs.push(Expr::Equal { reg: FIRST, value: nft::address(net.network()) });
    exprs
}

/// `ip saddr != NET`
pub fn outside(field: Field, net: &IpNet) -> Vec<Expr> {
    let mut exprs = masked(field, net);
    exprs.push(Expr::NotEqual { reg: FIRST, value: nft::address(net.network()) });
    exprs
}

fn masked(field: Field, net: &IpNet) -> Vec<Expr> {
    let of = if net.addr().is_ipv4() { TableFamily::Ipv4 } else { TableFamily::Ipv6 };
    let mut exprs = family(of);
    exprs.push(address(of, field, FIRST));
    if net.prefix_len() < net.max_prefix_len() {
        let mask = nft::address(net.netmask());
        exprs.push(Expr::Bitwise { reg: FIRST, xor: vec![0; mask.len()], mask });
    }
    exprs
}

/// `fib saddr type local`: the address is one of the node's own.
pub fn local(field: Field) -> Vec<Expr> {
    /// `RTN_LOCAL` of linux/rtnetlink.h.
    const LOCAL: u32 = 2;
    vec![
        Expr::AddressType { of: field, to: FIRST },
        Expr::Equal { reg: FIRST, value: LOCAL.to_ne_bytes().to_vec() },
    ]
}

/// `iifname @SET`, `oifname @SET`
pub fn interface_in(key: Meta, set: &'static str) -> Vec<Expr> {
    vec![Expr::Meta { key, to: FIRST }, Expr::Lookup { key: FIRST, set }]
}

/// `iifname NAME`
pub fn came_by(name: &str) -> Vec<Expr> {
    let value = nft::interface(name);
    vec![Expr::Meta { key: Meta::InputInterface, to: FIRST }, Expr::Equal { reg: FIRST, value }]
}

/// `oifname != NAME`
pub fn leaves_elsewhere(name: &str) -> Vec<Expr> {
    let value = nft::interface(name);
    vec![Expr::Meta { key: Meta::OutputInterface, to: FIRST }, Expr::NotEqual { reg: FIRST, value }]
}

/// `iifname != lo`
pub fn from_outside() -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::InputInterface, to: FIRST },
        Expr::NotEqual { reg: FIRST, value: nft::interface(LOOPBACK) },
    ]
}

/// `meta l4proto PROTOCOL`
pub fn protocol(number: u8) -> Vec<Expr> {
    vec![Expr::Meta { key: Meta::Protocol, to: FIRST }, Expr::Equal { reg: FIRST, value: vec![number] }]
}

/// `iifname . oifname @SET`
pub fn between_interfaces(set: &'static str) -> Vec<Expr> {
    /// A name takes 16 bytes, four registers.
    const FIFTH: Reg = Reg(4);
    vec![
        Expr::Meta { key: Meta::InputInterface, to: FIRST },
        Expr::Meta { key: Meta::OutputInterface, to: FIFTH },
        Expr::Lookup { key: FIRST, set },
    ]
}

/// `ct status BITS`, `ct state BITS`: any of these bits.
pub fn connection(key: Ct, bits: u32) -> Vec<Expr> {
    vec![Expr::Ct { key, to: FIRST }, any_of(bits), Expr::NotEqual { reg: FIRST, value: vec![0; 4] }]
}

fn any_of(bits: u32) -> Expr {
    Expr::Bitwise { reg: FIRST, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] }
}

/// `meta mark set meta mark | BITS`
pub fn mark(bits: u32) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, to: FIRST },
        Expr::Bitwise { reg: FIRST, mask: (!bits).to_ne_bytes().to_vec(), xor: bits.to_ne_bytes().to_vec() },
        Expr::SetMark(FIRST),
    ]
}

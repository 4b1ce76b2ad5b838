//! Host ports at 127.0.0.1, without `route_localnet`. With that sysctl, a device would accept packets to
//! 127.0.0.0/8 from any sender, even after someone has flushed the rules that drop them.
//!
//! Packets that the node sends from 127.0.0.1 to such a port get another source address of the node before
//! connection tracking. So the connection is an ordinary one from the node to the pod. Answers get
//! 127.0.0.1 as destination again after connection tracking.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::nft::{
    Base, Ct, Expr, Field, Hook, HookPoint, MapOf, Meta, Reg, Set, TableFamily, Type, Verdict,
};

use super::hooks::{ChainWithRules, DNATED, RAW, SNAT};
use super::matches::{address, connection, family, from_outside, outside, protocol, set_address, within};

/// Maps a host port of all addresses to the node's source address for connections to it at 127.0.0.0/8.
pub const PORTS: &str = "localhost-ports";
/// The same for a host port of one address in 127.0.0.0/8.
pub const ADDRESS_PORTS: &str = "localhost-address-ports";
/// The set in which older versions listed the devices for which they had enabled `route_localnet`.
pub const FORMER: &str = "localnet";

pub(super) const SETS: [Set; 2] = [
    Set { name: PORTS, key: &[Type::Protocol, Type::Port], map: Some(MapOf::Values(&[Type::Ipv4])) },
    Set {
        name: ADDRESS_PORTS,
        key: &[Type::Ipv4, Type::Protocol, Type::Port],
        map: Some(MapOf::Values(&[Type::Ipv4])),
    },
];

/// ICMP: protocol number, length of the header before the quoted packet, and offset of the checksum.
const ICMP: u8 = 1;
const ICMP_HEADER: u32 = 8;
const ICMP_CHECKSUM: u32 = 2;

fn net() -> IpNet {
    IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8)
}

/// Drops packets from and to 127.0.0.0/8 that arrive on a device, whatever the sysctls are. The kernel
/// would detect such a martian only after its destination has become a pod's address.
pub(super) fn drop_external() -> ChainWithRules {
    let rule = |field| [from_outside(), within(field, &net()), vec![Expr::Verdict(Verdict::Drop)]].concat();
    ChainWithRules {
        name: "raw",
        hook: Hook { kind: "filter", point: HookPoint::Prerouting, priority: RAW },
        rules: vec![rule(Field::Destination), rule(Field::Source)],
    }
}

/// Changes the source of packets to such a port, before connection tracking.
pub(super) fn outgoing() -> ChainWithRules {
    let one = IpNet::from(IpAddr::from([127, 0, 0, 1]));
    let key = |first| {
        [
            Expr::Meta { key: Meta::Protocol, to: Reg(first) },
            Expr::Payload { base: Base::Transport, offset: 2, length: 2, to: Reg(first + 1) },
        ]
    };
    let look_up = |map| [Expr::Map { key: Reg(0), map, to: Reg(0) }, set_address(Field::Source, Reg(0))];
    let mut one_address = within(Field::Source, &one);
    one_address.push(address(TableFamily::Ipv4, Field::Destination, Reg(0)));
    one_address.extend(key(1));
    one_address.extend(look_up(ADDRESS_PORTS));
    let mut all_addresses = [within(Field::Source, &one), within(Field::Destination, &net())].concat();
    all_addresses.extend(key(0));
    all_addresses.extend(look_up(PORTS));
    ChainWithRules {
        name: "from-localhost",
        hook: Hook { kind: "filter", point: HookPoint::Output, priority: RAW },
        rules: vec![one_address, all_addresses],
    }
}

/// A packet that still has a source in 127.0.0.0/8 matches no host port. It could not leave the node.
pub(super) fn not_translated() -> Vec<Expr> {
    [within(Field::Source, &net()), vec![Expr::Verdict(Verdict::Return)]].concat()
}

/// Changes the destination of answers after connection tracking has restored their source. In ICMP errors
/// about packets to such a port, changes the source of the quoted packet.
pub(super) fn incoming() -> ChainWithRules {
    let localhost = || Expr::Load { value: vec![127, 0, 0, 1], to: Reg(0) };
    let mut answer =
        vec![Expr::Ct { key: Ct::Direction, to: Reg(0) }, Expr::Equal { reg: Reg(0), value: vec![REPLY] }];
    answer.extend(connection(Ct::Status, DNATED));
    answer.extend(within(Field::Source, &net()));
    answer.extend(outside(Field::Destination, &net()));
    answer.extend([localhost(), set_address(Field::Destination, Reg(0))]);

    let sent = |field| ICMP_HEADER + if field == Field::Source { 12 } else { 16 };
    let first_byte =
        |field| Expr::Payload { base: Base::Transport, offset: sent(field), length: 1, to: Reg(0) };
    let mut about = [connection(Ct::State, RELATED), connection(Ct::Status, DNATED)].concat();
    about.extend(family(TableFamily::Ipv4));
    about.extend(protocol(ICMP));
    about.extend([first_byte(Field::Destination), Expr::Equal { reg: Reg(0), value: vec![127] }]);
    about.extend([first_byte(Field::Source), Expr::NotEqual { reg: Reg(0), value: vec![127] }]);
    about.extend([
        localhost(),
        Expr::SetPayload {
            base: Base::Transport,
            offset: sent(Field::Source),
            length: 4,
            from: Reg(0),
            checksum: ICMP_CHECKSUM,
            pseudo_header: false,
        },
    ]);
    ChainWithRules {
        name: "to-localhost",
        hook: Hook { kind: "filter", point: HookPoint::Input, priority: SNAT + 1 },
        rules: vec![answer, about],
    }
}

/// `IP_CT_DIR_REPLY` of linux/netfilter/nf_conntrack_tuple_common.h.
const REPLY: u8 = 1;
/// `NF_CT_STATE_BIT` of related.
const RELATED: u32 = 1 << 2;

//! Host ports at 127.0.0.1, without `route_localnet`, with which a device would take packets of 127.0.0.0/8
//! from whoever sends them, also after somebody has flushed the rules that keep them out.
//!
//! What the node sends from 127.0.0.1 to such a port has another of the node's addresses for its source
//! before connections are tracked, and so it is an ordinary connection of the node to the pod. What answers
//! it gets 127.0.0.1 back when tracking is done with it.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::nft::{
    Base, Ct, Expr, Field, Hook, HookPoint, MapOf, Meta, Reg, Set, TableFamily, Type, Verdict,
};

use super::hooks::{DNATED, Hooked, RAW, SNAT};
use super::matches::{address, connection, family, from_outside, outside, protocol, set_address, within};

/// Host port of all addresses: to the node's address from which it is asked for, if it is asked for at
/// 127.0.0.0/8.
pub const PORTS: &str = "localhost-ports";
/// Host port of one address in 127.0.0.0/8: the same.
pub const ADDRESS_PORTS: &str = "localhost-address-ports";
/// Where versions before this one said on which devices they had switched `route_localnet` on.
pub const FORMER: &str = "localnet";

pub(super) const SETS: [Set; 2] = [
    Set { name: PORTS, key: &[Type::Protocol, Type::Port], map: Some(MapOf::Values(&[Type::Ipv4])) },
    Set {
        name: ADDRESS_PORTS,
        key: &[Type::Ipv4, Type::Protocol, Type::Port],
        map: Some(MapOf::Values(&[Type::Ipv4])),
    },
];

/// `ICMP_PROTOCOL`, and what a message has before the packet that it is about.
const ICMP: u8 = 1;
const ICMP_HEADER: u32 = 8;
const ICMP_CHECKSUM: u32 = 2;

fn net() -> IpNet {
    IpNet::new_assert(IpAddr::from([127, 0, 0, 0]), 8)
}

/// Nothing of 127.0.0.0/8 comes in by a device, whatever sysctls say: the kernel would find it a martian only
/// after its destination has become a pod's.
pub(super) fn keep_out() -> Hooked {
    let rule = |field| [from_outside(), within(field, &net()), vec![Expr::Verdict(Verdict::Drop)]].concat();
    Hooked {
        name: "raw",
        hook: Hook { kind: "filter", point: HookPoint::Prerouting, priority: RAW },
        rules: vec![rule(Field::Destination), rule(Field::Source)],
    }
}

/// Before connections are tracked: the source of what is for such a port.
pub(super) fn leave() -> Hooked {
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
    Hooked {
        name: "from-localhost",
        hook: Hook { kind: "filter", point: HookPoint::Output, priority: RAW },
        rules: vec![one_address, all_addresses],
    }
}

/// What still comes from 127.0.0.0/8 leads to no host port: it could not leave the node.
pub(super) fn stay() -> Vec<Expr> {
    [within(Field::Source, &net()), vec![Expr::Verdict(Verdict::Return)]].concat()
}

/// After tracking has given an answer the source that was asked: its destination. And in a message of ICMP
/// about what was sent to such a port, the source of that.
pub(super) fn come_back() -> Hooked {
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
    Hooked {
        name: "to-localhost",
        hook: Hook { kind: "filter", point: HookPoint::Input, priority: SNAT + 1 },
        rules: vec![answer, about],
    }
}

/// `IP_CT_DIR_REPLY` of linux/netfilter/nf_conntrack_tuple_common.h.
const REPLY: u8 = 1;
/// `NF_CT_STATE_BIT` of related.
const RELATED: u32 = 1 << 2;

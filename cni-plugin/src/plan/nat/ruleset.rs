//! The base rule set of NAT mode: the table, its sets and maps, and the chains that look packets up in
//! them.

use std::net::IpAddr;

use ipnet::IpNet;
use kernel::nft::{
    Base, Change, Ct, Expr, Field, Hook, HookPoint, MapOf, Meta, Reg, Set, Table, TableFamily, Type, Verdict,
};

use super::hooks::{BEFORE_FILTER, BEFORE_SNAT, DNAT, DNATED, KNOWN, SNAT};
use super::localhost;
use super::matches::{address, between_interfaces, connection, family, interface_in, local, mark, within};

/// Our table.
pub const TABLE: Table = Table { family: TableFamily::Inet, name: "vlan-bridge" };

/// Maps a pod's address to the chain that masquerades its subnet. IPv4, IPv6.
pub const MASQUERADE: [&str; 2] = ["masquerade4", "masquerade6"];
/// Maps a pod's address to the chain for packets that came to one of its host ports.
pub const HAIRPIN: [&str; 2] = ["hairpin4", "hairpin6"];
/// Maps the address of a pod on a network with an uplink to the node's address that replaces the source of
/// packets whose answers would bypass the node.
pub const SOURCES: [&str; 2] = ["sources4", "sources6"];
/// Addresses of masqueraded pods. Only answers, and packets to host ports, are forwarded to them.
pub const CLOSED: [&str; 2] = ["closed4", "closed6"];
/// Maps a host port to the pod's address and port.
pub const PORTS: [&str; 2] = ["ports4", "ports6"];
/// The same for a host port at one of the node's addresses. It has precedence over a host port of all
/// addresses.
pub const ADDRESS_PORTS: [&str; 2] = ["address-ports4", "address-ports6"];
/// Addresses of services that are on the node's interfaces. Host ports of all addresses are not published
/// there.
pub const SERVICE_ADDRESSES: [&str; 2] = ["service-addresses4", "service-addresses6"];
/// The devices of pods with NAT.
pub const DEVICES: &str = "devices";
/// The devices of pods with an uplink, which also lead to all other hosts on their network.
pub const UPLINKS: &str = "uplinks";
/// The bridges of pods, each as input and output interface. With br_netfilter, bridged packets have the
/// bridge as both.
pub const BRIDGES: &str = "bridges";
/// The maps and sets whose elements belong to attachments.
pub const MAPS: [&str; 14] = [
    CLOSED[0],
    CLOSED[1],
    SOURCES[0],
    SOURCES[1],
    MASQUERADE[0],
    MASQUERADE[1],
    HAIRPIN[0],
    HAIRPIN[1],
    PORTS[0],
    PORTS[1],
    ADDRESS_PORTS[0],
    ADDRESS_PORTS[1],
    localhost::PORTS,
    localhost::ADDRESS_PORTS,
];

/// Selects the set for the family of an address.
pub fn of_family(sets: [&'static str; 2], ip: IpAddr) -> &'static str {
    sets[usize::from(ip.is_ipv6())]
}

const SETS: [Set; 17] = [
    Set { name: SERVICE_ADDRESSES[0], key: &[Type::Ipv4], map: None },
    Set { name: SERVICE_ADDRESSES[1], key: &[Type::Ipv6], map: None },
    Set { name: CLOSED[0], key: &[Type::Ipv4], map: None },
    Set { name: CLOSED[1], key: &[Type::Ipv6], map: None },
    Set { name: SOURCES[0], key: &[Type::Ipv4], map: Some(MapOf::Values(&[Type::Ipv4])) },
    Set { name: SOURCES[1], key: &[Type::Ipv6], map: Some(MapOf::Values(&[Type::Ipv6])) },
    Set { name: MASQUERADE[0], key: &[Type::Ipv4], map: Some(MapOf::Verdicts) },
    Set { name: MASQUERADE[1], key: &[Type::Ipv6], map: Some(MapOf::Verdicts) },
    Set { name: HAIRPIN[0], key: &[Type::Ipv4], map: Some(MapOf::Verdicts) },
    Set { name: HAIRPIN[1], key: &[Type::Ipv6], map: Some(MapOf::Verdicts) },
    Set {
        name: PORTS[0],
        key: &[Type::Protocol, Type::Port],
        map: Some(MapOf::Values(&[Type::Ipv4, Type::Port])),
    },
    Set {
        name: PORTS[1],
        key: &[Type::Protocol, Type::Port],
        map: Some(MapOf::Values(&[Type::Ipv6, Type::Port])),
    },
    Set {
        name: ADDRESS_PORTS[0],
        key: &[Type::Ipv4, Type::Protocol, Type::Port],
        map: Some(MapOf::Values(&[Type::Ipv4, Type::Port])),
    },
    Set {
        name: ADDRESS_PORTS[1],
        key: &[Type::Ipv6, Type::Protocol, Type::Port],
        map: Some(MapOf::Values(&[Type::Ipv6, Type::Port])),
    },
    Set { name: DEVICES, key: &[Type::Interface], map: None },
    Set { name: UPLINKS, key: &[Type::Interface], map: None },
    Set { name: BRIDGES, key: &[Type::Interface, Type::Interface], map: None },
];

const HOST_PORTS: &str = "host-ports";
/// Addresses within `serviceCIDRs` are never published: this chain has a rule for each network. The rules
/// are removed with the table.
pub const SERVICES: &str = "services";
/// The chain that masquerades.
pub const MASQUERADED: &str = "masqueraded";

/// Makes the table, which must not exist yet.
pub fn base_ruleset() -> Vec<Change> {
    let mut changes = vec![Change::AddTable(TABLE)];
    changes.extend(SETS.into_iter().chain(localhost::SETS).map(|set| Change::AddSet { table: TABLE, set }));
    for chain in [localhost::drop_external(), localhost::outgoing(), localhost::incoming()] {
        changes.extend(base_chain(chain.name, chain.hook, chain.rules));
    }
    let before_marks = Hook { kind: "filter", point: HookPoint::Forward, priority: BEFORE_FILTER - 1 };
    changes.extend(base_chain("closed", before_marks, closed_rules()));
    changes.push(Change::AddChain { table: TABLE, name: SERVICES.into(), hook: None });
    changes.push(Change::AddChain { table: TABLE, name: HOST_PORTS.into(), hook: None });
    changes.extend(rules(HOST_PORTS, host_port_rules()));
    let to_the_node =
        || [local(Field::Destination), vec![Expr::Verdict(Verdict::Jump(HOST_PORTS.into()))]].concat();
    let nat = |point| Hook { kind: "nat", point, priority: DNAT };
    changes.extend(base_chain("prerouting", nat(HookPoint::Prerouting), vec![to_the_node()]));
    changes.extend(base_chain(
        "output",
        nat(HookPoint::Output),
        vec![localhost::not_translated(), to_the_node()],
    ));
    changes.extend(base_chain(
        "postrouting",
        Hook { kind: "nat", point: HookPoint::Postrouting, priority: SNAT },
        postrouting_rules(),
    ));
    // After the rules that need only one module, so that an error names the missing module alone.
    changes.extend(base_chain(
        "by-the-node",
        Hook { kind: "nat", point: HookPoint::Postrouting, priority: BEFORE_SNAT },
        by_the_node_rules(),
    ));
    // The chains of subnets go here. Thus a kernel that cannot masquerade is detected with the first pod,
    // before it is attached.
    changes.push(Change::AddChain { table: TABLE, name: MASQUERADED.into(), hook: None });
    changes.extend(rules(MASQUERADED, vec![vec![Expr::Masquerade]]));
    changes
}

/// A masqueraded pod can be reached only on its host ports, even if a host has a route to the pods' subnet.
/// Bridged packets, seen through br_netfilter, are between pods and pass.
fn closed_rules() -> Vec<Vec<Expr>> {
    let passes = |which: Vec<Expr>| [which, vec![Expr::Verdict(Verdict::Accept)]].concat();
    let drops = |index: usize| {
        let of = [TableFamily::Ipv4, TableFamily::Ipv6][index];
        let mut exprs = family(of);
        exprs.extend([
            address(of, Field::Destination, Reg(0)),
            Expr::Lookup { key: Reg(0), set: CLOSED[index] },
            Expr::Verdict(Verdict::Drop),
        ]);
        exprs
    };
    vec![
        passes(between_interfaces(BRIDGES)),
        passes(connection(Ct::State, KNOWN)),
        passes(connection(Ct::Status, DNATED)),
        drops(0),
        drops(1),
    ]
}

/// A port of one address has precedence over a port of all addresses. A port of all addresses does not
/// include service addresses: kube-proxy in IPVS mode puts each on an interface of the node, where it looks
/// like an address of the node. No port is mapped at `::1`: the answer could not come back, because the
/// kernel accepts no packet from `::1` on a device.
fn host_port_rules() -> Vec<Vec<Expr>> {
    let one = ipnet::IpNet::from(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    let not_localhost = [within(Field::Destination, &one), vec![Expr::Verdict(Verdict::Return)]].concat();
    let (mut of_one, mut of_all) = (Vec::new(), Vec::new());
    for (of, registers, index) in [(TableFamily::Ipv4, 1, 0), (TableFamily::Ipv6, 4, 1)] {
        let dnat = |map, key| {
            [
                Expr::Map { key, map, to: Reg(0) },
                Expr::Dnat { family: of, address: Reg(0), port: Reg(registers) },
            ]
        };
        let protocol_and_port = |first| {
            [
                Expr::Meta { key: Meta::Protocol, to: Reg(first) },
                Expr::Payload { base: Base::Transport, offset: 2, length: 2, to: Reg(first + 1) },
            ]
        };
        let mut one_address = family(of);
        one_address.push(address(of, Field::Destination, Reg(0)));
        one_address.extend(protocol_and_port(registers));
        one_address.extend(dnat(ADDRESS_PORTS[index], Reg(0)));
        let mut all_addresses = family(of);
        all_addresses.extend(protocol_and_port(0));
        all_addresses.extend(dnat(PORTS[index], Reg(0)));
        let mut service = family(of);
        service.extend([
            address(of, Field::Destination, Reg(0)),
            Expr::Lookup { key: Reg(0), set: SERVICE_ADDRESSES[index] },
            Expr::Verdict(Verdict::Return),
        ]);
        of_one.push(one_address);
        of_all.extend([service, all_addresses]);
    }
    let services = vec![Expr::Verdict(Verdict::Jump(SERVICES.into()))];
    [vec![not_localhost], of_one, vec![services], of_all].concat()
}

/// The rule for one of `serviceCIDRs`: host ports of all addresses do not apply there.
pub fn service_rule(net: &IpNet) -> Change {
    let exprs = [within(Field::Destination, net), vec![Expr::Verdict(Verdict::Accept)]].concat();
    Change::AddRule { table: TABLE, chain: SERVICES.into(), exprs, comment: net.to_string() }
}

/// A pod on a network with an uplink answers through its router or directly to a neighbour, and its peers
/// do the same. If the node changed the destination of a packet to or from such a pod, the packet gets the
/// node's source address. Otherwise the answer would bypass the node. Packets to the node itself do not
/// reach this chain.
fn by_the_node_rules() -> Vec<Vec<Expr>> {
    let rule = |index: usize, field| {
        let of = [TableFamily::Ipv4, TableFamily::Ipv6][index];
        let mut exprs = [connection(Ct::Status, DNATED), family(of)].concat();
        exprs.extend([
            address(of, field, Reg(0)),
            Expr::Map { key: Reg(0), map: SOURCES[index], to: Reg(0) },
            Expr::Snat { family: of, address: Reg(0) },
        ]);
        exprs
    };
    [0, 1]
        .into_iter()
        .flat_map(|index| [rule(index, Field::Destination), rule(index, Field::Source)])
        .collect()
}

fn postrouting_rules() -> Vec<Vec<Expr>> {
    let look_up = |index: usize, field, map: [&'static str; 2]| {
        let of = [TableFamily::Ipv4, TableFamily::Ipv6][index];
        let mut exprs = family(of);
        exprs.push(address(of, field, Reg(0)));
        exprs.push(Expr::VerdictMap { key: Reg(0), map: map[index] });
        exprs
    };
    let dnated =
        |index| [connection(Ct::Status, DNATED), look_up(index, Field::Destination, HAIRPIN)].concat();
    vec![dnated(0), dnated(1), look_up(0, Field::Source, MASQUERADE), look_up(1, Field::Source, MASQUERADE)]
}

fn base_chain(name: &str, hook: Hook, exprs: Vec<Vec<Expr>>) -> Vec<Change> {
    let mut changes = vec![Change::AddChain { table: TABLE, name: name.into(), hook: Some(hook) }];
    changes.extend(rules(name, exprs));
    changes
}

fn rules(chain: &str, rules: Vec<Vec<Expr>>) -> impl Iterator<Item = Change> {
    let rule = |exprs| Change::AddRule { table: TABLE, chain: chain.into(), exprs, comment: String::new() };
    rules.into_iter().map(rule).collect::<Vec<_>>().into_iter()
}

/// The chain that marks packets of pods that are to be accepted. It exists only if another table's policy
/// is drop, so that packets on other nodes do not traverse it.
pub const FORWARD: &str = "forward";

/// The bit of the packet mark. Kubernetes uses bits 14 and 15, the reference portmap 13, network policies
/// bits from 16 on.
pub(super) const FORWARDED: u32 = 1 << 12;

/// Marks packets for [`super::accept::rule`]: all packets from pods that the node routes or translates; to
/// these pods, and in both directions for the network of an uplink, packets of known connections and those
/// to host ports or services; and bridged packets.
pub fn forward() -> Vec<Change> {
    let mut exprs = vec![
        [interface_in(Meta::InputInterface, DEVICES), mark(FORWARDED)].concat(),
        [between_interfaces(BRIDGES), mark(FORWARDED)].concat(),
    ];
    let directions = [
        (Meta::OutputInterface, DEVICES),
        (Meta::OutputInterface, UPLINKS),
        // Other hosts than pods are there, too.
        (Meta::InputInterface, UPLINKS),
    ];
    for (direction, set) in directions {
        for known in [connection(Ct::State, KNOWN), connection(Ct::Status, DNATED)] {
            exprs.push([interface_in(direction, set), known, mark(FORWARDED)].concat());
        }
    }
    let hook = Hook { kind: "filter", point: HookPoint::Forward, priority: BEFORE_FILTER };
    let mut changes = base_chain(FORWARD, hook, exprs);
    // The rules of an existing chain are replaced.
    changes.insert(1, Change::FlushChain { table: TABLE, name: FORWARD.into() });
    changes
}

/// The tables of iptables-nft, whose FORWARD policy an accept in our table does not override.
pub const IPTABLES_TABLES: [Table; 2] = [
    Table { family: TableFamily::Ipv4, name: "filter" },
    Table { family: TableFamily::Ipv6, name: "filter" },
];
/// The chain in these tables.
pub const IPTABLES_FORWARD: &str = "FORWARD";

/// The first chain that is missing or has lost rules, so that the base rule set is made again. `look` returns
/// the kernel's use count of a chain; none without such a chain. Chains of subnets and rules of services come
/// on top.
pub fn broken_chain<E>(look: impl Fn(&str) -> Result<Option<u32>, E>) -> Result<Option<String>, E> {
    for (name, least) in uses() {
        if look(&name)?.is_none_or(|there| there < least) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Each chain of the base rule set, and the least use count that the kernel must show: the chain's own
/// rules plus rules that jump to it.
pub fn uses() -> Vec<(String, u32)> {
    let changes = base_ruleset();
    let in_or_to = |name: &str, change: &Change| match change {
        Change::AddRule { chain, exprs, .. } => {
            let leads = |expr: &&Expr| matches!(expr, Expr::Verdict(Verdict::Jump(to)) if to == name);
            u32::from(chain == name) + exprs.iter().filter(leads).count() as u32
        }
        _ => 0,
    };
    let names = changes.iter().filter_map(|change| match change {
        Change::AddChain { name, .. } => Some(name.clone()),
        _ => None,
    });
    names.map(|name| (name.clone(), changes.iter().map(|change| in_or_to(&name, change)).sum())).collect()
}

#[cfg(test)]
mod tests;

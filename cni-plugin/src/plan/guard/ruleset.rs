//! The base rule set of the guard: the table, its sets, and the chains that look packets up in them.

use kernel::nft::{
    Base, Change, Expr, Hook, HookPoint, MapOf, Meta, Reg, Set, Table, TableFamily, Type, Verdict,
};

/// Our table.
pub const TABLE: Table = Table { family: TableFamily::Bridge, name: "vlan-bridge" };

/// Maps a pod's port to the chain for its kind.
pub const PORTS: &str = "ports";
/// Pod's port and MAC.
pub const MACS: &str = "macs";
/// Pod's port, MAC and address.
pub const ADDRESSES4: &str = "addresses4";
/// The same for IPv6.
pub const ADDRESSES6: &str = "addresses6";
/// Port and MAC of a pod that may use any link-local address.
pub const LINK_LOCALS: &str = "link-locals";
/// Pod's port and its own VLAN, for ports that also have tagged VLANs. (`nft` has no set type for a VLAN
/// id; a port number has the same length.)
pub const OWN_VLANS: &str = "own-vlans";

/// All sets.
pub const ALL: [&str; 6] = [PORTS, MACS, ADDRESSES4, ADDRESSES6, LINK_LOCALS, OWN_VLANS];

const SETS: [Set; 6] = [
    Set { name: PORTS, key: &[Type::Interface], map: Some(MapOf::Verdicts) },
    Set { name: MACS, key: &[Type::Interface, Type::Mac], map: None },
    Set { name: ADDRESSES4, key: &[Type::Interface, Type::Mac, Type::Ipv4], map: None },
    Set { name: ADDRESSES6, key: &[Type::Interface, Type::Mac, Type::Ipv6], map: None },
    Set { name: LINK_LOCALS, key: &[Type::Interface, Type::Mac], map: None },
    Set { name: OWN_VLANS, key: &[Type::Interface, Type::Port], map: None },
];

/// The entry chain for frames from a port.
pub fn entry(by_address: bool, trunk: bool) -> &'static str {
    match (by_address, trunk) {
        (true, false) => "pod",
        (false, false) => "pod-by-mac",
        (true, true) => "trunk",
        (false, true) => "trunk-by-mac",
    }
}

/// Before other bridge tables: destination NAT has priority -300 (linux/netfilter_bridge.h).
const FIRST: i32 = -350;

// The key of a lookup: interface, MAC, address, each in as many registers of four bytes as it fills.
const PORT: Reg = Reg(0);
const MAC: Reg = Reg(4);
const ADDRESS: Reg = Reg(6);
/// For values that are compared without a set.
const FREE: Reg = Reg(12);

const MAC_CHAIN: &str = "mac";
const TAGGED: &str = "tagged";
const ADDRESSES: &str = "addresses";
// Not "arp": that is a keyword, and nft could not read its own listing.
const ARP: &str = "arp-senders";
const ARP_PROBES: &str = "arp-probes";
const RARP: &str = "rarp";
const IPV4: &str = "ipv4";
const IPV6: &str = "ipv6";
const NEIGHBOURS: &str = "neighbours";
const PROBES: &str = "probes";

/// Makes a new table. An existing table of that name is deleted in the same transaction.
pub fn base_ruleset() -> Vec<Change> {
    let mut changes = vec![Change::AddTable(TABLE), Change::DeleteTable(TABLE), Change::AddTable(TABLE)];
    changes.extend(SETS.map(|set| Change::AddSet { table: TABLE, set }));
    let chains = [
        (MAC_CHAIN, own_mac()),
        (TAGGED, tagged_rules()),
        (ARP_PROBES, arp_probe_rules()),
        (ARP, arp_rules()),
        (RARP, rarp_rules()),
        (NEIGHBOURS, neighbour_rules()),
        (PROBES, probe_rules()),
        (IPV4, ipv4_rules()),
        (IPV6, ipv6_rules()),
        (ADDRESSES, address_rules()),
        (entry(true, false), entry_rules(true, false)),
        (entry(false, false), entry_rules(false, false)),
        (entry(true, true), entry_rules(true, true)),
        (entry(false, true), entry_rules(false, true)),
    ];
    for (name, rules) in chains {
        changes.push(Change::AddChain { table: TABLE, name: name.into(), hook: None });
        changes.extend(rules.into_iter().map(|exprs| rule(name, exprs)));
    }
    let hook = Hook { kind: "filter", point: HookPoint::Prerouting, priority: FIRST };
    changes.push(Change::AddChain { table: TABLE, name: "prerouting".into(), hook: Some(hook) });
    let by_port = vec![port(), Expr::VerdictMap { key: PORT, map: PORTS }];
    changes.push(rule("prerouting", by_port));
    changes
}

fn rule(chain: &str, exprs: Vec<Expr>) -> Change {
    Change::AddRule { table: TABLE, chain: chain.into(), exprs, comment: String::new() }
}

/// The chains that [`PORTS`] leads to.
pub const ENTRIES: [&str; 4] = ["pod", "pod-by-mac", "trunk", "trunk-by-mac"];

fn entry_rules(by_address: bool, trunk: bool) -> Vec<Vec<Expr>> {
    let mut rules = vec![vec![Expr::Verdict(Verdict::Jump(MAC_CHAIN.into()))]];
    let of_tagged = if trunk { Verdict::Goto(TAGGED.into()) } else { Verdict::Drop };
    // 802.1q.
    rules.push([ethertype(0x8100), vec![Expr::Verdict(of_tagged)]].concat());
    // 802.1ad, and the EtherType that older switches use for it: the bridge would treat these frames as
    // untagged.
    for protocol in [0x88a8, 0x9100] {
        rules.push([ethertype(protocol), vec![Expr::Verdict(Verdict::Drop)]].concat());
    }
    if by_address {
        rules.push(vec![Expr::Verdict(Verdict::Goto(ADDRESSES.into()))]);
    }
    rules
}

/// `iifname . ether saddr @macs return; drop`
fn own_mac() -> Vec<Vec<Expr>> {
    let known = vec![port(), source_mac(), Expr::Lookup { key: PORT, set: MACS }, end(Verdict::Return)];
    vec![known, vec![end(Verdict::Drop)]]
}

/// The bridge accepts only tagged frames of the port's VLANs. A frame tagged with the port's own VLAN or
/// with VLAN 0 counts as untagged. It would bypass the address lookup, so it is dropped.
fn tagged_rules() -> Vec<Vec<Expr>> {
    let vid = |to| {
        [
            Expr::Payload { base: Base::Link, offset: 14, length: 2, to },
            Expr::Bitwise { reg: to, mask: vec![0x0f, 0xff], xor: vec![0, 0] },
        ]
    };
    // Spanning tree frames, of 802.1D and of Cisco, which have a tag: a switch may shut down the node's
    // port because of them.
    let to = |mask: [u8; 6], group: [u8; 6]| {
        vec![
            Expr::Payload { base: Base::Link, offset: 0, length: 6, to: FREE },
            Expr::Bitwise { reg: FREE, mask: mask.to_vec(), xor: vec![0; 6] },
            Expr::Equal { reg: FREE, value: group.to_vec() },
            end(Verdict::Drop),
        ]
    };
    let mut none = vid(FREE).to_vec();
    none.extend([Expr::Equal { reg: FREE, value: vec![0, 0] }, end(Verdict::Drop)]);
    let mut own = vec![port()];
    own.extend(vid(MAC));
    own.extend([Expr::Lookup { key: PORT, set: OWN_VLANS }, end(Verdict::Drop)]);
    vec![
        to([0xff, 0xff, 0xff, 0xff, 0xff, 0xf0], [0x01, 0x80, 0xc2, 0, 0, 0]),
        to([0xff; 6], [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd]),
        none,
        own,
    ]
}

fn address_rules() -> Vec<Vec<Expr>> {
    let goto = |protocol, chain: &str| [ethertype(protocol), vec![end(Verdict::Goto(chain.into()))]].concat();
    vec![
        goto(0x0800, IPV4),
        goto(0x86dd, IPV6),
        goto(0x0806, ARP),
        goto(0x8035, RARP),
        // Includes spanning tree frames: a switch may shut down the node's port because of them.
        vec![end(Verdict::Drop)],
    ]
}

/// RFC 826: the sender address of ARP must be the pod's own.
fn arp_rules() -> Vec<Vec<Expr>> {
    let own = vec![
        port(),
        arp_sender_mac(),
        arp_sender(ADDRESS),
        Expr::Lookup { key: PORT, set: ADDRESSES4 },
        end(Verdict::Accept),
    ];
    let unspecified = vec![
        arp_sender(FREE),
        Expr::Equal { reg: FREE, value: vec![0; 4] },
        end(Verdict::Goto(ARP_PROBES.into())),
    ];
    vec![own, unspecified, vec![end(Verdict::Drop)]]
}

/// A pod may send ARP probes (RFC 5227 section 2.1.1) only for its own addresses. A probe for another pod's
/// address would prevent that pod from using it.
fn arp_probe_rules() -> Vec<Vec<Expr>> {
    let target = Expr::Payload { base: Base::Network, offset: 24, length: 4, to: ADDRESS };
    let own = vec![
        port(),
        arp_sender_mac(),
        target,
        Expr::Lookup { key: PORT, set: ADDRESSES4 },
        end(Verdict::Accept),
    ];
    vec![own, vec![end(Verdict::Drop)]]
}

fn arp_sender_mac() -> Expr {
    Expr::Payload { base: Base::Network, offset: 8, length: 6, to: MAC }
}

fn arp_sender(to: Reg) -> Expr {
    Expr::Payload { base: Base::Network, offset: 14, length: 4, to }
}

/// After a migration, a virtual machine announces its MAC to the switches with a RARP request, as QEMU
/// does. Sender and target (RFC 903) are the same machine, and there is no address. RARP answers are
/// dropped, because they would assign addresses.
fn rarp_rules() -> Vec<Vec<Expr>> {
    const REQUEST: [u8; 2] = [0, 3];
    let number = |offset, value: &[u8]| {
        let length = value.len() as u32;
        [
            Expr::Payload { base: Base::Network, offset, length, to: FREE },
            Expr::Equal { reg: FREE, value: value.to_vec() },
        ]
    };
    let own = |mac| [port(), mac, Expr::Lookup { key: PORT, set: MACS }];
    let target_mac = Expr::Payload { base: Base::Network, offset: 18, length: 6, to: MAC };
    let mut announcement = [number(6, &REQUEST), number(14, &[0; 4])].concat();
    announcement.extend(own(arp_sender_mac()));
    announcement.extend(own(target_mac));
    announcement.push(end(Verdict::Accept));
    vec![announcement, vec![end(Verdict::Drop)]]
}

fn ipv4_rules() -> Vec<Vec<Expr>> {
    let source = Expr::Payload { base: Base::Network, offset: 12, length: 4, to: ADDRESS };
    vec![
        // DHCP servers send to this port (RFC 2131 section 4.1).
        to_udp_port(68),
        // A redirect (RFC 792) names another router.
        icmp(1, 5, Verdict::Drop),
        // An IGMP query (RFC 3376 section 4.1) makes bridges prune multicast for other ports.
        icmp(2, 0x11, Verdict::Drop),
        vec![port(), source_mac(), source, Expr::Lookup { key: PORT, set: ADDRESSES4 }, end(Verdict::Accept)],
        vec![end(Verdict::Drop)],
    ]
}

fn ipv6_rules() -> Vec<Vec<Expr>> {
    const ICMPV6: u8 = 58;
    let source = |to| Expr::Payload { base: Base::Network, offset: 8, length: 16, to };
    let own = || {
        vec![
            port(),
            source_mac(),
            source(ADDRESS),
            Expr::Lookup { key: PORT, set: ADDRESSES6 },
            end(Verdict::Accept),
        ]
    };
    // Packets from the unspecified address: duplicate address detection, which must be for the pod's own
    // address (RFC 4862 section 5.4.2), and multicast listener reports.
    let unspecified = |kind| {
        let mut exprs = vec![source(FREE), Expr::Equal { reg: FREE, value: vec![0; 16] }];
        exprs.extend(icmp_type(ICMPV6, kind));
        exprs
    };
    vec![
        // RFC 8415 section 7.2
        to_udp_port(546),
        // Router advertisement and redirect (RFC 4861 sections 4.2 and 4.5).
        icmp(ICMPV6, 134, Verdict::Drop),
        icmp(ICMPV6, 137, Verdict::Drop),
        // An MLD query (RFC 3810 section 5.1) and a multicast router advertisement (RFC 4286 section 3)
        // make bridges prune neighbour solicitations for other ports.
        icmp(ICMPV6, 130, Verdict::Drop),
        icmp(ICMPV6, 151, Verdict::Drop),
        icmp(ICMPV6, 136, Verdict::Jump(NEIGHBOURS.into())),
        [unspecified(135), vec![end(Verdict::Goto(PROBES.into()))]].concat(),
        [unspecified(143), vec![end(Verdict::Accept)]].concat(),
        [unspecified(131), vec![end(Verdict::Accept)]].concat(),
        [message_begins(), own()].concat(),
        [later_fragment(), own()].concat(),
        [message_begins(), link_local(Base::Network, Verdict::Accept)].concat(),
        [later_fragment(), link_local(Base::Network, Verdict::Accept)].concat(),
        vec![end(Verdict::Drop)],
    ]
}

/// Matches if the packet has an upper-layer header. The kernel looks for it behind extension headers. If
/// these fill the packet or its first fragment, the message type is unknown, and a router advertisement may
/// be hidden there (RFC 7113 section 2). RFC 7112 section 5 says to drop such packets. No upper-layer
/// header is shorter than these four bytes.
fn message_begins() -> Vec<Expr> {
    vec![Expr::Payload { base: Base::Transport, offset: 0, length: 4, to: FREE }]
}

/// `frag frag-off != 0`: without the first fragment, the receiver cannot reassemble the packet.
fn later_fragment() -> Vec<Expr> {
    const FRAGMENT: u8 = 44;
    vec![
        Expr::Extension { header: FRAGMENT, offset: 2, length: 2, to: FREE },
        Expr::Bitwise { reg: FREE, mask: vec![0xff, 0xf8], xor: vec![0; 2] },
        Expr::NotEqual { reg: FREE, value: vec![0; 2] },
    ]
}

/// A pod may advertise, or probe for, only its own addresses. The target address is eight bytes into both
/// messages (RFC 4861 sections 4.3 and 4.4).
fn neighbour_rules() -> Vec<Vec<Expr>> {
    let target = Expr::Payload { base: Base::Transport, offset: 8, length: 16, to: ADDRESS };
    let own =
        vec![port(), source_mac(), target, Expr::Lookup { key: PORT, set: ADDRESSES6 }, end(Verdict::Return)];
    vec![own, link_local(Base::Transport, Verdict::Return), vec![end(Verdict::Drop)]]
}

/// An address in fe80::/64, for pods that may use any. The source in the IPv6 header and the target of a
/// neighbour message are both at offset eight, and their first half is enough.
fn link_local(base: Base, verdict: Verdict) -> Vec<Expr> {
    vec![
        port(),
        source_mac(),
        Expr::Payload { base, offset: 8, length: 8, to: FREE },
        Expr::Equal { reg: FREE, value: vec![0xfe, 0x80, 0, 0, 0, 0, 0, 0] },
        Expr::Lookup { key: PORT, set: LINK_LOCALS },
        end(verdict),
    ]
}

fn probe_rules() -> Vec<Vec<Expr>> {
    vec![vec![end(Verdict::Jump(NEIGHBOURS.into()))], vec![end(Verdict::Accept)]]
}

fn port() -> Expr {
    Expr::Meta { key: Meta::InputInterface, to: PORT }
}

fn source_mac() -> Expr {
    Expr::Payload { base: Base::Link, offset: 6, length: 6, to: MAC }
}

fn end(verdict: Verdict) -> Expr {
    Expr::Verdict(verdict)
}

/// `ether type PROTOCOL`. For a tagged frame this is the EtherType of the tag.
fn ethertype(protocol: u16) -> Vec<Expr> {
    vec![
        Expr::Payload { base: Base::Link, offset: 12, length: 2, to: FREE },
        Expr::Equal { reg: FREE, value: protocol.to_be_bytes().to_vec() },
    ]
}

/// `udp dport PORT drop`
fn to_udp_port(port: u16) -> Vec<Expr> {
    const UDP: u8 = 17;
    vec![
        Expr::Meta { key: Meta::Protocol, to: FREE },
        Expr::Equal { reg: FREE, value: vec![UDP] },
        Expr::Payload { base: Base::Transport, offset: 2, length: 2, to: FREE },
        Expr::Equal { reg: FREE, value: port.to_be_bytes().to_vec() },
        end(Verdict::Drop),
    ]
}

/// `icmp type KIND`, `icmpv6 type KIND`
fn icmp_type(protocol: u8, kind: u8) -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Protocol, to: FREE },
        Expr::Equal { reg: FREE, value: vec![protocol] },
        Expr::Payload { base: Base::Transport, offset: 0, length: 1, to: FREE },
        Expr::Equal { reg: FREE, value: vec![kind] },
    ]
}

fn icmp(protocol: u8, kind: u8, verdict: Verdict) -> Vec<Expr> {
    [icmp_type(protocol, kind), vec![end(verdict)]].concat()
}

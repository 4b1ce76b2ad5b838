//! Announcements as bytes, by the layout of the kernel's headers.

use super::*;
use crate::monitor::{Subsystem, read as read_all};
use crate::netfilter::message::MessageBuilder;

const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

/// A message whose fixed header begins with the family. The header's other bytes follow.
fn message(kind: u16, family: u8, header: &[u8], fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
    let mut message = MessageBuilder::new(kind, 0, 0, family, 0);
    message.raw(header);
    fill(&mut message);
    message.finish()
}

fn announced(datagram: &[u8]) -> Vec<Announcement> {
    let mut announcements = Default::default();
    read_all(Subsystem::Route, datagram, &mut announcements);
    announcements.into()
}

/// Index, flags and change mask of `struct ifinfomsg`.
fn of_link(index: u32, flags: u32) -> Vec<u8> {
    [index, flags, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn number(value: u32) -> [u8; 4] {
    value.to_ne_bytes()
}

fn bond(family: u8) -> Vec<u8> {
    message(RTM_NEWLINK, family, &of_link(7, 0x1_0001), |message| {
        message.text(IFLA_IFNAME, "bond0").bytes(IFLA_MTU, &number(9000)).bytes(IFLA_ADDRESS, &MAC.0);
        message.bytes(IFLA_LINK, &number(5)).bytes(IFLA_MASTER, &number(12));
        message.nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "bond").nested(IFLA_INFO_DATA, |data| {
                data.bytes(1, &[1]).bytes(IFLA_BOND_ACTIVE_SLAVE, &number(3));
            });
        });
    })
}

fn bond0() -> LinkState {
    LinkState {
        index: 7,
        name: "bond0".into(),
        gone: false,
        up: true,
        carrier: true,
        master: Some(12),
        parent: Some(5),
        mac: Some(MAC),
        mtu: 9000,
        kind: "bond".into(),
        active_slave: Some(3),
    }
}

#[test]
fn a_bond_says_which_slave_is_active() {
    assert_eq!(announced(&bond(AF_UNSPEC)), [Announcement::Link(bond0())]);
}

#[test]
fn a_parent_in_another_namespace_is_no_parent_here() {
    let veth = message(RTM_DELLINK, AF_UNSPEC, &of_link(8, 1), |message| {
        message.text(IFLA_IFNAME, "v").bytes(IFLA_LINK, &number(5)).bytes(IFLA_LINK_NETNSID, &number(0));
        message.nested(IFLA_LINKINFO, |info| {
            // Option 2 of a vlan is its flags.
            info.text(IFLA_INFO_KIND, "vlan").nested(IFLA_INFO_DATA, |data| {
                data.bytes(IFLA_BOND_ACTIVE_SLAVE, &[0; 8]);
            });
        });
    });
    let expected = LinkState {
        index: 8,
        name: "v".into(),
        gone: true,
        carrier: false,
        kind: "vlan".into(),
        master: None,
        parent: None,
        mac: None,
        mtu: 0,
        active_slave: None,
        ..bond0()
    };
    assert_eq!(announced(&veth), [Announcement::Link(expected)]);
}

#[test]
fn the_end_of_a_port_is_not_the_end_of_its_link() {
    let port = message(RTM_DELLINK, AF_BRIDGE, &of_link(7, 1), |message| {
        message.text(IFLA_IFNAME, "nic0").bytes(IFLA_MASTER, &number(12));
    });
    assert_eq!(announced(&port), [Announcement::Port { index: 7, bridge: Some(12), gone: true }]);
    // Settings of IPv6 on a link.
    assert_eq!(announced(&bond(AF_INET6)), []);
}

#[test]
fn vlans_of_a_port_are_announced_with_its_index() {
    let header = number(7);
    let vlan = |kind| {
        message(kind, AF_BRIDGE, &header, |message| {
            message.nested(1, |entry| {
                entry.bytes(1, &[0, 0, 100, 0]);
            });
        })
    };
    let expected = |gone| Announcement::Vlan { index: 7, gone };
    let both = [vlan(RTM_NEWVLAN), vlan(RTM_DELVLAN)].concat();
    assert_eq!(announced(&both), [expected(false), expected(true)]);
}

#[test]
fn an_entry_of_a_forwarding_database_has_bridge_and_vlan() {
    let header = [&number(7)[..], &NUD_NOARP.to_ne_bytes(), &[0; 2]].concat();
    let entry = |family| {
        message(RTM_NEWNEIGH, family, &header, |message| {
            message.bytes(NDA_LLADDR, &MAC.0).bytes(NDA_MASTER, &number(12)).bytes(NDA_VLAN, &[100, 0]);
            message.bytes(NDA_DST, &[10, 0, 0, 9]);
        })
    };
    let (master, vlan) = (Some(12), Some(100));
    let fdb = Announcement::Fdb { index: 7, master, mac: MAC, vlan, learned: false, gone: false };
    let address = Some([10, 0, 0, 9].into());
    let neighbour = Announcement::Neighbour { index: 7, address, mac: Some(MAC), gone: false };
    assert_eq!(announced(&[entry(AF_BRIDGE), entry(AF_INET)].concat()), [fdb, neighbour]);
}

#[test]
fn the_local_address_of_a_point_to_point_link_is_the_nodes() {
    let mut address = message(RTM_NEWADDR, AF_INET, &number(7), |message| {
        message.bytes(IFA_ADDRESS, &[10, 0, 0, 9]).bytes(IFA_LOCAL, &[10, 0, 0, 5]);
    });
    address[17] = 24;
    let expected = Announcement::Address { index: 7, net: "10.0.0.5/24".parse().unwrap(), gone: false };
    assert_eq!(announced(&address), [expected]);
    address[17] = 33;
    assert_eq!(announced(&address), [], "no IPv4 prefix");
}

#[test]
fn routes_rules_and_settings_have_a_family() {
    let route = message(RTM_DELROUTE, AF_INET6, &[254, 16, 0, 1, 0, 0, 0, 0], |message| {
        message.bytes(RTA_OIF, &number(7));
    });
    let (family, protocol) = (Family::V6, 16);
    let expected = Announcement::Route { family, prefix_length: 0, oif: Some(7), protocol, gone: true };
    assert_eq!(announced(&route), [expected]);
    let rule = message(RTM_DELRULE, AF_INET, &[0; 8], |_| {});
    assert_eq!(announced(&rule), [Announcement::Rule { family: Family::V4, gone: true }]);
    let netconf = |index: i32| {
        message(RTM_NEWNETCONF, AF_INET, &[], |message| {
            message.bytes(NETCONFA_IFINDEX, &index.to_ne_bytes());
        })
    };
    let expected = |index| [Announcement::Netconf { index, family: Family::V4 }];
    assert_eq!(announced(&netconf(7)), expected(Some(7)));
    assert_eq!(announced(&netconf(-1)), expected(None));
}

#[test]
fn truncated_messages_announce_nothing() {
    let whole = bond(AF_UNSPEC);
    for end in 0..whole.len() {
        assert_eq!(announced(&whole[..end]), [], "{end}");
    }
}

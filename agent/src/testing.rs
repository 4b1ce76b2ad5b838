//! A node for the tests of decisions: bridge br136 with the uplink bond0.136 of bond0, whose members are nic0
//! and nic1.

use kernel::monitor::LinkState;
use vlan_bridge::watched::{Watched, WatchedBridge, WatchedUplink};

pub(crate) const NIC0: u32 = 1;
pub(crate) const NIC1: u32 = 2;
pub(crate) const BOND: u32 = 3;
pub(crate) const UPLINK: u32 = 4;
pub(crate) const BR: u32 = 5;

/// What a pass has seen of it.
pub(crate) fn watched() -> Watched {
    let link = |index, name: &str, master| kernel::link::Link {
        index,
        name: name.into(),
        mtu: 1500,
        master,
        up: true,
        carrier: true,
        ..Default::default()
    };
    let uplink =
        WatchedUplink { port: link(UPLINK, "bond0.136", Some(BR)), parent: Some(link(BOND, "bond0", None)) };
    let bridge = WatchedBridge { bridge: link(BR, "br136", None), pods: Vec::new(), uplinks: vec![uplink] };
    let names = ["br136".into(), "veth0123456789a".into()].into();
    Watched { bridges: vec![bridge], names, ..Watched::default() }
}

/// The announcement of a link that is up.
pub(crate) fn announced(index: u32, name: &str, master: Option<u32>) -> LinkState {
    LinkState {
        index,
        name: name.into(),
        gone: false,
        up: true,
        carrier: true,
        master,
        parent: None,
        mac: None,
        mtu: 1500,
        kind: String::new(),
        active_slave: None,
    }
}

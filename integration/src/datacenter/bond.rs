//! Nodes with two NICs in a bond.

use super::{DataCenter, VLANS, bonding};
use crate::{Namespace, Node, poll};
use serde_json::{Value, json};
use std::ops::Deref;
use std::time::Duration;

/// The bond mode of a node's two NICs, and their switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BondMode {
    /// `balance-rr`, to a static LAG on the second switch.
    RoundRobin,
    /// `active-backup`, one NIC to each switch; the first is active.
    ActiveBackup,
    /// `802.3ad`, to an LACP bond on the first switch.
    Lacp,
}

impl BondMode {
    /// All of them.
    pub const ALL: [BondMode; 3] = [BondMode::RoundRobin, BondMode::ActiveBackup, BondMode::Lacp];

    /// The kernel's name of the mode.
    pub fn name(self) -> &'static str {
        match self {
            BondMode::RoundRobin => "balance-rr",
            BondMode::ActiveBackup => "active-backup",
            BondMode::Lacp => "802.3ad",
        }
    }

    /// The link attributes of a bond in this mode, quick to notice a loss.
    fn attributes(self) -> &'static str {
        match self {
            BondMode::RoundRobin => "mode balance-rr miimon 50",
            BondMode::ActiveBackup => "mode active-backup miimon 50",
            BondMode::Lacp => "mode 802.3ad miimon 50 lacp_rate fast",
        }
    }

    /// The switch that each NIC is plugged into.
    fn switches(self) -> [usize; 2] {
        match self {
            BondMode::RoundRobin => [1, 1],
            BondMode::ActiveBackup => [0, 1],
            BondMode::Lacp => [0, 0],
        }
    }
}

/// One of the two NICs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// `nic0`.
    First,
    /// `nic1`.
    Second,
}

/// A node with `nic0` and `nic1` in `bond0`, and its own address and default route on `bond0.51`, whose
/// reverse path filter is strict. Dereferences to [`Node`].
#[derive(Debug)]
pub struct BondedNode<'a> {
    datacenter: &'a DataCenter,
    node: Node,
    number: u8,
    mode: BondMode,
}

impl<'a> BondedNode<'a> {
    pub(super) fn plug(datacenter: &'a DataCenter, number: u8, mode: BondMode) -> BondedNode<'a> {
        let plugged = BondedNode { datacenter, node: Node::new(&format!("node{number}")), number, mode };
        plugged.wire();
        plugged.configure();
        plugged
    }

    /// The cables, and the switches' side of the bond.
    fn wire(&self) {
        let ports = [Member::First, Member::Second].map(|member| (self.switch(member), self.port(member)));
        for (index, (switch, port)) in ports.iter().enumerate() {
            let node = self.node.name();
            switch.ip(&format!("link add {port} type veth peer name nic{index} netns {node}"));
        }
        if self.mode == BondMode::ActiveBackup {
            for (member, (_, port)) in [Member::First, Member::Second].into_iter().zip(&ports) {
                self.datacenter.switches[self.mode.switches()[member as usize]].plug(port);
            }
            return;
        }
        let [(switch, first), (_, second)] = &ports;
        let lag = self.lag();
        switch.ip(&format!(
            "link add {lag} type bond {}\n\
             link set {first} master {lag}\nlink set {second} master {lag}\n\
             link set {first} up\nlink set {second} up",
            self.mode.attributes()
        ));
        self.datacenter.switches[self.mode.switches()[0]].plug(&lag);
    }

    /// The node's side of the bond, and its own address.
    fn configure(&self) {
        // Before any interface is made, because new ones start with the values of `default`.
        for (key, value) in
            [("conf/all/rp_filter", "1"), ("conf/default/rp_filter", "1"), ("ip_forward", "1")]
        {
            self.node.set_sysctl(&format!("net/ipv4/{key}"), value);
        }
        self.node.ip(&format!(
            "link add bond0 type bond {}\n\
             link set nic0 master bond0\nlink set nic1 master bond0\n\
             link set nic0 up\nlink set nic1 up\nlink set bond0 up",
            self.mode.attributes()
        ));
        self.join(51);
        self.node.ip("route add default via 10.51.0.1\nroute add default via fd00:51::1");
    }

    /// Gives the node an interface and an address of its own on a VLAN.
    pub fn join(&self, vlan: u16) {
        self.node.ip(&format!(
            "link add link bond0 name bond0.{vlan} type vlan id {vlan}\n\
             link set bond0.{vlan} up\n\
             addr add {}/24 dev bond0.{vlan}\n\
             addr add {}/64 dev bond0.{vlan} nodad",
            self.address(vlan),
            self.address6(vlan)
        ));
    }

    pub(super) fn wait_until_ready(&self) {
        let what = format!("both members of {}'s {} bond", self.node.name(), self.mode.name());
        poll(Duration::from_secs(30), &what, || self.active_members() == 2);
        self.node.wait_for("10.51.0.1");
    }

    /// Monitors the bond by ARP of the router, as where every cable ends in a switch. The second NIC is the
    /// primary one: its switch leads to the router through the first NIC's switch.
    pub fn monitor_by_arp(&self) {
        self.ip("link set bond0 type bond arp_interval 100 arp_ip_target 10.51.0.1");
        self.ip("link set bond0 type bond primary nic1");
    }

    /// The active member of a bond in mode `active-backup`.
    pub fn active_member(&self) -> String {
        self.read("/sys/class/net/bond0/bonding/active_slave").trim().to_owned()
    }

    /// The number of NICs that carry traffic or stand by, as both ends of the bond see it.
    pub fn active_members(&self) -> usize {
        let members = |of: &Namespace, bond: &str| {
            bonding::ready_members(&of.read(&format!("/proc/thread-self/net/bonding/{bond}")))
        };
        let here = members(&self.node, "bond0");
        match self.mode {
            BondMode::ActiveBackup => here,
            _ => here.min(members(self.switch(Member::First), &self.lag())),
        }
    }

    /// The switch's side of the bond, if it has one.
    fn lag(&self) -> String {
        format!("lag-{}", self.number)
    }

    /// The node's number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// How its NICs are bonded.
    pub fn mode(&self) -> BondMode {
        self.mode
    }

    /// The node's address on a VLAN that it has [joined](BondedNode::join): 10.51.0.11 for the first node.
    pub fn address(&self, vlan: u16) -> String {
        let (_, prefix) = VLANS.iter().find(|(id, _)| *id == vlan).expect("a VLAN of the data centre");
        format!("{prefix}.{}", 10 + self.number)
    }

    /// The same for IPv6: fd00:51::11 for the first node.
    pub fn address6(&self, vlan: u16) -> String {
        format!("fd00:{vlan}::{}", 10 + self.number)
    }

    /// This node's slice of VLAN 136's subnet: 172.20.56.16/28 for the first node.
    pub fn slice(&self) -> String {
        format!("172.20.56.{}/28", 16 * u16::from(self.number))
    }

    /// Takes a NIC's carrier away, as a cut cable does.
    pub fn cut(&self, member: Member) {
        self.switch(member).ip(&format!("link set {} down", self.port(member)));
    }

    /// Brings a NIC's carrier back.
    pub fn restore(&self, member: Member) {
        self.switch(member).ip(&format!("link set {} up", self.port(member)));
    }

    /// The namespace of the switch that a NIC is plugged into.
    pub fn switch(&self, member: Member) -> &'a Namespace {
        self.datacenter.switches[self.mode.switches()[member as usize]].namespace()
    }

    /// The switch's port that a NIC is plugged into.
    pub fn port(&self, member: Member) -> String {
        format!("n{}-{}", self.number, member as usize)
    }

    /// The standard configuration of our plugin with this node's slice.
    pub fn conf(&self) -> Value {
        json!({
            "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "bond0", "vlan": 136},
            "ipam": {
                "type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24", "slice": self.slice(),
                "gateway": "172.20.56.1", "routes": [{"dst": "0.0.0.0/0"}],
            },
        })
    }

    /// The same for pods with an IPv6 address too. fd00:136::1:0/112 is the first node's slice.
    pub fn dual_stack_conf(&self) -> Value {
        let mut conf = self.conf();
        let ipam = conf["ipam"].as_object_mut().expect("it has addresses");
        let v4 = json!({"subnet": ipam["subnet"], "slice": ipam["slice"], "gateway": ipam["gateway"]});
        let slice = format!("fd00:136::{}:0/112", self.number);
        let v6 = json!({"subnet": "fd00:136::/64", "slice": slice, "gateway": "fd00:136::1"});
        ["subnet", "slice", "gateway"].iter().for_each(|key| drop(ipam.remove(*key)));
        ipam.insert("ranges".into(), json!([[v4], [v6]]));
        ipam.insert("routes".into(), json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        conf
    }

    /// [`BondedNode::conf`] as the network list `vlan136` of this node.
    pub fn list136(&self) -> Value {
        self.node.list("vlan136", &[self.conf()])
    }

    /// The second topology: the bond itself is a port of a VLAN-filtering bridge, and a pod's port is in VLAN
    /// 136.
    pub fn port_vlan_list136(&self) -> Value {
        let mut conf = self.conf();
        conf["bridge"] = json!("br0");
        conf["uplink"] = json!({"master": "bond0"});
        conf["vlan"] = json!(136);
        self.node.list("vlan136", &[conf])
    }
}

impl Deref for BondedNode<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

//! `vlan-bridgectl agent` on a bonded node: the switches learn where pods are after a failover.

use crate::attach::{Attached, attach};
use integration::{Agent, BondMode, Ctl, DataCenter, Member, Namespace, Pings, note, poll};
use std::time::{Duration, Instant};

/// The time limit for a bond to notice the loss.
const NOTICED: Duration = Duration::from_secs(20);

#[test]
fn silent_pods_are_reached_again_after_a_failover_that_no_switch_sees() {
    let datacenter = DataCenter::new();
    for (has_agent, is_trunk) in [(false, false), (true, false), (true, true)] {
        let node = datacenter.node(BondMode::ActiveBackup);
        node.monitor_by_arp();
        let list = if is_trunk { node.port_vlan_list136() } else { node.list136() };
        let Attached { pod, address } = attach(&node, &list);
        let ctl = Ctl::new(&node);
        let agent = has_agent.then(|| Agent::start(&ctl, ""));
        // The router does not ask for the pod's MAC: its question would reach every port, and the pod would
        // speak.
        let router = datacenter.router();
        pod.wait_for("172.20.56.1");
        let link = pod.ip_json("link show eth0");
        let mac = link[0]["address"].as_str().unwrap();
        router.ip(&format!("neigh replace {address} lladdr {mac} dev trunk.136 nud permanent"));
        poll(NOTICED, "the second NIC is active", || node.active_member() == "nic1");
        pod.await_silence(&address);
        pod.wait_for("172.20.56.1");
        datacenter.cut_beyond_the_switch();
        poll(NOTICED, "the first NIC is active", || node.active_member() == "nic0");
        let begun = Instant::now();
        match &agent {
            None => {
                let (_, received) = Pings::start(router, &address, 25, Duration::from_millis(200)).finish();
                assert_eq!(received, 0, "reached without an agent: the test shows nothing");
            }
            Some(agent) => {
                poll(NOTICED, "the pod is reached", || router.pings(&address));
                note(&format!("reached {} ms after the failover", begun.elapsed().as_millis()));
                assert!(
                    agent.reports().contains("bond0 sends through another member"),
                    "{}",
                    agent.reports()
                );
            }
        }
        datacenter.restore_beyond_the_switch();
    }
}

/// A cable that comes back makes the agent announce too: the switch at its other end has forgotten all MACs.
#[test]
fn pods_are_announced_when_a_cable_is_back() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::Lacp);
    let attached = attach(&node, &node.list136());
    let ctl = Ctl::new(&node);
    let agent = Agent::start(&ctl, "");
    node.cut(Member::First);
    node.cut(Member::Second);
    poll(NOTICED, "the bond has no member", || node.active_members() == 0);
    node.restore(Member::First);
    agent.await_report("announces 1 addresses of pods of br136 on bond0.136");
    poll(NOTICED, "the pod is reached", || datacenter.router().pings(&attached.address));
}

/// The kernel lowers a VLAN sub-interface with its bond, and the node's interface in a VLAN with its bridge.
/// It raises neither.
#[test]
fn running_pods_follow_the_mtu_of_a_bond() {
    let datacenter = DataCenter::new();
    for is_trunk in [false, true] {
        let node = datacenter.node(BondMode::Lacp);
        let list = if is_trunk { node.port_vlan_list136() } else { node.list136() };
        let Attached { pod, .. } = attach(&node, &list);
        let ctl = Ctl::new(&node);
        let agent = Agent::start(&ctl, "");
        let bridge = list["plugins"][0]["bridge"].as_str().unwrap();
        let side = if is_trunk { format!("{bridge}.136") } else { bridge.to_owned() };
        for mtu in [1400, 1500] {
            node.ip(&format!("link set bond0 mtu {mtu}"));
            if !is_trunk {
                node.ip(&format!("link set bond0.136 mtu {mtu}"));
            }
            let has = |namespace: &Namespace, interface: &str| {
                namespace.ip_json(&format!("link show dev {interface}"))[0]["mtu"] == mtu
            };
            poll(NOTICED, &format!("MTU {mtu}"), || {
                has(&pod, "eth0") && has(&node, bridge) && has(&node, &side)
            });
        }
        assert!(!agent.reports().contains("not restored"), "{}", agent.reports());
    }
}

//! The node forwards nothing from the network of an uplink: packets by a sub-interface and by a trunk.

use crate::paths::{dual_stack, set_rp_filter};
use integration::{BondMode, BondedNode, DataCenter, Namespace, Pod, Server, Transport, ask, at, poll};
use std::time::Duration;

/// A machine of another network of the node. No machine of the pods' VLAN may reach it.
const MACHINE: [&str; 2] = ["198.51.100.9", "2001:db8:9::9"];
const PORT: u16 = 80;

fn machine(node: &BondedNode) -> Namespace {
    let machine = Namespace::new("machine");
    machine.ip(&format!("link add port type veth peer name nic9 netns {}", node.name()));
    machine.ip(
        "link set port up\naddr add 198.51.100.9/24 dev port\naddr add 2001:db8:9::9/64 dev port nodad\n\
                route add default via 198.51.100.1\nroute add default via 2001:db8:9::1",
    );
    node.ip("link set nic9 up\naddr add 198.51.100.1/24 dev nic9\naddr add 2001:db8:9::1/64 dev nic9 nodad");
    for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        node.set_sysctl(key, "1");
    }
    machine.wait_for("2001:db8:9::1");
    machine
}

/// Makes the router send packets for that machine to the node, as any machine of the VLAN could. The node can
/// route the answers back through its interface in the VLAN.
fn misdirect(datacenter: &DataCenter, node: &BondedNode, side: &str) {
    let mac = node.mac(side);
    datacenter.router().ip(&format!(
        "neigh add 172.20.56.250 lladdr {mac} dev trunk.136\nneigh add fd00:136::250 lladdr {mac} dev trunk.136\n\
         route add {} via 172.20.56.250 dev trunk.136 src 172.20.56.1\n\
         route add {} via fd00:136::250 dev trunk.136 src fd00:136::1",
        MACHINE[0], MACHINE[1]
    ));
    node.ip(&format!("route add 172.20.56.1 dev {side}\nroute add fd00:136::1 dev {side}"));
}

/// The machine's addresses that answer, over TCP and UDP.
fn crossings(from: &Namespace) -> Vec<String> {
    let asked = MACHINE.iter().flat_map(|to| Transport::ALL.map(|over| (to, over)));
    let answer = |(to, over): (&&str, Transport)| {
        let seen = ask(from, over, at(to, PORT))?;
        Some(format!("{over:?} {to} from {seen}"))
    };
    std::thread::scope(|scope| {
        let asking: Vec<_> = asked.map(|one| scope.spawn(move || answer(one))).collect();
        asking.into_iter().filter_map(|one| one.join().unwrap()).collect()
    })
}

fn nothing_crosses(trunk: bool) {
    let datacenter = DataCenter::new();
    let (node, pod) = (datacenter.node(BondMode::ActiveBackup), Pod::new());
    let machine = machine(&node);
    let _servers = Transport::ALL.map(|over| Server::start(&machine, over, PORT));
    let plugin = node.plugin(&dual_stack(&node, trunk));
    let result = plugin.add(&pod.eth0()).result();
    pod.wait_for("172.20.56.1");
    // Reverse path filtering would drop some of these packets too.
    set_rp_filter(&node, "0");
    misdirect(&datacenter, &node, if trunk { "br0.136" } else { "br136" });
    pod.ip(&format!(
        "route add {} via {} dev eth0 onlink\nroute add {} via {} dev eth0 onlink",
        MACHINE[0],
        node.address(51),
        MACHINE[1],
        node.address6(51)
    ));
    let parties = [("the router", datacenter.router()), ("a pod", &*pod)];
    for (who, from) in parties {
        assert_eq!(crossings(from), [""; 0], "{who}");
    }
    node.nft("delete table inet vlan-bridge-uplinks");
    for (who, from) in parties {
        poll(Duration::from_secs(20), &format!("{who} would cross the node"), || crossings(from).len() == 4);
    }
    assert_eq!(plugin.check(&pod.eth0(), &result).error_code(), 101);
    let next = Pod::new();
    plugin.add(&next.eth0()).expect_ok();
    for (who, from) in parties {
        assert_eq!(crossings(from), [""; 0], "{who}, after the next ADD");
    }
    plugin.check(&pod.eth0(), &result).expect_ok();
}

#[test]
fn nothing_crosses_the_node_from_a_sub_interface() {
    nothing_crosses(false);
}

#[test]
fn nothing_crosses_the_node_from_a_trunk() {
    nothing_crosses(true);
}

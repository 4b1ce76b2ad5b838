//! NAT mode on a kernel whose modules can be removed.

use integration::{
    Ctl, ModulesTaken, Namespace, Node, Plugin, Pod, Server, Snapshot, Transport, ask, at, has_sctp,
    not_tried, note,
};
use serde_json::{Value, json};
use std::path::Path;

const MODULES: &str = "/usr/lib/modules";

fn plugin(node: &Node) -> Plugin<'_> {
    let conf = json!({
        "type": "vlan-bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true,
        "capabilities": {"portMappings": true},
        "ipam": {"type": "vlan-bridge-ipam", "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd00:22::/64"}]]},
    });
    node.plugin(&node.list("local", &[conf]))
}

/// This is one test. Two would wait for each other for ever, each with a node, for the removal of the
/// modules.
#[test]
fn a_kernel_that_lacks_a_part_is_told_which_before_anything_is_touched() {
    if !Path::new(MODULES).join("order").exists() {
        return not_tried("not in the guest: no module is taken away");
    }
    networks_with_nat_need_the_kernels_parts();
    bridged_pods_that_need_our_rules_need_the_kernels_parts();
}

fn networks_with_nat_need_the_kernels_parts() {
    let (node, pod) = (Node::new("node"), Pod::new());
    let _taken = ModulesTaken::from_my_node_alone();
    let ctl = Ctl::new(&node);
    ctl.run("install --name local --subnet 10.22.0.0/24").expect_ok();
    let (before, before_in_pod) = (Snapshot::of(&node), Snapshot::of(&pod));
    let needed = ["nft_masq", "nft_nat", "nft_fib_inet", "nft_chain_nat", "nft_ct"];
    for module in needed {
        node.run(&format!("rmmod {module}")).expect_ok();
        let outcome = plugin(&node).add(&pod.eth0());
        let status = plugin(&node).status();
        node.run(&format!("insmod {MODULES}/{module}.ko")).expect_ok();
        assert_eq!(outcome.error_code(), 102, "{module}: {outcome}");
        let hint = format!("(does this kernel have it? modprobe {module})");
        assert!(outcome.error_text().contains(&hint), "{module}: {outcome}");
        assert_eq!(status.error_code(), 50, "{module}: {status}");
        before.assert_unchanged(&node);
        before_in_pod.assert_unchanged(&pod);
    }
    let order = std::fs::read_to_string(Path::new(MODULES).join("order")).unwrap();
    let parts: Vec<&str> = order
        .lines()
        .filter_map(|line| line.split(' ').next()?.strip_suffix(".ko"))
        .filter(|name| name.starts_with("nft_") || *name == "nf_tables")
        .collect();
    for module in parts.iter().rev() {
        node.run(&format!("rmmod {module}")).expect_ok();
    }
    let outcome = plugin(&node).add(&pod.eth0());
    let findings = ctl.doctor("--no-probe");
    let del = plugin(&node).del(&pod.eth0());
    let gc = plugin(&node).with("cni.dev/valid-attachments", json!([])).gc();
    for module in &parts {
        node.run(&format!("insmod {MODULES}/{module}.ko")).expect_ok();
    }
    assert!(outcome.error_text().contains("modprobe nf_tables"), "{outcome}");
    let lack = findings.iter().find(|finding| finding.check == "nat").unwrap();
    assert!(lack.verdict == "fail" && lack.seen.contains("nf_tables"), "{findings:#?}");
    for module in needed {
        assert!(lack.fixes[0].split(' ').any(|word| word == module), "{module}: {lack:#?}");
    }
    del.expect_ok();
    gc.expect_ok();
    before.assert_unchanged(&node);
    plugin(&node).add(&pod.eth0()).expect_ok();
    plugin(&node).del(&pod.eth0()).expect_ok();
}

/// With br_netfilter and a policy of drop, pods without NAT need our rules too. STATUS then fails as ADD
/// does.
fn bridged_pods_that_need_our_rules_need_the_kernels_parts() {
    let (node, pod) = (Node::new("node"), Pod::new());
    let _taken = ModulesTaken::from_my_node_alone();
    node.ip("link add nic0 type veth peer name port\nlink set nic0 up\nlink set port up");
    let conf = json!({
        "type": "vlan-bridge", "bridge": "br136", "uplink": {"master": "nic0"}, "guard": false,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"},
    });
    let bridged = node.plugin(&node.list("bridged", &[conf]));
    node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    node.nft(
        "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}",
    );
    node.run("rmmod nft_masq").expect_ok();
    let (added, status) = (bridged.add(&pod.eth0()), bridged.status());
    node.run(&format!("insmod {MODULES}/nft_masq.ko")).expect_ok();
    assert_eq!(added.error_code(), 102, "{added}");
    assert_eq!(status.error_code(), 50, "{status}");
    bridged.status().expect_ok();
}

/// `native/nat/paths.rs` tests all paths. This is the minimum on another kernel.
#[test]
fn a_host_port_works_on_this_kernel_too() {
    let (machine, node, pod) = (Namespace::new("machine"), Node::new("node"), Pod::new());
    machine.ip(&format!("link add port type veth peer name nic0 netns {}", node.name()));
    machine.ip("link set port up\naddr add 192.0.2.9/24 dev port\naddr add 2001:db8:2::9/64 dev port nodad");
    node.ip("link set nic0 up\naddr add 192.0.2.1/24 dev nic0\naddr add 2001:db8:2::1/64 dev nic0 nodad");
    let mut transports = Transport::ALL.to_vec();
    if has_sctp() {
        transports.push(Transport::Sctp);
    } else {
        not_tried("no SCTP in this kernel");
    }
    let port = |over: &Transport| json!({"hostPort": 8080, "containerPort": 80, "protocol": over.name()});
    let ports: Vec<Value> = transports.iter().map(port).collect();
    let eth0 = pod.eth0().capabilities(json!({"portMappings": ports}));
    plugin(&node).add(&eth0).expect_ok();
    let _servers: Vec<Server> = transports.iter().map(|over| Server::start(&pod, *over, 80)).collect();
    for (to, seen) in [("192.0.2.1", "192.0.2.9"), ("2001:db8:2::1", "2001:db8:2::9")] {
        machine.wait_for(to);
        for over in transports.iter().copied() {
            let to = at(to, 8080);
            assert_eq!(ask(&machine, over, to), Some(seen.parse().unwrap()), "{over:?} to {to}");
        }
    }
    note(&format!("host ports: {transports:?}"));
    let localhost = at("127.0.0.1", 8080);
    assert_eq!(ask(&node, Transport::Tcp, localhost), Some("10.22.0.1".parse().unwrap()));
    plugin(&node).del(&eth0).expect_ok();
    assert!(!node.run("nft list ruleset").expect_ok().stdout.contains("vlan-bridge"));
}

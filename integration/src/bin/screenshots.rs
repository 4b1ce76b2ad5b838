//! What `cargo xtask screenshots` shows: the tool's pictures of a bonded node with pods. Each picture follows
//! a line with its name.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "it prints pictures, and fails like a test"
)]

use integration::{Agent, BondMode, BondedNode, Ctl, DataCenter, Member, Pod, TerminalProgram, poll};
use serde_json::{Value, json};
use std::time::Duration;

fn main() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let ctl = Ctl::new(&node);
    let local = json!({"type": "vlan-bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let (vlan, local) = (node.list136(), node.list("local", &[local]));
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &vlan.to_string());
    ctl.write("/etc/cni/net.d/20-local.conflist", &local.to_string());
    let scene =
        [(&vlan, "shop/web-0"), (&vlan, "shop/web-1"), (&vlan, "shop/db-0"), (&local, "batch/report-7")];
    let _pods = scene.map(|(list, name)| attach(&node, list, name));

    let agent = Agent::start(&ctl, "");
    node.nft("delete table bridge vlan-bridge");
    agent.await_report("restored the pods' guards");
    node.cut(Member::First);
    agent.await_report("sends through another member");
    poll(Duration::from_secs(20), "the second NIC is active", || {
        ctl.run("topology").expect_ok().stdout.contains("nic1  active")
    });
    let mut command = ctl.command("status --watch --color always");
    command.env("LANG", "C.UTF-8").env("NODE_NAME", "node1");
    let mut screen = TerminalProgram::start(command, 80, 26);
    screen.await_text("batch/report-7");
    let picture = screen.screen().to_svg("vlan-bridgectl status --watch");
    screen.press("q");
    screen.expect_end();
    println!("picture status-watch.svg\n{picture}");
    println!("picture topology.svg\n{}", ctl.run("topology -o svg").expect_ok().stdout);
}

fn attach(node: &BondedNode, list: &Value, name: &str) -> Pod {
    let pod = Pod::new();
    let (namespace, name) = name.split_once('/').unwrap();
    let named = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
    node.client(list).add(&pod.eth0().args(&named)).expect_ok();
    pod
}

//! `vlan-bridgectl status` on a node with pods.

use integration::{BondMode, Ctl, DataCenter, Pod};
use serde_json::json;

#[test]
fn the_node_is_on_one_screen() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let ctl = Ctl::new(&node);
    let list = node.list136();
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
    let told = ctl.run("status").expect_ok().stdout;
    assert!(told.contains("NETWORK  vlan136: bridge br136 missing, port bond0.136 missing"), "{told}");

    let (pod, gone) = (Pod::new(), Pod::new());
    let client = node.client(&list);
    client.add(&pod.eth0().args("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0")).expect_ok();
    client.add(&gone.eth0()).expect_ok();
    drop(gone);
    integration::poll(std::time::Duration::from_secs(20), "the veth goes with its namespace", || {
        let seen = ctl.run("status -o json").expect_ok().json();
        seen["pods"].as_array().unwrap().iter().any(|pod| pod["state"] == "detached")
    });
    let told = ctl.run("status").expect_ok().stdout;
    for part in [
        "UPLINK   bond0: active-backup, up, MTU 1500, nic0 10000 Mbps full, nic1 10000 Mbps full",
        "NETWORK  vlan136: bridge br136 up, port bond0.136 (VLAN 136 of bond0) up, MTU 1500",
        "172.20.56.16-172.20.56.31: 2 used, 0 cooling, 0 quarantined of 16",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    let line = |address: &str| told.lines().find(|line| line.starts_with(address)).unwrap().to_owned();
    assert!(line("172.20.56.16").ends_with(" br136                shop/web-0"), "{told}");
    assert!(line("172.20.56.17").ends_with("(detached)"), "{told}");

    let json = ctl.run("status -o json").expect_ok().json();
    assert_eq!(
        json["uplinks"][0]["members"][1],
        json!({"name": "nic1", "up": true, "speed": "10000 Mbps", "duplex": "full"})
    );
    assert_eq!(json["networks"][0]["port"]["vlan"], 136);
    assert_eq!(json["networks"][0]["usage"][0]["used"], 2);
    let pods = json["pods"].as_array().unwrap();
    let web = pods.iter().find(|pod| pod["pod"] == "shop/web-0").unwrap();
    assert_eq!(
        (&web["addresses"], &web["container"], &web["interface"]),
        (&json!(["172.20.56.16"]), &json!(pod.id()), &json!("eth0"))
    );
}

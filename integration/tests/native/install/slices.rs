//! The assignment of slices to the ranges of a list.

use super::{installed, refused, template, with_template};
use integration::{Ctl, Node};
use serde_json::json;

#[test]
fn each_range_gets_the_slice_of_its_subnet() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    ctl.write("/etc/slices", "this 172.20.57.16/28,fd00:0:0:1::/64,172.20.56.16/28\n");
    let mut list = template();
    let line = with_template(&ctl, &list) + " --mapping /etc/slices --node this";
    let told = ctl.run(&line).expect_ok();
    assert!(
        told.stderr.contains("slice 172.20.57.16/28, from /etc/slices, is in no subnet of the list"),
        "{told}"
    );
    assert_eq!(installed(&ctl)["plugins"][0]["ipam"]["slice"], "172.20.56.16/28");
    let ranges = json!([[{"subnet": "172.20.56.0/24"}], [{"subnet": "fd00::/48"}]]);
    list["plugins"][0]["ipam"] = json!({"type": "vlan-bridge-ipam", "ranges": ranges});
    with_template(&ctl, &list);
    ctl.run(&line).expect_ok();
    let ranges = &installed(&ctl)["plugins"][0]["ipam"]["ranges"];
    assert_eq!(
        (&ranges[0][0]["slice"], &ranges[1][0]["slice"]),
        (&json!("172.20.56.16/28"), &json!("fd00:0:0:1::/64"))
    );
    refused(
        &ctl.run(&line.replace("--mapping /etc/slices", "--slice 172.20.56.16/28")),
        &["no slice of fd00::/48"],
    );
    refused(
        &ctl.run(&line.replace("--mapping /etc/slices", "--slice 172.20.56.16/28,172.20.56.32/28")),
        &["172.20.56.16/28 and 172.20.56.32/28", "are both in subnet 172.20.56.0/24: a range has one slice"],
    );
}

#[test]
fn a_slice_that_a_list_has_already_stays() {
    let node = Node::new("node");
    node.ip("link add nic0 type veth peer name switch");
    let ctl = Ctl::new(&node);
    ctl.write("/etc/slices", "this 172.20.56.16/28\n");
    let mut list = template();
    list["plugins"][0]["ipam"]["slice"] = json!("172.20.56.16/28");
    let line = with_template(&ctl, &list);
    for words in ["", "--slice 172.20.56.16/28", "--node this --mapping /etc/slices"] {
        let told = ctl.run(&format!("{line} {words} --cni-version 1.1.0")).expect_ok();
        assert!(told.stderr.is_empty(), "{told}");
        assert_eq!(installed(&ctl), list);
    }
    // A range within the slice is not another part of the subnet.
    let ipam = list["plugins"][0]["ipam"].as_object_mut().unwrap();
    ipam.remove("slice");
    ipam.insert("rangeStart".into(), json!("172.20.56.17"));
    ipam.insert("rangeEnd".into(), json!("172.20.56.30"));
    with_template(&ctl, &list);
    ctl.run(&format!("{line} --slice 172.20.56.16/28 --cni-version 1.1.0")).expect_ok();
    assert_eq!(installed(&ctl), list);
    // A bridge of this node alone needs no slice, but accepts one.
    let ipam = json!({"type": "vlan-bridge-ipam", "subnet": "172.20.56.0/24"});
    list["plugins"][0] = json!({"type": "vlan-bridge", "bridge": "cni0", "isGateway": true, "ipam": ipam});
    with_template(&ctl, &list);
    ctl.run(&format!("{line} --slice 172.20.56.16/28")).expect_ok();
    assert_eq!(installed(&ctl)["plugins"][0]["ipam"]["slice"], "172.20.56.16/28");
}

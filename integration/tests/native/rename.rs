//! A network that was renamed after its pods were attached. Their DEL has the new name, and removes
//! everything.

use crate::attached::Clean;
use crate::doctor::{LIST, with_pod};
use crate::nat::{Nat, with_ports};
use integration::{Attachment, Ctl, Node, Plugin, Pod, Site, plugin, poll, run};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// The same network with its old or new name.
fn named<'a>(clean: &'a Clean, name: &str) -> Plugin<'a> {
    clean.plugin().with("name", json!(name)).with("guard", json!(true))
}

fn guarded(clean: &Clean) -> usize {
    clean.site.node.run("nft list table bridge vlan-bridge").stdout.matches("veth").count()
}

#[test]
fn a_del_under_the_new_name_takes_veth_rules_routes_and_lease_along() {
    let clean = Clean::new();
    let pod = Pod::new();
    named(&clean, "old").add(&pod.eth0()).expect_ok();
    assert!(guarded(&clean) > 0 && clean.site.node.leases("old").len() == 1);
    named(&clean, "new").del(&pod.eth0()).expect_ok();
    assert!(!pod.has_link("eth0"));
    clean.assert_nothing_left(&pod);
    assert_eq!(guarded(&clean), 0);
    assert!(clean.site.node.leases("old").is_empty());
    named(&clean, "new").add(&pod.eth0()).expect_ok();
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn so_does_one_whose_namespace_is_gone() {
    let clean = Clean::new();
    for _ in 0..2 {
        let pod = Pod::new();
        let eth0 = pod.eth0();
        let veth = || clean.site.node.ip_json("link show type veth").as_array().unwrap().len();
        let before = veth();
        named(&clean, "old").add(&eth0).expect_ok();
        drop(pod);
        poll(SOON, "the end of the pod's veth", || veth() == before);
        named(&clean, "new").del(&eth0.clone().without_netns()).expect_ok();
        assert_eq!(guarded(&clean), 0);
        assert!(clean.site.node.leases("old").is_empty());
    }
}

#[test]
fn so_do_host_ports_and_a_network_without_records() {
    let nat = Nat::new();
    let pod = Pod::new();
    let eth0 = with_ports(&pod, &[(8080, "tcp", 80, "")]);
    nat.local().add(&eth0).expect_ok();
    assert!(nat.count("8080") > 0);
    nat.local().with("name", json!("new")).del(&eth0).expect_ok();
    assert_eq!(nat.count("8080"), 0);
    nat.assert_nothing_left();
    // After the veth is gone, only the port's record names this attachment.
    let plain =
        nat.local().with("name", json!("plain")).with("ipMasq", json!(false)).with("bridge", json!("br9"));
    let plain = plain.with("isDefaultGateway", json!(false));
    let pod = Pod::new();
    let eth0: Attachment = pod.eth0();
    plain.add(&eth0).expect_ok();
    assert!(!nat.node.leases("plain").is_empty());
    drop(pod);
    plain.clone().with("name", json!("new")).del(&eth0.without_netns()).expect_ok();
    assert!(nat.node.leases("plain").is_empty());
}

/// An ADD is refused for any reason, and its DEL must not touch the attachment of another network.
#[test]
fn a_refused_adds_del_leaves_the_other_networks_attachment() {
    let clean = Clean::new();
    let pod = Pod::new();
    let result = clean.plugin().add(&pod.eth0()).result();
    let broken: [(&str, Value); 3] = [
        ("ipam", json!({"type": "no-such-ipam"})),
        ("mtu", json!("big")),
        ("uplink", json!({"master": "nic9"})),
    ];
    for (key, value) in broken {
        let other = named(&clean, "other").with(key, value);
        assert!(!other.add(&pod.eth0()).ok(), "{key}");
        for eth0 in [pod.eth0(), pod.eth0().without_netns()] {
            let _ = other.del(&eth0);
            let _ = named(&clean, "other").del(&eth0);
            clean.plugin().check(&pod.eth0(), &result).expect_ok();
            assert_eq!(clean.site.node.leases(Site::NETWORK).len(), 1, "{key}");
        }
    }
    clean.plugin().del(&pod.eth0()).expect_ok();
    clean.assert_nothing_left(&pod);
}

/// The longest names that the plugin accepts. The kernel could not store them unchanged.
#[test]
fn the_longest_names_are_attached_and_detached() {
    let nat = Nat::new();
    for (name, id) in [(100, 130), (100, 131), (180, 200), (170, 64), (1, 200)] {
        let pod = Pod::new();
        let plugin = nat.local().with("name", json!("n".repeat(name)));
        let mut eth0 = with_ports(&pod, &[(8080, "tcp", 80, "")]);
        let mut twin = pod.interface("net1");
        (eth0.id, twin.id) = ("c".repeat(id), format!("{}d", "c".repeat(id - 1)));
        let result = plugin.add(&eth0).result();
        plugin.add(&twin).expect_ok();
        plugin.check(&eth0, &result).expect_ok();
        plugin.del(&twin).expect_ok();
        assert!(!pod.has_link("net1") && pod.has_link("eth0"));
        plugin.clone().with("cni.dev/valid-attachments", json!([])).gc().expect_ok();
        assert!(!pod.has_link("eth0") && nat.count("8080") == 0, "{name} {id}");
        plugin.del(&eth0).expect_ok();
        nat.assert_nothing_left();
    }
}

#[test]
fn doctor_and_check_name_the_leases_of_a_name_that_no_list_has() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (pod, mut list) = with_pod(&node, &ctl);
    let findings = ctl.doctor("--no-probe");
    assert!(!findings.iter().any(|finding| finding.seen.contains("no list has")), "{findings:#?}");
    let check = |folder: &str| {
        let mut command = Command::new(plugin("vlan-bridge-ipam"));
        command.arg("check").args(["--conf-dir", folder]).arg("--data-dir").arg(node.data_dir());
        run(command.env_remove("CNI_COMMAND")).expect_ok().stdout
    };
    let folder = ctl.path("/etc/cni/net.d").display().to_string();
    assert!(!check(&folder).contains("no list in"), "{}", check(&folder));
    list["name"] = json!("new");
    ctl.write(LIST, &list.to_string());
    let findings = ctl.doctor("--no-probe");
    let orphan = findings.iter().find(|finding| finding.seen.contains("no list has")).unwrap();
    assert!(orphan.seen.contains("/local: 1 lease,") && orphan.verdict == "warn", "{orphan:?}");
    assert!(check(&folder).contains("local: no list in"), "{}", check(&folder));
    assert!(!check("/nowhere").contains("no list in"), "where there are no lists, nothing is known of names");
    node.client(&list).del(&pod.eth0()).expect_ok();
    let findings = ctl.doctor("--no-probe");
    assert!(!findings.iter().any(|finding| finding.seen.contains("no list has")), "{findings:#?}");
}

//! The doctor on the network between a node and its router.

use crate::doctor::{find, with_bridged_pod};
use integration::{Ctl, Finding, Site};
use serde_json::json;

/// The fault between the node and the router.
fn wrong(ctl: &Ctl<'_>) -> Vec<Finding> {
    let findings = ctl.doctor("");
    assert!(find(&findings, "vlan").seen.contains("172.20.56.1 answers"), "{findings:#?}");
    findings.into_iter().filter(|finding| finding.check == "vlan" && finding.verdict != "ok").collect()
}

/// Like a hypervisor that forbids forged transmits, or a switch with port security. It passes only frames
/// with the machine's own MAC.
#[test]
fn a_machine_that_may_send_under_its_own_mac_only_is_found_out() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    let (pod, list, _) = with_bridged_pod(&site, &ctl, &json!({}));
    assert_eq!(wrong(&ctl), []);
    assert!(pod.pings(Site::GATEWAY));
    let mac = node.mac("nic0");
    site.router.nft(&format!(
        "table netdev hypervisor {{\n chain ingress {{\n type filter hook ingress device \"port\" priority 0;\n \
         ether saddr != {mac} drop;\n }}\n}}"
    ));
    assert!(!pod.pings(Site::GATEWAY), "the trap is not there");
    let told = |when: &str| {
        let wrong = wrong(&ctl);
        assert_eq!(wrong.len(), 1, "{when}: {wrong:#?}");
        assert_eq!(wrong[0].verdict, "fail", "{when}: {wrong:#?}");
        assert!(wrong[0].seen.contains("with its own MAC, and not with another"), "{when}: {wrong:#?}");
        assert!(wrong[0].fixes[0].contains("forged transmits"), "{when}: {wrong:#?}");
    };
    told("with a pod");
    node.client(&list).del(&pod.eth0()).expect_ok();
    node.ip(&format!("link del {}", list["plugins"][0]["bridge"].as_str().unwrap()));
    told("before the first pod");
    site.router.nft("delete table netdev hypervisor");
    assert_eq!(wrong(&ctl), []);
    let flags = node.ip_json("link show nic0")[0]["flags"].to_string();
    assert!(!flags.contains("PROMISC"), "{flags}");
}

//! Changing `type` with running pods: attachments that the reference plugins made, and the change back.

use crate::attached::Clean;
use integration::{Plugin, Pod, Site};
use serde_json::json;

/// The reference plugins, configured for the bridge and the addresses of the site's own configuration.
fn reference(clean: &Clean) -> Plugin<'_> {
    let conf = json!({
        "type": "bridge", "bridge": "br136",
        "ipam": {
            "type": "host-local", "subnet": "172.20.56.0/24", "rangeStart": "172.20.56.16",
            "rangeEnd": "172.20.56.31", "gateway": Site::GATEWAY, "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    clean.site.node.plugin(&clean.site.node.list(Site::NETWORK, &[conf]))
}

#[test]
fn ours_detaches_what_the_reference_plugins_attached() {
    let clean = Clean::new();
    let (pod, gone) = (Pod::new(), Pod::new());
    for pod in [&pod, &gone] {
        reference(&clean).add(&pod.eth0()).expect_ok();
        assert!(pod.pings(Site::GATEWAY));
    }
    let other = Pod::new();
    let added = clean.plugin().add(&other.eth0()).result();
    let held = clean.site.node.leases(Site::NETWORK);
    assert_eq!(held.len(), 3, "ours respects the reference's leases: {held:?}");
    assert!(held.iter().any(|lease| added.cidr() == format!("{lease}/24")));
    clean.plugin().del(&other.eth0()).expect_ok();

    clean.plugin().del(&pod.eth0()).expect_ok();
    assert!(!pod.has_link("eth0"));
    // The veth is deleted with the pod's namespace.
    let eth0 = gone.eth0();
    drop(gone);
    clean.plugin().del(&eth0.clone().without_netns()).expect_ok();
    clean.plugin().del(&eth0).expect_ok();
    let node = &clean.site.node;
    let alone = || node.ip_json("link show type veth").as_array().is_some_and(|links| links.len() == 2);
    integration::poll(std::time::Duration::from_secs(5), "nic0 and nic1 are the only veths", alone);
    clean.assert_nothing_left(&pod);
}

#[test]
fn the_reference_plugins_detach_what_ours_attached() {
    let (clean, pod) = (Clean::new(), Pod::new());
    clean.plugin().add(&pod.eth0()).expect_ok();
    reference(&clean).del(&pod.eth0()).expect_ok();
    assert!(!pod.has_link("eth0"));
    // The reference does not know the node's route to the pod.
    clean.plugin().with("cni.dev/valid-attachments", json!([])).gc().expect_ok();
    clean.assert_nothing_left(&pod);
    clean.plugin().del(&pod.eth0()).expect_ok();
}

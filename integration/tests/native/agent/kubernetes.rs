//! An agent in a pod of Kubernetes: it creates events, and installs the network list again.

use crate::agent::listening::OTHER;
use crate::api_server::{ApiServer, GONE};
use integration::{Agent, Ctl, Pod, Site, arp_announcement, poll, run};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// The first posted event with this reason, and how many there are.
fn events(server: &ApiServer, reason: &str) -> (Option<(String, Value)>, usize) {
    let posted = server.posted.lock().unwrap();
    let mut of_reason = posted.iter().filter(|(_, event)| event["reason"] == reason);
    let first = of_reason.next().cloned();
    (first.clone(), of_reason.count() + usize::from(first.is_some()))
}

#[test]
fn repairs_are_events_of_the_node_and_conflicts_are_events_of_the_pod() {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=0a1b";
    let result = site.node.plugin(&site.list()).add(&pod.eth0().args(args)).result();
    let server = ApiServer::start(&site.node, &[]);
    let agent = Agent::start_as(&ctl, server.within(&ctl, "agent"));
    let address: Ipv4Addr = result.address().parse().unwrap();
    let flush = |times: usize| {
        site.node.nft("delete table bridge vlan-bridge");
        poll(PATIENCE, "the guard again", || {
            agent.reports().matches("restored the pods' guards").count() == times
        });
    };
    flush(1);
    let posted = |reason: &str| {
        poll(PATIENCE, &format!("an event {reason}"), || events(&server, reason).1 > 0);
        events(&server, reason).0.unwrap()
    };
    let (path, event) = posted("Restored");
    assert_eq!(path, "/api/v1/namespaces/default/events");
    assert_eq!(
        event["involvedObject"],
        json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"})
    );
    assert!(event["message"].as_str().unwrap().starts_with("restored the pods' guards: "), "{event}");
    flush(2);
    site.router.send_frame("port", &arp_announcement(address, OTHER));
    let (path, event) = posted("AddressConflict");
    assert_eq!(path, "/api/v1/namespaces/shop/events");
    assert_eq!(event["involvedObject"]["name"], "web-0");
    assert_eq!(event["involvedObject"]["uid"], "0a1b");
    assert!(event["message"].as_str().unwrap().contains("which is pod shop/web-0's"), "{event}");
    // One of a kind in ten minutes. Events are sent in the order of the reports.
    assert_eq!(events(&server, "Restored").1, 1);
}

#[test]
fn an_event_that_the_api_server_refuses_holds_up_no_other() {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={GONE};K8S_POD_NAME=web-0");
    let result = site.node.plugin(&site.list()).add(&pod.eth0().args(&args)).result();
    let server = ApiServer::start(&site.node, &[]);
    let agent = Agent::start_as(&ctl, server.within(&ctl, "agent"));
    // Until it listens for the pod.
    let frame = arp_announcement(result.address().parse().unwrap(), OTHER);
    poll(PATIENCE, "the refusal", || {
        site.router.send_frame("port", &frame);
        agent.reports().contains("an event was not sent") || agent.reports().contains("conflict: ")
    });
    site.node.nft("delete table bridge vlan-bridge");
    poll(PATIENCE, "the next event", || events(&server, "Restored").1 == 1);
    assert!(agent.reports().contains("the API server answered 404: "), "{}", agent.reports());
}

/// kubelet replaces the files of a ConfigMap by a link in their folder.
#[test]
fn a_changed_network_list_is_installed_again() {
    const INSTALLED: &str = "/etc/cni/net.d/10-vlan136.conflist";
    let site = Site::new();
    let ctl = Ctl::new(&site.node);
    let list = |mtu: u32| {
        let mut list = site.list();
        list["plugins"][0]["mtu"] = mtu.into();
        list.to_string()
    };
    ctl.write("/etc/vlan-bridge/..one/10-vlan136.conflist", &list(1400));
    ctl.write("/etc/vlan-bridge/..two/10-vlan136.conflist", &list(1300));
    let link = |to: &str| {
        run(&mut ctl.command_of(Path::new("/bin/ln"), &format!("-sfnT {to} /etc/vlan-bridge/..data")))
            .expect_ok();
    };
    link("..one");
    std::os::unix::fs::symlink(
        "..data/10-vlan136.conflist",
        ctl.path("/etc/vlan-bridge/10-vlan136.conflist"),
    )
    .unwrap();
    let _agent = Agent::start(&ctl, "--network /etc/vlan-bridge/10-vlan136.conflist");
    let reaches = |mtu: &str| {
        poll(PATIENCE, &format!("MTU {mtu}"), || ctl.has(INSTALLED) && ctl.read(INSTALLED).contains(mtu));
    };
    reaches("1400");
    link("..two");
    reaches("1300");
}

//! What doctor and `status` show of the node's agent: whether it works, and the conflicts that it knows.

use crate::doctor::find;
use integration::{Agent, Ctl, Pod, Site, arp_announcement};
use std::net::Ipv4Addr;

/// A machine on the network that has no interface here.
const OTHER: &str = "02:00:00:00:00:09";

#[test]
fn a_conflict_fails_while_the_agent_knows_it() {
    let (site, pod) = (Site::new(), Pod::new());
    let ctl = Ctl::new(&site.node);
    let list = site.list();
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
    let named = pod.eth0().args("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0");
    let address: Ipv4Addr = site.node.plugin(&list).add(&named).result().address().parse().unwrap();
    assert!(ctl.run("status").expect_ok().stdout.contains("AGENT    none runs"));
    assert!(ctl.doctor("--no-probe").iter().all(|finding| finding.check != "agent"));

    let agent = Agent::start(&ctl, "");
    let findings = ctl.doctor("--no-probe");
    assert_eq!(find(&findings, "agent").verdict, "ok", "{findings:#?}");
    assert!(findings.iter().all(|finding| finding.check != "duplicates"), "{findings:#?}");
    let status = ctl.run("status").expect_ok();
    assert!(status.stdout.contains(", 0 conflicts"), "{status}");

    site.router.send_frame("port", &arp_announcement(address, OTHER));
    agent.await_report("conflict: ");
    let findings = ctl.doctor("--no-probe");
    let told: Vec<_> = findings.iter().filter(|finding| finding.check == "duplicates").collect();
    assert_eq!(told.len(), 1, "{findings:#?}");
    assert_eq!(told[0].verdict, "fail", "{findings:#?}");
    assert!(told[0].seen.ends_with(&format!("the agent heard {OTHER} on nic0")), "{findings:#?}");
    assert!(told[0].fixes[0].contains(OTHER), "{findings:#?}");
    // The other machine does not answer probes. That is no reason to call the address free of conflicts.
    let findings = ctl.doctor("");
    let told: Vec<_> = findings.iter().filter(|finding| finding.check == "duplicates").collect();
    assert_eq!(told.iter().map(|finding| &*finding.verdict).collect::<Vec<_>>(), ["fail"], "{findings:#?}");
    let status = ctl.run("status").expect_ok();
    let line = format!("CONFLICT {address} of shop/web-0: {OTHER} on nic0 uses it");
    assert!(status.stdout.contains(&line), "{status}");
    let json = ctl.run("status -o json").expect_ok().json();
    assert_eq!(json["agent"]["conflicts"][0]["other"], OTHER, "{json:#}");
    agent.end();
    assert!(ctl.failures().is_empty(), "{:#?}", ctl.failures());
}

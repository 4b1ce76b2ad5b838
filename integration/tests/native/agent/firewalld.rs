//! A real firewalld beside the agent.

use super::SOON;
use crate::repair::{Attached, with_attached_pods};
use integration::{Agent, Firewalld, poll};

/// A report about the rule of ours that firewalld takes away.
const RESTORED: &str = "chain FORWARD of table ip filter drops";

/// firewalld changes no table of ours. But when it starts or reloads, it flushes every chain of iptables and
/// leaves the chains' policies as they are.
#[test]
fn what_firewalld_flushes_is_restored_and_its_own_rules_remain() {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        let node = &scene.site.node;
        let agent = Agent::start(ctl, "");
        let firewalld = Firewalld::start(node);
        poll(SOON, "the rule that the start flushed", || agent.reports().contains(RESTORED));
        drop(agent);
        // A firewall with these interfaces in no zone may reject what is bridged.
        for what in
            ["zone=trusted --add-interface=br136", "zone=trusted --add-interface=cni0", "add-port=9999/tcp"]
        {
            firewalld.cmd(&format!("--permanent --{what}")).expect_ok();
        }
        for how in ["--reload", "--complete-reload"] {
            // An agent of its own, or the same thing would be left alone after the third time.
            let agent = Agent::start(ctl, "");
            assert!(!agent.reports().contains(RESTORED), "{}", agent.reports());
            firewalld.cmd(how).expect_ok();
            poll(SOON, &format!("the rule that {how} flushed"), || agent.reports().contains(RESTORED));
            poll(SOON, &format!("{how}: CHECK and doctor without complaint"), || complaint().is_none());
            assert!(works(), "{how}: {}", agent.reports());
            let own = node.run("nft list table inet firewalld").expect_ok();
            for rule in ["tcp dport 9999 accept", "iifname \"br136\" goto filter_FWD_trusted"] {
                assert!(own.stdout.contains(rule), "{how}: no {rule} in {own}");
            }
        }
    });
}

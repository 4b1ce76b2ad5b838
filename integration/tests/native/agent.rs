//! `vlan-bridgectl agent`: what other programs change is restored while no pod starts or ends.

mod listening;

use crate::repair::{Attached, HARMS, Harm, with_attached_pods};
use integration::{Agent, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

/// Longer than any repair takes on a busy machine. How long it takes is for the bench.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_agent_restores_what_other_programs_change() {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        for Harm { what, harm, told } in HARMS {
            // Each has an agent of its own, or the same thing would be left alone after the third time.
            let agent = Agent::start(ctl, "");
            harm(scene);
            agent.await_report(told);
            poll(SOON, &format!("{what}: CHECK and doctor without complaint"), || complaint().is_none());
            assert!(works(), "{what}: {}", agent.reports());
        }
    });
}

#[test]
fn a_dry_run_reports_what_differs_and_changes_nothing() {
    with_attached_pods(|Attached { ctl, scene, complaint, .. }| {
        let agent = Agent::start(ctl, "--dry-run");
        scene.site.node.nft("delete table bridge vlan-bridge");
        agent.await_report("the pods' guards: differs: ");
        assert!(complaint().is_some(), "{}", agent.reports());
        assert!(!agent.reports().contains("restored"), "{}", agent.reports());
    });
}

#[test]
fn what_is_changed_back_again_and_again_is_left_alone_and_its_changer_named() {
    with_attached_pods(|Attached { ctl, scene, complaint, .. }| {
        let agent = Agent::start(ctl, "");
        for round in 1..=3 {
            scene.site.node.nft("delete table bridge vlan-bridge");
            poll(SOON, "the guards again", || {
                agent.reports().matches("restored the pods' guards").count() == round
            });
        }
        scene.site.node.nft("delete table bridge vlan-bridge");
        agent.await_report("the pods' guards: changed again (by nft, process ");
        agent.await_report("left alone for 60 s");
        assert!(complaint().is_some(), "{}", agent.reports());
        // Other things are still restored.
        scene.site.node.ip(&format!("link set {} nomaster", scene.ports[0]));
        agent.await_report("it was in no bridge");
    });
}

#[test]
fn a_node_has_one_agent_and_sigterm_ends_it() {
    with_attached_pods(|Attached { ctl, complaint, .. }| {
        let mut agent = Agent::start(ctl, "");
        let second = ctl.run("agent");
        assert!(!second.ok() && second.stderr.contains("an agent already runs on this node"), "{second}");
        let pid = Pid::from_raw(agent.process().pid().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        poll(SOON, "the end of the agent", || !agent.process().is_alive());
        assert!(agent.reports().contains("everything stays as it is"), "{}", agent.reports());
        assert_eq!(complaint(), None);
    });
}

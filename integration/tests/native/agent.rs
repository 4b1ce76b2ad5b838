//! `vlan-bridgectl agent`: what other programs change is restored while no pod starts or ends.

mod address;
mod conflicts;
mod dashboard;
pub(crate) mod disturbed;
mod firewalld;
mod kill;
mod kubernetes;
pub(crate) mod listening;
mod metrics;
mod mtu;
mod storm;
mod strangers;

use crate::repair::{Attached, HARMS, Harm, with_attached_pods};
use integration::{Agent, poll, product};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// Longer than any repair takes on a busy machine. How long it takes is for the bench.
const SOON: Duration = Duration::from_secs(10);

/// Ends an agent with a signal.
fn end(agent: &mut Agent, signal: Signal) {
    let pid = Pid::from_raw(agent.process().pid().try_into().unwrap());
    kill(pid, signal).unwrap();
    poll(SOON, "the end of the agent", || !agent.process().is_alive());
}

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
        end(&mut agent, Signal::SIGTERM);
        assert!(agent.reports().contains("everything stays as it is"), "{}", agent.reports());
        assert_eq!(complaint(), None);
    });
}

#[test]
fn an_agent_that_runs_and_looks_at_the_node_passes_its_check() {
    with_attached_pods(|Attached { ctl, scene, .. }| {
        let refused = |reason: &str| {
            let check = ctl.run("agent --check");
            assert!(!check.ok() && check.stderr.contains(reason), "{check}");
        };
        refused("no agent runs on this node");
        let mut agent = Agent::start(ctl, "");
        let check = ctl.run("agent --check").expect_ok();
        assert!(check.stdout.starts_with("the agent looked at the node "), "{check}");
        // An agent that hangs writes nothing any more. Its last pass grows old.
        let state = format!("/run/vlan-bridge/agent/{}/state.json", scene.site.node.cookie());
        let recent = fs::read_to_string(&state).unwrap();
        let mut keys: serde_json::Value = serde_json::from_str(&recent).unwrap();
        let uptime = &mut keys["health"]["uptimeMs"];
        *uptime = (uptime.as_u64().unwrap().saturating_sub(180_000)).into();
        fs::write(&state, keys.to_string()).unwrap();
        refused("the agent last looked at the node 1");
        fs::write(&state, recent).unwrap();
        ctl.run("agent --check").expect_ok();
        end(&mut agent, Signal::SIGKILL);
        refused("no agent runs on this node");
        assert!(fs::exists(&state).unwrap(), "the killed agent's last pass is recent, and does not count");
    });
}

#[test]
fn the_service_manager_is_told_that_the_agent_works_and_ends() {
    with_attached_pods(|Attached { ctl, .. }| {
        let path = ctl.path("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let told = || {
            let mut text = [0; 64];
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        };
        let mut command = ctl.command("agent");
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
        let mut agent = Agent::start_as(ctl, command);
        assert_eq!([(); 3].map(|()| told()), ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        end(&mut agent, Signal::SIGTERM);
        poll(SOON, "the last message", || told() == "STOPPING=1");
    });
}

#[test]
fn an_agent_in_a_container_restores_sysctls_through_the_nodes_folder() {
    // What a runtime does to /proc/sys, and the capabilities of the component `agent`.
    const SCRIPT: &str = "set -e
        mount --bind /proc/sys/net $1
        mount --bind /proc/sys /proc/sys
        mount -o remount,ro,bind /proc/sys
        exec setpriv --no-new-privs --bounding-set -all,+net_admin,+net_raw $2 agent --sysctl-dir $1";
    with_attached_pods(|Attached { ctl, scene, complaint, .. }| {
        let (script, dir) = (ctl.path("container.sh"), ctl.path("sysctls"));
        fs::write(&script, SCRIPT).unwrap();
        fs::create_dir(&dir).unwrap();
        let tool = product().join("vlan-bridgectl");
        let line = format!("{} {} {}", script.display(), dir.display(), tool.display());
        let agent = Agent::start_as(ctl, ctl.command_of(Path::new("/bin/sh"), &line));
        scene.site.node.set_sysctl("net/ipv4/ip_forward", "0");
        agent.await_report("forwarding of IPv4 was off");
        scene.site.node.set_sysctl("net/ipv4/conf/br136/arp_ignore", "0");
        scene.site.node.ip(&format!("link set {} nomaster", scene.ports[0]));
        agent.await_report("arp_ignore=1");
        assert!(!agent.reports().contains("not restored"), "{}", agent.reports());
        poll(SOON, "CHECK and doctor without complaint", || complaint().is_none());
    });
}

//! SIGKILL of `repair` at each change, and before it says that it is done. The next ADD restores what is
//! half done.

use super::{Attached, Scene, with_attached_pods};
use crate::agent::disturbed::places_of_changes;
use integration::{Ctl, Outcome, Pod, Site, note, product, run};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

const SIGKILL: i32 = 9;

/// Runs `repair` under strace, with these options and a file for the messages that it sends.
fn traced(ctl: &Ctl<'_>, options: &str) -> (Outcome, String) {
    let (trace, tool) = (ctl.path("trace"), product().join("vlan-bridgectl"));
    let line =
        format!("-qq -f -e signal=none -o {} -s 64 {options} {} repair", trace.display(), tool.display());
    let outcome = run(&mut ctl.command_of(Path::new("strace"), &line));
    (outcome, fs::read_to_string(&trace).unwrap())
}

/// Kills `repair` at every point in turn, each time after `harm`. Then a pod is added to this network.
fn assert_restored_by_the_next_add(network: &str, gateway: &str, harm: fn(&Scene<'_>)) {
    with_attached_pods(|Attached { ctl, scene, complaint, works }| {
        let list = ctl.read(&format!("/etc/cni/net.d/10-{network}.conflist"));
        let plugin = scene.site.node.plugin(&serde_json::from_str(&list).unwrap());
        harm(scene);
        let (unharmed, trace) = traced(ctl, "-e trace=sendto");
        assert_eq!(unharmed.ok().then(complaint), Some(None), "{unharmed}");
        let messages = places_of_changes(&trace).into_iter().map(|place| ("sendto", place));
        let points: Vec<_> = messages.chain([("rmdir", 1)]).collect();
        note(&format!("kills at {points:?}"));
        assert!(points.len() > 8, "too few points: {points:?}");
        for (syscall, nth) in points {
            harm(scene);
            let options = format!("-e trace={syscall} -e inject={syscall}:signal=KILL:when={nth}");
            let (killed, trace) = traced(ctl, &options);
            assert_eq!(killed.status.signal(), Some(SIGKILL), "{syscall} {nth}: {killed}\n{trace}");
            let other = Pod::new();
            let added = plugin.add(&other.eth0()).expect_ok();
            assert!(other.pings(gateway), "{syscall} {nth}: {added}");
            let deleted = plugin.del(&other.eth0()).expect_ok();
            assert_eq!(complaint(), None, "killed at {syscall} {nth}\n{killed}\n{trace}\n{added}\n{deleted}");
        }
        assert!(works());
        let mark = Path::new("/run/vlan-bridge/restoring").join(scene.site.node.cookie().to_string());
        assert!(!mark.exists(), "each call compares everything");
        assert_eq!(ctl.run("repair").expect_ok().stdout, "nothing to repair\n");
    });
}

#[test]
fn an_add_to_an_uplink_restores_a_port_and_a_gateway_of_others() {
    assert_restored_by_the_next_add(Site::NETWORK, Site::GATEWAY, |scene| {
        scene.ip(&format!("link set {} nomaster\nlink del cni0", scene.ports[0]));
    });
}

#[test]
fn an_add_to_a_gateway_restores_an_uplink_of_others() {
    assert_restored_by_the_next_add("local", "10.22.0.1", |scene| scene.ip("link del br136"));
}

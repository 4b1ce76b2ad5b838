//! The commands of an operator.

use crate::ipam::{Ipam, NETWORK, here};
use integration::{Attachment, Outcome, Pod, eth0, plugin, run, run_with};
use std::fs;
use std::process::Command;

fn command(ipam: &Ipam, line: &str) -> Command {
    let mut command = Command::new(plugin("vlan-bridge-ipam"));
    command.args(line.split_whitespace()).arg("--data-dir").arg(ipam.node.data_dir());
    command.env_remove("CNI_COMMAND");
    command
}

fn ask(ipam: &Ipam, line: &str) -> Outcome {
    run(&mut command(ipam, line))
}

/// A running pod, a pod whose namespace is gone, a pod whose state is unknown, a lease of host-local, and a
/// released address.
fn crowd() -> (Ipam, Pod) {
    let ipam = Ipam::until(20);
    let (live, dead) = (Pod::new(), Pod::new());
    let add = |attachment: &Attachment| here(&ipam.plugin().call("ADD", attachment)).expect_ok();
    add(&live.eth0().args("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0"));
    add(&dead.eth0());
    add(&eth0("unknown"));
    add(&eth0("given-back"));
    ipam.host_local().add(&eth0("theirs")).expect_ok();
    ipam.plugin().del(&eth0("given-back")).expect_ok();
    (ipam, live)
}

#[test]
fn list_tells_who_holds_what() {
    let (ipam, live) = crowd();
    let text = ask(&ipam, "list").expect_ok().stdout;
    let line = |addr: &str| {
        let found = text.lines().find(|line| line.contains(&format!(" {addr} ")));
        found.unwrap_or_else(|| panic!("no {addr}:\n{text}")).to_owned()
    };
    assert!(text.starts_with("NETWORK"), "{text}");
    for (addr, words) in [
        ("10.1.0.2", &["held", &live.id()[..13], "eth0", "alive", "shop/web-0"][..]),
        ("10.1.0.3", &["held", "gone"]),
        ("10.1.0.4", &["held", "unknown", "eth0", "ago"]),
        ("10.1.0.5", &["cooling", "ago"]),
        ("10.1.0.6", &["held", "theirs", ">"]),
    ] {
        let line = line(addr);
        assert!(words.iter().all(|word| line.contains(word)), "{line}");
    }
    assert_eq!(text.lines().count(), 6, "{text}");

    let json = ask(&ipam, "list -o json").expect_ok().json();
    let items = json.as_array().unwrap();
    assert_eq!(items.len(), 5);
    assert_eq!((&items[0]["container"], &items[0]["pod"]), (&live.id().into(), &"shop/web-0".into()));
    assert_eq!((&items[3]["state"], &items[4]["adopted"]), (&"cooling".into(), &true.into()));
    assert_eq!(ask(&ipam, "list -o json --network other").expect_ok().json(), serde_json::json!([]));
}

#[test]
fn show_and_usage() {
    let (ipam, live) = crowd();
    let text = ask(&ipam, "show 10.1.0.2").expect_ok().stdout;
    for word in [live.id(), "eth0", "alive", "shop/web-0", NETWORK, &live.path().display().to_string()] {
        assert!(text.contains(word), "{text}");
    }
    let json = ask(&ipam, "show 10.1.0.3 -o json").expect_ok().json();
    assert_eq!(json["namespace"], "gone");
    let nobody = ask(&ipam, "show 10.1.0.5");
    assert_eq!((nobody.status.code(), nobody.stderr.trim()), (Some(1), "no lease for 10.1.0.5"));

    let text = ask(&ipam, "usage").expect_ok().stdout;
    assert_eq!(text, "vlan136: 10.1.0.1-10.1.0.20: 4 used, 1 cooling, 0 quarantined of 19\n");
    let json = ask(&ipam, "usage -o json").expect_ok().json();
    assert_eq!((&json[0]["used"], &json[0]["total"]), (&4.into(), &19.into()));
}

#[test]
fn check_takes_back_what_dead_owners_hold() {
    let (ipam, _live) = crowd();
    let text = ask(&ipam, "check").expect_ok().stdout;
    assert!(text.contains("released 10.1.0.3: the namespace of its owner is gone"), "{text}");
    assert!(text.ends_with("vlan136: 3 addresses held, 1 released\n"), "{text}");
    assert!(ask(&ipam, "check").expect_ok().stdout.ends_with("3 addresses held, 0 released\n"));
}

#[test]
fn release_asks_and_spares_the_living() {
    let (ipam, _live) = crowd();
    let answered = |line: &str, answer: &str| run_with(&mut command(&ipam, line), answer.as_bytes());
    let held = |addr: &str| ipam.leases().contains_key(addr);
    let refused = ask(&ipam, "release 10.1.0.2 --yes");
    assert!(refused.stderr.contains("is alive: use --force"), "{refused}");
    assert_eq!(refused.status.code(), Some(1));
    for answer in ["", "n\n", "yesterday\n"] {
        let refused = answered("release 10.1.0.3", answer);
        assert!(refused.stdout.contains("[y/N]") && !refused.ok(), "{refused}");
    }
    assert!(held("10.1.0.2") && held("10.1.0.3"));
    answered("release 10.1.0.3", "y\n").expect_ok();
    assert!(!held("10.1.0.3"));
    ask(&ipam, "release 10.1.0.2 --yes --force").expect_ok();
    ask(&ipam, "release 10.1.0.6 --yes").expect_ok();
    assert!(!held("10.1.0.2") && !held("10.1.0.6"));
    assert_eq!(ipam.records(), ["unknown:eth0"]);
    assert!(!ask(&ipam, "release 10.1.0.6 --yes").ok());
}

#[test]
fn what_is_no_call_says_what_would_be() {
    let ipam = Ipam::until(5);
    for line in ["lists", "show", "show x", "list --what", "release"] {
        let outcome = ask(&ipam, line);
        assert_eq!(outcome.status.code(), Some(2), "{outcome}");
        assert!(outcome.stderr.contains("Usage:") && outcome.stdout.is_empty(), "{outcome}");
    }
    assert!(ask(&ipam, "help").expect_ok().stdout.contains("Usage:"));
    assert_eq!(ask(&ipam, "list").expect_ok().stdout.lines().count(), 1, "no store, nothing held");
    fs::create_dir_all(ipam.node.data_dir()).unwrap();
    for name in ["..", "../etc", ".vlan-bridge"] {
        let outcome = ask(&ipam, &format!("list --network {name}"));
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        assert!(outcome.stderr.contains("is not a network name"), "{outcome}");
    }
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let ipam = Ipam::until(254);
    ipam.crowd(2000);
    let mut shell = Command::new("bash");
    let program = plugin("vlan-bridge-ipam");
    shell.arg("-c").arg("set -o pipefail; \"$0\" list --data-dir \"$1\" | head -2");
    shell.arg(program).arg(ipam.node.data_dir());
    assert_eq!(run(&mut shell).expect_ok().stdout.lines().count(), 2);
}

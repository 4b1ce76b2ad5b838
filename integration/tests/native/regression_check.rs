//! What a review found about the verbs that only look: CHECK's routes, and that nothing waits for a lock.

use crate::check::{Attached, Tampering, fails_after};
use integration::{Call, Outcome, Pod, Site};
use serde_json::json;

#[test]
fn a_route_that_is_not_where_it_was_is_gone() {
    let rows: [Tampering; 1] = [(
        "in a table that no rule names",
        |a| a.pod.ip("route del default\nroute add default via 172.20.56.1 table 77"),
        &["0.0.0.0/0", "172.20.56.1"],
    )];
    fails_after(&rows, |_| {});
    let rows: [Tampering; 1] = [(
        "another priority",
        |a| {
            a.pod.ip("route del 10.9.0.0/16 metric 50\nroute add 10.9.0.0/16 via 172.20.56.1 metric 60");
        },
        &["10.9.0.0/16"],
    )];
    fails_after(&rows, |conf| conf["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "priority": 50}]));
}

#[test]
fn a_route_whose_table_or_priority_is_the_kernels_choice_passes() {
    Attached::new(|conf| {
        conf["ipam"]["routes"] = json!([
            {"dst": "0.0.0.0/0", "table": 254}, {"dst": "10.77.0.0/16", "table": 0},
            {"dst": "10.78.0.0/16", "priority": 0}, {"dst": "10.79.0.0/16", "table": 1000, "priority": 7},
        ]);
    })
    .passes();
    // IPv6 has a priority of its own where none is asked for.
    Attached::new(|conf| {
        let ipam = &mut conf["ipam"];
        ipam["subnet"] = json!("2001:db8:56::/64");
        ipam["gateway"] = json!("2001:db8:56::1");
        ipam.as_object_mut().unwrap().remove("slice");
        ipam["routes"] = json!([
            {"dst": "::/0"}, {"dst": "2001:db8:77::/48", "table": 0},
            {"dst": "2001:db8:78::/48", "priority": 0}, {"dst": "2001:db8:79::/48", "priority": 7},
        ]);
    })
    .passes();
}

/// As the reference's sbr plugin leaves it, chained behind ours.
#[test]
fn a_route_in_a_table_that_a_rule_names_passes() {
    let attached = Attached::new(|_| {});
    attached.pod.ip("route del default\nroute add default via 172.20.56.1 table 77\n\
                     rule add from 172.20.56.16 table 77");
    attached.passes();
}

/// Runs a verb in a view of its own of the folder of the node's lock. `holder` runs the plugin.
fn run_with_own_lock(call: &Call, holder: &str) -> Outcome {
    let script = format!(
        "mkdir -p /run/vlan-bridge && mount -t tmpfs none /run/vlan-bridge || exit 99\n\
         {holder} timeout -s KILL 5 \"$0\"; code=$?\nls -A /run/vlan-bridge >&2\nexit $code"
    );
    call.run_under(&["sh", "-c", &script])
}

/// Runs a verb while somebody else holds the lock, and then where there is no lock yet.
#[track_caller]
fn needs_no_lock(call: &Call, judge: impl Fn(&Outcome)) {
    judge(&run_with_own_lock(call, "flock /run/vlan-bridge/node.lock"));
    let outcome = run_with_own_lock(call, "");
    judge(&outcome);
    assert!(!outcome.stderr.contains("node.lock"), "it made one: {outcome}");
}

#[test]
fn status_and_check_take_no_lock_and_make_none() {
    let site = Site::new();
    let (plugin, pod) = (site.node.plugin(&site.list()), Pod::new());
    let status = plugin.call_without_attachment("STATUS");
    let passes = |outcome: &Outcome| assert!(outcome.ok(), "{outcome}");
    let fails_with = |code| move |outcome: &Outcome| assert_eq!(outcome.error_code(), code, "{outcome}");
    // The control: an ADD needs it, and waits.
    let waiting = run_with_own_lock(&plugin.call("ADD", &pod.eth0()), "flock /run/vlan-bridge/node.lock");
    assert!(!waiting.ok() && waiting.stdout.is_empty(), "{waiting}");

    needs_no_lock(&status, passes);
    let result = plugin.add(&pod.eth0()).result();
    let check = plugin.clone().with("prevResult", json!(result)).call("CHECK", &pod.eth0());
    needs_no_lock(&status, passes);
    needs_no_lock(&check, passes);
    site.node.ip("link set nic0 nomaster");
    needs_no_lock(&status, passes);
    needs_no_lock(&check, fails_with(101));
    site.node.ip("addr add 10.44.0.5/24 dev nic0");
    needs_no_lock(&status, fails_with(50));
    site.node.ip("link del br136\nlink add br136 type veth peer name other");
    needs_no_lock(&status, fails_with(50));
    needs_no_lock(&check, fails_with(101));
    site.node.ip("link del nic0");
    needs_no_lock(&status, fails_with(51));
}

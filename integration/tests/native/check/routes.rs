//! CHECK of routes: it looks for each in its own table and with its own priority.

use crate::check::{Attached, Tampering, fails_after};
use integration::{Pod, Site};
use serde_json::json;

#[test]
fn a_route_in_another_table_is_looked_for_there() {
    let rows: [Tampering; 2] = [
        ("gone", |a| a.pod.ip("route flush table 100"), &["10.9.0.0/16"]),
        (
            "in the main table only",
            |a| a.pod.ip("route flush table 100\nroute add 10.9.0.0/16 via 172.20.56.1"),
            &["10.9.0.0/16"],
        ),
    ];
    fails_after(&rows, |conf| conf["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "table": 100}]));
}

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
    // IPv6 routes get a default priority if none is requested.
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

/// The routes that the reference's sbr plugin leaves, chained after ours.
#[test]
fn a_route_in_a_table_that_a_rule_names_passes() {
    let attached = Attached::new(|_| {});
    attached.pod.ip("route del default\nroute add default via 172.20.56.1 table 77\n\
                     rule add from 172.20.56.16 table 77");
    attached.passes();
}

/// Multus gives the default route to the network that a pod's annotation names, and CRI-O calls CHECK
/// afterwards.
#[test]
fn a_default_route_that_another_interface_has_by_now_does_not_fail() {
    let (site, pod) = (Site::new(), Pod::new());
    let plugin = site.node.plugin(&site.list());
    let result = plugin.add(&pod.eth0()).result();
    pod.ip("route del default");
    let told = plugin.check(&pod.eth0(), &result);
    assert_eq!(told.error_code(), 101, "{told}");
    pod.ip("link add net1 type veth peer name other\nlink set net1 up\nlink set other up\naddr add 203.0.113.5/24 dev net1\n\
            route add default via 203.0.113.1 dev net1");
    plugin.check(&pod.eth0(), &result).expect_ok();
}

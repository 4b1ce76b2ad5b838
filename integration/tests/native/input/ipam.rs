//! Every key of `vlan-bridge-ipam`: refused by itself, and by `vlan-bridge` before it makes a bridge.

use crate::input::{Row, Untouched};
use serde_json::json;

/// Called directly, and as the delegate.
#[track_caller]
fn refused(rows: &[Row]) {
    let untouched = Untouched::new();
    for plugin in ["vlan-bridge-ipam", "vlan-bridge"] {
        untouched.refuses(plugin, rows);
    }
}

#[test]
fn subnet_and_slice() {
    refused(&[
        (json!({"ipam": {"subnet": null, "slice": null}}), 7, &["ipam.subnet"]),
        (json!({"ipam": {"subnet": null}}), 7, &["ipam.slice", "172.20.56.16/28", "subnet"]),
        (json!({"ipam": {"subnet": 7}}), 7, &["ipam.subnet", "7"]),
        (json!({"ipam": {"subnet": ""}}), 7, &["ipam.subnet", "\"\""]),
        (json!({"ipam": {"subnet": "172.20.56.0"}}), 7, &["ipam.subnet", "172.20.56.0"]),
        (json!({"ipam": {"subnet": "172.20.56.0/33"}}), 7, &["ipam.subnet", "172.20.56.0/33"]),
        (json!({"ipam": {"subnet": "172.20.56.300/24"}}), 7, &["ipam.subnet", "172.20.56.300/24"]),
        (json!({"ipam": {"subnet": "172.20.56.5/24"}}), 7, &["ipam.subnet", "172.20.56.5/24", "host bits"]),
        (json!({"ipam": {"subnet": "172.20.56.0/24 "}}), 7, &["ipam.subnet", "172.20.56.0/24 "]),
        (json!({"ipam": {"slice": 28}}), 7, &["ipam.slice", "28"]),
        (json!({"ipam": {"slice": "nonsense"}}), 7, &["ipam.slice", "nonsense"]),
        (json!({"ipam": {"slice": "172.20.56.17/28"}}), 7, &["ipam.slice", "172.20.56.17/28", "host bits"]),
        (
            json!({"ipam": {"slice": "172.20.57.16/28"}}),
            7,
            &["ipam.slice", "172.20.57.16/28", "172.20.56.0/24"],
        ),
        (json!({"ipam": {"slice": "172.20.0.0/16"}}), 7, &["ipam.slice", "172.20.0.0/16", "172.20.56.0/24"]),
        (json!({"ipam": {"slice": "2001:db8::/64"}}), 7, &["ipam.slice", "2001:db8::/64"]),
        (json!({"ipam": {"slice": "172.20.56.0/32"}}), 7, &["ipam.slice", "172.20.56.0/32"]),
        (json!({"ipam": {"slice": "172.20.56.1/32"}}), 7, &["ipam.slice", "172.20.56.1/32"]),
        (
            json!({"ipam": {"rangeStart": "172.20.56.20"}}),
            7,
            &["ipam.slice", "172.20.56.16/28", "rangeStart"],
        ),
    ]);
}

#[test]
fn bounds_and_gateway() {
    refused(&[
        (json!({"ipam": {"slice": null, "rangeStart": 5}}), 7, &["ipam.rangeStart", "5"]),
        (json!({"ipam": {"slice": null, "rangeStart": "x"}}), 7, &["ipam.rangeStart", "x"]),
        (
            json!({"ipam": {"slice": null, "rangeStart": "10.0.0.1"}}),
            7,
            &["ipam.rangeStart", "10.0.0.1", "172.20.56.0/24"],
        ),
        (json!({"ipam": {"slice": null, "rangeEnd": true}}), 7, &["ipam.rangeEnd", "true"]),
        (
            json!({"ipam": {"slice": null, "rangeEnd": "172.20.56.20/24"}}),
            7,
            &["ipam.rangeEnd", "172.20.56.20/24"],
        ),
        (json!({"ipam": {"slice": null, "rangeEnd": "172.20.57.1"}}), 7, &["ipam.rangeEnd", "172.20.57.1"]),
        (
            json!({"ipam": {"slice": null, "rangeStart": "172.20.56.20", "rangeEnd": "172.20.56.10"}}),
            7,
            &["rangeStart", "172.20.56.20", "172.20.56.10"],
        ),
        (json!({"ipam": {"gateway": 1}}), 7, &["ipam.gateway", "1"]),
        (json!({"ipam": {"gateway": "router"}}), 7, &["ipam.gateway", "router"]),
        (json!({"ipam": {"gateway": "172.20.56.1/24"}}), 7, &["ipam.gateway", "172.20.56.1/24"]),
        (json!({"ipam": {"gateway": "172.20.57.1"}}), 7, &["ipam.gateway", "172.20.57.1", "172.20.56.0/24"]),
        (json!({"ipam": {"gateway": "172.20.56.0"}}), 7, &["ipam.gateway", "172.20.56.0"]),
        (json!({"ipam": {"gateway": "172.20.56.255"}}), 7, &["ipam.gateway", "172.20.56.255"]),
        (json!({"ipam": {"gateway": "2001:db8::1"}}), 7, &["ipam.gateway", "2001:db8::1"]),
    ]);
}

#[test]
fn ranges() {
    refused(&[
        (json!({"ipam": {"ranges": {}}}), 7, &["ipam.ranges", "{}"]),
        (json!({"ipam": {"ranges": [{}]}}), 7, &["ipam.ranges[0]", "{}"]),
        (json!({"ipam": {"ranges": [[]]}}), 7, &["ipam.ranges[0]", "empty"]),
        (json!({"ipam": {"ranges": [["x"]]}}), 7, &["ipam.ranges[0][0]", "\"x\""]),
        (json!({"ipam": {"ranges": [[{}]]}}), 7, &["ipam.ranges[0][0].subnet", "missing"]),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/8", "gateway": "11.0.0.1"}]]}}),
            7,
            &["ipam.ranges[0][0].gateway", "11.0.0.1"],
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/8", "slice": "11.0.0.0/28"}]]}}),
            7,
            &["ipam.ranges[0][0].slice", "11.0.0.0/28"],
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "172.20.0.0/16"}]]}}),
            7,
            &["ipam.ranges", "172.20.56.16/28", "172.20.0.0/16", "overlap"],
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/16"}]]}}),
            7,
            &["ipam.ranges[0]", "10.0.0.0/24", "10.0.0.0/16", "overlap"],
        ),
        (
            json!({"ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "2001:db8::/64"}]]}}),
            7,
            &["ipam.ranges[0]", "10.0.0.0/24", "2001:db8::/64"],
        ),
        (json!({"runtimeConfig": {"ipRanges": "x"}}), 7, &["runtimeConfig.ipRanges", "x"]),
        (
            json!({"runtimeConfig": {"ipRanges": [[{"subnet": "x"}]]}}),
            7,
            &["runtimeConfig.ipRanges[0][0].subnet", "x"],
        ),
    ]);
}

#[test]
fn routes() {
    refused(&[
        (json!({"ipam": {"routes": "0.0.0.0/0"}}), 7, &["ipam.routes", "0.0.0.0/0"]),
        (json!({"ipam": {"routes": ["0.0.0.0/0"]}}), 7, &["ipam.routes[0]", "0.0.0.0/0"]),
        (json!({"ipam": {"routes": [{}]}}), 7, &["ipam.routes[0].dst", "missing"]),
        (json!({"ipam": {"routes": [{"dst": 0}]}}), 7, &["ipam.routes[0].dst", "0"]),
        (json!({"ipam": {"routes": [{"dst": "default"}]}}), 7, &["ipam.routes[0].dst", "default"]),
        (json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}}), 7, &["ipam.routes[0].gw", "x"]),
        (json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "mtu": -1}]}}), 7, &["ipam.routes[0].mtu", "-1"]),
        (
            json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "advmss": "x"}]}}),
            7,
            &["ipam.routes[0].advmss", "x"],
        ),
        (
            json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "priority": 1.5}]}}),
            7,
            &["ipam.routes[0].priority", "1.5"],
        ),
        (
            json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "table": 4294967296_u64}]}}),
            7,
            &["ipam.routes[0].table", "4294967296"],
        ),
        (
            json!({"ipam": {"routes": [{"dst": "10.0.0.0/8", "scope": 256}]}}),
            7,
            &["ipam.routes[0].scope", "256"],
        ),
    ]);
}

#[test]
fn files_and_requests() {
    refused(&[
        (json!({"ipam": {"dataDir": 7}}), 7, &["ipam.dataDir", "7"]),
        (json!({"ipam": {"dataDir": "relative"}}), 7, &["ipam.dataDir", "relative"]),
        (json!({"ipam": {"dataDir": "/tmp/a\u{0}b"}}), 7, &["ipam.dataDir"]),
        (json!({"ipam": {"resolvConf": 7}}), 7, &["ipam.resolvConf", "7"]),
        (json!({"ipam": {"resolvConf": "resolv.conf"}}), 7, &["ipam.resolvConf", "resolv.conf"]),
        (json!({"args": {"cni": {"ips": "172.20.56.20"}}}), 7, &["args.cni.ips", "172.20.56.20"]),
        (json!({"args": {"cni": {"ips": ["x"]}}}), 7, &["args.cni.ips[0]", "x"]),
        (json!({"args": {"cni": {"ips": [20]}}}), 7, &["args.cni.ips[0]", "20"]),
        (json!({"runtimeConfig": {"ips": {}}}), 7, &["runtimeConfig.ips", "{}"]),
        (
            json!({"runtimeConfig": {"ips": ["172.20.56.20", "172.20.56"]}}),
            7,
            &["runtimeConfig.ips[1]", "172.20.56"],
        ),
    ]);
}

#[test]
fn what_only_the_plugin_itself_can_find_out() {
    let rows: [Row; 4] = [
        (json!({"ipam": null}), 7, &["ipam", "missing"]),
        (json!({"ipam": {"resolvConf": "/no/such/resolv.conf"}}), 5, &["/no/such/resolv.conf"]),
        (json!({"ipam": {"dataDir": "/proc/no-such-folder"}}), 5, &["/proc/no-such-folder"]),
        (json!({"ipam": {"dataDir": "/etc/passwd"}}), 5, &["/etc/passwd"]),
    ];
    Untouched::new().refuses("vlan-bridge-ipam", &rows);
}

//! Every key of `vlan-bridge`: wrong types, values out of range, and contradictions.

use crate::input::{Row, Untouched};
use serde_json::{Value, json};

/// The rows of every key that is a flag.
fn flags() -> Vec<Row> {
    fn row(key: &'static str) -> [Row; 2] {
        let named: &'static [&'static str] = match key {
            "isGateway" => &["isGateway"],
            "isDefaultGateway" => &["isDefaultGateway"],
            "forceAddress" => &["forceAddress"],
            "ipMasq" => &["ipMasq"],
            "hairpinMode" => &["hairpinMode"],
            "promiscMode" => &["promiscMode"],
            "acceptRA" => &["acceptRA"],
            "multicastSnooping" => &["multicastSnooping"],
            "preserveDefaultVlan" => &["preserveDefaultVlan"],
            "macspoofchk" => &["macspoofchk"],
            "enabledad" => &["enabledad"],
            "disableContainerInterface" => &["disableContainerInterface"],
            _ => &["portIsolation"],
        };
        [(json!({key: "yes"}), 7, named), (json!({key: 1}), 7, named)]
    }
    [
        "isGateway",
        "isDefaultGateway",
        "forceAddress",
        "ipMasq",
        "hairpinMode",
        "promiscMode",
        "acceptRA",
        "multicastSnooping",
        "preserveDefaultVlan",
        "macspoofchk",
        "enabledad",
        "disableContainerInterface",
        "portIsolation",
    ]
    .into_iter()
    .flat_map(row)
    .collect()
}

#[test]
fn flags_that_are_none() {
    Untouched::new().refuses("vlan-bridge", &flags());
}

#[test]
fn names_that_no_interface_can_have() {
    let rows: [Row; 17] = [
        (json!({"plugins": []}), 7, &["plugins", "one entry"]),
        (json!({"bridge": 7}), 7, &["bridge", "7"]),
        (json!({"bridge": "a/b"}), 7, &["bridge", "a/b"]),
        (json!({"bridge": ".."}), 7, &["bridge", "\"..\""]),
        (json!({"bridge": "a b"}), 7, &["bridge", "a b"]),
        (json!({"bridge": "a\u{0}b"}), 7, &["bridge", "a\\0b"]),
        (json!({"bridge": "sixteen-bytes-xx"}), 7, &["bridge", "sixteen-bytes-xx", "16", "15"]),
        (json!({"uplink": {"master": null}}), 7, &["uplink.master", "missing"]),
        (json!({"uplink": {"master": ""}}), 7, &["uplink.master", "missing"]),
        (json!({"uplink": {"master": 7}}), 7, &["uplink.master", "7"]),
        (json!({"uplink": {"master": "../nic0"}}), 7, &["uplink.master", "../nic0"]),
        (json!({"uplink": {"master": "nic 0"}}), 7, &["uplink.master", "nic 0"]),
        (json!({"uplink": {"master": "sixteen-bytes-xx"}}), 7, &["uplink.master", "sixteen-bytes-xx"]),
        (json!({"uplink": {"vlan": 136, "name": 7}}), 7, &["uplink.name", "7"]),
        (json!({"uplink": {"vlan": 136, "name": "a/b"}}), 7, &["uplink.name", "a/b"]),
        (
            json!({"uplink": {"vlan": 136, "name": "sixteen-bytes-xx"}}),
            7,
            &["uplink.name", "sixteen-bytes-xx"],
        ),
        // The name derived from both is too long.
        (
            json!({"uplink": {"master": "twelve-bytes", "vlan": 1000}}),
            7,
            &["uplink.name", "twelve-bytes.1000", "15"],
        ),
    ];
    Untouched::new().refuses("vlan-bridge", &rows);
}

#[test]
fn numbers_out_of_range() {
    let rows: [Row; 23] = [
        (json!({"uplink": {"vlan": 0}}), 7, &["uplink.vlan", "0", "1 to 4094"]),
        (json!({"uplink": {"vlan": 4095}}), 7, &["uplink.vlan", "4095", "1 to 4094"]),
        (json!({"uplink": {"vlan": -1}}), 7, &["uplink.vlan", "-1"]),
        (json!({"uplink": {"vlan": 1.5}}), 7, &["uplink.vlan", "1.5"]),
        (json!({"uplink": {"vlan": "136"}}), 7, &["uplink.vlan", "\"136\""]),
        (json!({"mtu": -1}), 7, &["mtu", "-1"]),
        (json!({"mtu": 1}), 7, &["mtu", "1", "68"]),
        (json!({"mtu": 67}), 7, &["mtu", "67", "68"]),
        (
            json!({"mtu": 1279, "ipam": {"ranges": [[{"subnet": "fd00:56::/64"}]]}}),
            7,
            &["mtu: 1279", "fd00:56::/64", "1280"],
        ),
        (json!({"mtu": 65536}), 7, &["mtu", "65536"]),
        (json!({"mtu": "1500"}), 7, &["mtu", "\"1500\""]),
        (json!({"vlan": 4095}), 7, &["vlan", "4095"]),
        (json!({"vlan": -1}), 7, &["vlan", "-1"]),
        (json!({"vlan": "7"}), 7, &["vlan", "\"7\""]),
        (json!({"vlanTrunk": {"id": 5}}), 7, &["vlanTrunk", "{\"id\":5}"]),
        (json!({"vlanTrunk": [5]}), 7, &["vlanTrunk[0]", "5"]),
        (json!({"vlanTrunk": [{"id": 5}, {"id": 0}]}), 7, &["vlanTrunk[1].id", "0"]),
        (json!({"vlanTrunk": [{"id": 4095}]}), 7, &["vlanTrunk[0].id", "4095"]),
        (json!({"vlanTrunk": [{"minID": 9, "maxID": 4095}]}), 7, &["vlanTrunk[0].maxID", "4095"]),
        (json!({"vlanTrunk": [{"minID": 9, "maxID": 8}]}), 7, &["vlanTrunk[0].minID", "9", "8"]),
        (json!({"vlanTrunk": [{"minID": 9}]}), 7, &["vlanTrunk[0]", "minID", "maxID"]),
        (json!({"vlanTrunk": [{"id": 5, "minID": 1, "maxID": 2}]}), 7, &["vlanTrunk[0]", "id"]),
        (json!({"vlanTrunk": [{}]}), 7, &["vlanTrunk[0]", "id"]),
    ];
    Untouched::new().refuses("vlan-bridge", &rows);
}

/// Host ports that our entry declares.
fn ports(mappings: &Value) -> Value {
    json!({"capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": mappings}})
}

#[test]
fn keys_that_contradict_each_other() {
    let rows: [Row; 12] = [
        (json!({"uplink": {"vlan": 136}, "vlan": 7}), 7, &["uplink.vlan", "vlan"]),
        (json!({"uplink": {"vlan": 136}, "vlanTrunk": [{"id": 7}]}), 7, &["uplink.vlan", "vlanTrunk"]),
        (json!({"uplink": {"name": "nic0.136"}}), 7, &["uplink.name", "uplink.vlan"]),
        (json!({"isGateway": true}), 7, &["isGateway", "uplink", "nic0"]),
        (json!({"isDefaultGateway": true}), 7, &["isDefaultGateway", "uplink", "nic0"]),
        (json!({"ipMasq": true}), 7, &["ipMasq", "uplink", "true"]),
        (json!({"serviceCIDRs": ["10.96.0.0/12"], "hostAccess": false}), 7, &["serviceCIDRs", "hostAccess"]),
        (json!({"hairpinMode": true, "promiscMode": true}), 7, &["hairpinMode", "promiscMode"]),
        (json!({"disableContainerInterface": true}), 7, &["disableContainerInterface", "ipam"]),
        (json!({"bridge": "nic0"}), 7, &["bridge", "nic0", "uplink"]),
        (json!({"bridge": "nic0.136", "uplink": {"vlan": 136}}), 7, &["bridge", "nic0.136"]),
        // The node's interface in the VLAN would be called brvlans-long.136.
        (json!({"bridge": "brvlans-long", "vlan": 136}), 7, &["bridge", "brvlans-long.136", "15"]),
    ];
    Untouched::new().refuses("vlan-bridge", &rows);
}

#[test]
fn everything_else() {
    let rows: [Row; 28] = [
        (json!({"ipMasqBackend": "pf"}), 7, &["ipMasqBackend", "\"pf\"", "nftables, iptables"]),
        (
            json!({"capabilities": {"portMappings": "yes"}, "runtimeConfig": {}}),
            7,
            &["capabilities.portMappings", "yes"],
        ),
        (ports(&json!({})), 7, &["runtimeConfig.portMappings", "{}", "a list"]),
        (
            ports(&json!([{"containerPort": 80}])),
            7,
            &["runtimeConfig.portMappings[0].hostPort", "1 to 65535"],
        ),
        (
            ports(&json!([{"hostPort": 1, "containerPort": 80}, {"hostPort": 1, "containerPort": 81}])),
            7,
            &["portMappings[1]", "1/tcp"],
        ),
        (json!({"uplink": "nic0"}), 7, &["uplink", "\"nic0\""]),
        (json!({"uplink": ["nic0"]}), 7, &["uplink", "[\"nic0\"]"]),
        (json!({"ipMasqBackend": 7}), 7, &["ipMasqBackend", "7"]),
        (json!({"dns": "10.0.0.53"}), 7, &["dns", "10.0.0.53"]),
        (json!({"dns": {"nameservers": "10.0.0.53"}}), 7, &["dns.nameservers", "10.0.0.53"]),
        (json!({"dns": {"nameservers": [7]}}), 7, &["dns.nameservers[0]", "7"]),
        (json!({"dns": {"domain": 7}}), 7, &["dns.domain", "7"]),
        (json!({"dns": {"search": {}}}), 7, &["dns.search", "{}"]),
        (json!({"dns": {"options": [true]}}), 7, &["dns.options[0]", "true"]),
        (json!({"ipam": {"type": null}}), 7, &["ipam.type", "missing"]),
        (json!({"ipam": {"type": ""}}), 7, &["ipam.type", "missing"]),
        (json!({"ipam": {"type": 7}}), 7, &["ipam.type", "7"]),
        (json!({"ipam": {"type": "../vlan-bridge-ipam"}}), 7, &["ipam.type", "../vlan-bridge-ipam"]),
        (json!({"ipam": {"type": ".."}}), 7, &["ipam.type", "\"..\""]),
        (json!({"ipam": {"type": "a\u{0}b"}}), 7, &["ipam.type", "a\\0b"]),
        (json!({"ipam": {"type": "no such ipam"}}), 103, &["ipam.type", "no such ipam", "CNI_PATH"]),
        (json!({"args": {"cni": {"mac": "zz"}}}), 7, &["args.cni.mac", "zz"]),
        (json!({"args": {"cni": {"mac": 7}}}), 7, &["args.cni.mac", "7"]),
        (json!({"args": {"cni": {"mac": "01:00:5e:00:00:01"}}}), 7, &["args.cni.mac", "01:00:5e:00:00:01"]),
        (json!({"runtimeConfig": {"mac": "zz"}}), 7, &["runtimeConfig.mac", "zz"]),
        (json!({"runtimeConfig": {"mac": ["02:00:00:00:00:01"]}}), 7, &["runtimeConfig.mac"]),
        (
            json!({"runtimeConfig": {"mac": "00:00:00:00:00:00"}}),
            7,
            &["runtimeConfig.mac", "00:00:00:00:00:00"],
        ),
        (json!({"type": "vlan-bridge", "uplink": {"master": "nic0", "vlan": []}}), 7, &["uplink.vlan", "[]"]),
    ];
    Untouched::new().refuses("vlan-bridge", &rows);
}

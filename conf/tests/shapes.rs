//! Shapes of configurations as other projects write them, with our plugins for the reference's: which of
//! their entries are taken, and with what words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use cni_conf::request::Request;
use common::environment;
use serde_json::{Value, json};

/// How the plugins judge their entry, as a runtime passes it: warnings, or a code and a message.
fn judge(list: &Value, entry: &Value) -> Result<String, CniError> {
    let mut config = entry.clone();
    for key in ["cniVersion", "name"] {
        match list.get(key) {
            Some(value) => config[key] = value.clone(),
            None => drop(config.as_object_mut().unwrap().remove(key)),
        }
    }
    let request = Request::parse(environment(), config.to_string().into_bytes())?;
    let (network, mut warnings) = Network::parse(&request)?;
    warnings.extend(network.addresses.into_iter().flat_map(|ipam| ipam.warnings));
    Ok(warnings.join("; "))
}

/// The outcome for our entry of a list, or for the configuration of a single plugin. It is empty if the entry
/// is accepted without a warning.
fn outcome(list: &Value) -> String {
    let entries = list["plugins"].as_array().cloned().unwrap_or_else(|| vec![list.clone()]);
    let mut ours = entries.iter().filter(|entry| entry["type"] == "vlan-bridge");
    let Some(entry) = ours.next() else { return "no entry of ours".into() };
    assert!(ours.next().is_none(), "{list}");
    judge(list, entry).unwrap_or_else(|e| format!("{}: {e}", e.code))
}

#[test]
fn what_others_write_is_taken_or_refused_with_a_reason() {
    let ranges = |subnet: &str| json!({"type": "vlan-bridge-ipam", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]});
    let cases = [
        (
            "a virtual machine's access port on an operator's bridge, without addresses",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "bridge": "mgmt", "promiscMode": true, "vlan": 12, "ipam": {}}),
            "",
        ),
        (
            "its trunk port: ranges of VLANs, and vlan 0 for none",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "bridge": "data", "vlan": 0, "ipam": {},
                "vlanTrunk": [{"minID": 10, "maxID": 19}, {"minID": 30, "maxID": 30}]}),
            "",
        ),
        (
            "a locked port without the default VLAN",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "bridge": "data", "vlan": 40, "macspoofchk": true,
                "preserveDefaultVlan": false, "ipam": {}}),
            "",
        ),
        (
            "large frames, with an unknown chained plugin",
            json!({"cniVersion": "0.3.1", "name": "n", "plugins": [
                {"type": "vlan-bridge", "bridge": "data", "vlan": 41, "mtu": 9000, "ipam": {}}, {"type": "their-tuning"}]}),
            "",
        ),
        (
            "no name, which Multus fills in before it calls",
            json!({"cniVersion": "0.3.1", "type": "vlan-bridge", "bridge": "storage", "vlan": 12, "ipam": {
                "type": "whereabouts", "range": "198.51.100.0/24", "range_start": "198.51.100.50", "exclude": ["198.51.100.60/32"]}}),
            "7: name: missing: must be the network's name",
        ),
        (
            "another IPAM plugin's keys, which are its own",
            json!({"cniVersion": "0.4.0", "name": "n", "type": "vlan-bridge", "bridge": "b", "isGateway": false, "ipam": {
                "type": "whereabouts", "enable_overlapping_ranges": true, "kubernetes": {"kubeconfig": "/etc/w"},
                "ipRanges": [{"range": "198.51.100.0/26"}, {"range": "2001:db8::/64", "range_start": "2001:db8::10"}]}}),
            "",
        ),
        (
            "an entry with a name and a version of its own, which the runtime replaces",
            json!({"cniVersion": "0.3.1", "name": "n", "plugins": [
                {"cniVersion": "0.1.0", "name": "inner", "type": "vlan-bridge", "bridge": "b", "isDefaultGateway": false,
                 "vlanTrunk": [{"id": 42}, {"minID": 1000, "maxID": 1010}], "ipam": {"type": "whereabouts", "range": "203.0.113.0/24"}},
                {"type": "theirs", "supportedVersions": ["0.3.0"], "chaining-mode": "vlan"}]}),
            "",
        ),
        (
            "a folder of leases that nodes share",
            json!({"cniVersion": "0.3.0", "name": "n", "type": "vlan-bridge", "bridge": "br0", "isGateway": true, "ipam": {
                "type": "vlan-bridge-ipam", "subnet": "192.0.2.0/24", "dataDir": "/mnt/shared"}}),
            "",
        ),
        (
            "a node's list with portmap and its chain",
            json!({"cniVersion": "0.3.1", "name": "n", "plugins": [
                {"type": "vlan-bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true, "ipam": ranges("198.51.100.0/24")},
                {"type": "portmap", "capabilities": {"portMappings": true}, "externalSetMarkChain": "KUBE-MARK-MASQ"}]}),
            "",
        ),
        (
            "a single plugin's file of a runtime's package, of both families",
            json!({"cniVersion": "1.0.0", "name": "n", "type": "vlan-bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                "hairpinMode": true, "ipam": {"type": "vlan-bridge-ipam", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                "ranges": [[{"subnet": "198.51.0.0/16"}], [{"subnet": "2001:db8:85::/64"}]]}}),
            "",
        ),
        (
            "podman's list of four",
            json!({"cniVersion": "0.4.0", "name": "n", "plugins": [
                {"type": "vlan-bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ranges("198.51.100.0/24")},
                {"type": "portmap", "capabilities": {"portMappings": true}}, {"type": "firewall"}, {"type": "tuning"}]}),
            "",
        ),
        (
            "kube-router's, with an MTU of a cloud and a name in the entry",
            json!({"cniVersion": "0.3.0", "name": "n", "plugins": [
                {"name": "kubernetes", "type": "vlan-bridge", "bridge": "kube-bridge", "isDefaultGateway": true, "hairpinMode": true,
                 "forceAddress": true, "mtu": 9001, "dns": {}, "ipam": ranges("198.51.100.0/24")},
                {"type": "portmap", "capabilities": {"snat": true, "portMappings": true}}]}),
            "",
        ),
        (
            "a template before its subnet is filled in, without a version",
            json!({"name": "n", "type": "vlan-bridge", "bridge": "kube-bridge", "isDefaultGateway": true, "ipam": {"type": "vlan-bridge-ipam"}}),
            "7: ipam.subnet: subnet and ranges are missing: add one of them",
        ),
        (
            "the node's own address for a subnet",
            json!({"cniVersion": "0.3.1", "name": "n", "plugins": [{"type": "vlan-bridge", "isGateway": true, "ipam": {
                "type": "vlan-bridge-ipam", "subnet": "198.51.100.1/24"}}]}),
            "7: ipam.subnet: 198.51.100.1/24 has host bits set: 198.51.100.0/24 would be right",
        ),
        (
            "Nomad's, where loopback comes first",
            json!({"cniVersion": "0.4.0", "name": "n", "plugins": [
                {"type": "loopback"},
                {"type": "vlan-bridge", "bridge": "nomad", "ipMasq": true, "isGateway": true, "forceAddress": true, "hairpinMode": false, "ipam": {
                    "type": "vlan-bridge-ipam", "ranges": [[{"subnet": "198.51.96.0/20"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "/var/run/cni"}},
                {"type": "firewall", "backend": "iptables"}, {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}]}),
            "",
        ),
        (
            "bond and VLAN made by one plugin for macvlan",
            json!({"cniVersion": "0.3.1", "name": "n", "plugins": [
                {"type": "ifacer", "interfaces": ["nic0"], "vlanID": 200}, {"type": "macvlan", "master": "bond0.200"}, {"type": "coordinator"}]}),
            "no entry of ours",
        ),
        (
            "fixed addresses",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "bridge": "br1", "vlan": 88, "ipam": {
                "type": "static", "addresses": [{"address": "192.0.2.88/24", "gateway": "192.0.2.1"}, {"address": "2001:db8::88/64"}],
                "routes": [{"dst": "203.0.113.0/24", "gw": "192.0.2.1"}], "dns": {"nameservers": ["192.0.2.53"]}}}),
            "",
        ),
        (
            "a macvlan on an interface whose name is no number, with ours in its place",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "uplink": {"master": "bond0.nmn0"}, "ipam": {
                "type": "vlan-bridge-ipam", "subnet": "198.51.0.0/17", "rangeStart": "198.51.2.10", "rangeEnd": "198.51.3.254",
                "routes": [{"dst": "203.0.113.0/24", "gw": "198.51.0.1"}]}}),
            "",
        ),
        (
            "the keys of macvlan itself",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "master": "bond0", "mode": "bridge", "ipam": ranges("198.51.100.0/24")}),
            "master: unknown key, ignored; mode: unknown key, ignored",
        ),
        (
            "nerdctl's, with keys of its own at the top",
            json!({"cniVersion": "1.0.0", "name": "n", "nerdctlID": "0a", "nerdctlLabels": {"a": "b"}, "plugins": [
                {"type": "vlan-bridge", "bridge": "nerdctl0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam": ranges("198.51.100.0/24")},
                {"type": "firewall", "ingressPolicy": "same-bridge"}]}),
            "",
        ),
        (
            "written by a program, with empty and null keys",
            json!({"cniVersion": "0.4.0", "name": "n", "plugins": [
                {"type": "vlan-bridge", "bridge": "svc", "isGateway": true, "ipMasq": true, "ipam": {
                    "type": "vlan-bridge-ipam", "Name": "", "subnet": "198.51.0.0/16", "rangeStart": "198.51.0.7", "rangeEnd": "198.51.0.7",
                    "gateway": "", "dataDir": "", "resolvConf": "", "ranges": null, "routes": [{"dst": "0.0.0.0/0"}]}},
                {"type": "dnsname", "capabilities": {"aliases": true}}]}),
            "ipam.Name: unknown key, ignored",
        ),
        (
            "DHCP in a VLAN",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "bridge": "b", "vlan": 136, "promiscMode": false, "ipam": {"type": "dhcp"}}),
            "",
        ),
        (
            "a range with an unknown key",
            json!({"cniVersion": "0.3.1", "name": "n", "plugins": [{"type": "vlan-bridge", "isDefaultGateway": true, "forceAddress": false, "ipam": {
                "type": "vlan-bridge-ipam", "ranges": [[{"subnet": "198.51.100.0/24", "sandbox": ["pool"]}]]}}]}),
            "ipam.ranges[0][0].sandbox: unknown key, ignored",
        ),
        (
            "a number in quotes",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "vlan": "136"}),
            "7: vlan: \"136\" is not a VLAN id: 1 to 4094, or 0 for none",
        ),
        (
            "a flag in quotes",
            json!({"cniVersion": "0.3.1", "name": "n", "type": "vlan-bridge", "isGateway": "true"}),
            "7: isGateway: \"true\" is not true or false",
        ),
    ];
    for (what, list, expected) in cases {
        assert_eq!(outcome(&list), expected, "{what}: {list}");
    }
}

/// The most common mistake of all.
#[test]
fn a_comma_too_many_is_told_with_its_place() {
    let text = "{\n \"cniVersion\": \"0.3.1\",\n \"name\": \"n\",\n \"ipam\": {\"type\": \"static\",}\n}";
    let refused = Request::parse(environment(), text.into()).unwrap_err();
    assert_eq!(refused.code, 6);
    assert!(refused.msg.contains("trailing comma at line 4 column"), "{refused}");
}

use super::*;
use crate::cni::env::Environment;
use crate::cni::error::code;
use crate::uplink::UplinkPort;

fn request(keys: &str) -> Request {
    let config = format!(r#"{{"cniVersion": "1.1.0", "name": "net", "type": "vlan-bridge", {keys}}}"#);
    let env = Environment::parse(|name| match name {
        "CNI_COMMAND" => Some("STATUS".into()),
        "CNI_PATH" => Some("/opt/cni/bin".into()),
        _ => None,
    });
    Request::parse(env.unwrap(), config.into_bytes()).unwrap()
}

fn parsed(keys: &str) -> Network {
    Network::parse(&request(keys)).unwrap().0
}

#[track_caller]
fn refused(keys: &str, expected: &str) {
    let error = Network::parse(&request(keys)).expect_err("was not refused");
    assert_eq!(error.code, code::INVALID_CONFIG);
    assert!(error.msg.contains(expected), "{}", error.msg);
}

#[test]
fn the_three_kinds_of_uplink() {
    let port = |keys: &str| parsed(keys).uplink.unwrap().port;
    let sub_interface = UplinkPort::SubInterface { name: "bond0.136".into(), vlan: 136 };
    assert_eq!(port(r#""uplink": {"master": "bond0", "vlan": 136}"#), sub_interface);
    assert_eq!(port(r#""uplink": {"master": "bond0"}"#), UplinkPort::Master);
    assert_eq!(port(r#""uplink": {"master": "bond0"}, "vlan": 136"#), UplinkPort::Trunk);
    assert_eq!(port(r#""uplink": {"master": "bond0"}, "vlanTrunk": [{"id": 136}]"#), UplinkPort::Trunk);
}

#[test]
fn zero_and_empty_mean_absent_as_in_go() {
    let network = parsed(r#""bridge": "", "mtu": 0, "vlan": 0, "ipam": {}, "uplink": null"#);
    assert_eq!(network.bridge, "cni0");
    assert_eq!(
        (network.mtu, &network.port_vlans, &network.ipam, &network.uplink),
        (None, &None, &None, &None)
    );
}

#[test]
fn ranges_of_a_trunk_are_put_together() {
    let network = parsed(r#""vlan": 7, "vlanTrunk": [{"minID": 5, "maxID": 8}, {"id": 3}, {"id": 6}]"#);
    let vlans = network.port_vlans.unwrap();
    assert_eq!(vlans.trunk, [3, 5, 6, 7, 8]);
    assert_eq!(vlans.ids().collect::<Vec<_>>(), [7, 3, 5, 6, 8]);
}

#[test]
fn the_node_has_a_side_of_the_vlan_on_a_trunk_and_behind_a_gateway() {
    let side = |keys: &str| parsed(keys).node_side().map(|(name, _)| name);
    assert_eq!(
        side(r#""bridge": "br0", "uplink": {"master": "bond0"}, "vlan": 136"#).as_deref(),
        Some("br0.136")
    );
    assert_eq!(side(r#""bridge": "br0", "isGateway": true, "vlan": 136"#).as_deref(), Some("br0.136"));
    assert_eq!(side(r#""bridge": "br0", "vlan": 136"#), None);
}

#[test]
fn contradictions_name_both_keys() {
    let uplink = r#""uplink": {"master": "bond0", "vlan": 136}"#;
    refused(&format!(r#"{uplink}, "isGateway": true"#), "isGateway: true excludes uplink");
    refused(&format!(r#"{uplink}, "isDefaultGateway": true"#), "isDefaultGateway: true excludes uplink");
    refused(&format!(r#"{uplink}, "ipMasq": true"#), "ipMasq: true excludes uplink");
    refused(&format!(r#"{uplink}, "vlan": 7"#), "uplink.vlan and vlan or vlanTrunk exclude each other");
    refused(&format!(r#"{uplink}, "bridge": "bond0.136""#), "is also the name of the uplink");
    refused(r#""uplink": {"master": "bond0", "name": "x"}"#, "uplink.name has no effect without uplink.vlan");
    refused(r#""hairpinMode": true, "promiscMode": true"#, "hairpinMode and promiscMode");
    refused(r#""disableContainerInterface": true, "ipam": {"type": "x"}"#, "disableContainerInterface");
    let port = r#""capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 80}]}"#;
    let off = r#""hostAccess": false, "ipam": {"type": "x"}"#;
    refused(&format!("{uplink}, {port}, {off}"), "portMappings needs hostAccess on a network with uplink");
    refused(port, "portMappings needs a configuration with ipam");
    refused(r#""vlanTrunk": [{"minID": 9, "maxID": 8}]"#, "vlanTrunk[0].minID: 9 is above maxID 8");
    refused(r#""uplink": {"master": "a-very-long-nic", "vlan": 4094}"#, "at most 15");
}

#[test]
fn an_mtu_is_one_that_the_interface_can_have() {
    assert_eq!(parsed(r#""mtu": 68"#).mtu, Some(68));
    assert_eq!(parsed(r#""mtu": 65535"#).mtu, Some(65535));
    for mtu in [1, 67, 65536] {
        let right = "is not an MTU in bytes: 68 to 65535, or 0 for the default";
        refused(&format!(r#""mtu": {mtu}"#), &format!("mtu: {mtu} {right}"));
    }
    refused(r#""vlan": 9999"#, "vlan: 9999 is not a VLAN id: 1 to 4094, or 0 for none");
}

#[test]
fn ipv6_needs_an_mtu_for_it() {
    let check = |mtu: u32, subnet: &str| {
        let request = request(&format!(
            r#""mtu": {mtu}, "ipam": {{"subnet": "{subnet}", "type": "vlan-bridge-ipam"}}"#
        ));
        Network::parse(&request).map(drop).map_err(|error| error.msg)
    };
    assert_eq!(check(1279, "10.0.0.0/24"), Ok(()));
    assert_eq!(check(1280, "fd00::/64"), Ok(()));
    assert_eq!(check(0, "fd00::/64"), Ok(()));
    let message = check(1279, "fd00::/64").unwrap_err();
    assert_eq!(message, "mtu: 1279 excludes ipam's range fd00::/64: IPv6 needs 1280 or more");
}

#[test]
fn a_teardown_makes_do_with_what_can_be_read() {
    let broken =
        r#""bridge": 7, "vlan": "x", "uplink": {"vlan": 136}, "mtu": -1, "ipam": {"type": "host-local"}"#;
    let (teardown, warnings) = Teardown::parse(&request(broken));
    assert_eq!(
        teardown,
        Teardown {
            bridge: "cni0".into(),
            device: "cni0".into(),
            has_uplink: true,
            has_guard: true,
            trunk: None,
            ipam: Some(IpamPlugin::named("host-local")),
            has_nat: false
        }
    );
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

#[test]
fn host_ports_are_ours_only_where_our_entry_declares_them() {
    let ports = |declared: &str| {
        let keys = format!(
            r#""ipam": {{"type": "x"}}, "capabilities": {declared},
               "runtimeConfig": {{"portMappings": [{{"hostPort": 8080, "containerPort": 80}}]}}"#
        );
        parsed(&keys).ports.len()
    };
    assert_eq!(ports(r#"{"portMappings": true}"#), 1);
    assert_eq!((ports(r#"{"portMappings": false}"#), ports("{}"), ports("null")), (0, 0, 0));
}

#[test]
fn masquerading_is_done_with_nftables_and_says_so() {
    let warnings = |keys: &str| Network::parse(&request(keys)).unwrap().1;
    let ipam = r#""ipam": {"type": "x"}, "ipMasq": true"#;
    assert_eq!(warnings(&format!(r#"{ipam}, "ipMasqBackend": "nftables""#)), [""; 0]);
    let told = warnings(&format!(r#"{ipam}, "ipMasqBackend": "iptables""#));
    assert!(told[0].starts_with("ipMasqBackend: \"iptables\" is ignored"), "{told:?}");
    refused(r#""ipMasqBackend": "pf""#, "ipMasqBackend: \"pf\" is not one of nftables, iptables");
}

//! Addresses on dummy interfaces stand for services. A host port does not take them, and pods reach the
//! configured ones.

use integration::{BondMode, DataCenter, Pod, Server, Transport, ask, at, ip, set_keys};
use serde_json::{Value, json};

/// NodeLocal DNSCache's own address, and the cluster's DNS service.
const CACHE: &str = "169.254.20.10";
const SERVICE: &str = "10.96.0.10";
const MAKE: &str = "link add nodelocaldns up type dummy\naddr add 169.254.20.10/32 dev nodelocaldns\naddr add 10.96.0.10/32 dev nodelocaldns";

#[test]
fn a_host_port_takes_no_address_of_a_dummy_interface() {
    let datacenter = DataCenter::new();
    let (node, taker, other) = (datacenter.node(BondMode::ActiveBackup), Pod::new(), Pod::new());
    node.ip(MAKE);
    let conf = json!({"type": "vlan-bridge", "isDefaultGateway": true, "ipMasq": true, "capabilities": {"portMappings": true},
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let plugin = node.plugin(&node.list("local", &[conf]));
    let own = ip(&plugin.add(&other.eth0()).result().address());
    let ports = json!([{"hostPort": 53, "containerPort": 53, "protocol": "udp"}]);
    plugin.add(&taker.eth0().capabilities(json!({"portMappings": ports}))).expect_ok();
    let _pod = Server::start(&taker, Transport::Udp, 53);
    let _cache = [CACHE, SERVICE].map(|address| Server::on(&node, Transport::Udp, at(address, 53)));
    for address in [CACHE, SERVICE] {
        // The service's server sees the client's address. The pod would see its gateway.
        assert_eq!(ask(&node, Transport::Udp, at(address, 53)), Some(ip(address)));
        assert_eq!(ask(&other, Transport::Udp, at(address, 53)), Some(own), "{address}");
    }
    let seen = ask(datacenter.router(), Transport::Udp, at(&node.address(51), 53));
    assert_eq!(seen, Some(ip("10.51.0.1")), "the port leads to the pod");
}

#[test]
fn a_local_dns_cache_on_a_dummy_interface_is_reached_by_whoever_names_it() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    node.ip(MAKE);
    let _cache = [CACHE, SERVICE].map(|address| Server::on(&node, Transport::Udp, at(address, 53)));
    let reached = |keys: &Value| {
        let mut list = node.list136();
        set_keys(&mut list["plugins"][0], keys);
        let (plugin, pod) = (node.plugin(&list), Pod::new());
        let added = plugin.add(&pod.eth0());
        let own = ip(&added.result().address());
        let seen = [CACHE, SERVICE].map(|address| ask(&pod, Transport::Udp, at(address, 53)));
        assert!(seen.iter().flatten().all(|seen| *seen == own), "{keys}: {seen:?}");
        assert!(pod.pings(&node.address(51)), "{keys}");
        plugin.check(&pod.eth0(), &added.result()).expect_ok();
        seen.map(|seen| seen.is_some())
    };
    for (keys, expected) in [
        (json!({}), [false, false]),
        (json!({"hostAddresses": ["bond0.51", CACHE]}), [true, false]),
        (json!({"hostAddresses": ["bond0.51", "nodelocaldns"]}), [true, true]),
        (json!({"serviceCIDRs": ["10.96.0.0/12", "169.254.20.10/32"]}), [true, true]),
    ] {
        assert_eq!(reached(&keys), expected, "{keys}");
    }
}

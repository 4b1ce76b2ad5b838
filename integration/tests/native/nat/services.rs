//! A host port at all of the node's addresses is not open at the addresses of services.

use crate::nat::{MACHINE, NODE, Nat, with_ports};
use integration::{Ctl, Pod, Server, Site, Transport, ask, at, ip};
use serde_json::json;

/// kube-proxy in IPVS mode gives the node the addresses of all services, on its own interface.
#[test]
fn a_host_port_takes_no_service_from_kube_proxy_in_ipvs_mode() {
    let (nat, taker, other) = (Nat::new(), Pod::new(), Pod::new());
    // This kernel has no dummy interfaces. The name is the one that kube-proxy uses.
    nat.node.ip("link add kube-ipvs0 up type bridge\naddr add 10.96.0.1/32 dev kube-ipvs0\naddr add fd00:96::1/128 dev kube-ipvs0 nodad");
    let _services =
        [at("10.96.0.1", 443), at("fd00:96::1", 443)].map(|to| Server::on(&nat.node, Transport::Tcp, to));
    let own = nat.local().add(&other.eth0()).result().addresses();
    let eth0 = with_ports(&taker, &[(443, "tcp", 443, "")]);
    nat.local().add(&eth0).expect_ok();
    let _pod = Server::start(&taker, Transport::Tcp, 443);
    let services = || {
        for (service, pod) in [("10.96.0.1", &own[0]), ("fd00:96::1", &own[1])] {
            // The service's server sees the client's address. The pod would see its gateway.
            assert_eq!(ask(&nat.node, Transport::Tcp, at(service, 443)), Some(ip(service)));
            assert_eq!(ask(&other, Transport::Tcp, at(service, 443)), Some(ip(pod)));
        }
    };
    services();
    for (node, machine) in NODE.iter().zip(MACHINE) {
        assert_eq!(
            ask(&nat.machine, Transport::Tcp, at(node, 443)),
            Some(ip(machine)),
            "the port leads to the pod"
        );
    }
    // The next such pod, or repair, adds the address of a later service. The address of a deleted service no
    // longer belongs to the node.
    nat.node.ip("addr add 10.96.0.2/32 dev kube-ipvs0\naddr del 10.96.0.1/32 dev kube-ipvs0");
    let _later = Server::on(&nat.node, Transport::Tcp, at("10.96.0.2", 443));
    let _ = Ctl::new(&nat.node).run("repair");
    assert_eq!(ask(&nat.node, Transport::Tcp, at("10.96.0.2", 443)), Some(ip("10.96.0.2")));
    assert!(!nat.rules().contains("10.96.0.1"), "{}", nat.rules());
    // A port with this `hostIP` is open there.
    let third = Pod::new();
    nat.local().add(&with_ports(&third, &[(443, "tcp", 443, "10.96.0.2")])).expect_ok();
    let _third = Server::start(&third, Transport::Tcp, 443);
    assert_eq!(ask(&other, Transport::Tcp, at("10.96.0.2", 443)), Some(ip("10.22.0.1")));
    // After a flush too.
    nat.node.ip("addr add 10.96.0.1/32 dev kube-ipvs0");
    nat.node.nft("flush ruleset");
    nat.local().del(&third.eth0()).expect_ok();
    services();
}

/// The subnets in `serviceCIDRs` are known without a call.
#[test]
fn a_host_port_takes_no_address_within_service_cidrs() {
    let (site, pod) = (Site::new(), Pod::new());
    site.give_node_its_own_network();
    let mut list = site.list();
    list["plugins"][0]["serviceCIDRs"] = json!(["10.96.0.0/12"]);
    list["plugins"][0]["capabilities"] = json!({"portMappings": true});
    site.node.plugin(&list).add(&with_ports(&pod, &[(443, "tcp", 443, "")])).expect_ok();
    let _pod = Server::start(&pod, Transport::Tcp, 443);
    site.node.ip("addr add 10.96.7.7/32 dev lo");
    let _service = Server::on(&site.node, Transport::Tcp, at("10.96.7.7", 443));
    assert_eq!(ask(&site.node, Transport::Tcp, at("10.96.7.7", 443)), Some(ip("10.96.7.7")));
    assert_eq!(
        ask(&site.router, Transport::Tcp, at(Site::NODE[0], 443)),
        Some(ip(Site::NODE[0])),
        "the port leads to the pod"
    );
}

/// CRI-O publishes host ports by its own rules. On an uplink's network, the pod's answer must come back
/// through the node. With `serviceCIDRs` it always does. Without them, it only does if bridged packets go
/// through iptables.
#[test]
fn host_ports_that_a_runtime_makes_itself_work_with_service_cidrs() {
    for called in ["0", "1"] {
        for services in [json!([]), json!(["10.96.0.0/12"])] {
            let (site, pod) = (Site::new(), Pod::new());
            site.give_node_its_own_network();
            site.node.set_sysctl("net/bridge/bridge-nf-call-iptables", called);
            site.node.set_sysctl("net/ipv4/ip_forward", "1");
            let mut list = site.list();
            list["plugins"][0]["serviceCIDRs"] = services.clone();
            let result = site.node.plugin(&list).add(&pod.eth0()).result();
            let address = result.address();
            site.node.nft(&format!(
                "table ip crio {{\n\
                 chain pre {{ type nat hook prerouting priority -100; tcp dport 8080 fib daddr type local dnat to {address}:80; }}\n\
                 chain post {{ type nat hook postrouting priority 100; ip saddr {address} ip daddr {address} masquerade; }}\n}}"
            ));
            let _pod = Server::start(&pod, Transport::Tcp, 80);
            let is_reached = ask(&site.router, Transport::Tcp, at(Site::NODE[0], 8080)).is_some();
            let with_services = services != json!([]);
            assert_eq!(
                is_reached,
                with_services || called == "1",
                "{services}, bridge-nf-call-iptables {called}"
            );
        }
    }
}

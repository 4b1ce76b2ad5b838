//! Without an uplink, our plugin does the same as the reference `bridge`. Every test runs both and compares
//! them.

use integration::{Interface, Node, Outcome, Plugin, Pod, Server, Transport, ask, at, set_keys};
use serde_json::{Value, json};

const BOTH: [&str; 2] = ["bridge", "vlan-bridge"];

/// A plugin on a node without a NIC, with both families on `cni0` and these keys.
fn plugin<'a>(node: &'a Node, kind: &str, keys: &Value) -> Plugin<'a> {
    let ipam = if kind == "bridge" { "host-local" } else { "vlan-bridge-ipam" };
    let mut conf = json!({
        "type": kind,
        "ipam": {
            "type": ipam,
            "ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "2001:db8:22::/64"}]],
        },
    });
    set_keys(&mut conf, keys);
    node.plugin(&node.list("parity", &[conf]))
}

/// Runs ADD of both plugins, each on its own node after `prepare`, and passes each to `look`.
fn on_both(keys: &Value, prepare: &str, look: impl Fn(&str, &Node, &Pod, Outcome)) {
    for kind in BOTH {
        let (node, pod) = (Node::new("node"), Pod::new());
        if !prepare.is_empty() {
            node.ip(prepare);
        }
        let outcome = plugin(&node, kind, keys).add(&pod.eth0());
        look(kind, &node, &pod, outcome);
    }
}

/// The addresses of an interface, without link-local ones.
fn addresses(node: &Node, name: &str) -> Vec<String> {
    let links = node.ip_json(&format!("address show dev {name}"));
    let infos = links[0]["addr_info"].as_array().cloned().unwrap_or_default();
    let text = |info: &Value| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]);
    infos.iter().map(text).filter(|address| !address.starts_with("fe80")).collect()
}

/// One key of the node's end of the pod's veth as a bridge port.
fn port(node: &Node, key: &str) -> Value {
    let links = node.ip_json("-details link show type veth");
    links[0]["linkinfo"]["info_slave_data"][key].clone()
}

#[test]
fn a_gateway_has_its_address_on_the_bridge_and_forwards() {
    for (keys, default) in [(json!({"isGateway": true}), false), (json!({"isDefaultGateway": true}), true)] {
        on_both(&keys, "", |kind, node, pod, outcome| {
            let result = outcome.result();
            assert_eq!(addresses(node, "cni0"), ["10.22.0.1/24", "2001:db8:22::1/64"], "{kind}");
            for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                assert_eq!(node.sysctl(key), "1", "{kind} {key}");
            }
            for (family, gateway) in [("-4", "10.22.0.1"), ("-6", "2001:db8:22::1")] {
                pod.wait_for(gateway);
                let route = pod.run(&format!("ip {family} route show default")).stdout;
                assert_eq!(route.contains(&format!("via {gateway}")), default, "{kind}: {route}");
            }
            assert_eq!(result.ips.len(), 2, "{kind}");
            assert_eq!(!result.routes.is_empty(), default, "{kind}: {result}");
        });
    }
}

#[test]
fn without_a_gateway_the_bridge_has_no_address_and_nothing_is_forwarded() {
    on_both(&json!({}), "", |kind, node, pod, outcome| {
        outcome.expect_ok();
        assert!(addresses(node, "cni0").is_empty(), "{kind}");
        let second = Pod::new();
        // A new namespace may have forwarding on, as the machine has.
        let forwarding = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
        forwarding.iter().for_each(|key| node.set_sysctl(key, "0"));
        let result = plugin(node, kind, &json!({})).add(&second.eth0()).result();
        forwarding.iter().for_each(|key| assert_eq!(node.sysctl(key), "0", "{kind}: {key}"));
        for address in result.addresses() {
            pod.wait_for(&address);
        }
    });
}

#[test]
fn a_bridge_whose_mac_the_kernel_chose_keeps_it_while_pods_come_and_go() {
    // The second bridge now has the MAC of a port, the third one a MAC that its operator set.
    for (prepare, expected) in [
        ("link add cni0 up type bridge", None),
        (
            "link add cni0 up type bridge\nlink add lan0 address fe:ff:ff:00:00:01 type veth peer name wire\nlink set lan0 master cni0",
            None,
        ),
        ("link add cni0 up address 02:00:00:00:00:99 type bridge", Some("02:00:00:00:00:99")),
    ] {
        let (node, pods) = (Node::new("node"), [Pod::new(), Pod::new(), Pod::new()]);
        node.ip(prepare);
        let mac = || node.mac("cni0");
        let before = mac();
        assert!(expected.is_none_or(|mac| mac == before), "{before}");
        let plugin = plugin(&node, "vlan-bridge", &json!({"isDefaultGateway": true}));
        for pod in &pods {
            let result = plugin.add(&pod.eth0()).result();
            assert_eq!(result.interfaces[0].mac, before, "{prepare}: {result}");
            plugin.check(&pod.eth0(), &result).expect_ok();
            assert_eq!(mac(), before, "{prepare}");
        }
        pods[0].wait_for("10.22.0.1");
        for pod in &pods[1..] {
            plugin.del(&pod.eth0()).expect_ok();
            assert_eq!(mac(), before, "{prepare}");
        }
        // By its neighbour entry.
        assert!(pods[0].pings("10.22.0.1"), "{prepare}");
        plugin.del(&pods[0].eth0()).expect_ok();
        assert_eq!(mac(), before, "{prepare}");
    }
}

#[test]
fn another_address_on_the_bridge_is_a_conflict_that_force_replaces() {
    let other = "link add cni0 type bridge\naddr add 10.99.0.1/24 dev cni0\naddr add 2001:db8:99::1/64 dev cni0 nodad";
    on_both(&json!({"isGateway": true}), other, |kind, node, pod, outcome| {
        assert!(
            outcome.error_text().contains("already has an IP address different from 10.22.0.1/24"),
            "{kind}: {outcome}"
        );
        assert_eq!(addresses(node, "cni0"), ["10.99.0.1/24", "2001:db8:99::1/64"], "{kind}");
        assert!(node.leases("parity").is_empty(), "{kind}");
        // The reference leaves its interface in the pod. Our plugin does not.
        assert_eq!(pod.has_link("eth0"), kind == "bridge", "{kind}");
    });
    on_both(&json!({"isGateway": true, "forceAddress": true}), other, |kind, node, _, outcome| {
        outcome.expect_ok();
        let mut now = addresses(node, "cni0");
        now.sort();
        assert_eq!(
            now,
            ["10.22.0.1/24", "2001:db8:22::1/64", "2001:db8:99::1/64"],
            "{kind}: disjoint v6 coexist"
        );
    });
}

#[test]
fn a_drained_bridge_of_ours_takes_the_gateway_of_another_subnet() {
    let node = Node::new("node");
    let of_subnet = |third: u8| {
        let subnet = format!("10.22.{third}.0/24");
        let ipam = json!({"type": "vlan-bridge-ipam", "ranges": [[{"subnet": subnet}]]});
        plugin(&node, "vlan-bridge", &json!({"isGateway": true, "ipam": ipam}))
    };
    let (old, new) = (of_subnet(0), of_subnet(1));
    let [first, second] = [Pod::new(), Pod::new()];
    old.add(&first.eth0()).expect_ok();
    // Its pod keeps its gateway.
    let refused = new.add(&second.eth0());
    assert!(refused.error_text().contains("different from 10.22.1.1/24: 10.22.0.1/24"), "{refused}");
    assert_eq!(addresses(&node, "cni0"), ["10.22.0.1/24"]);
    first.wait_for("10.22.0.1");
    old.del(&first.eth0()).expect_ok();
    new.add(&second.eth0()).expect_ok();
    assert_eq!(addresses(&node, "cni0"), ["10.22.1.1/24"]);
    second.wait_for("10.22.1.1");
}

#[test]
fn mtu_goes_to_the_pair_and_to_a_bridge_that_is_made() {
    on_both(&json!({"mtu": 1280}), "", |kind, node, pod, outcome| {
        let result = outcome.result();
        let mtu = |links: &Value| links[0]["mtu"].clone();
        for links in [
            node.ip_json("link show dev cni0"),
            node.ip_json("link show type veth"),
            pod.ip_json("link show dev eth0"),
        ] {
            assert_eq!(mtu(&links), 1280, "{kind}");
        }
        // The reference's result has no MTU.
        let told = |interface: &Interface| kind == "bridge" || interface.mtu == Some(1280);
        assert!(result.interfaces.iter().all(told), "{result}");
    });
}

#[test]
fn hairpin_isolation_and_promiscuity() {
    on_both(&json!({"hairpinMode": true}), "", |kind, node, _, outcome| {
        outcome.expect_ok();
        assert_eq!(port(node, "hairpin"), true, "{kind}");
        assert_eq!(port(node, "isolated"), false, "{kind}");
    });
    on_both(&json!({"portIsolation": true}), "", |kind, node, pod, outcome| {
        outcome.expect_ok();
        assert_eq!(port(node, "isolated"), true, "{kind}");
        let second = Pod::new();
        let gateway = json!({"portIsolation": true, "isGateway": true});
        let result = plugin(node, kind, &gateway).add(&second.eth0()).result();
        second.wait_for("10.22.0.1");
        assert!(!pod.pings(&result.address()), "{kind}: isolated ports hear each other");
    });
    on_both(&json!({"promiscMode": true}), "", |kind, node, _, outcome| {
        outcome.expect_ok();
        assert_eq!(node.ip_json("-details link show dev cni0")[0]["promiscuity"], 1, "{kind}");
        assert_eq!(port(node, "hairpin"), false, "{kind}");
    });
}

/// With br_netfilter the kernel translates the request within the bridge, and sends it back to the port that
/// it came from.
#[test]
fn a_pod_of_a_gateway_reaches_itself_by_its_service() {
    let (node, pod) = (Node::new("node"), Pod::new());
    let plugin = plugin(&node, "vlan-bridge", &json!({"isDefaultGateway": true}));
    plugin.add(&pod.eth0()).expect_ok();
    assert_eq!(port(&node, "hairpin"), true);
    node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    // The rule of kube-proxy.
    node.nft(
        "table ip services {\n\
         chain pre { type nat hook prerouting priority -100; ip daddr 10.96.0.10 tcp dport 80 dnat to 10.22.0.2:8080; }\n\
         chain post { type nat hook postrouting priority 100; ip saddr 10.22.0.2 ip daddr 10.22.0.2 masquerade; }\n}",
    );
    let _server = Server::start(&pod, Transport::Tcp, 8080);
    let to = at("10.96.0.10", 80);
    assert_eq!(ask(&pod, Transport::Tcp, to), Some("10.22.0.1".parse().unwrap()));
}

#[test]
fn contradictory_keys_are_refused_before_anything_is_made() {
    for keys in
        [json!({"hairpinMode": true, "promiscMode": true}), json!({"disableContainerInterface": true})]
    {
        on_both(&keys, "", |kind, node, pod, outcome| {
            outcome.error_code();
            assert!(!pod.has_link("eth0") && node.leases("parity").is_empty(), "{kind}");
            if kind == "vlan-bridge" {
                assert!(!node.has_link("cni0"));
                for key in keys.as_object().unwrap().keys() {
                    assert!(outcome.error_text().contains(key), "{key} is not in {outcome}");
                }
            }
        });
    }
}

#[test]
fn an_interface_that_is_no_bridge_is_refused_by_its_name() {
    on_both(&json!({}), "link add cni0 type veth peer name other", |kind, node, pod, outcome| {
        assert!(outcome.error_text().contains("cni0"), "{kind}: {outcome}");
        assert!(!pod.has_link("eth0") && node.leases("parity").is_empty(), "{kind}");
        assert_eq!(node.ip_json("link show type veth").as_array().unwrap().len(), 2, "{kind}");
    });
}

#[test]
fn a_layer_2_attachment_has_no_address_and_may_stay_down() {
    on_both(&json!({"ipam": {}}), "", |kind, _, pod, outcome| {
        let result = outcome.result();
        assert!(result.ips.is_empty(), "{kind}: {result}");
        assert_eq!(pod.ip_json("link show dev eth0")[0]["operstate"], "UP", "{kind}");
        assert_eq!(pod.ip_json("-4 addr show dev eth0").as_array().map_or(0, Vec::len), 0, "{kind}");
    });
    on_both(&json!({"ipam": {}, "disableContainerInterface": true}), "", |kind, _, pod, outcome| {
        outcome.expect_ok();
        assert_eq!(pod.ip_json("link show dev eth0")[0]["operstate"], "DOWN", "{kind}");
    });
}

#[test]
fn duplicate_address_detection_has_ended_when_add_returns() {
    on_both(&json!({"enabledad": true}), "", |kind, _, pod, outcome| {
        outcome.expect_ok();
        let address = pod.run("ip -6 addr show dev eth0 scope global").stdout;
        assert!(address.contains("2001:db8:22::"), "{kind}: {address}");
        // The reference only switches detection on. It waits for its end only if the kernel is quick.
        assert!(kind == "bridge" || !address.contains("tentative"), "{address}");
        assert!(!address.contains("nodad"), "{kind}: {address}");
    });
}

#[test]
fn a_mac_that_the_runtime_asks_for() {
    for kind in BOTH {
        let (node, pod) = (Node::new("node"), Pod::new());
        let eth0 = pod.eth0().capabilities(json!({"mac": "02:00:00:00:00:07"}));
        let result = plugin(&node, kind, &json!({})).add(&eth0).result();
        assert_eq!(pod.mac("eth0"), "02:00:00:00:00:07", "{kind}");
        let told = result.interfaces.iter().find(|interface| interface.name == "eth0");
        assert_eq!(told.unwrap().mac, "02:00:00:00:00:07", "{kind}");
    }
}

#[test]
fn multicast_is_snooped_where_it_is_asked_for_or_a_router_may_ask_for_members() {
    let snooping = |node: &Node, bridge: &str| {
        node.ip_json(&format!("-details link show dev {bridge}"))[0]["linkinfo"]["info_data"]["mcast_snooping"].clone()
    };
    for (keys, expected) in [(json!({}), 0), (json!({"multicastSnooping": true}), 1)] {
        let (node, pod) = (Node::new("node"), Pod::new());
        plugin(&node, "vlan-bridge", &keys).add(&pod.eth0()).expect_ok();
        assert_eq!(snooping(&node, "cni0"), expected, "{keys}");
    }
    for (key, expected) in [(json!(null), 1), (json!(false), 0)] {
        let (node, pod) = (Node::new("node"), Pod::new());
        node.ip("link add nic0 up type veth peer name wire");
        let mut keys = json!({"uplink": {"master": "nic0"}});
        if !key.is_null() {
            keys["multicastSnooping"] = key;
        }
        plugin(&node, "vlan-bridge", &keys).add(&pod.eth0()).expect_ok();
        assert_eq!(snooping(&node, "cni0"), expected, "{keys}");
    }
    // An existing bridge keeps its own.
    let (node, pod) = (Node::new("node"), Pod::new());
    node.ip("link add cni0 type bridge mcast_snooping 1");
    plugin(&node, "vlan-bridge", &json!({})).add(&pod.eth0()).expect_ok();
    assert_eq!(snooping(&node, "cni0"), 1);
}

#[test]
fn the_nodes_ends_of_veths_bring_no_route_that_every_later_pod_would_pay_for() {
    let node = Node::new("node");
    let routes = |of: &str| {
        let all = node.run("ip -6 route show table local type multicast").expect_ok().stdout;
        all.lines().filter(|route| route.contains(&format!("dev {of}"))).count()
    };
    let pods = [Pod::new(), Pod::new()];
    pods.iter().for_each(|pod| drop(plugin(&node, "vlan-bridge", &json!({})).add(&pod.eth0()).expect_ok()));
    assert_eq!(routes("veth"), 0, "{}", node.run("ip -6 route show table local"));
    assert_eq!(routes("cni0"), 1, "the bridge keeps its own");
}

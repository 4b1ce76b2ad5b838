//! A firewall's restart removes our rules. CHECK reports that, and the next call of any pod restores all of
//! them.

use crate::nat::{MACHINE, NODE, Nat, with_ports};
use integration::{Pod, Server, Site, Transport, ask, at, not_tried};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;

/// The comments in the node's rules, which name the owner of each element.
fn elements(nat: &Nat) -> Vec<String> {
    let rules = nat.rules();
    let mut comments: Vec<String> = rules
        .split("comment \"veth")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect();
    comments.sort();
    comments
}

#[test]
fn after_a_flush_the_next_add_and_the_next_del_put_back_everybodys_rules() {
    let nat = Nat::new();
    let (one, two, third) = (Pod::new(), Pod::new(), Pod::new());
    let eth0 = with_ports(&one, &[(8080, "tcp", 80, ""), (8080, "udp", 80, NODE[0])]);
    let result = nat.local().add(&eth0).result();
    let second = with_ports(&two, &[(8081, "tcp", 80, "")]);
    nat.other().add(&second).expect_ok();
    let before = elements(&nat);
    nat.local().check(&eth0, &result).expect_ok();
    let _server = Server::start(&one, Transport::Tcp, 80);
    let reaches = || {
        let to = at(NODE[0], 8080);
        ask(&nat.machine, Transport::Tcp, to) == Some(MACHINE[0].parse().unwrap())
    };
    assert!(reaches());

    // By a pod with NAT and by a pod without.
    let plain = nat.node.plugin(&nat.list("plain", "cni1", &json!({"capabilities": null})));
    for (by_add, plugin) in
        [(true, nat.local()), (false, nat.local()), (true, plain.clone()), (false, plain.clone())]
    {
        if !by_add {
            plugin.add(&third.eth0()).expect_ok();
        }
        nat.node.nft("flush ruleset");
        let outcome = nat.local().check(&eth0, &result);
        assert_eq!(outcome.error_code(), 101, "{outcome}");
        assert!(outcome.error_text().contains("table inet vlan-bridge is gone"), "{outcome}");
        assert!(!reaches());
        let restored = if by_add {
            plugin.add(&third.eth0()).expect_ok()
        } else {
            plugin.del(&third.eth0()).expect_ok()
        };
        assert!(restored.stderr.contains("restored the rules of 2 pods"), "{restored}");
        if by_add {
            plugin.del(&third.eth0()).expect_ok();
        }
        assert_eq!(elements(&nat), before, "by ADD: {by_add}");
        nat.local().check(&eth0, &result).expect_ok();
        assert!(reaches());
    }

    // Only rules go. The elements and the table stay.
    for damage in ["flush chain inet vlan-bridge postrouting", "flush table inet vlan-bridge"] {
        for by_add in [true, false] {
            if !by_add {
                nat.local().add(&third.eth0()).expect_ok();
            }
            nat.node.nft(damage);
            assert_eq!(nat.local().check(&eth0, &result).error_code(), 101, "{damage}");
            if by_add {
                nat.local().add(&third.eth0()).expect_ok();
                nat.local().check(&eth0, &result).expect_ok();
            }
            nat.local().del(&third.eth0()).expect_ok();
            nat.local().check(&eth0, &result).expect_ok();
            assert_eq!(elements(&nat), before, "{damage}, by ADD: {by_add}");
            assert!(reaches(), "{damage}");
        }
    }

    // One missing part is enough for CHECK to fail.
    nat.node.nft("delete element inet vlan-bridge ports4 { tcp . 8080 }");
    let outcome = nat.local().check(&eth0, &result);
    assert!(outcome.error_text().contains("host port 8080/tcp is gone"), "{outcome}");
    nat.node.nft("flush chain inet vlan-bridge postrouting");
    let outcome = nat.local().check(&eth0, &result);
    assert!(outcome.error_text().contains("chain postrouting of table inet vlan-bridge"), "{outcome}");

    nat.node.nft("flush ruleset");
    for (plugin, pod) in [(nat.local(), &one), (nat.other(), &two)] {
        plugin.del(&pod.eth0()).expect_ok();
    }
    nat.assert_nothing_left();
}

/// Only the rules of existing pods are restored, not those of a pod that ended without DEL.
#[test]
fn the_dead_are_not_put_back() {
    let (nat, dead, lives) = (Nat::new(), Pod::new(), Pod::new());
    nat.local().add(&with_ports(&dead, &[(8080, "tcp", 80, "")])).expect_ok();
    let gone = dead.eth0().without_netns();
    drop(dead);
    let veths = || nat.node.ip_json("link show type veth").as_array().map_or(0, Vec::len);
    integration::poll(std::time::Duration::from_secs(10), "the dead pod's veth is gone", || veths() == 1);
    nat.node.nft("flush ruleset");
    nat.local().add(&with_ports(&lives, &[(8080, "udp", 80, "")])).expect_ok();
    assert_eq!(nat.count(&gone.id), 0, "{}", nat.rules());
    nat.local().del(&lives.eth0()).expect_ok();
    nat.local().del(&gone).expect_ok();
    nat.assert_nothing_left();
}

/// A chain of Docker or ufw with policy drop. One rule of ours accepts the pods' packets and goes with the
/// last pod. The other rules stay.
#[test]
fn a_forward_policy_of_drop_has_one_rule_of_ours_for_as_long_as_there_are_pods() {
    let (nat, one, two) = (Nat::new(), Pod::new(), Pod::new());
    nat.node.run("iptables -P FORWARD DROP").expect_ok();
    nat.node.run("iptables -A FORWARD -i docker0 -j ACCEPT").expect_ok();
    let theirs = nat.rules();
    // iptables refuses to print a chain that it cannot read.
    let ours = || nat.node.run("iptables -S FORWARD").expect_ok().stdout.matches("vlan-bridge").count();
    let eth0 = with_ports(&one, &[(8080, "tcp", 80, "")]);
    let result = nat.local().add(&eth0).result();
    nat.local().add(&two.eth0()).expect_ok();
    assert_eq!(ours(), 1, "{}", nat.rules());
    nat.local().del(&two.eth0()).expect_ok();
    // An operator who reloads rules removes ours. An ADD or DEL restores them, of a pod with NAT or without.
    let plain = nat.node.plugin(&nat.list("plain", "cni1", &json!({"capabilities": null})));
    let damages = [
        "flush chain ip filter FORWARD\nadd rule ip filter FORWARD iifname \"docker0\" counter accept",
        "flush chain inet vlan-bridge forward",
        "flush set inet vlan-bridge bridges",
    ];
    for (plugin, damage) in [nat.local(), nat.other(), plain].iter().flat_map(|by| damages.map(|d| (by, d))) {
        for add in [true, false] {
            nat.node.nft(damage);
            let outcome = nat.local().check(&eth0, &result);
            assert_eq!(outcome.error_code(), 101, "{damage}: {outcome}");
            assert!(
                outcome.error_text().contains("filter") || outcome.error_text().contains("set"),
                "{outcome}"
            );
            let call = if add { plugin.add(&two.eth0()) } else { plugin.del(&two.eth0()) };
            assert_eq!(ours(), 1, "{damage}: {call}");
            nat.local().check(&eth0, &result).expect_ok();
        }
    }
    nat.local().del(&one.eth0()).expect_ok();
    assert_eq!(nat.rules(), theirs);
}

/// Its node forwards its packets, with NAT or without. The machine beyond has a route back.
#[test]
fn a_gateway_without_nat_passes_a_forward_policy_of_drop() {
    let (nat, one, two, early) = (Nat::new(), Pod::new(), Pod::new(), Pod::new());
    let plain = nat.node.plugin(&nat.list("plain", "cni1", &json!({"capabilities": null})));
    nat.machine.ip("route add 10.33.0.0/24 via 192.0.2.1\nroute add fd00:33::/64 via 2001:db8:2::1");
    let _servers = Transport::ALL.map(|over| Server::start(&nat.machine, over, 80));
    let reaches = |pod: &Pod, own: &[String]| {
        let one_way = |over, to: &str| ask(pod, over, at(to, 80));
        let sees = |over, index: usize| one_way(over, MACHINE[index]) == Some(own[index].parse().unwrap());
        Transport::ALL.into_iter().flat_map(|over| [sees(over, 0), sees(over, 1)]).all(|seen| seen)
    };
    // Without such a policy, the packet filter has no such rule.
    let first = plain.add(&early.eth0()).result().addresses();
    assert!(reaches(&early, &first) && !nat.rules().contains("vlan-bridge"), "{}", nat.rules());
    for program in ["iptables", "ip6tables"] {
        nat.node.run(&format!("{program} -P FORWARD DROP")).expect_ok();
    }
    let theirs = nat.rules();
    assert_eq!(ask(&early, Transport::Tcp, at(MACHINE[0], 80)), None);
    let result = plain.add(&one.eth0()).result();
    let second = plain.add(&two.eth0()).result().addresses();
    for (pod, own) in [(&one, &result.addresses()), (&two, &second), (&early, &first)] {
        assert!(reaches(pod, own), "{own:?}: {}", nat.rules());
    }
    // No machine can open a connection to it, as with NAT.
    let _pods = Server::start(&one, Transport::Tcp, 80);
    let to = SocketAddr::new(result.address().parse().unwrap(), 80);
    assert_eq!(ask(&nat.machine, Transport::Tcp, to), None);
    plain.check(&one.eth0(), &result).expect_ok();
    nat.node.nft("flush chain ip filter FORWARD");
    let outcome = plain.check(&one.eth0(), &result);
    assert!(outcome.error_text().contains("rule there is gone"), "{outcome}");
    plain.del(&two.eth0()).expect_ok();
    assert!(reaches(&one, &result.addresses()), "{}", nat.rules());
    plain.del(&early.eth0()).expect_ok();
    plain.del(&one.eth0()).expect_ok();
    assert_eq!(nat.rules(), theirs);
    assert!(!nat.node.records().exists());
}

/// If the plugin cannot write the rule, the operator must. The log has the command.
#[test]
fn legacy_iptables_is_the_operators() {
    let (nat, pod) = (Nat::new(), Pod::new());
    if !nat.node.run("iptables-legacy -P FORWARD DROP").ok() {
        return not_tried("this kernel has no legacy iptables");
    }
    let added = nat.local().add(&pod.eth0()).expect_ok();
    let command =
        "iptables-legacy -A FORWARD -i cni0 -j ACCEPT; iptables-legacy -A FORWARD -o cni0 -j ACCEPT";
    assert!(added.stderr.contains(command), "{added}");
    nat.local().status().expect_ok();
    nat.local().del(&pod.eth0()).expect_ok();
    let plain = nat.other().add(&pod.eth0()).expect_ok();
    assert!(plain.stderr.contains(&command.replace("cni0", "cni1")), "{plain}");
}

/// With br_netfilter, pods without NAT need the rule too.
#[test]
fn legacy_iptables_is_the_operators_for_bridged_pods_too() {
    let (site, pod) = (Site::new(), Pod::new());
    if !Path::new("/proc/sys/net/bridge").exists() || !site.node.run("iptables-legacy -P FORWARD DROP").ok() {
        return not_tried("this kernel has no br_netfilter or no legacy iptables");
    }
    let list = site.list();
    let plugin = site.node.plugin(&list);
    let command =
        "iptables-legacy -A FORWARD -i br136 -j ACCEPT; iptables-legacy -A FORWARD -o br136 -j ACCEPT";
    for (value, warned) in [("0", false), ("1", true)] {
        site.node.set_sysctl("net/bridge/bridge-nf-call-iptables", value);
        let added = plugin.add(&pod.eth0()).expect_ok();
        assert_eq!(added.stderr.contains(command), warned, "{added}");
        let asked = plugin.status().expect_ok();
        assert!(!asked.stderr.contains(command), "{asked}");
        plugin.del(&pod.eth0()).expect_ok();
    }
}

/// STATUS does not require the rules, only a kernel that supports them.
#[test]
fn status_is_good_before_the_first_pod_and_after_a_flush() {
    let (nat, pod) = (Nat::new(), Pod::new());
    nat.local().status().expect_ok();
    nat.local().add(&pod.eth0()).expect_ok();
    nat.node.nft("flush ruleset");
    nat.local().status().expect_ok();
    assert!(!nat.rules().contains("vlan-bridge"), "STATUS changes nothing");
    nat.local().gc().expect_ok();
    nat.local().with("cni.dev/valid-attachments", json!([])).gc().expect_ok();
    nat.assert_nothing_left();
}

//! Every path to and from a pod in NAT mode: client, server, transport, and the client address that the
//! server sees.

use crate::attached::{FakeIpam, add_through};
use crate::nat::{GATEWAY, MACHINE, NODE, Nat, OTHER, with_ports};
use integration::{Namespace, Node, Pod, Server, Site, Transport, ask, at, not_tried, note, poll};
use serde_json::json;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The port in the pod, the port at all of the node's addresses, and the port at [`OTHER`] only.
const SERVED: u16 = 80;
const MAPPED: u16 = 8080;
const MAPPED_OF_OTHER: u16 = 8081;

/// One path: its name, the client, the address it asks, and the client address that the server must see. None
/// if there must be no answer.
struct Path4And6<'a> {
    name: &'static str,
    from: &'a Namespace,
    to: [Option<&'a str>; 2],
    port: u16,
    seen: [Option<&'a str>; 2],
}

/// Settings of a node that affect forwarded packets.
#[derive(Clone, Copy)]
struct Surroundings {
    forward_drops: bool,
    bridges_call_iptables: bool,
    strict_rp_filter: bool,
}

/// The chains that iptables-nft makes for `iptables -P FORWARD DROP`.
const DROP: &str = "table ip filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}\n\
                    table ip6 filter {\n chain FORWARD {\n type filter hook forward priority 0; policy drop;\n }\n}";

#[test]
fn every_path_of_a_pod_works() {
    let br_netfilter = Path::new("/proc/sys/net/bridge").exists();
    let mut failures = Vec::new();
    for forward_drops in [false, true] {
        for bridges_call_iptables in [false, true] {
            if bridges_call_iptables && !br_netfilter {
                not_tried("no br_netfilter in this kernel: half of the table");
                continue;
            }
            // These cover every pair of the three settings.
            let strict_rp_filter = forward_drops != bridges_call_iptables;
            failures.extend(try_all(Surroundings { forward_drops, bridges_call_iptables, strict_rp_filter }));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Tries every path with some settings, logs the table, and returns the failures.
fn try_all(surroundings: Surroundings) -> Vec<String> {
    let nat = Nat::new();
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        if Path::new("/proc/sys/net/bridge").exists() {
            let value = if surroundings.bridges_call_iptables { "1" } else { "0" };
            nat.node.set_sysctl(&format!("net/bridge/{key}"), value);
        }
    }
    let rp_filter = if surroundings.strict_rp_filter { "1" } else { "0" };
    for interface in ["all", "default", "nic0"] {
        nat.node.set_sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), rp_filter);
    }
    if surroundings.forward_drops {
        nat.node.nft(DROP);
    }
    let (pod, same_bridge, other_bridge) = (Pod::new(), Pod::new(), Pod::new());
    let mut ports = Vec::new();
    for protocol in ["tcp", "udp"] {
        ports.push((MAPPED, protocol, SERVED, ""));
        ports.extend(OTHER.map(|ip| (MAPPED_OF_OTHER, protocol, SERVED, ip)));
    }
    let server = nat.local().add(&with_ports(&pod, &ports)).result().addresses();
    let same = nat.local().add(&same_bridge.eth0()).result().addresses();
    let other = nat.other().add(&other_bridge.eth0()).result().addresses();

    let _servers: Vec<Server> = Transport::ALL
        .into_iter()
        .flat_map(|over| [&*pod, &nat.machine].map(|host| Server::start(host, over, SERVED)))
        .collect();
    let text = |pair: [&'static str; 2]| pair.map(Some);
    let path = |name, from, to, port, seen| Path4And6 { name, from, to, port, seen };
    let node = nat.node.namespace();
    let paths = [
        path("machine -> host port", &nat.machine, text(NODE), MAPPED, text(MACHINE)),
        path("machine -> port of other address", &nat.machine, text(OTHER), MAPPED_OF_OTHER, text(MACHINE)),
        path("machine -> the same, this address", &nat.machine, text(NODE), MAPPED_OF_OTHER, [None, None]),
        path("node -> host port", node, text(NODE), MAPPED, text(GATEWAY)),
        path("node -> port of other address", node, text(OTHER), MAPPED_OF_OTHER, text(GATEWAY)),
        path("node -> localhost", node, [Some("127.0.0.1"), None], MAPPED, [Some(GATEWAY[0]), None]),
        path("node -> ::1", node, [None, Some("::1")], MAPPED, [None, None]),
        path("the pod itself -> host port", &pod, text(NODE), MAPPED, text(GATEWAY)),
        path("the pod itself -> gateway", &pod, text(GATEWAY), MAPPED, text(GATEWAY)),
        path("pod, same bridge -> host port", &same_bridge, text(NODE), MAPPED, text(GATEWAY)),
        path("pod, same bridge -> gateway", &same_bridge, text(GATEWAY), MAPPED, text(GATEWAY)),
        path("pod, other bridge -> host port", &other_bridge, text(NODE), MAPPED, own(&other)),
        path("pod -> pod, same bridge", &same_bridge, own(&server), SERVED, own(&same)),
        path("node -> pod", node, own(&server), SERVED, text(GATEWAY)),
        path("pod -> machine, masqueraded", &same_bridge, text(MACHINE), SERVED, text(NODE)),
        path("pod -> node's other address, no port", &same_bridge, text(OTHER), 9, [None, None]),
    ];
    let failures = walk(&paths, surroundings);
    if surroundings.forward_drops {
        // The control: without our rule the policy drops.
        nat.node.nft("flush chain ip filter FORWARD");
        let to = at(NODE[0], MAPPED);
        assert_eq!(ask(&nat.machine, Transport::Tcp, to), None, "nothing is dropped here");
    }
    nat.local().del(&pod.eth0()).expect_ok();
    nat.local().del(&same_bridge.eth0()).expect_ok();
    nat.other().del(&other_bridge.eth0()).expect_ok();
    assert!(!nat.rules().contains("vlan-bridge"), "{}", nat.rules());
    failures
}

fn own(addresses: &[String]) -> [Option<&str>; 2] {
    [0, 1].map(|index| Some(addresses[index].as_str()))
}

/// Tries the paths over both transports and families. Logs the address that each server saw.
fn walk(paths: &[Path4And6<'_>], surroundings: Surroundings) -> Vec<String> {
    let header = format!(
        "FORWARD {}, bridge-nf-call-iptables {}, rp_filter {}",
        if surroundings.forward_drops { "drop" } else { "accept" },
        u8::from(surroundings.bridges_call_iptables),
        u8::from(surroundings.strict_rp_filter)
    );
    let mut lines = vec![format!(
        "{header}\n{:38} {:>15} {:>15} {:>15} {:>15}",
        "server sees over", "tcp4", "udp4", "tcp6", "udp6"
    )];
    let mut failures = Vec::new();
    for path in paths {
        let mut line = format!("{:38}", path.name);
        for index in [0, 1] {
            for over in Transport::ALL {
                let Some(to) = path.to[index] else {
                    line += &format!(" {:>15}", "");
                    continue;
                };
                let to = at(to, path.port);
                let seen = ask(path.from, over, to);
                line += &format!(" {:>15}", seen.map_or("-".to_owned(), |ip| ip.to_string()));
                let wanted: Option<IpAddr> = path.seen[index].map(|ip| ip.parse().unwrap());
                if seen != wanted {
                    let over = over.name();
                    failures
                        .push(format!("{header}: {}, {over} to {to}: {seen:?}, not {wanted:?}", path.name));
                }
            }
        }
        lines.push(line);
    }
    note(&lines.join("\n      "));
    failures
}

/// Whether our rule is in iptables' FORWARD, of either family. `nft` does not print comments of iptables.
fn has_accept_rule(node: &Node) -> bool {
    let has = |program: &str| {
        node.run(&format!("{program} -S FORWARD")).expect_ok().stdout.contains("vlan-bridge: pods")
    };
    ["iptables", "ip6tables"].iter().any(|program| has(program))
}

/// A later policy cuts existing pods off. The next pod, also of a network with NAT, makes a rule for their
/// bridge, which stays while there are pods.
#[test]
fn bridged_pods_from_before_a_forward_policy_of_drop_pass_with_the_next() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        return not_tried("no br_netfilter in this kernel");
    }
    let site = Site::new();
    site.node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    site.node.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
    let local = json!({"type": "vlan-bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                       "ipam": {"type": "vlan-bridge-ipam", "subnet": "10.22.0.0/24"}});
    let (list, local) = (site.list(), site.node.list("local", &[local]));
    let (client, by_nat) = (site.node.client(&list), site.node.client(&local));
    let has_rules = || has_accept_rule(&site.node);
    let has_table = || site.node.run("nft list tables").expect_ok().stdout.contains("inet vlan-bridge\n");
    for (next, with_gc) in [(&client, false), (&by_nat, false), (&by_nat, true)] {
        let (one, two, later) = (Pod::new(), Pod::new(), Pod::new());
        client.add(&one.eth0()).expect_ok();
        client.add(&two.eth0()).expect_ok();
        site.node.nft(DROP);
        assert!(!one.pings(Site::GATEWAY), "the policy does not drop: nothing is shown");
        let outcome = client.check(&one.eth0());
        assert!(
            outcome.error_text().contains("table ip filter drops what bridge br136 forwards"),
            "{outcome}"
        );
        next.add(&later.eth0()).expect_ok();
        assert!(one.pings(Site::GATEWAY));
        client.check(&one.eth0()).expect_ok();
        next.del(&later.eth0()).expect_ok();
        assert!(one.pings(Site::GATEWAY), "what lets it pass has gone with another pod");
        client.del(&two.eth0()).expect_ok();
        assert!(one.pings(Site::GATEWAY) && has_rules());
        if with_gc {
            site.node.plugin(&list).with("cni.dev/valid-attachments", json!([])).gc().expect_ok();
        } else {
            client.del(&one.eth0()).expect_ok();
        }
        assert!(!has_rules() && !has_table());
        site.node.nft("delete table ip filter\ndelete table ip6 filter");
    }
    // A policy does not affect bridged pods if br_netfilter does not pass that family to it.
    let pod = Pod::new();
    site.node.nft(&DROP[DROP.find("table ip6").unwrap()..]);
    client.add(&pod.eth0()).expect_ok();
    assert!(!has_table());
}

/// Each DEL still sees the other pod when it checks whether it is the last.
#[test]
fn bridged_pods_that_go_at_the_same_time_leave_nothing_in_the_packet_filter() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        return not_tried("no br_netfilter in this kernel");
    }
    let (site, slow, other) = (Site::new(), Pod::new(), Pod::new());
    site.node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    site.node.nft(DROP);
    let ipam = FakeIpam::new(
        "fake",
        "if [ \"$CNI_COMMAND\" = ADD ]; then\n\
           echo '{\"cniVersion\": \"1.1.0\", \"ips\": [{\"address\": \"172.20.56.99/24\"}]}'\n\
         else\n\
           touch \"$folder/asked\"; until [ -e \"$folder/go\" ]; do sleep 0.01; done\n\
         fi",
    );
    let mut conf = site.conf();
    conf["ipam"] = json!({"type": "fake"});
    let slowly = site.node.plugin(&site.node.list("slow", &[conf]));
    let plugin = site.node.plugin(&site.list());
    add_through(&ipam, &slowly, &slow.eth0()).expect_ok();
    plugin.add(&other.eth0()).expect_ok();
    let del = ipam.before(slowly.call("DEL", &slow.eth0()));
    std::thread::scope(|scope| {
        let del = scope.spawn(|| del.run());
        poll(Duration::from_secs(10), "the slow pod's rules are gone", || ipam.exists("asked"));
        plugin.del(&other.eth0()).expect_ok();
        ipam.write("go");
        del.join().unwrap().expect_ok();
    });
    let left = site.node.run("nft list ruleset").expect_ok().stdout;
    assert!(!left.contains("inet vlan-bridge {") && !has_accept_rule(&site.node), "{left}");
    assert!(!site.node.records().exists());
}

/// Docker's policy and br_netfilter together would cut off bridged pods. Their packets pass, and the node
/// does not change otherwise.
#[test]
fn bridged_pods_pass_a_forward_policy_of_drop() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        return not_tried("no br_netfilter in this kernel");
    }
    let (site, one, two) = (Site::new(), Pod::new(), Pod::new());
    site.node.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    site.node.nft(DROP);
    let list = site.list();
    let client = site.node.client(&list);
    let forwarding = || site.node.run("cat /proc/sys/net/ipv4/ip_forward").expect_ok().stdout;
    let before = forwarding();
    client.add(&one.eth0()).expect_ok();
    let other = client.add(&two.eth0()).result().address();
    assert!(one.pings(&other) && one.pings(Site::GATEWAY));
    client.check(&one.eth0()).expect_ok();
    site.node.nft("flush chain ip filter FORWARD");
    let outcome = client.check(&one.eth0());
    assert!(outcome.error_text().contains("rule there is gone"), "{outcome}");
    assert!(!one.pings(&other), "the policy does not drop: nothing is shown");
    client.del(&two.eth0()).expect_ok();
    client.add(&two.eth0()).expect_ok();
    assert!(one.pings(Site::GATEWAY));
    assert_eq!(forwarding(), before);
    for pod in [&one, &two] {
        client.del(&pod.eth0()).expect_ok();
    }
    let left = site.node.run("nft list ruleset ip").expect_ok().stdout;
    assert!(!left.contains("vlan-bridge"), "{left}");
}

//! The doctor on the packet filter: chains of other programs that drop pods' packets, and missing rules of
//! ours.

use crate::doctor::{LIST, after_fixes, find, with_bridged_pod, with_pod};
use integration::{Ctl, Node, Pod, Site, not_tried};
use serde_json::json;

#[test]
fn chains_of_others_that_drop_what_pods_send_are_named_with_what_mends_it() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (_pod, _) = with_pod(&node, &ctl);
    let chain = |table: &str, policy: &str| {
        let hook = "type filter hook forward priority 0";
        node.nft(&format!("table {table} {{\n chain forward {{\n {hook}; policy {policy};\n }}\n}}"));
    };
    chain("inet other", "accept");
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "ok");
    chain("inet other", "drop");
    let told = ["warn", "chain forward of table inet other drops, and has no rule for cni0"];
    assert_eq!(after_fixes(&node, &ctl, "forward", told), "ok");
    // firewalld refuses packets by a rule, not by a policy.
    chain("inet firewalld", "accept");
    let findings = ctl.doctor("--no-probe");
    let finding = find(&findings, "forward");
    let command = "firewall-cmd --permanent --zone=trusted --add-interface=cni0";
    assert_eq!(finding.fixes[0], command, "{findings:#?}");
    node.nft("add rule inet firewalld forward iifname cni0 accept");
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "ok");
    for program in ["iptables-legacy", "ip6tables-legacy"] {
        if !node.run(&format!("{program} -P FORWARD DROP")).ok() {
            not_tried(&format!("this kernel has no {program}"));
            continue;
        }
        let seen = format!("{program}: the policy of FORWARD is DROP");
        assert_eq!(after_fixes(&node, &ctl, "forward", ["warn", &seen]), "ok");
    }
}

/// The network's next pod gets our rule, independent of pods of other networks.
#[test]
fn pods_of_a_gateway_without_nat_from_before_a_policy_are_cut_off_beside_a_network_that_has_it() {
    let node = Node::new("node");
    let ctl = Ctl::new(&node);
    let (_pod, mut list) = with_pod(&node, &ctl);
    node.run("iptables -P FORWARD DROP").expect_ok();
    node.client(&list).add(&Pod::new().eth0()).expect_ok();
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "ok");
    list["name"] = json!("plain");
    list["plugins"][0]["bridge"] = json!("cni1");
    list["plugins"][0]["ipMasq"] = json!(false);
    list["plugins"][0]["ipam"]["subnet"] = json!("10.33.0.0/16");
    ctl.write(&LIST.replace("local", "plain"), &list.to_string());
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "ok", "before its first pod");
    let (plain, before, next) = (node.client(&list), Pod::new(), Pod::new());
    node.run("iptables -P FORWARD ACCEPT").expect_ok();
    plain.add(&before.eth0()).expect_ok();
    node.run("iptables -P FORWARD DROP").expect_ok();
    let told = ["warn", "chain FORWARD of table ip filter drops, and has no rule for cni1"];
    assert_eq!(after_fixes(&node, &ctl, "forward", told), "ok");
    for way in ["-i", "-o"] {
        node.run(&format!("iptables -D FORWARD {way} cni1 -j ACCEPT")).expect_ok();
    }
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "warn");
    plain.add(&next.eth0()).expect_ok();
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "ok");
}

#[test]
fn a_guard_that_lost_rules_or_sets_is_no_guard() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    let (_pod, list, _) = with_bridged_pod(&site, &ctl, &json!({}));
    let damages = [
        ("flush chain bridge vlan-bridge pod", "of table bridge vlan-bridge is gone or changed"),
        ("flush table bridge vlan-bridge", "of table bridge vlan-bridge is gone or changed"),
        ("flush set bridge vlan-bridge macs", "the pod's MAC is gone from table bridge vlan-bridge"),
        ("flush set bridge vlan-bridge addresses4", "the pod's address 172.20.56.16 is gone from"),
        ("flush map bridge vlan-bridge ports", "no guard for veth"),
    ];
    for (damage, seen) in damages {
        assert_eq!(find(&ctl.doctor("--no-probe"), "guard").verdict, "ok", "before {damage}");
        node.nft(damage);
        let findings = ctl.doctor("--no-probe");
        let finding = find(&findings, "guard");
        assert_eq!(finding.verdict, "fail", "{damage}: {findings:#?}");
        assert!(finding.seen.contains(seen), "{damage}: {findings:#?}");
        let other = Pod::new();
        node.client(&list).add(&other.eth0()).expect_ok();
        node.client(&list).del(&other.eth0()).expect_ok();
    }
}

/// The rules of firewalld for `IPv6_rpfilter=yes`, of iptables for the same, and of a firewall with policy
/// drop.
const REVERSE_PATH_FILTERS: [(&str, &str); 4] = [
    (
        "table inet firewalld {\n chain filter_PREROUTING {\n type filter hook prerouting priority filter + 10; policy accept;\n \
         icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept\n \
         meta nfproto ipv6 fib saddr . mark . iif oif missing drop\n }\n}",
        "chain filter_PREROUTING of table inet firewalld drops",
    ),
    (
        "table inet own {\n chain noted {\n drop\n }\n chain pre {\n type filter hook prerouting priority raw;\n \
         icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n \
         iifname != \"lo\" ip6 nexthdr icmpv6 fib saddr . iif oif missing goto noted\n }\n}",
        "chain pre of table inet own drops",
    ),
    (
        "table ip6 strict {\n chain rpfilter {\n type filter hook prerouting priority mangle + 10; policy drop;\n \
         icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept\n fib saddr . iif oif exists accept\n }\n}",
        "chain rpfilter of table ip6 strict drops",
    ),
    ("", "chain PREROUTING of table ip6 raw drops"),
];

#[test]
fn a_filter_of_reverse_paths_that_bridged_ipv6_meets_is_named() {
    let site = Site::new();
    let (node, ctl) = (&site.node, Ctl::new(&site.node));
    site.router.ip("addr add fd00:136::1/64 dev port nodad");
    let conf = site.dual_stack_conf();
    let list = node.list(Site::NETWORK, &[conf]);
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
    let pod = Pod::new();
    node.client(&list).add(&pod.eth0()).expect_ok();
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        return not_tried("no br_netfilter in this kernel");
    }
    // By default both are on. Rules for both families are then reported for both.
    node.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    let ok = |when: &str| {
        let findings = ctl.doctor("--no-probe");
        assert_eq!(find(&findings, "forward").verdict, "ok", "{when}: {findings:#?}");
        pod.wait_for("fd00:136::1");
    };
    node.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "1");
    for (rules, seen) in REVERSE_PATH_FILTERS {
        ok(seen);
        if rules.is_empty() {
            for rule in
                ["-p icmpv6 --icmpv6-type neighbor-advertisement -j ACCEPT", "-m rpfilter --invert -j DROP"]
            {
                node.run(&format!("ip6tables -t raw -A PREROUTING {rule}")).expect_ok();
            }
        } else {
            node.nft(rules);
        }
        assert!(!pod.pings("fd00:136::1"), "{seen}: the trap is not there");
        let findings = ctl.doctor("--no-probe");
        let finding = find(&findings, "forward");
        assert_eq!(finding.verdict, "fail", "{findings:#?}");
        assert!(finding.seen.contains(seen), "{findings:#?}");
        node.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "0");
        ok(seen);
        node.set_sysctl("net/bridge/bridge-nf-call-ip6tables", "1");
        if finding.fixes[0].contains("firewalld.conf") {
            // The state after a reload with `IPv6_rpfilter=no`.
            node.nft("delete table inet firewalld");
        } else {
            assert_eq!(after_fixes(node, &ctl, "forward", ["fail", seen]), "ok");
        }
        ok(seen);
    }
    node.nft(
        "table inet single {\n chain pre {\n type filter hook prerouting priority raw;\n \
              iifname \"eth7\" fib saddr . iif oif missing drop\n fib daddr type local accept\n }\n}",
    );
    ok("a rule for a single device, and another kind of look-up");
    node.nft("table inet loose {\n chain pre {\n type filter hook prerouting priority raw; fib saddr oif missing drop\n }\n}");
    assert_eq!(find(&ctl.doctor("--no-probe"), "forward").verdict, "fail", "no default route at all");
    node.ip("link add nic9 type veth peer name far\nlink set nic9 up\nlink set far up\n\
             addr add fd00:9::2/64 dev nic9 nodad\nroute add default via fd00:9::1 dev nic9");
    ok("a loose one, and a default route");
}

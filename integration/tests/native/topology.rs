//! `vlan-bridgectl topology`: the path from a NIC to pods of an uplink's network, and to one behind NAT.

use integration::{Ctl, Pod, Site};
use serde_json::json;

/// A name that would end strings and elements, and control a terminal.
const HOSTILE: &str = "x<b>\"&\\\u{1b}[2J\u{9b}1m";

/// A node with a pod on its NIC, and a pod of a hostile name behind NAT.
fn with_pods(test: impl FnOnce(&Ctl<'_>, [String; 2])) {
    let site = Site::new();
    site.give_node_its_own_network();
    let (ctl, flat, behind) = (Ctl::new(&site.node), Pod::new(), Pod::new());
    let local = site.network(
        "local",
        &json!({"bridge": "cni0", "uplink": null, "isGateway": true, "ipMasq": true,
            "ipam": {"subnet": "10.22.0.0/16", "slice": null, "gateway": null}}),
    );
    let names = ["web-0", HOSTILE];
    let mut ports = Vec::new();
    for ((list, pod), name) in [(site.list(), &flat), (local, &behind)].into_iter().zip(names) {
        ctl.write(
            &format!("/etc/cni/net.d/10-{}.conflist", list["name"].as_str().unwrap()),
            &list.to_string(),
        );
        let named = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}");
        let result = site.node.plugin(&list).add(&pod.eth0().args(&named)).result();
        ports.push(result.host_interface().to_owned());
    }
    test(&ctl, ports.try_into().unwrap());
}

#[test]
fn the_path_is_drawn_from_the_nics_to_the_pods() {
    with_pods(|ctl, [flat, behind]| {
        let drawn = ctl.run("topology").expect_ok().stdout;
        let expected = format!(
            "\
nic1  the node's default route, 10.51.0.11/24, fd00:51::11/64, up, MTU 1500
`- cni0  NAT, 10.22.0.1/16, network local, up, MTU 1500
   `- {behind}  10.22.0.2, shop/x<b>\"&\\\\u001b[2J\\u009b1m

nic0  up, MTU 1500
`- br136  network vlan136, up, MTU 1500
   `- {flat}  172.20.56.16, shop/web-0
"
        );
        assert_eq!(drawn, expected);
        assert!(drawn.lines().all(|line| line.chars().count() <= 80), "{drawn}");
        let mut command = ctl.command("topology");
        let lines = integration::run(command.env("LANG", "C.UTF-8")).expect_ok().stdout;
        assert!(lines.contains("└─ br136") && lines.contains(&format!("   └─ {flat}")), "{lines}");
        let json = ctl.run("topology -o json").expect_ok().json();
        let ways = json["ways"].as_array().unwrap();
        let way = json!({"from": "nic1", "to": "cni0", "label": "NAT", "carries": true});
        assert!(ways.contains(&way), "{json:#}");
        // Status does not let the name through either.
        let status = ctl.run("status").expect_ok().stdout;
        assert!(status.contains("\\u001b[2J\\u009b1m") && !status.contains('\u{1b}'), "{status}");
    });
}

#[test]
fn what_carries_nothing_is_shown_as_such() {
    with_pods(|ctl, [flat, _]| {
        let node = ctl.node();
        node.ip(&format!("link set nic0 nomaster\nlink set {flat} down"));
        let drawn = ctl.run("topology").expect_ok().stdout;
        assert!(
            drawn.contains("`- br136  not in the bridge, network vlan136, no carrier, MTU 1500"),
            "{drawn}"
        );
        assert!(drawn.contains(&format!("`- {flat}  172.20.56.16, shop/web-0, down")), "{drawn}");
        node.ip("link del br136\nlink del nic0");
        let drawn = ctl.run("topology").expect_ok().stdout;
        assert!(drawn.contains("nic0  missing\n`- br136  network vlan136, missing\n"), "{drawn}");
    });
}

#[test]
fn svg_and_dot_stay_well_formed_whatever_a_name_is() {
    with_pods(|ctl, [flat, behind]| {
        let svg = ctl.run("topology -o svg").expect_ok().stdout;
        assert_well_formed(&svg);
        assert!(svg.contains(">shop/x&lt;b&gt;\"&amp;\\\\u001b[2J\\u009b1m</text>"), "{svg}");
        for name in ["nic0", "br136", "cni0", &flat, &behind] {
            assert!(svg.contains(&format!(">{name}</text>")), "{svg}");
        }
        let dot = ctl.run("topology -o dot").expect_ok().stdout;
        assert!(dot.starts_with("digraph ") && dot.ends_with("}\n"), "{dot}");
        for line in dot.lines() {
            let unescaped = line.replace("\\\\", "").replace("\\\"", "");
            assert_eq!(unescaped.matches('"').count() % 2, 0, "a string does not end: {line}");
        }
        assert!(dot.contains("\"nic1\" -> \"cni0\" [label=\"NAT\"];"), "{dot}");
    });
}

/// Elements are ours, are closed in the reverse order, and text has no bare `&`.
fn assert_well_formed(svg: &str) {
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, text) = tag.split_once('>').unwrap();
        let name = tag.split(' ').next().unwrap().trim_end_matches('/');
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else {
            assert!(["svg", "style", "path", "rect", "text"].contains(&name), "{tag}");
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        for reference in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;"].iter().any(|known| reference.starts_with(known)), "{text}");
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

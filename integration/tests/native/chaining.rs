//! Our plugin with others: chained with the reference plugins, beside a second network, with any IPAM plugin
//! or none.

pub(crate) mod dhcp;
pub(crate) mod ipam;

use integration::{Node, Pod, Site, Snapshot};
use serde_json::{Value, json};

const MAC: &str = "02:00:00:00:00:07";

/// Our plugin, then the reference plugins that clusters usually chain to it.
fn chain(site: &Site) -> Value {
    let tuning = json!({"type": "tuning", "capabilities": {"mac": true}, "sysctl": {"net.ipv4.conf.IFNAME.proxy_arp": "1"}});
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"});
    let bandwidth = json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 8_000_000});
    // tuning changes the MAC.
    let mut conf = site.conf();
    conf["guard"] = json!(false);
    site.node.list(Site::NETWORK, &[conf, tuning, portmap, bandwidth])
}

/// What is left in a node's network, without nftables, where portmap leaves empty chains.
fn links_and_leases(node: &Node) -> (Vec<String>, Vec<String>) {
    let links = node.ip_json("link show");
    let names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
    (names.collect(), node.leases(Site::NETWORK))
}

#[test]
fn a_chain_of_the_reference_plugins_works_through_every_verb() {
    let site = Site::new();
    let client = site.node.client(&chain(&site));
    client.status().expect_ok();
    let pods = [Pod::new(), Pod::new()];
    let mut attached = Vec::new();
    for (pod, port) in pods.iter().zip([8080, 8081]) {
        let eth0 = pod.eth0().capabilities(json!({
            "mac": MAC.replace("07", &port.to_string()[2..]),
            "portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}],
        }));
        let result = client.add(&eth0).result();
        assert_eq!(result.mac(), pod.mac("eth0"));
        assert_eq!(pod.sysctl("net/ipv4/conf/eth0/proxy_arp"), "1");
        pod.wait_for(Site::GATEWAY);
        attached.push(eth0);
    }
    let rules = site.node.run("nft list ruleset").expect_ok().stdout;
    assert!(rules.contains("dport 8080") && rules.contains("dport 8081"), "{rules}");
    for eth0 in &attached {
        // tuning has changed the MAC since our ADD, and says so in the result that CHECK gets.
        client.check(eth0).expect_ok();
    }
    client.gc(Some(&[&attached[0], &attached[1]])).expect_ok();
    client.check(&attached[1]).expect_ok();
    for eth0 in &attached {
        client.del(eth0).expect_ok();
        client.del(eth0).expect_ok();
    }
    assert_eq!(links_and_leases(&site.node), (vec!["lo".into(), "nic0".into(), "br136".into()], vec![]));
}

#[test]
fn a_mac_that_tuning_sets_is_no_tampering_but_a_later_one_is() {
    let site = Site::new();
    let tuning = json!({"type": "tuning", "mac": MAC});
    let mut conf = site.conf();
    conf["guard"] = json!(false);
    let client = site.node.client(&site.node.list(Site::NETWORK, &[conf, tuning]));
    let pod = Pod::new();
    let result = client.add(&pod.eth0()).result();
    assert_eq!(result.mac(), MAC);
    client.check(&pod.eth0()).expect_ok();
    pod.wait_for(Site::GATEWAY);
    pod.ip("link set eth0 address 02:00:00:00:00:08");
    let text = client.check(&pod.eth0()).error_text();
    assert!(text.contains(MAC) && text.contains("02:00:00:00:00:08"), "{text}");
}

#[test]
fn a_plugin_that_fails_later_in_the_chain_is_cleaned_up_after_by_the_runtimes_del() {
    let site = Site::new();
    let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.no_such_key": "1"}});
    let client = site.node.client(&site.node.list(Site::NETWORK, &[site.conf(), tuning]));
    let pod = Pod::new();
    let before = Snapshot::of(&pod);
    let eth0 = pod.eth0();
    assert!(!client.add(&eth0).ok());
    client.del(&eth0).expect_ok();
    before.assert_unchanged(&pod);
    assert_eq!(links_and_leases(&site.node), (vec!["lo".into(), "nic0".into(), "br136".into()], vec![]));
}

#[test]
fn a_second_attachment_of_the_same_pod_is_independent() {
    let site = Site::new();
    let second = json!({
        "type": "vlan-bridge", "bridge": "br137",
        "ipam": {"type": "vlan-bridge-ipam", "subnet": "172.20.57.0/24", "routes": [{"dst": "10.57.0.0/16"}]},
    });
    let first = site.node.client(&site.list());
    let second = site.node.client(&site.node.list("vlan137", &[second]));
    let pod = Pod::new();
    let (eth0, net1) = (pod.eth0(), pod.interface("net1"));
    first.add(&eth0).expect_ok();
    let with_eth0 = Snapshot::of(&pod);
    let result = second.add(&net1).result();
    assert_eq!((result.interfaces[2].name.as_str(), result.ips[0].interface), ("net1", Some(2)));
    assert_eq!(site.node.leases("vlan137").len(), 1);
    first.check(&eth0).expect_ok();
    second.check(&net1).expect_ok();
    pod.wait_for(Site::GATEWAY);
    second.del(&net1).expect_ok();
    with_eth0.assert_unchanged(&pod);
    assert!(site.node.leases("vlan137").is_empty());
    first.check(&eth0).expect_ok();
    // One pod can have the same network twice.
    first.add(&net1).expect_ok();
    assert_eq!(site.node.leases(Site::NETWORK).len(), 2);
    first.check(&net1).expect_ok();
    first.del(&eth0).expect_ok();
    first.check(&net1).expect_ok();
    first.del(&net1).expect_ok();
    assert!(site.node.leases(Site::NETWORK).is_empty());
}

#[test]
fn without_ipam_an_attachment_is_layer_2_only() {
    let site = Site::new();
    for ipam in [json!(null), json!({})] {
        let mut list = site.list();
        list["plugins"][0]["ipam"] = ipam.clone();
        let client = site.node.client(&list);
        let pod = Pod::new();
        let before = Snapshot::of(&pod);
        let result = client.add(&pod.eth0()).expect_ok().json();
        assert!(result.get("ips").is_none() && result.get("routes").is_none(), "{result}");
        client.status().expect_ok();
        client.check(&pod.eth0()).expect_ok();
        assert!(
            pod.ip_json("-4 address show dev eth0")
                .as_array()
                .unwrap()
                .iter()
                .all(|link| link["addr_info"] == json!([]))
        );
        // Later changes in the pod, for example by DHCP, do not fail CHECK.
        pod.ip("addr add 172.20.56.77/24 dev eth0");
        pod.wait_for(Site::GATEWAY);
        client.check(&pod.eth0()).expect_ok();
        client.gc(Some(&[&pod.eth0()])).expect_ok();
        assert!(pod.has_link("eth0"));
        client.del(&pod.eth0()).expect_ok();
        before.assert_unchanged(&pod);
    }
}

#[test]
fn the_reference_ipam_plugins_work() {
    let site = Site::new();
    let host_local = json!({
        "type": "host-local", "ranges": [[{"subnet": "172.20.56.0/24", "rangeStart": "172.20.56.16", "gateway": Site::GATEWAY}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    let fixed = json!({
        "type": "static", "addresses": [{"address": "172.20.56.16/24", "gateway": Site::GATEWAY}],
        "routes": [{"dst": "0.0.0.0/0"}], "dns": {"nameservers": ["10.0.0.53"]},
    });
    for (ipam, dns) in [(host_local, json!(null)), (fixed, json!({"nameservers": ["10.0.0.53"]}))] {
        let mut conf = site.conf();
        conf["ipam"] = ipam.clone();
        let client = site.node.client(&site.node.list("other", &[conf]));
        let pod = Pod::new();
        client.status().expect_ok();
        let added = client.add(&pod.eth0());
        assert_eq!(added.result().cidr(), "172.20.56.16/24", "{ipam}");
        assert_eq!(added.json()["dns"], dns);
        client.check(&pod.eth0()).expect_ok();
        pod.wait_for(Site::GATEWAY);
        client.del(&pod.eth0()).expect_ok();
        assert!(site.node.leases("other").is_empty());
        assert!(!pod.has_link("eth0"));
    }
}

#[test]
fn both_networks_of_a_pod_may_have_the_default_routes() {
    let site = Site::new();
    let pod = Pod::new();
    let (eth0, net1) = (pod.eth0(), pod.interface("net1"));
    let network = |bridge: &str, number: u8| {
        let conf = json!({
            "type": "vlan-bridge", "bridge": bridge,
            "ipam": {
                "type": "vlan-bridge-ipam", "subnet": format!("172.20.{number}.0/24"),
                "ranges": [[{"subnet": format!("2001:db8:{number}::/64")}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        });
        site.node.client(&site.node.list(bridge, &[conf]))
    };
    let (first, second) = (network("br56", 56), network("br57", 57));
    first.add(&eth0).expect_ok();
    second.add(&net1).expect_ok();
    first.check(&eth0).expect_ok();
    second.check(&net1).expect_ok();
    // The other network now has the default route, as after a move by Multus.
    pod.ip("route del ::/0 via 2001:db8:56::1");
    first.check(&eth0).expect_ok();
    second.check(&net1).expect_ok();
    pod.ip("route del ::/0 via 2001:db8:57::1");
    assert_eq!(first.check(&eth0).error_code(), 101);
    assert_eq!(second.check(&net1).error_code(), 101);
    second.del(&net1).expect_ok();
}

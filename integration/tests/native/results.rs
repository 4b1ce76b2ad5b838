//! ADD's result matches the kernel, and the request.

use integration::{Attachment, Pod, Site};
use serde_json::{Value, json};

#[test]
fn interfaces_are_reported_as_they_are() {
    let site = Site::new();
    site.node.ip("link set nic0 mtu 1400");
    let pod = Pod::new();
    let result = site.node.client(&site.list()).add(&pod.eth0()).result();
    let reported = &result.interfaces;
    assert_eq!(reported.len(), 3);
    assert_eq!((&*reported[0].name, &*reported[2].name), ("br136", "eth0"));
    assert_eq!(reported[2].sandbox, Some(pod.path()));
    assert_eq!(result.ips[0].interface, Some(2));
    for (interface, namespace) in reported.iter().zip([site.node.namespace(), site.node.namespace(), &*pod]) {
        let there = namespace.ip_json(&format!("link show dev {}", interface.name));
        assert_eq!(interface.mac, there[0]["address"]);
        assert_eq!((interface.mtu, &there[0]["mtu"]), (Some(1400), &json!(1400)), "the uplink's MTU");
    }
    let host = site.node.ip_json(&format!("link show dev {}", reported[1].name));
    assert_eq!(host[0]["master"], "br136");
    assert!(pod.pings(Site::GATEWAY));
}

#[test]
fn attributes_of_routes_are_installed_not_only_reported() {
    let site = Site::new();
    let pod = Pod::new();
    let routes = json!([
        {"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1360, "priority": 77},
        {"dst": "10.9.0.0/16", "gw": "172.20.56.2", "table": 100},
        {"dst": "10.8.0.0/16", "table": 1000, "priority": 5},
        {"dst": "10.51.0.11/32", "scope": 253},
        {"dst": "2001:db8:9::/48", "gw": "2001:db8:56::99", "mtu": 1300, "table": 100, "priority": 9},
    ]);
    let mut list = site.list();
    let ipam = &mut list["plugins"][0]["ipam"];
    ipam["ranges"] = json!([[{"subnet": "2001:db8:56::/64"}]]);
    ipam["routes"] = routes.clone();
    let client = site.node.client(&list);
    assert_eq!(client.add(&pod.eth0()).expect_ok().json()["routes"], routes);

    let expect = |line: &str, expected: Value| {
        let there = pod.ip_json(&format!("{line} dev eth0"));
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&there[0][key], value, "{key} of {line}: {there}");
        }
    };
    expect(
        "route show default",
        json!({"gateway": Site::GATEWAY, "metric": 77, "metrics": [{"mtu": 1400, "advmss": 1360}]}),
    );
    expect("route show table 100", json!({"dst": "10.9.0.0/16", "gateway": "172.20.56.2"}));
    expect("route show table 1000", json!({"dst": "10.8.0.0/16", "gateway": Site::GATEWAY, "metric": 5}));
    expect("route show 10.51.0.11", json!({"scope": "link", "gateway": null}));
    expect(
        "-6 route show table 100",
        json!({"dst": "2001:db8:9::/48", "gateway": "2001:db8:56::99", "metric": 9, "metrics": [{"mtu": 1300}]}),
    );
    client.check(&pod.eth0()).expect_ok();
}

#[test]
fn dns_of_the_configuration_replaces_all_of_ipams() {
    let site = Site::new();
    let resolv_conf = site.node.folder().path().join("resolv.conf");
    std::fs::write(
        &resolv_conf,
        "# a comment\nnameserver 10.0.0.53\nnameserver 2001:db8::53\ndomain d\nsearch a b\noptions ndots:2\n",
    )
    .unwrap();
    let of_ipam = json!({"nameservers": ["10.0.0.53", "2001:db8::53"], "domain": "d", "search": ["a", "b"], "options": ["ndots:2"]});
    let one_field = json!({"nameservers": ["10.1.1.1"]});
    for (configured, expected) in [
        (json!(null), &of_ipam),
        (json!({}), &of_ipam),
        (json!({"nameservers": []}), &of_ipam),
        (one_field.clone(), &one_field),
    ] {
        let pod = Pod::new();
        let mut list = site.list();
        list["plugins"][0]["ipam"]["resolvConf"] = json!(resolv_conf);
        list["plugins"][0]["dns"] = configured.clone();
        let plugin = site.node.plugin(&list);
        let result = plugin.add(&pod.eth0()).expect_ok().json();
        assert_eq!(&result["dns"], expected, "configured: {configured}");
        plugin.del(&pod.eth0()).expect_ok();
    }
}

#[test]
fn a_mac_is_asked_for_in_three_ways_of_falling_rank() {
    const RUNTIME: &str = "02:00:00:00:00:01";
    const CONFIG: &str = "02:00:00:00:00:02";
    const ARGS: &str = "02:00:00:00:00:03";
    let site = Site::new();
    for (runtime, config, args) in
        [(RUNTIME, CONFIG, ARGS), ("", CONFIG, ARGS), ("", "", ARGS), (RUNTIME, "", ""), ("", "", "")]
    {
        let pod = Pod::new();
        let mut attachment = pod.eth0();
        if !runtime.is_empty() {
            attachment = attachment.capabilities(json!({"mac": runtime}));
        }
        if !args.is_empty() {
            attachment = attachment.args(&format!("MAC={args}"));
        }
        let mut list = site.list();
        list["plugins"][0]["capabilities"] = json!({"mac": true});
        if !config.is_empty() {
            list["plugins"][0]["args"] = json!({"cni": {"mac": config}});
        }
        let client = site.node.client(&list);
        let reported = client.add(&attachment).result().mac().to_owned();
        assert_eq!(reported, pod.mac("eth0"));
        match [runtime, config, args].into_iter().find(|mac| !mac.is_empty()) {
            Some(first) => assert_eq!(reported, first),
            // Locally administered, and not multicast.
            None => assert!(["2", "6", "a", "e"].contains(&&reported[1..2]), "{reported}"),
        }
        client.check(&attachment).expect_ok();
        client.del(&attachment).expect_ok();
    }
}

/// A request for an address by each of the three keys.
fn requests(pod: &Pod, wanted: &str) -> [(Attachment, Value); 3] {
    [
        (pod.eth0().args(&format!("IP={wanted}")), json!({})),
        (pod.eth0(), json!({"cni": {"ips": [wanted]}})),
        (pod.eth0().capabilities(json!({"ips": [wanted]})), json!({})),
    ]
}

#[test]
fn an_address_is_asked_for_in_three_ways() {
    let site = Site::new();
    let pod = Pod::new();
    // A prefix length is ignored. The pod gets the subnet's prefix length.
    for wanted in ["172.20.56.25", "172.20.56.25/32"] {
        for (attachment, args) in requests(&pod, wanted) {
            let mut list = site.list();
            list["plugins"][0]["capabilities"] = json!({"ips": true});
            list["plugins"][0]["args"] = args;
            let client = site.node.client(&list);
            let result = client.add(&attachment).result();
            assert_eq!(result.cidr(), "172.20.56.25/24");
            assert_eq!(site.node.leases(Site::NETWORK), ["172.20.56.25"]);
            client.del(&attachment).expect_ok();
            assert!(site.node.leases(Site::NETWORK).is_empty());
        }
    }
}

#[test]
fn an_address_that_cannot_be_had_is_refused_and_everything_rolled_back() {
    let site = Site::new();
    let holder = Pod::new();
    let client = site.node.client(&site.list());
    client.add(&holder.eth0()).expect_ok();
    let before = (integration::Snapshot::of(&site.node), site.node.leases(Site::NETWORK));
    assert_eq!(before.1, ["172.20.56.16"]);
    for wanted in ["172.20.56.16", "172.20.56.1", "172.20.56.40", "10.0.0.1", "2001:db8::1"] {
        let pod = Pod::new();
        let pod_before = integration::Snapshot::of(&pod);
        for (attachment, args) in requests(&pod, wanted) {
            let plugin = site.node.plugin(&site.list()).with("args", args);
            let outcome = plugin.add(&attachment);
            assert_eq!(outcome.error_code(), 111, "{wanted}: {outcome}");
            assert!(outcome.error_text().contains(wanted), "{wanted}: {outcome}");
            before.0.assert_unchanged(&site.node);
            pod_before.assert_unchanged(&pod);
            assert_eq!(site.node.leases(Site::NETWORK), before.1);
        }
    }
}

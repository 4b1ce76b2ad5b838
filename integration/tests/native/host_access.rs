//! A pod and its own node: the routes and entries of an ADD, their CHECK, and their removal.

pub(crate) mod beside;
pub(crate) mod repair;

use crate::attached::Clean;
use integration::{
    Capture, Frame, Namespace, Pod, Protocol, Server, Site, Snapshot, Transport, ask, ip, set_keys,
};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

const PORT: u16 = 7000;

/// A site whose node has its own network beside the pods' network.
pub(crate) fn site() -> Site {
    let site = Site::new();
    site.give_node_its_own_network();
    site
}

pub(crate) fn dual_stack(site: &Site) -> Value {
    site.node.list(Site::NETWORK, &[site.dual_stack_conf()])
}

/// Both directions and families, over TCP and UDP. The server sees the client's address.
#[track_caller]
pub(crate) fn talk(node: &Namespace, pod: &Pod, of_pod: &[impl AsRef<str>]) {
    for (of_pod, of_node) in of_pod.iter().zip(Site::NODE.map(ip)) {
        let of_pod = ip(of_pod.as_ref());
        let ends = [(node, of_node, pod as &Namespace, of_pod), (pod, of_pod, node, of_node)];
        for (client, from, server, to) in ends {
            let to = SocketAddr::new(to, PORT);
            let _servers = Transport::ALL.map(|transport| Server::on(server, transport, to));
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                assert_eq!(client.asks(protocol, to), Some(from), "{protocol:?} from {from} to {to}");
            }
        }
    }
}

#[test]
fn a_pod_and_its_node_talk_and_nobody_else_hears_it() {
    let (site, pod) = (site(), Pod::new());
    let list = dual_stack(&site);
    let router = Capture::start(&site.router, "port");
    let result = site.node.client(&list).add(&pod.eth0()).result();
    talk(&site.node, &pod, &result.addresses());
    let of_node = |frame: &Frame| Site::NODE.iter().any(|address| frame.mentions(ip(address)));
    let strays: Vec<Frame> = router.frames().into_iter().filter(of_node).collect();
    assert!(strays.is_empty(), "{strays:?}");
    assert!(pod.pings(Site::GATEWAY));
    assert!(router.frames().iter().any(|frame| frame.concerns(Site::GATEWAY)), "the capture is deaf");

    // The bridge keeps the pod's entry. Otherwise it would flood frames for the pod to every port.
    let mac = pod.mac("eth0");
    let known = site.node.run("bridge fdb show br br136").expect_ok().stdout;
    assert!(known.lines().any(|line| line.starts_with(&mac) && line.contains("static")), "{known}");
}

/// As kubelet does: the old sandbox is gone, and the new one has its address and another MAC.
#[test]
fn the_node_reaches_a_pod_that_was_made_anew() {
    let site = site();
    let list = dual_stack(&site);
    let ips = json!({"ips": ["172.20.56.20", "fd00:136::1:20"]});
    let mut conf = list.clone();
    conf["plugins"][0]["capabilities"] = json!({"ips": true});
    let client = site.node.client(&conf);
    let (first, second) = (Pod::new(), Pod::new());
    client.add(&first.eth0().capabilities(ips.clone())).expect_ok();
    talk(&site.node, &first, &["172.20.56.20", "fd00:136::1:20"]);
    // No DEL comes before its namespace is gone.
    let eth0 = first.eth0().without_netns();
    drop(first);
    client.del(&eth0).expect_ok();
    client.add(&second.eth0().capabilities(ips)).expect_ok();
    talk(&site.node, &second, &["172.20.56.20", "fd00:136::1:20"]);
    client.del(&eth0).expect_ok();
    talk(&site.node, &second, &["172.20.56.20", "fd00:136::1:20"]);
}

#[test]
fn nothing_is_left_however_a_pod_goes() {
    let site = site();
    let list = dual_stack(&site);
    let (client, plugin) = (site.node.client(&list), site.node.plugin(&list));
    let first = Pod::new();
    client.add(&first.eth0()).expect_ok();
    client.del(&first.eth0()).expect_ok();
    let before = Snapshot::of(&site.node);
    let added = || {
        let pod = Pod::new();
        client.add(&pod.eth0()).expect_ok();
        assert_ne!(before, Snapshot::of(&site.node));
        pod
    };
    // DEL with the cached result, DEL without it, which has only the metric, and DEL after the rest of the
    // pod is gone.
    let pod = added();
    client.del(&pod.eth0()).expect_ok();
    before.assert_unchanged(&site.node);
    let pod = added();
    plugin.del(&pod.eth0().without_netns()).expect_ok();
    before.assert_unchanged(&site.node);
    let pod = added();
    let eth0 = pod.eth0().without_netns();
    drop(pod);
    plugin.del(&eth0).expect_ok();
    before.assert_unchanged(&site.node);
    // When an address goes, only the node's routes with that source go. An operator's entry stays.
    let [v4, v6] = Site::NODE;
    let operators = "172.20.56.250 dev br136 lladdr 02:00:00:00:00:66 nud permanent";
    let permanent = || site.node.run("ip neigh show dev br136 nud permanent").expect_ok().stdout;
    let ends: [&dyn Fn(&Pod); 3] = [
        &|pod| drop(client.del(&pod.eth0()).expect_ok()),
        // As `uninstall --force` does, without a cached result.
        &|pod| drop(plugin.del(&pod.eth0()).expect_ok()),
        &|_| drop(plugin.clone().with("cni.dev/valid-attachments", json!([])).gc().expect_ok()),
    ];
    // Kernels before 4.20, and earlier builds, do not mark an entry's owner.
    let unsigned = [false, true].into_iter().flat_map(|unsigned| ends.map(|end| (unsigned, end)));
    for (unsigned, end) in unsigned {
        let pod = added();
        if unsigned {
            for entry in permanent().lines() {
                let words: Vec<&str> = entry.split_whitespace().collect();
                let [address, _, mac, ..] = words[..] else { panic!("{entry}") };
                let unsigned_entry = format!("{address} lladdr {mac} dev br136 nud permanent");
                site.node.ip(&format!("neigh del {address} dev br136\nneigh add {unsigned_entry}"));
            }
            assert!(!permanent().contains("proto"), "{}", permanent());
        }
        site.node.ip(&format!("neigh add {operators}\naddr del {v4}/24 dev nic1\naddr del {v6}/64 dev nic1"));
        assert_eq!(site.node.run("ip route show proto 117").expect_ok().stdout, "");
        assert_eq!(permanent().lines().count(), 3);
        end(&pod);
        assert_eq!(permanent().lines().count(), 1, "{}", permanent());
        site.node.ip(&format!(
            "neigh del {operators}\naddr add {v4}/24 dev nic1\naddr add {v6}/64 dev nic1 nodad\n\
             route add default via 10.51.0.1"
        ));
        before.assert_unchanged(&site.node);
        client.del(&pod.eth0()).expect_ok();
    }
    // GC removes entries without an attachment, and leaves all others, also those of other networks.
    let (stays, goes) = (added(), added());
    let mut other = list.clone();
    other["name"] = json!("other");
    other["plugins"][0]["ipam"]["ranges"] =
        json!([[{"subnet": "172.20.56.0/24", "slice": "172.20.56.64/28"}]]);
    let elsewhere = Pod::new();
    site.node.client(&other).add(&elsewhere.eth0()).expect_ok();
    let gone = goes.eth0();
    drop(goes);
    let valid = json!([stays.eth0().valid()]);
    plugin.clone().with("cni.dev/valid-attachments", valid).gc().expect_ok();
    let routes = site.node.run("ip route show proto 117").expect_ok().stdout;
    assert_eq!(routes.lines().count(), 2, "{routes}");
    assert!(stays.pings(Site::NODE[0]) && elsewhere.pings(Site::NODE[0]));
    site.node.client(&other).del(&elsewhere.eth0()).expect_ok();
    client.del(&stays.eth0()).expect_ok();
    before.assert_unchanged(&site.node);
    client.del(&gone).expect_ok();
}

#[test]
fn check_names_what_is_missing_and_tolerates_what_is_new() {
    let (site, pod) = (site(), Pod::new());
    let mut list = dual_stack(&site);
    list["plugins"][0]["capabilities"] = json!({"ips": true});
    let client = site.node.client(&list);
    let of_pod = "172.20.56.20";
    let eth0 = pod.eth0().capabilities(json!({"ips": [of_pod, "fd00:136::1:20"]}));
    client.add(&eth0).expect_ok();
    client.check(&eth0).expect_ok();
    let (node, inside): (&Namespace, &Namespace) = (&site.node, &pod);
    let [v4, v6] = Site::NODE;
    let wrong = "lladdr 02:00:00:00:00:66 nud permanent";
    let cases: [(&Namespace, String, &str); 6] = [
        (node, format!("route del {of_pod}"), "the node's route to 172.20.56.20 by br136 is gone"),
        (node, format!("neigh del {of_pod} dev br136"), "the node's neighbour entry for 172.20.56.20"),
        (node, format!("neigh replace {of_pod} dev br136 {wrong}"), "has MAC 02:00:00:00:00:66"),
        (inside, format!("route del {v4}"), "the route to the node's address 10.51.0.11"),
        (inside, format!("route del {v6}"), "the route to the node's address fd00:51::11"),
        (
            inside,
            format!("neigh replace {v4} dev eth0 {wrong}"),
            "the container's neighbour entry for the node's",
        ),
    ];
    for (namespace, line, expected) in cases {
        namespace.ip(&line);
        let outcome = client.check(&eth0);
        assert_eq!(outcome.error_code(), 101, "{line}: {outcome}");
        assert!(outcome.error_text().contains(expected), "{line}: {outcome}");
        client.del(&eth0).expect_ok();
        client.add(&eth0).expect_ok();
    }
    node.ip("addr add 10.52.0.11/24 dev nic1");
    let outcome = client.check(&eth0).expect_ok();
    assert!(outcome.stderr.contains("the node got address 10.52.0.11 after this pod"), "{outcome}");
    let later = Pod::new();
    client.add(&later.eth0()).expect_ok();
    assert!(later.pings("10.52.0.11"));
}

#[test]
fn a_nodes_main_address_may_be_on_a_bridge() {
    let (site, pod) = (site(), Pod::new());
    let [v4, v6] = Site::NODE;
    site.node.ip(&format!(
        "link add br0 type bridge\nlink set br0 up\nlink set nic1 master br0\n\
         addr flush dev nic1\naddr add {v4}/24 dev br0\naddr add {v6}/64 dev br0 nodad\n\
         route replace default via 10.51.0.1\nroute replace default via fd00:51::1"
    ));
    let list = dual_stack(&site);
    let client = site.node.client(&list);
    let result = client.add(&pod.eth0()).result();
    talk(&site.node, &pod, &result.addresses());
    client.check(&pod.eth0()).expect_ok();
    site.node.ip(&format!("route del {} proto 117", result.address()));
    assert_eq!(client.check(&pod.eth0()).error_code(), 101);
}

/// Two VLANs may use the same addresses. The node can only reach one of the two pods, and stays with the
/// first.
#[test]
fn the_way_to_a_live_pod_of_another_vlan_is_not_taken() {
    let (site, first, second) = (site(), Pod::new(), Pod::new());
    site.node.ip("link add nic2 type veth peer name other\nlink set nic2 up\nlink set other up");
    let mut conf = site.conf();
    conf["bridge"] = json!("br137");
    conf["uplink"]["master"] = json!("nic2");
    conf["capabilities"] = json!({"ips": true});
    let other = site.node.list("vlan137", &[conf.clone()]);
    let list = site.list();
    let here = site.node.client(&list);
    let result = here.add(&first.eth0()).result();
    let address = &[result.address()];
    let of_other = &second.eth0().capabilities(json!({"ips": address}));
    let outcome = site.node.client(&other).add(of_other);
    assert_eq!(outcome.error_code(), 111, "{outcome}");
    assert!(outcome.error_text().contains("on br136"), "{outcome}");
    talk(&site.node, &first, address);
    here.check(&first.eth0()).expect_ok();
    // Without hostAccess there is nothing to share.
    let mut apart = other.clone();
    apart["plugins"][0]["hostAccess"] = json!(false);
    site.node.client(&apart).add(of_other).expect_ok();
    talk(&site.node, &first, address);
    site.node.client(&apart).del(of_other).expect_ok();
    // The route of a dead pod is taken over.
    let route = format!("route show {} proto 117", address[0]);
    let left = site.node.ip_json(&route)[0]["metric"].clone();
    here.del(&first.eth0()).expect_ok();
    site.node.ip(&format!("route add {} dev br136 metric {left} proto 117", address[0]));
    site.node.client(&other).add(of_other).expect_ok();
    talk(&site.node, &second, address);
    assert_eq!(site.node.ip_json(&route).as_array().unwrap().len(), 1);
}

#[test]
fn a_second_attachment_leaves_the_first_ones_way() {
    let (clean, pod) = (Clean::new(), Pod::new());
    let node = &clean.site.node;
    let first = node.list(Site::NETWORK, &[clean.site.dual_stack_conf()]);
    let mut second = first.clone();
    second["name"] = json!("second");
    second["plugins"][0]["ipam"] = json!({"type": "vlan-bridge-ipam", "subnet": "172.20.57.0/24"});
    node.client(&first).add(&pod.eth0()).expect_ok();
    let way = || pod.ip_json(&format!("route get {}", Site::NODE[0]))[0]["dev"].clone();
    assert_eq!(way(), "eth0");
    node.client(&second).add(&pod.interface("net1")).expect_ok();
    assert_eq!(way(), "eth0");
    node.client(&first).check(&pod.eth0()).expect_ok();
    node.client(&second).check(&pod.interface("net1")).expect_ok();
    // The second pod has its own route, for the time after the first.
    node.client(&first).del(&pod.eth0()).expect_ok();
    assert_eq!(way(), "net1");
    assert!(pod.pings(Site::NODE[0]));
    node.client(&second).check(&pod.interface("net1")).expect_ok();
}

#[test]
fn services_of_a_family_that_the_node_has_no_address_of_are_named_in_the_log() {
    let (site, pod) = (site(), Pod::new());
    site.node.ip("addr flush dev nic1 scope global\naddr add 10.51.0.11/24 dev nic1");
    let mut list = dual_stack(&site);
    list["plugins"][0]["serviceCIDRs"] = json!(["10.96.0.0/12", "fd00:96::/108"]);
    let added = site.node.plugin(&list).add(&pod.eth0()).expect_ok();
    assert!(added.stderr.contains("serviceCIDRs: no route to fd00:96::/108"), "{added}");
    assert!(!added.stderr.contains("serviceCIDRs: 10.96.0.0/12"), "{added}");
}

#[test]
fn an_operator_says_which_addresses_pods_reach() {
    let site = site();
    site.node.ip("addr add 10.51.0.12/24 dev nic1\naddr add 10.51.0.100/32 dev nic1\n\
                  link add docker0 type bridge\nlink set docker0 up\naddr add 172.17.0.1/16 dev docker0");
    let reached = |keys: Value| {
        let mut list = site.list();
        set_keys(&mut list["plugins"][0], &keys);
        let pod = Pod::new();
        let added = site.node.plugin(&list).add(&pod.eth0()).expect_ok();
        let routes = pod.ip_json("route show proto 117");
        let mut reached: Vec<String> =
            routes.as_array().unwrap().iter().filter_map(|r| r["dst"].as_str().map(str::to_owned)).collect();
        reached.sort();
        for address in &reached {
            assert!(pod.pings(address), "{address}");
        }
        site.node.plugin(&list).del(&pod.eth0()).expect_ok();
        (reached, added.stderr)
    };
    assert_eq!(reached(json!({})).0, ["10.51.0.11"]);
    assert_eq!(reached(json!({"hostAccess": false})).0, [""; 0]);
    let named = json!({"hostAddresses": ["10.51.0.100", "docker0", "10.99.0.0/16"]});
    let (addresses, log) = reached(named);
    assert_eq!(addresses, ["10.51.0.100", "172.17.0.1"]);
    assert!(log.contains("10.99.0.0/16"), "{log}");
}

/// RFC 826: who has `target`?
fn arp_request(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x51];
    let mut frame = [[0xff; 6], MAC].concat();
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(MAC);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// By default, the kernel answers on any interface for any of its addresses.
#[test]
fn the_node_answers_for_no_address_but_the_bridges_own_whatever_rp_filter_is() {
    for host_access in [false, true] {
        let (site, pod) = (site(), Pod::new());
        site.node.ip("link add br136 type bridge forward_delay 0\naddr add 172.20.56.9/24 dev br136\nlink set br136 up");
        for key in ["all", "br136"] {
            site.node.set_sysctl(&format!("net/ipv4/conf/{key}/rp_filter"), "0");
        }
        let mut list = site.list();
        list["plugins"][0]["hostAccess"] = json!(host_access);
        site.node.client(&list).add(&pod.eth0()).expect_ok();
        let port = Capture::start(&site.router, "port");
        let answer_for = |address: &str| {
            let address: Ipv4Addr = address.parse().unwrap();
            let is_answer = move |frame: &Frame| {
                frame.is_arp()
                    && frame.payload[7] == 2
                    && frame.arp().is_some_and(|(sender, _)| sender == address)
            };
            site.router.send_frame("port", &arp_request("172.20.56.1".parse().unwrap(), address));
            is_answer
        };
        // Requested last, so that its answer comes last.
        let (own, bridges) = (answer_for(Site::NODE[0]), answer_for("172.20.56.9"));
        port.wait_for("the answer for the bridge's own address", bridges);
        assert_eq!(port.frames().iter().any(own), !host_access, "hostAccess: {host_access}");
        assert!(pod.pings("172.20.56.9"));
    }
}

/// NodeLocal DNSCache has a link-local address without a subnet, and the cluster's DNS address, on a dummy
/// interface. This kernel has no dummy interfaces.
#[test]
fn a_local_dns_cache_is_reached_by_whoever_names_it() {
    for (keys, cache, service) in [
        (json!({}), false, false),
        (json!({"hostAddresses": ["nic1", "169.254.20.10"]}), true, false),
        (json!({"hostAddresses": ["nic1", "nodelocaldns"]}), true, true),
        (json!({"serviceCIDRs": ["10.96.0.0/12", "169.254.20.10/32"]}), true, true),
    ] {
        let (site, pod) = (site(), Pod::new());
        site.node.ip("link add nodelocaldns up type bridge\naddr add 169.254.20.10/32 dev nodelocaldns\naddr add 10.96.0.10/32 dev nodelocaldns");
        let mut list = site.list();
        set_keys(&mut list["plugins"][0], &keys);
        let added = site.node.plugin(&list).add(&pod.eth0()).expect_ok();
        assert!(!added.stderr.contains("the node has no address for"), "{added}");
        let own = ip(&added.result().address());
        for (address, expected) in [("169.254.20.10", cache), ("10.96.0.10", service)] {
            let to = (ip(address), 53).into();
            let _dns = Server::on(&site.node, Transport::Udp, to);
            assert_eq!(ask(&pod, Transport::Udp, to), expected.then_some(own), "{keys} {address}");
        }
        assert!(pod.pings(Site::NODE[0]), "{keys}");
        site.node.plugin(&list).check(&pod.eth0(), &added.result()).expect_ok();
    }
}

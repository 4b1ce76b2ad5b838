//! A network with an uplink as a pod's second network, beside one of another plugin. The node uses the other
//! network.

use crate::host_access::site;
use integration::{Ctl, Pod};
use serde_json::json;

/// A second network of Multus beside a network like Calico's, through which the node has a route to the pod.
/// kubelet's probes use that route, and their answers must too.
#[test]
fn beside_another_network_the_node_is_left_to_that_unless_it_is_asked_for() {
    let (site, pod) = (site(), Pod::new());
    site.node.ip(&format!(
        "link add cali1 type veth peer name eth0 netns {}\nlink set cali1 up\nroute add 203.0.113.5/32 dev cali1",
        pod.name()
    ));
    pod.ip("link set eth0 up\naddr add 203.0.113.5/32 dev eth0\nroute add 169.254.1.1 dev eth0 scope link\n\
            route add default via 169.254.1.1 dev eth0");
    site.node.set_sysctl("net/ipv4/conf/cali1/proxy_arp", "1");
    site.node.set_sysctl("net/ipv4/ip_forward", "1");
    site.node.wait_for("203.0.113.5");
    let ctl = Ctl::new(&site.node);
    let mut list = site.list();
    // As a second network it has no default route.
    list["plugins"][0]["ipam"].as_object_mut().unwrap().remove("routes");
    ctl.write("/etc/cni/net.d/10-vlan136.conflist", &list.to_string());
    let net1 = pod.interface("net1");
    let lost = || ctl.doctor("--no-probe").into_iter().any(|finding| finding.check == "hostaccess");
    let result = site.node.plugin(&list).add(&net1).result();
    assert!(site.node.pings("203.0.113.5"), "{}", pod.run("ip route"));
    assert!(site.router.pings(&result.address()) && !lost());
    site.node.plugin(&list).check(&net1, &result).expect_ok();
    site.node.plugin(&list).del(&net1).expect_ok();
    // A configuration can request host access.
    list["plugins"][0]["hostAccess"] = json!(true);
    let result = site.node.plugin(&list).add(&net1).result();
    assert!(site.node.pings(&result.address()));
    site.node.plugin(&list).check(&net1, &result).expect_ok();
}

/// Either is enough to make the node use the other network.
#[test]
fn an_address_or_a_default_route_of_another_network_is_enough() {
    for (other, is_left) in [
        ("link set eth0 up", false),
        ("link set eth0 up\naddr add 203.0.113.5/32 dev eth0", true),
        ("link set eth0 up\naddr add 2001:db8:5::5/128 dev eth0 nodad", true),
        ("link set eth0 up\nroute add default dev eth0", true),
        ("link set eth0 up\nroute add default via fe80::1 dev eth0", true),
    ] {
        let (site, pod) = (site(), Pod::new());
        site.node
            .ip(&format!("link add cali1 type veth peer name eth0 netns {}\nlink set cali1 up", pod.name()));
        pod.ip(other);
        let mut list = site.list();
        // As a second network it has no default route.
        list["plugins"][0]["ipam"].as_object_mut().unwrap().remove("routes");
        let plugin = site.node.plugin(&list);
        let result = plugin.add(&pod.interface("net1")).result();
        let to_node = pod.run("ip route show proto 117").expect_ok().stdout;
        let to_pod = site.node.run("ip route show proto 117").expect_ok().stdout;
        assert_eq!([to_node.is_empty(), to_pod.is_empty()], [is_left; 2], "{other}: {to_node}{to_pod}");
        plugin.check(&pod.interface("net1"), &result).expect_ok();
    }
}

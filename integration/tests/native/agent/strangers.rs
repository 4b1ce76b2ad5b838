//! Machines that take the gateway's place, or advertise themselves as routers or DHCP servers: each is
//! reported once, and nothing is changed.

use integration::{Agent, Ctl, Pod, Site, Snapshot, arp_announcement, mac_bytes, poll};
use serde_json::json;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

/// A machine on the network that has no interface here.
const OTHER: &str = "02:00:00:00:00:09";
const OTHERS: Ipv4Addr = Ipv4Addr::new(172, 20, 56, 66);

/// A router's advertisement without options: a default router for half an hour.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

fn ethernet(to: [u8; 6], mac: &str, ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&to[..], &mac_bytes(mac), &ethertype, packet].concat()
}

/// An advertisement to all nodes.
fn advertisement(mac: &str) -> Vec<u8> {
    let [from, to] = ["fe80::66", "ff02::1"].map(|address| address.parse::<Ipv6Addr>().unwrap().octets());
    let packet = [&[0x60, 0, 0, 0, 0, 16, 58, 255][..], &from, &to, &ADVERTISEMENT].concat();
    ethernet([0x33, 0x33, 0, 0, 0, 1], mac, [0x86, 0xdd], &packet)
}

/// A DHCP server's broadcast, as far as a listener reads it.
fn offer(mac: &str) -> Vec<u8> {
    let ip = [0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0];
    let udp = [0, 67, 0, 68, 0, 16, 0, 0, 2, 1, 6, 0, 0, 0, 0, 7];
    let packet = [&ip[..], &OTHERS.octets(), &[0xff; 4], &udp].concat();
    ethernet([0xff; 6], mac, [8, 0], &packet)
}

#[test]
fn routers_dhcp_servers_and_another_gateway_are_reported_once() {
    for line in ["", "--dry-run"] {
        let (site, pod) = (Site::new(), Pod::new());
        let ctl = Ctl::new(&site.node);
        let list = site.network(Site::NETWORK, &json!({"guard": false}));
        let result = site.node.plugin(&list).add(&pod.eth0()).result();
        let agent = Agent::start(&ctl, line);
        let before = Snapshot::of(&site.node);
        // The pod's questions tell the agent the gateway's MAC.
        pod.run("ip neigh flush dev eth0").expect_ok();
        pod.wait_for(Site::GATEWAY);
        let gateway = site.router.mac("port");
        // The gateway itself is no stranger.
        for _ in 0..5 {
            site.router.send_frame("port", &advertisement(&gateway));
            site.router.send_frame("port", &advertisement(OTHER));
            site.router.send_frame("port", &offer(OTHER));
            pod.send_frame("eth0", &advertisement(result.mac()));
        }
        let router = "router advertisement, which is not the gateway's, on nic0: fe80::66";
        let whole = [
            format!("{router} with MAC {OTHER}, by another machine"),
            format!("{router} with MAC {}, by the pod behind {}", result.mac(), result.host_interface()),
            format!("answer of a DHCP server on nic0: {OTHERS} with MAC {OTHER}, by another machine"),
            format!("gateway {} on nic0: its MAC was {gateway}, and is {OTHER}", Site::GATEWAY),
        ];
        for text in &whole[..3] {
            agent.await_report(text);
        }
        let poison = arp_announcement(Site::GATEWAY.parse().unwrap(), OTHER);
        site.router.send_frame("port", &poison);
        agent.await_report(&whole[3]);
        // They are heard in more than one turn.
        for _ in 0..5 {
            site.router.send_frame("port", &advertisement(OTHER));
            site.router.send_frame("port", &offer(OTHER));
            site.router.send_frame("port", &poison);
        }
        let last = "02:00:00:00:00:0a";
        site.router.send_frame("port", &offer(last));
        poll(PATIENCE, "the next turn", || agent.reports().contains(last));
        let reports = agent.reports();
        assert!(whole.iter().all(|text| reports.matches(text.as_str()).count() == 1), "{reports}");
        assert_eq!(reports.matches(router).count(), 2, "the gateway's own is reported: {reports}");
        before.assert_unchanged(&site.node);
    }
}

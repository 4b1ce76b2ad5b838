use vlan_bridge::ports::RecordedNetwork;

use super::*;

const GATEWAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 20, 56, 1));
/// VRRP's (RFC 9568 section 7.3): the same on each router.
const VIRTUAL: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 7]);

fn mac(number: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, number])
}

fn at(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn strangers(expects_dhcp: bool) -> Strangers {
    let mut watched = crate::testing::watched();
    watched.networks.push(RecordedNetwork {
        name: "vlan136".into(),
        bridge: "br136".into(),
        vlan: None,
        uplink: "bond0.136".into(),
        addresses: None,
        gateways: [GATEWAY].into(),
        expects_dhcp,
    });
    let mut strangers = Strangers::default();
    strangers.follow(&watched);
    strangers
}

fn gateway(macs: &[MacAddr]) -> Overheard {
    sent(macs, false)
}

fn sent(macs: &[MacAddr], own: bool) -> Overheard {
    let sources = macs.iter().map(|mac| (*mac, own)).collect();
    Overheard { gateways: [((None, GATEWAY), sources)].into(), ..Overheard::default() }
}

fn speaks(role: Role, number: u8) -> Overheard {
    let speaker = Speaker { vlan: None, role, mac: mac(number) };
    let said = Said { address: "fe80::66".parse().unwrap(), mac: mac(number), own: false };
    Overheard { speakers: [(speaker, said)].into(), ..gateway(&[]) }
}

fn told(strangers: &mut Strangers, heard: Overheard, seconds: u64) -> Vec<String> {
    strangers.turn("bond0.136", heard, at(seconds)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_gateways_mac_is_learned_and_its_changes_are_told_once_a_minute() {
    let mut strangers = strangers(false);
    assert!(told(&mut strangers, gateway(&[VIRTUAL]), 0).is_empty());
    assert!(told(&mut strangers, gateway(&[VIRTUAL]), 4).is_empty());
    let changed = told(&mut strangers, gateway(&[VIRTUAL, mac(1)]), 8);
    assert!(changed.len() == 1 && changed[0].contains("was 00:00:5e:00:01:07"), "{changed:?}");
    assert!(told(&mut strangers, gateway(&[mac(1), VIRTUAL]), 12).is_empty());
    assert_eq!(told(&mut strangers, gateway(&[VIRTUAL]), 68).len(), 1);
}

#[test]
fn a_router_is_judged_when_the_gateway_is_known_and_told_once() {
    let mut strangers = strangers(false);
    assert!(told(&mut strangers, speaks(Role::Router, 1), 0).is_empty());
    assert!(told(&mut strangers, speaks(Role::Router, 2), 0).is_empty());
    // The first is the gateway.
    assert_eq!(told(&mut strangers, gateway(&[mac(1)]), 4).len(), 1);
    assert!(told(&mut strangers, speaks(Role::Router, 2), 8).is_empty());
    strangers.forget(at(8) + FORGOTTEN);
    assert_eq!(told(&mut strangers, speaks(Role::Router, 2), 4000).len(), 1);
}

#[test]
fn a_router_beside_a_silent_gateway_is_told_after_a_minute() {
    let mut strangers = strangers(false);
    assert!(told(&mut strangers, speaks(Role::Router, 1), 0).is_empty());
    assert!(told(&mut strangers, gateway(&[]), 59).is_empty());
    assert_eq!(told(&mut strangers, gateway(&[]), 60).len(), 1);
}

#[test]
fn a_dhcp_server_is_told_where_none_is_expected() {
    assert_eq!(told(&mut strangers(false), speaks(Role::DhcpServer, 1), 0).len(), 1);
    assert!(told(&mut strangers(true), speaks(Role::DhcpServer, 1), 0).is_empty());
}

#[test]
fn memory_and_log_are_bounded() {
    let mut strangers = strangers(false);
    let count: usize =
        (0..=255).map(|number| told(&mut strangers, speaks(Role::DhcpServer, number), 0).len()).sum();
    assert_eq!((count, strangers.speakers.len()), (MOST + 1, MOST));
}

#[test]
fn a_machine_that_takes_the_mac_of_a_pod_does_not_make_it_the_pods_frame() {
    for (own, sender) in [(true, Some("shop/web-0")), (false, None)] {
        let mut strangers = strangers(false);
        let pod = cni_conf::cni::args::PodName::parse("shop/web-0");
        strangers.pods.insert(mac(1), SentBy::Pod("veth1".into(), pod));
        let mut heard = speaks(Role::DhcpServer, 1);
        heard.speakers.values_mut().for_each(|said| said.own = own);
        heard.gateways = sent(&[VIRTUAL, mac(1)], own).gateways;
        let reports = strangers.turn("bond0.136", heard, at(0));
        let pods: Vec<_> =
            reports.iter().map(|report| report.pod.as_ref().map(ToString::to_string)).collect();
        assert_eq!(pods, [sender, sender].map(|pod| pod.map(str::to_owned)), "{reports:?}");
    }
}

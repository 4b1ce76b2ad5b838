//! What a pod of a trunk may send: tagged frames in the VLANs of `vlanTrunk`, and no forged frames behind a
//! tag.

use crate::attach::attach;
use integration::{BondMode, Capture, DataCenter, Frame, mac_bytes};
use serde_json::json;

const STRANGER: [u8; 4] = [192, 0, 2, 66];

/// A broadcast UDP packet (RFC 791, RFC 768) with this source and a mark, untagged or tagged.
fn frame(mac: [u8; 6], tag: Option<u16>, source: [u8; 4], mark: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend([255; 4]);
    let words = packet.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0, 9, 0, 9, 0, 12, 0, 0, 0xca, 0x5e, 0xca, mark]);
    let tag = tag.map(|vid| [&[0x81, 0x00], &vid.to_be_bytes()[..]].concat()).unwrap_or_default();
    [&[0xff; 6], &mac[..], &tag, &[0x08, 0x00], &packet].concat()
}

#[test]
fn a_tag_hides_nothing_that_is_forged() {
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let router = Capture::start(datacenter.router(), "trunk");
    for guard in [true, false] {
        let mut list = node.port_vlan_list136();
        list["plugins"][0]["vlanTrunk"] = json!([{"id": 137}]);
        list["plugins"][0]["guard"] = json!(guard);
        let attached = attach(&node, &list);
        attached.pod.wait_for("172.20.56.1");
        let mac = mac_bytes(&attached.pod.mac("eth0"));
        let own: std::net::Ipv4Addr = attached.address.parse().unwrap();
        let forged = [2, 0, 0, 0, 0, 0x66];
        // The frames, and the VLAN in which each passes the guard. None if the guard drops it.
        let cases = [
            ("own address", frame(mac, None, own.octets(), 1), Some(136)),
            ("forged address", frame(mac, None, STRANGER, 2), None),
            ("forged address, own VLAN's tag", frame(mac, Some(136), STRANGER, 3), None),
            ("forged address, no VLAN's tag", frame(mac, Some(0), STRANGER, 4), None),
            ("any address in a tagged VLAN", frame(mac, Some(137), STRANGER, 5), Some(137)),
            ("forged MAC in a tagged VLAN", frame(forged, Some(137), STRANGER, 6), None),
            ("a VLAN that is not the port's", frame(mac, Some(51), own.octets(), 7), None),
        ];
        let before = router.frames().len();
        cases.iter().for_each(|(_, bytes, _)| attached.pod.send_frame("eth0", bytes));
        let frames: Vec<Frame> = router.frames().split_off(before);
        for (number, (name, _, vlan)) in (1..).zip(&cases) {
            let heard = frames.iter().find(|frame| frame.payload.ends_with(&[0xca, 0x5e, 0xca, number]));
            let heard = heard.map(|frame| frame.vlans.clone());
            if guard {
                assert_eq!(heard, vlan.map(|vid| vec![vid]), "{name}");
            } else {
                // Here only the bridge restricts the port's VLANs.
                assert_eq!(heard.is_some(), number != 7, "{name}: the guard proves nothing about it");
            }
        }
        node.client(&list).del(&attached.pod.eth0()).expect_ok();
    }
}

#[test]
fn with_macspoofchk_a_pod_of_a_trunk_sends_with_its_own_mac_only() {
    const FORGED: [u8; 6] = [2, 0, 0, 0, 0, 0x66];
    let datacenter = DataCenter::new();
    let node = datacenter.node(BondMode::ActiveBackup);
    let trunk_port = Capture::start(datacenter.router(), "trunk");
    let forged = |frame: &Frame| frame.source == FORGED && frame.vlans == [136];
    // The check comes first. Frames after it belong to the control.
    for check in [true, false] {
        let mut list = node.port_vlan_list136();
        list["plugins"][0]["macspoofchk"] = json!(check);
        list["plugins"][0]["guard"] = json!(false);
        let attached = attach(&node, &list);
        attached.pod.wait_for("172.20.56.1");
        let own = attached.pod.mac("eth0");
        attached.pod.ip("link set eth0 address 02:00:00:00:00:66\nneigh flush dev eth0");
        assert_eq!(attached.pod.pings("172.20.56.1"), !check);
        assert_eq!(trunk_port.frames().iter().any(forged), !check);
        attached.pod.ip(&format!("link set eth0 address {own}\nneigh flush dev eth0"));
        attached.pod.wait_for("172.20.56.1");
    }
}

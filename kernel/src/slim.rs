//! Takes out of the kernel's description of a link what no part of this crate reads, before it is decoded. A
//! bridge port has a hundred attributes, of which a dozen are read. To decode all took most of the time of a
//! list of links.

use crate::header::{HEADER, set_length};
use crate::netfilter::message::{attribute, attributes, u16_at};

/// The length of `struct ifinfomsg`.
const IFINFO: usize = 16;

/// Attributes of a link that are read (`IFLA_*`, linux/if_link.h): address, name, MTU, parent, master, state,
/// details of the driver, alias, settings of the address families, namespace of the parent, permanent
/// address.
const READ: [u16; 11] = [1, 3, 4, 5, 10, 16, LINKINFO, 20, 26, 37, 54];
const LINKINFO: u16 = 18;
/// `IFLA_INFO_SLAVE_KIND`, `IFLA_INFO_SLAVE_DATA`
const SLAVE_KIND: u16 = 4;
const SLAVE_DATA: u16 = 5;
/// Options of a bridge port that are read (`IFLA_BRPORT_*`): state, hairpin, isolated, locked.
const PORT_READ: [u16; 4] = [1, 4, 33, 39];

/// The message without what is not read. None if it describes no link.
pub(crate) fn slim(message: &[u8]) -> Option<Vec<u8>> {
    if u16_at(message, 4)? != libc::RTM_NEWLINK {
        return None;
    }
    let (head, rest) = message.split_at_checked(HEADER + IFINFO)?;
    let mut slim = Vec::with_capacity(message.len());
    slim.extend_from_slice(head);
    for (kind, value) in attributes(rest).filter(|(kind, _)| READ.contains(kind)) {
        if kind == LINKINFO {
            nest(&mut slim, kind, |slim| put_details(slim, value));
        } else {
            put(&mut slim, kind, value);
        }
    }
    set_length(&mut slim);
    Some(slim)
}

fn put_details(slim: &mut Vec<u8>, details: &[u8]) {
    let is_bridge_port = attribute(details, SLAVE_KIND) == Some(b"bridge\0");
    for (kind, value) in attributes(details) {
        if kind == SLAVE_DATA && is_bridge_port {
            let read = attributes(value).filter(|(kind, _)| PORT_READ.contains(kind));
            nest(slim, kind, |slim| read.for_each(|(kind, value)| put(slim, kind, value)));
        } else {
            put(slim, kind, value);
        }
    }
}

fn nest(slim: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = slim.len();
    put(slim, kind, &[]);
    fill(slim);
    let length = (slim.len() - start) as u16;
    slim[start..start + 2].copy_from_slice(&length.to_ne_bytes());
}

fn put(slim: &mut Vec<u8>, kind: u16, value: &[u8]) {
    slim.extend((value.len() as u16 + 4).to_ne_bytes());
    slim.extend(kind.to_ne_bytes());
    slim.extend_from_slice(value);
    slim.resize(slim.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::{
        BridgePortState, InfoBridgePort, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkInfo,
        LinkMessage,
    };

    use super::*;
    use crate::header::append_request;

    fn port() -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = vec![
            LinkAttribute::IfName("veth7".into()),
            LinkAttribute::Mtu(1400),
            LinkAttribute::Controller(3),
            LinkAttribute::LinkNetNsId(5),
            LinkAttribute::IfAlias("a pod's".into()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::PortKind(InfoPortKind::Bridge),
                LinkInfo::PortData(InfoPortData::BridgePort(vec![
                    InfoBridgePort::State(BridgePortState::Forwarding),
                    InfoBridgePort::HairpinMode(true),
                    InfoBridgePort::Isolated(true),
                    InfoBridgePort::Locked(true),
                ])),
                LinkInfo::Kind(InfoKind::Veth),
            ]),
        ];
        message
    }

    fn bytes(message: LinkMessage) -> Vec<u8> {
        let mut bytes = Vec::new();
        append_request(&mut bytes, RouteNetlinkMessage::NewLink(message), NLM_F_REQUEST);
        bytes
    }

    #[test]
    fn what_is_read_stays_and_the_rest_goes() {
        let mut whole = port();
        whole.attributes.insert(1, LinkAttribute::TxQueueLen(1000));
        if let Some(LinkAttribute::LinkInfo(infos)) = whole.attributes.last_mut()
            && let LinkInfo::PortData(InfoPortData::BridgePort(options)) = &mut infos[1]
        {
            options.insert(1, InfoBridgePort::Priority(32));
            options.push(InfoBridgePort::Cost(2));
        }
        let slim = slim(&bytes(whole)).unwrap();
        let expected = RouteNetlinkMessage::NewLink(port());
        assert_eq!(
            NetlinkMessage::deserialize(&slim).unwrap().payload,
            NetlinkPayload::InnerMessage(expected)
        );
    }

    #[test]
    fn cut_bytes_and_other_messages_are_not_slimmed() {
        let whole = bytes(port());
        for length in 0..HEADER + IFINFO {
            assert_eq!(slim(&whole[..length]), None);
        }
        for length in HEADER + IFINFO..whole.len() {
            assert!(slim(&whole[..length]).unwrap().len() <= whole.len());
        }
        let mut request = Vec::new();
        append_request(&mut request, RouteNetlinkMessage::GetLink(port()), NLM_F_REQUEST);
        assert_eq!(slim(&request), None);
    }
}

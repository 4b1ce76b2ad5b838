//! Announcements of nf_tables (linux/netfilter/nf_tables.h).

use crate::header::Received;
use crate::monitor::announcement::{Announcement, NftObject};
use crate::netfilter::NFTABLES;
use crate::netfilter::message::{attribute, attributes, number, text};

/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;

const NFT_MSG_NEWGEN: u16 = 15;
const NFTA_GEN_ID: u16 = 1;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
/// The name of the table, in the announcements of all its objects: `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`,
/// `NFTA_SET_ELEM_LIST_TABLE` and so on.
const TABLE: u16 = 1;

/// What a message announces, if it is of interest.
pub(super) fn read(message: Received<'_>) -> Option<Announcement> {
    let [subsystem, kind] = message.kind.to_be_bytes();
    if u16::from(subsystem) != NFTABLES {
        return None;
    }
    let (header, rest) = message.body.split_at_checked(HEADER)?;
    if u16::from(kind) == NFT_MSG_NEWGEN {
        return generation(message.port, rest);
    }
    let (object, gone) = object(kind)?;
    let table = text(attribute(rest, TABLE)?);
    Some(Announcement::Nft { family: header[0], table, object, gone, port: message.port })
}

/// `enum nf_tables_msg_types`
fn object(kind: u8) -> Option<(NftObject, bool)> {
    Some(match kind {
        0 => (NftObject::Table, false),
        2 => (NftObject::Table, true),
        3 => (NftObject::Chain, false),
        5 => (NftObject::Chain, true),
        6 => (NftObject::Rule, false),
        8 => (NftObject::Rule, true),
        9 => (NftObject::Set, false),
        11 => (NftObject::Set, true),
        12 => (NftObject::Element, false),
        14 => (NftObject::Element, true),
        18 => (NftObject::Object, false),
        20 => (NftObject::Object, true),
        22 => (NftObject::Flowtable, false),
        24 => (NftObject::Flowtable, true),
        _ => return None,
    })
}

fn generation(port: u32, rest: &[u8]) -> Option<Announcement> {
    let (mut generation, mut pid, mut process) = (None, None, String::new());
    for (kind, value) in attributes(rest) {
        match kind {
            NFTA_GEN_ID => generation = number(value),
            NFTA_GEN_PROC_PID => pid = number(value),
            NFTA_GEN_PROC_NAME => process = text(value),
            _ => {}
        }
    }
    Some(Announcement::NftGeneration { generation: generation?, pid, process, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::{Subsystem, read as read_all};
    use crate::netfilter::message::MessageBuilder;

    fn announced(datagram: &[u8]) -> Vec<Announcement> {
        let mut announcements = Default::default();
        read_all(Subsystem::Netfilter, datagram, &mut announcements);
        announcements.into()
    }

    fn message(kind: u16, fill: impl FnOnce(&mut MessageBuilder)) -> Vec<u8> {
        let mut message = MessageBuilder::new(NFTABLES << 8 | kind, 0, 0, 1, 0);
        fill(&mut message);
        let mut bytes = message.finish();
        bytes[12..16].copy_from_slice(&4711u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_transaction_says_what_it_changed_and_who_made_it() {
        let element = message(12, |message| {
            message.text(1, "kube-proxy").text(2, "ips");
        });
        let rule = message(8, |message| {
            message.text(1, "kube-proxy");
        });
        let end = message(15, |message| {
            message.number(1, 9).number(2, 77).text(3, "nft");
        });
        let nft = |object, gone| Announcement::Nft {
            family: 1,
            table: "kube-proxy".into(),
            object,
            gone,
            port: 4711,
        };
        let expected = [
            nft(NftObject::Element, false),
            nft(NftObject::Rule, true),
            Announcement::NftGeneration { generation: 9, pid: Some(77), process: "nft".into(), port: 4711 },
        ];
        assert_eq!(announced(&[element.clone(), element, rule, end].concat()), expected);
    }

    #[test]
    fn truncated_and_other_messages_announce_nothing() {
        let whole = message(6, |message| {
            message.text(1, "t");
        });
        for end in 0..whole.len() - 3 {
            assert_eq!(announced(&whole[..end]), [], "{end}");
        }
        let mut conntrack = whole;
        conntrack[4..6].copy_from_slice(&(crate::netfilter::CTNETLINK << 8 | 6).to_ne_bytes());
        assert_eq!(announced(&conntrack), []);
    }
}

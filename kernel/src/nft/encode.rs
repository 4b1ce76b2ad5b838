//! Encodes changes as netlink messages (linux/netfilter/nf_tables.h).

mod expr;

pub(super) use expr::decode as decode_expressions;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use crate::netfilter::NFTABLES;
use crate::netfilter::message::{MessageBuilder, text};
use crate::nft::{Change, Element, Expr, Hook, MapOf, Set, Table, Type, Value};

/// `NFT_MSG_*`, with the subsystem's number in the upper byte.
pub(super) mod kind {
    use super::NFTABLES;
    pub const NEW_TABLE: u16 = NFTABLES << 8;
    pub const GET_TABLE: u16 = NFTABLES << 8 | 1;
    pub const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
    pub const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
    pub const GET_CHAIN: u16 = NFTABLES << 8 | 4;
    pub const DELETE_CHAIN: u16 = NFTABLES << 8 | 5;
    pub const NEW_RULE: u16 = NFTABLES << 8 | 6;
    pub const GET_RULE: u16 = NFTABLES << 8 | 7;
    pub const DELETE_RULE: u16 = NFTABLES << 8 | 8;
    pub const NEW_SET: u16 = NFTABLES << 8 | 9;
    pub const GET_SET: u16 = NFTABLES << 8 | 10;
    pub const NEW_ELEMENT: u16 = NFTABLES << 8 | 12;
    pub const GET_ELEMENT: u16 = NFTABLES << 8 | 13;
    pub const DELETE_ELEMENT: u16 = NFTABLES << 8 | 14;
}

/// `NFTA_*`
pub(super) mod attr {
    pub const TABLE_NAME: u16 = 1;

    pub const CHAIN_TABLE: u16 = 1;
    pub const CHAIN_NAME: u16 = 3;
    pub const CHAIN_HOOK: u16 = 4;
    pub const CHAIN_POLICY: u16 = 5;
    pub const CHAIN_USE: u16 = 6;
    pub const CHAIN_TYPE: u16 = 7;
    pub const HOOK_NUMBER: u16 = 1;
    pub const HOOK_PRIORITY: u16 = 2;

    pub const RULE_TABLE: u16 = 1;
    pub const RULE_CHAIN: u16 = 2;
    pub const RULE_HANDLE: u16 = 3;
    pub const RULE_EXPRESSIONS: u16 = 4;
    pub const RULE_USERDATA: u16 = 7;
    pub const LIST_ITEM: u16 = 1;

    pub const SET_TABLE: u16 = 1;
    pub const SET_NAME: u16 = 2;
    pub const SET_FLAGS: u16 = 3;
    pub const SET_KEY_TYPE: u16 = 4;
    pub const SET_KEY_LENGTH: u16 = 5;
    pub const SET_DATA_TYPE: u16 = 6;
    pub const SET_DATA_LENGTH: u16 = 7;
    pub const SET_ID: u16 = 10;
    pub const SET_USERDATA: u16 = 13;

    pub const ELEMENTS_TABLE: u16 = 1;
    pub const ELEMENTS_SET: u16 = 2;
    pub const ELEMENTS_LIST: u16 = 3;
    pub const ELEMENT_KEY: u16 = 1;
    pub const ELEMENT_DATA: u16 = 2;
    pub const ELEMENT_USERDATA: u16 = 6;

    pub const DATA_VALUE: u16 = 1;
    pub const DATA_VERDICT: u16 = 2;
}

/// The message that requests a change.
pub(super) fn encode(change: &Change, sequence: u32) -> Vec<u8> {
    let table = change.table();
    let (kind, flags) = request(change);
    let mut message = MessageBuilder::new(kind, NLM_F_REQUEST | flags, sequence, table.family as u8, 0);
    match change {
        Change::AddTable(_) | Change::DeleteTable(_) => {
            message.text(attr::TABLE_NAME, table.name);
        }
        Change::AddChain { name, hook, .. } => {
            message.text(attr::CHAIN_TABLE, table.name).text(attr::CHAIN_NAME, name);
            hook.iter().for_each(|hook| base_chain(&mut message, hook));
        }
        Change::DeleteChain { name, .. } => {
            message.text(attr::CHAIN_TABLE, table.name).text(attr::CHAIN_NAME, name);
        }
        Change::FlushChain { name, .. } => {
            message.text(attr::RULE_TABLE, table.name).text(attr::RULE_CHAIN, name);
        }
        Change::AddRule { chain, exprs, comment, .. } => {
            message.text(attr::RULE_TABLE, table.name).text(attr::RULE_CHAIN, chain);
            add_rule(&mut message, exprs, comment);
        }
        Change::DeleteRule { chain, handle, .. } => {
            message.text(attr::RULE_TABLE, table.name).text(attr::RULE_CHAIN, chain);
            message.bytes(attr::RULE_HANDLE, &handle.to_be_bytes());
        }
        Change::AddSet { set, .. } => add_set(&mut message, table, set, sequence),
        Change::CreateElement { element, .. } | Change::AddElement { element, .. } => {
            add_element(&mut message, table, element);
        }
        Change::DeleteElement { set, key: bytes, .. } => {
            message.text(attr::ELEMENTS_TABLE, table.name).text(attr::ELEMENTS_SET, set);
            elements(&mut message, |element| key(element, bytes));
        }
    }
    message.finish()
}

/// The message's type and flags.
fn request(change: &Change) -> (u16, u16) {
    match change {
        Change::AddTable(_) => (kind::NEW_TABLE, NLM_F_CREATE),
        Change::DeleteTable(_) => (kind::DELETE_TABLE, 0),
        Change::AddChain { .. } => (kind::NEW_CHAIN, NLM_F_CREATE),
        Change::DeleteChain { .. } => (kind::DELETE_CHAIN, 0),
        Change::AddRule { .. } => (kind::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND),
        Change::FlushChain { .. } | Change::DeleteRule { .. } => (kind::DELETE_RULE, 0),
        Change::AddSet { .. } => (kind::NEW_SET, NLM_F_CREATE),
        Change::CreateElement { .. } => (kind::NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL),
        Change::AddElement { .. } => (kind::NEW_ELEMENT, NLM_F_CREATE),
        Change::DeleteElement { .. } => (kind::DELETE_ELEMENT, 0),
    }
}

fn add_rule(message: &mut MessageBuilder, exprs: &[Expr], comment: &str) {
    message.nested(attr::RULE_EXPRESSIONS, |list| {
        for expr in exprs {
            list.nested(attr::LIST_ITEM, |item| expr::encode(item, expr));
        }
    });
    if !comment.is_empty() {
        message.bytes(attr::RULE_USERDATA, &userdata(comment));
    }
}

fn base_chain(message: &mut MessageBuilder, hook: &Hook) {
    message.nested(attr::CHAIN_HOOK, |nested| {
        nested.number(attr::HOOK_NUMBER, hook.point as u32);
        nested.number(attr::HOOK_PRIORITY, hook.priority as u32);
    });
    message.text(attr::CHAIN_TYPE, hook.kind);
}

fn add_set(message: &mut MessageBuilder, table: Table, set: &Set, id: u32) {
    const NFT_SET_MAP: u32 = 8;
    /// `NFT_DATA_VERDICT`
    const VERDICT: u32 = 0xffff_ff00;
    message.text(attr::SET_TABLE, table.name).text(attr::SET_NAME, set.name);
    message.number(attr::SET_FLAGS, if set.map.is_some() { NFT_SET_MAP } else { 0 });
    message.number(attr::SET_KEY_TYPE, type_id(set.key)).number(attr::SET_KEY_LENGTH, size(set.key));
    match set.map {
        Some(MapOf::Values(types)) => {
            message.number(attr::SET_DATA_TYPE, type_id(types)).number(attr::SET_DATA_LENGTH, size(types));
        }
        Some(MapOf::Verdicts) => {
            message.number(attr::SET_DATA_TYPE, VERDICT);
        }
        None => {}
    }
    message.number(attr::SET_ID, id);
    if set.key == [Type::Interface] {
        // Without this, `nft` prints names backwards: it does not know that they are in host byte order.
        const KEY_BYTE_ORDER: u8 = 0;
        const HOST: u32 = 1;
        let mut order = vec![KEY_BYTE_ORDER, size_of::<u32>() as u8];
        order.extend(HOST.to_ne_bytes());
        message.bytes(attr::SET_USERDATA, &order);
    }
}

/// `nft` packs the types of a concatenation into one number, six bits each.
fn type_id(types: &[Type]) -> u32 {
    const BITS: u32 = 6;
    types.iter().fold(0, |id, one| id << BITS | one.id())
}

fn size(types: &[Type]) -> u32 {
    types.iter().map(|one| one.size()).sum()
}

fn add_element(message: &mut MessageBuilder, table: Table, what: &Element) {
    message.text(attr::ELEMENTS_TABLE, table.name).text(attr::ELEMENTS_SET, what.set);
    elements(message, |element| {
        key(element, &what.key);
        match &what.value {
            Some(Value::Bytes(bytes)) => {
                element.nested(attr::ELEMENT_DATA, |data| {
                    data.bytes(attr::DATA_VALUE, bytes);
                });
            }
            Some(Value::Verdict(verdict)) => {
                element.nested(attr::ELEMENT_DATA, |data| expr::verdict(data, verdict));
            }
            None => {}
        }
        if !what.comment.is_empty() {
            element.bytes(attr::ELEMENT_USERDATA, &userdata(&what.comment));
        }
    });
}

/// A list of one element.
pub(super) fn elements(message: &mut MessageBuilder, fill: impl FnOnce(&mut MessageBuilder)) {
    message.nested(attr::ELEMENTS_LIST, |list| {
        list.nested(attr::LIST_ITEM, fill);
    });
}

/// The key of an element.
pub(super) fn key(element: &mut MessageBuilder, bytes: &[u8]) {
    element.nested(attr::ELEMENT_KEY, |key| {
        key.bytes(attr::DATA_VALUE, bytes);
    });
}

/// `NFTNL_UDATA_SET_ELEM_COMMENT` and `NFTNL_UDATA_RULE_COMMENT`: the data that `nft` prints as a comment.
const COMMENT: u8 = 0;

/// A comment in the form that `nft` stores: type, length, and string with its closing NUL.
fn userdata(comment: &str) -> Vec<u8> {
    let mut data = vec![COMMENT, comment.len() as u8 + 1];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

/// The comment in such data. Empty if there is none.
pub(super) fn comment_of(mut data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = data {
        let length = usize::from(*length).min(rest.len());
        if *kind == COMMENT {
            return text(&rest[..length]);
        }
        data = &rest[length..];
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netfilter::message::attributes;

    #[test]
    fn a_comment_reads_back() {
        assert_eq!(userdata("x"), [0, 2, b'x', 0]);
        let long = "y".repeat(crate::nft::LONGEST_COMMENT);
        assert_eq!(comment_of(&userdata(&long)), long);
        // Data of another program before the comment, and truncated data.
        assert_eq!(comment_of(&[7, 1, 9, 0, 2, b'x', 0]), "x");
        assert_eq!(comment_of(&[7, 9, 1]), "");
        assert_eq!(comment_of(&[0]), "");
    }

    #[test]
    fn types_of_a_concatenation_are_packed_as_nft_does() {
        assert_eq!(type_id(&[Type::Protocol, Type::Port]), 12 << 6 | 13);
        assert_eq!(size(&[Type::Ipv6, Type::Port]), 20);
    }

    #[test]
    fn attributes_fit_into_each_other() {
        let table = Table { family: crate::nft::TableFamily::Inet, name: "t" };
        let change = Change::DeleteElement { table, set: "s", key: vec![1, 2, 3, 4] };
        let bytes = encode(&change, 3);
        let body = &bytes[20..];
        let find = |within, kind| attributes(within).find(|(found, _)| *found == kind).unwrap().1;
        let element = find(find(body, attr::ELEMENTS_LIST), attr::LIST_ITEM);
        assert_eq!(find(find(element, attr::ELEMENT_KEY), attr::DATA_VALUE), [1, 2, 3, 4]);
    }
}

//! Fuzzes the values of a shared address pool, as another release, an operator or a power cut may leave them
//! in the store and on the node.

use serde_json::Value;
use std::fmt::{Debug, Display};
use vlan_bridge_pool::block::Block;
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::entry::Entry;
use vlan_bridge_pool::grants::{Confirmation, Grants};
use vlan_bridge_pool::register::{Identity, Register};
use vlan_bridge_pool::value::Unreadable;

/// How many blocks of a document are looked at.
const BLOCKS: usize = 50;

/// Reads the input as each value in turn. What can be read must read the same after it was written.
pub fn pool(input: &[u8]) {
    if let Some(entry) = std::str::from_utf8(input).ok().and_then(|entry| Entry::parse(entry).ok()) {
        assert_eq!(entry.to_string().as_bytes(), input);
    }
    written_again(input, Block::parse, Block::to_json);
    written_again(input, Register::parse, Register::to_json);
    written_again(input, Identity::parse, Identity::to_json);
    written_again(input, Confirmation::parse, Confirmation::to_json);
    if let Some(document) = written_again(input, Document::parse, Document::to_json) {
        blocks(&document);
    }
    grants(input);
}

/// Reads a value, writes it, and reads that.
fn written_again<T: Debug + PartialEq, E: Display>(
    input: &[u8],
    parse: fn(&[u8]) -> Result<T, E>,
    to_json: fn(&T) -> Value,
) -> Option<T> {
    let read = parse(input).map_err(|error| assert!(!error.to_string().is_empty())).ok()?;
    let written = to_json(&read).to_string();
    match parse(written.as_bytes()) {
        Ok(again) => assert_eq!(again, read, "{written}"),
        Err(error) => panic!("{error}: {written}"),
    }
    Some(read)
}

/// A fuzzer finds no checksum, so the right one is put in.
fn grants(input: &[u8]) {
    let mut input = input.to_vec();
    if let Err(Unreadable::Check { right, .. }) = Grants::parse(&input) {
        let mut value: Value = serde_json::from_slice(&input).unwrap();
        value["check"] = right.into();
        input = value.to_string().into_bytes();
        assert!(Grants::parse(&input).is_ok());
    }
    let Some(grants) = written_again(&input, Grants::parse, Grants::to_json) else { return };
    assert_eq!(grants.unproven.without(&grants.leased).first(), None);
    assert_eq!(grants.home.first_common(&grants.leased), None);
}

/// The blocks of a document, in order, have its addresses and no others.
fn blocks(document: &Document) {
    let blocks: Vec<_> = document.blocks().take(BLOCKS).collect();
    assert!(blocks.is_sorted_by(|one, next| one < next));
    let mut sum = 0;
    for block in &blocks {
        let addresses = document.addresses_of(*block);
        assert!(addresses.iter().all(|addr| block.offset(addr).is_some() && document.contains(addr)));
        sum += addresses.len();
    }
    let all = document.addresses().len();
    assert!(if blocks.len() < BLOCKS { sum == all } else { sum <= all });
}

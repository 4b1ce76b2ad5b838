//! How much a table holds.

use netlink_packet_core::NLM_F_DUMP;

use super::encode::{attr, kind};
use super::{Nft, Result, Table, get};
use crate::netfilter::message::{attribute, text};

/// How much a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// The rules of all chains.
    pub rules: usize,
    /// The elements of all named sets and maps.
    pub elements: usize,
}

impl Nft {
    /// Counts what a table holds. Nothing if there is no such table.
    pub fn size(&self, table: Table) -> Result<TableSize> {
        let action = || format!("nft list table {table}");
        // A request that names the table would fail without it.
        let rules = self.socket.request(get(kind::GET_RULE, table, NLM_F_DUMP), action)?;
        let of_table = |object: &[u8], name| attribute(object, name).map(text).as_deref() == Some(table.name);
        let rules = rules.iter().filter(|rule| of_table(rule, attr::RULE_TABLE)).count();
        let sets = self.socket.request(get(kind::GET_SET, table, NLM_F_DUMP), action)?;
        let sets = sets.iter().filter(|set| of_table(set, attr::SET_TABLE));
        let mut elements = 0;
        for name in sets.filter_map(|set| attribute(set, attr::SET_NAME).map(text)) {
            // Those of anonymous sets are part of their rule.
            if !name.starts_with("__") {
                elements += self.elements(table, &name)?.len();
            }
        }
        Ok(TableSize { rules, elements })
    }
}

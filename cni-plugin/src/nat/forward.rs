//! A FORWARD policy of drop, as Docker and ufw set it: an accept in a table of ours does not override it, so one rule in that table
//! lets pass what a chain of ours has marked.

use std::path::Path;

use cni_conf::cni::error::CniError;

use super::Nat;
use crate::lock::RecordLock;
use crate::net::NetError;
use crate::net::nft::Nft;
use crate::nft::{Change, Family, Table};
use crate::plan::nat::frame::{ACCEPT_COMMENT, FORWARD, OTHERS, OTHERS_CHAIN, TABLE, accept, forward};
use crate::record::Record;

impl Nat {
    /// Puts chain and rule in where a policy asks for them and they are not there.
    pub(super) fn let_forward(&self, record: &Record) -> Result<(), CniError> {
        warn_of_legacy(record);
        if self.forward_missing(record)?.is_empty() {
            return Ok(());
        }
        let _lock = RecordLock::alone()?;
        let mut changes = forward();
        for table in self.forward_missing(record)? {
            if self.accepting(table)?.is_empty() {
                changes.push(accept(table));
            }
        }
        Ok(self.nft.commit(&changes)?)
    }

    /// The tables whose policy drops what the attachment's family forwards, with nothing of ours that meets it.
    fn forward_missing(&self, record: &Record) -> Result<Vec<Table>, CniError> {
        let mut missing = Vec::new();
        for table in OTHERS.into_iter().filter(|table| concerns(table, record)) {
            let drops = self.nft.chain(table, OTHERS_CHAIN)?.is_some_and(|chain| chain.drops);
            if drops && (self.accepting(table)?.is_empty() || self.nft.chain(TABLE, FORWARD)?.is_none()) {
                missing.push(table);
            }
        }
        Ok(missing)
    }

    /// What is missing, in words.
    pub(super) fn forward_difference(&self, record: &Record) -> Result<Option<String>, CniError> {
        let missing = self.forward_missing(record)?;
        Ok(missing.first().map(|table| {
            format!("chain {OTHERS_CHAIN} of table {table} drops the pod's packets: our rule there is gone")
        }))
    }

    /// The numbers of our rules in a table of iptables'.
    fn accepting(&self, table: Table) -> Result<Vec<u64>, CniError> {
        let rules = self.nft.rules(table, OTHERS_CHAIN)?.into_iter();
        Ok(rules.filter(|rule| rule.comment == ACCEPT_COMMENT).map(|rule| rule.handle).collect())
    }

    /// What takes our rules out of others' tables.
    pub(super) fn forward_deletions(&self) -> Result<Vec<Change>, CniError> {
        let mut deletions = Vec::new();
        for table in OTHERS {
            if self.nft.chain(table, OTHERS_CHAIN)?.is_none() {
                continue;
            }
            let delete = |handle| Change::DeleteRule { table, chain: OTHERS_CHAIN.into(), handle };
            deletions.extend(self.accepting(table)?.into_iter().map(delete));
        }
        Ok(deletions)
    }
}

/// Whether packets that a bridge forwards pass the chains of iptables (br_netfilter), and one of those drops what it does not know.
pub fn drops_bridged() -> bool {
    let is_on = |key| {
        let value = std::fs::read_to_string(format!("/proc/sys/net/bridge/bridge-nf-call-{key}"));
        value.is_ok_and(|value| value.trim() == "1")
    };
    if !is_on("iptables") && !is_on("ip6tables") {
        return false;
    }
    let drops = |table| Ok(Nft::open()?.chain(table, OTHERS_CHAIN)?.is_some_and(|chain| chain.drops));
    OTHERS.into_iter().any(|table| {
        drops(table).unwrap_or_else(|e: NetError| {
            log::warn!("whether table {table} drops what is bridged is not known: {e}");
            false
        })
    })
}

fn concerns(table: &Table, record: &Record) -> bool {
    let ipv4 = table.family == Family::Ipv4;
    record.addresses.iter().any(|net| net.addr().is_ipv4() == ipv4)
}

/// Legacy iptables is no part of nf_tables: we cannot write there.
fn warn_of_legacy(record: &Record) {
    for (names, program, ipv4) in [
        ("/proc/thread-self/net/ip_tables_names", "iptables-legacy", true),
        ("/proc/thread-self/net/ip6_tables_names", "ip6tables-legacy", false),
    ] {
        let concerned = record.addresses.iter().any(|net| net.addr().is_ipv4() == ipv4);
        let tables = std::fs::read_to_string(Path::new(names)).unwrap_or_default();
        if concerned && tables.lines().any(|table| table == "filter") {
            let device = &record.device;
            log::warn!(
                "{program} is in use, where only an operator can let the pods' packets pass. If its FORWARD policy is DROP: \
                 {program} -A FORWARD -i {device} -j ACCEPT; {program} -A FORWARD -o {device} -j ACCEPT"
            );
        }
    }
}

//! nf_tables as values: tables, sets, chains and rules, as `nft` would create them.
//!
//! Plans say which of these there should be, and [`Nft`](super::Nft) sends them to the kernel. Nothing here
//! does I/O.

use std::fmt;
use std::net::IpAddr;

use super::expr::{Expr, Match, TableFamily, Verdict};

/// A table of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The packets that it sees.
    pub family: TableFamily,
    /// Its name.
    pub name: &'static str,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// The data types of keys and values. `nft` needs its own number of the type to print them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `ether_addr`
    Mac,
    /// `inet_proto`: a transport protocol.
    Protocol,
    /// `inet_service`: a port.
    Port,
    /// `ifname`
    Interface,
}

impl Type {
    /// `nft`'s number of the type.
    pub fn id(self) -> u32 {
        match self {
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Mac => 9,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Interface => 41,
        }
    }

    /// Its size in bytes within a key. Every part fills whole registers of four bytes.
    pub fn size(self) -> u32 {
        match self {
            Type::Protocol | Type::Port | Type::Ipv4 => 4,
            Type::Mac => 8,
            Type::Ipv6 | Type::Interface => 16,
        }
    }
}

/// The values of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOf {
    /// A value of these types.
    Values(&'static [Type]),
    /// A verdict.
    Verdicts,
}

/// A hash set or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// The types of its key.
    pub key: &'static [Type],
    /// The values of a map. None for a plain set.
    pub map: Option<MapOf>,
}

/// Hook of a base chain. Its policy is always accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// The hook of the family.
    pub point: HookPoint,
    /// A chain of lower priority comes earlier.
    pub priority: i32,
}

/// `enum nf_inet_hooks` of linux/netfilter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum HookPoint {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// One element of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Name of the set.
    pub set: &'static str,
    /// Its key, see [`key`].
    pub key: Vec<u8>,
    /// The value of its key. None in a plain set.
    pub value: Option<Value>,
    /// Its owner.
    pub comment: String,
}

/// The value of an element of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A value, see [`key`].
    Bytes(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

/// One change to the rule set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `add table`. An existing table is no error.
    AddTable(Table),
    /// `delete table`, with everything in it.
    DeleteTable(Table),
    /// `add chain`. An existing chain is no error.
    AddChain {
        /// Table.
        table: Table,
        /// Chain.
        name: String,
        /// None for a chain that others jump to.
        hook: Option<Hook>,
    },
    /// `flush chain`: deletes the chain's rules.
    FlushChain {
        /// Table.
        table: Table,
        /// Chain.
        name: String,
    },
    /// `delete chain`, with its rules. Refused (EBUSY) while a rule or an element jumps to it.
    DeleteChain {
        /// Table.
        table: Table,
        /// Chain.
        name: String,
    },
    /// `add set` or `add map`.
    AddSet {
        /// Table.
        table: Table,
        /// Set.
        set: Set,
    },
    /// `add rule`, at the end of its chain.
    AddRule {
        /// Table.
        table: Table,
        /// Chain.
        chain: String,
        /// The rule's expressions, in order.
        exprs: Vec<Expr>,
        /// Its comment; may be empty.
        comment: String,
    },
    /// `delete rule … handle`.
    DeleteRule {
        /// Table.
        table: Table,
        /// Chain.
        chain: String,
        /// The kernel's number of the rule.
        handle: u64,
    },
    /// `create element`. An existing element is an error (EEXIST).
    CreateElement {
        /// Table.
        table: Table,
        /// Element.
        element: Element,
    },
    /// `add element`. An equal existing element is no error.
    AddElement {
        /// Table.
        table: Table,
        /// Element.
        element: Element,
    },
    /// `delete element`, by its key.
    DeleteElement {
        /// Table.
        table: Table,
        /// Set.
        set: &'static str,
        /// Key.
        key: Vec<u8>,
    },
}

impl Change {
    /// The table that the change belongs to.
    pub fn table(&self) -> Table {
        match self {
            Change::AddTable(table) | Change::DeleteTable(table) => *table,
            Change::AddChain { table, .. }
            | Change::FlushChain { table, .. }
            | Change::DeleteChain { table, .. }
            | Change::AddSet { table, .. }
            | Change::AddRule { table, .. }
            | Change::DeleteRule { table, .. }
            | Change::CreateElement { table, .. }
            | Change::AddElement { table, .. }
            | Change::DeleteElement { table, .. } => *table,
        }
    }

    /// True if the change adds something, false if it deletes something.
    pub fn adds(&self) -> bool {
        !matches!(
            self,
            Change::DeleteTable(_)
                | Change::FlushChain { .. }
                | Change::DeleteChain { .. }
                | Change::DeleteRule { .. }
                | Change::DeleteElement { .. }
        )
    }

    /// The kernel modules that the change needs.
    pub fn modules(&self) -> Vec<&'static str> {
        match self {
            Change::AddChain { hook: Some(hook), .. } if hook.kind == "nat" => vec!["nft_chain_nat"],
            Change::AddRule { table, exprs, .. } => {
                let mut modules: Vec<&str> = Vec::new();
                for module in exprs.iter().filter_map(Expr::module) {
                    if !modules.contains(&module) {
                        modules.push(module);
                    }
                }
                if table.family == TableFamily::Bridge {
                    modules.push("nft_meta_bridge");
                }
                modules
            }
            _ => vec!["nf_tables"],
        }
    }
}

/// The change as an `nft` command.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::AddTable(table) => write!(f, "nft add table {table}"),
            Change::DeleteTable(table) => write!(f, "nft delete table {table}"),
            Change::AddChain { table, name, .. } => write!(f, "nft add chain {table} {name}"),
            Change::FlushChain { table, name } => write!(f, "nft flush chain {table} {name}"),
            Change::DeleteChain { table, name } => write!(f, "nft delete chain {table} {name}"),
            Change::AddSet { table, set } => write!(f, "nft add set {table} {}", set.name),
            Change::AddRule { table, chain, exprs, .. } => {
                write!(f, "nft add rule {table} {chain}")?;
                exprs.iter().filter_map(Expr::module).try_for_each(|part| write!(f, " [{part}]"))
            }
            Change::DeleteRule { table, chain, handle } => {
                write!(f, "nft delete rule {table} {chain} handle {handle}")
            }
            Change::CreateElement { table, element } => {
                write!(f, "nft create element {table} {} ({})", element.set, element.comment)
            }
            Change::AddElement { table, element } => {
                write!(f, "nft add element {table} {} ({})", element.set, element.comment)
            }
            Change::DeleteElement { table, set, .. } => write!(f, "nft delete element {table} {set}"),
        }
    }
}

/// An installed rule, as far as the plans need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its handle.
    pub handle: u64,
    /// Its comment, from `nft` or from iptables (`-m comment`).
    pub comment: String,
    /// The names of its expressions, in order.
    pub exprs: Vec<String>,
    /// Those expressions that are iptables matches.
    pub matches: Vec<Match>,
}

/// The longest comment that `nft` accepts, in bytes, without the closing NUL (`NFTNL_UDATA_COMMENT_MAXLEN`).
pub const LONGEST_COMMENT: usize = 127;

/// A key or value made of parts. Each part is padded to whole registers.
pub fn key(parts: &[&[u8]]) -> Vec<u8> {
    const REGISTER: usize = 4;
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(part);
        key.resize(key.len().next_multiple_of(REGISTER), 0);
    }
    key
}

/// An address as a part of a key.
pub fn address(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An interface name as a key: 16 bytes (`IFNAMSIZ`), padded with NUL.
pub fn interface(name: &str) -> Vec<u8> {
    const IFNAMSIZ: usize = 16;
    let mut key = name.as_bytes().to_vec();
    key.resize(IFNAMSIZ, 0);
    key
}

/// The interface name in such a key.
pub fn interface_name(key: &[u8]) -> String {
    String::from_utf8_lossy(key).trim_end_matches('\0').to_owned()
}

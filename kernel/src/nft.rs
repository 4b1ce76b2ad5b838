//! nf_tables: tables, sets, chains and rules as values ([`rules`], [`expr`]), transactions that change the
//! rule set, and queries.

mod encode;
pub mod expr;
mod reverse_path;
pub mod rules;
mod size;

use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;

use super::netfilter::message::{MessageBuilder, attribute, attributes, number, text};
use super::netfilter::{NFTABLES, NetfilterSocket, UNSPEC};
use super::{NetError, Result};
use encode::{attr, encode, kind};
pub use expr::{Base, Ct, Expr, Field, Match, Meta, Reg, TableFamily, Verdict};
pub use reverse_path::ReversePathFilter;
pub use rules::*;
pub use size::TableSize;

/// `NFNL_MSG_BATCH_BEGIN` and `_END`
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The sequence number of the messages that begin and end a batch. The changes have the numbers from 1 on.
const OF_THE_BATCH: u32 = 0;

/// A connection to nf_tables of one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: NetfilterSocket,
}

/// A change of a transaction that the kernel refused. The kernel then made none of the transaction's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedChange {
    /// Its index in the transaction. None if the kernel refused the transaction as a whole.
    pub change: Option<usize>,
    /// The kernel's reason.
    pub errno: Errno,
}

impl RefusedChange {
    /// True if the object of the change does not exist.
    pub fn not_found(&self) -> bool {
        self.errno == Errno::ENOENT
    }

    /// True if the object exists already. (Before Linux 5.12, another value for a key of a map gave EBUSY.)
    pub fn exists(&self) -> bool {
        matches!(self.errno, Errno::EEXIST | Errno::EBUSY)
    }
}

/// An installed chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its policy is drop.
    pub drops: bool,
    /// The number of its rules, plus the number of rules and elements that jump to it.
    pub uses: u32,
}

/// An installed element, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedElement {
    /// Its key.
    pub key: Vec<u8>,
    /// Its comment.
    pub comment: String,
}

/// A chain at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// The family of its table.
    pub family: TableFamily,
    /// The table's name.
    pub table: String,
    /// The chain's name.
    pub chain: String,
    /// Its policy is drop.
    pub drops: bool,
}

impl Nft {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Nft> {
        Ok(Nft { socket: NetfilterSocket::open()? })
    }

    /// The socket, for connection tracking. Closing a second socket could wait for the rules that were
    /// deleted through this one.
    pub fn socket(&self) -> &NetfilterSocket {
        &self.socket
    }

    /// Makes all changes or none. The outer error is a failure of the socket, the inner one lists the refused
    /// changes.
    pub fn try_commit(&self, changes: &[Change]) -> Result<Result<(), Vec<RefusedChange>>> {
        self.send(changes, true)
    }

    /// Makes all changes or none.
    pub fn commit(&self, changes: &[Change]) -> Result<()> {
        self.send(changes, true)?.map_err(|refusals| explain(changes, &refusals))
    }

    /// Makes the changes, except those that are refused for a reason that does not matter. False if there
    /// were such refusals.
    pub fn commit_tolerating(
        &self,
        mut changes: Vec<Change>,
        does_not_matter: impl Fn(&RefusedChange) -> bool,
    ) -> Result<bool> {
        let mut all = true;
        while !changes.is_empty() {
            let Err(refusals) = self.try_commit(&changes)? else { break };
            let refused: Vec<usize> = refusals.iter().filter_map(|refusal| refusal.change).collect();
            if refused.len() < refusals.len() || !refusals.iter().all(&does_not_matter) {
                return Err(explain(&changes, &refusals));
            }
            all = false;
            let mut index = 0..;
            changes.retain(|_| index.next().is_none_or(|index| !refused.contains(&index)));
        }
        Ok(all)
    }

    /// Checks the changes in the kernel without making them (`nft --check`). The kernel loads the modules
    /// that they need.
    pub fn check(&self, changes: &[Change]) -> Result<()> {
        self.send(changes, false)?.map_err(|refusals| explain(changes, &refusals))
    }

    /// The kernel checks a batch without its end message, and then drops it.
    fn send(&self, changes: &[Change], for_good: bool) -> Result<Result<(), Vec<RefusedChange>>> {
        let begin = |kind| MessageBuilder::new(kind, NLM_F_REQUEST, OF_THE_BATCH, UNSPEC, NFTABLES).finish();
        let mut batch = begin(BATCH_BEGIN);
        for (index, change) in changes.iter().enumerate() {
            batch.extend(encode(change, index as u32 + 1));
        }
        if for_good {
            batch.extend(begin(BATCH_END));
        }
        let answers =
            self.socket.exchange(&batch).map_err(|e| NetError::new("nft: send a transaction", e))?;
        let refusals: Vec<RefusedChange> = answers
            .iter()
            .filter_map(|answer| {
                let change = (answer.sequence as usize).checked_sub(1);
                answer.error.map(|errno| RefusedChange { change, errno })
            })
            .collect();
        Ok(if refusals.is_empty() { Ok(()) } else { Err(refusals) })
    }

    /// Whether a table exists.
    pub fn has_table(&self, table: Table) -> Result<bool> {
        let mut message = get(kind::GET_TABLE, table, NLM_F_ACK);
        message.text(attr::TABLE_NAME, table.name);
        match self.socket.request(message, || format!("nft list table {table}")) {
            Ok(_) => Ok(true),
            Err(e) if e.not_found() => Ok(false),
            // The kernel does not know the subsystem of the message.
            Err(NetError::Kernel { errno: Errno::EINVAL | Errno::EOPNOTSUPP, .. }) => Err(NetError::new(
                "nft: no nf_tables (does this kernel have it? modprobe nf_tables)",
                Errno::EOPNOTSUPP,
            )),
            Err(e) => Err(e),
        }
    }

    /// A chain. None if the chain or its table does not exist.
    pub fn chain(&self, table: Table, name: &str) -> Result<Option<Chain>> {
        let mut message = get(kind::GET_CHAIN, table, NLM_F_ACK);
        message.text(attr::CHAIN_TABLE, table.name).text(attr::CHAIN_NAME, name);
        let answers = match self.socket.request(message, || format!("nft list chain {table} {name}")) {
            Err(e) if e.not_found() => return Ok(None),
            other => other?,
        };
        Ok(answers.first().map(|chain| Chain {
            drops: drops(chain),
            uses: attribute(chain, attr::CHAIN_USE).and_then(number).unwrap_or_default(),
        }))
    }

    /// The names of a table's chains.
    pub fn chains(&self, table: Table) -> Result<Vec<String>> {
        let answers = self
            .socket
            .request(get(kind::GET_CHAIN, table, NLM_F_DUMP), || format!("nft list table {table}"))?;
        let of_this_table =
            |chain: &&Vec<u8>| attribute(chain, attr::CHAIN_TABLE).map(text).as_deref() == Some(table.name);
        Ok(answers
            .iter()
            .filter(of_this_table)
            .filter_map(|chain| attribute(chain, attr::CHAIN_NAME).map(text))
            .collect())
    }

    /// Every chain at a hook, from any program.
    pub fn hooked(&self, point: HookPoint) -> Result<Vec<BaseChain>> {
        let mut chains = Vec::new();
        for family in [TableFamily::Inet, TableFamily::Ipv4, TableFamily::Ipv6] {
            let message =
                MessageBuilder::new(kind::GET_CHAIN, NLM_F_REQUEST | NLM_F_DUMP, 1, family as u8, 0);
            let answers = self.socket.request(message, || format!("nft list chains {}", family.name()))?;
            let is_hooked = |chain: &&Vec<u8>| {
                let hook =
                    attribute(chain, attr::CHAIN_HOOK).and_then(|hook| attribute(hook, attr::HOOK_NUMBER));
                hook.and_then(number) == Some(point as u32)
            };
            chains.extend(answers.iter().filter(is_hooked).map(|chain| BaseChain {
                family,
                table: attribute(chain, attr::CHAIN_TABLE).map(text).unwrap_or_default(),
                chain: attribute(chain, attr::CHAIN_NAME).map(text).unwrap_or_default(),
                drops: drops(chain),
            }));
        }
        Ok(chains)
    }

    /// Whether a rule of a table names an interface, or uses a match of iptables, by the name of either.
    pub fn mentions(&self, family: TableFamily, table: &str, name: &str) -> Result<bool> {
        let message = MessageBuilder::new(kind::GET_RULE, NLM_F_REQUEST | NLM_F_DUMP, 1, family as u8, 0);
        let answers = self.socket.request(message, || format!("nft list table {} {table}", family.name()))?;
        let name = [name.as_bytes(), &[0]].concat();
        let of_table =
            |rule: &&Vec<u8>| attribute(rule, attr::RULE_TABLE).map(text).as_deref() == Some(table);
        Ok(answers.iter().filter(of_table).any(|rule| rule.windows(name.len()).any(|part| part == name)))
    }

    /// The rules of a chain, in order.
    pub fn rules(&self, table: Table, chain: &str) -> Result<Vec<Rule>> {
        let mut message = get(kind::GET_RULE, table, NLM_F_DUMP);
        message.text(attr::RULE_TABLE, table.name).text(attr::RULE_CHAIN, chain);
        let answers = self.socket.request(message, || format!("nft list chain {table} {chain}"))?;
        let of_this_chain = |rule: &&Vec<u8>| {
            // Old kernels list the rules of all chains.
            attribute(rule, attr::RULE_CHAIN).map(text).as_deref() == Some(chain)
                && attribute(rule, attr::RULE_TABLE).map(text).as_deref() == Some(table.name)
        };
        Ok(answers
            .iter()
            .filter(of_this_chain)
            .filter_map(|rule| {
                let handle = attribute(rule, attr::RULE_HANDLE)?.try_into().ok()?;
                let of_nft = attribute(rule, attr::RULE_USERDATA).map(encode::comment_of);
                let (exprs, matches) = attribute(rule, attr::RULE_EXPRESSIONS)
                    .map(encode::decode_expressions)
                    .unwrap_or_default();
                let of_iptables = || matches.iter().find(|of| of.name == "comment").map(|of| text(&of.info));
                let comment =
                    of_nft.filter(|comment| !comment.is_empty()).or_else(of_iptables).unwrap_or_default();
                Some(Rule { handle: u64::from_be_bytes(handle), comment, exprs, matches })
            })
            .collect())
    }

    /// All elements of a set. Empty if the set or its table does not exist.
    pub fn elements(&self, table: Table, set: &str) -> Result<Vec<ListedElement>> {
        let mut message = get(kind::GET_ELEMENT, table, NLM_F_DUMP);
        message.text(attr::ELEMENTS_TABLE, table.name).text(attr::ELEMENTS_SET, set);
        self.list_elements(message, || format!("nft list set {table} {set}"))
    }

    /// The element with a key. None if there is no such element, set or table.
    pub fn element(&self, table: Table, set: &str, key: &[u8]) -> Result<Option<ListedElement>> {
        let mut message = get(kind::GET_ELEMENT, table, NLM_F_ACK);
        message.text(attr::ELEMENTS_TABLE, table.name).text(attr::ELEMENTS_SET, set);
        encode::elements(&mut message, |element| encode::key(element, key));
        let answers = self.list_elements(message, || format!("nft get element {table} {set}"))?;
        Ok(answers.into_iter().next())
    }

    fn list_elements(
        &self,
        message: MessageBuilder,
        action: impl Fn() -> String,
    ) -> Result<Vec<ListedElement>> {
        let answers = match self.socket.request(message, action) {
            Err(e) if e.not_found() => return Ok(Vec::new()),
            other => other?,
        };
        let lists = answers.iter().filter_map(|portion| attribute(portion, attr::ELEMENTS_LIST));
        Ok(lists
            .flat_map(|list| attributes(list).filter_map(|(_, element)| decode_element(element)))
            .collect())
    }
}

impl AsRawFd for Nft {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Whether a chain's policy is drop.
fn drops(chain: &[u8]) -> bool {
    const NF_DROP: u32 = 0;
    attribute(chain, attr::CHAIN_POLICY).and_then(number) == Some(NF_DROP)
}

fn decode_element(element: &[u8]) -> Option<ListedElement> {
    let key = attribute(element, attr::ELEMENT_KEY).and_then(|key| attribute(key, attr::DATA_VALUE))?;
    let comment = attribute(element, attr::ELEMENT_USERDATA).map(encode::comment_of);
    Some(ListedElement { key: key.to_vec(), comment: comment.unwrap_or_default() })
}

fn get(kind: u16, table: Table, flags: u16) -> MessageBuilder {
    MessageBuilder::new(kind, NLM_F_REQUEST | flags, 1, table.family as u8, 0)
}

/// The error for the first refusal, with its usual cause. The later refusals follow from the first.
pub fn explain(changes: &[Change], refusals: &[RefusedChange]) -> NetError {
    let Some(first) = refusals.iter().min_by_key(|refusal| refusal.change) else {
        return NetError::NoAnswer { action: "nft: transaction".into() };
    };
    let Some(change) = first.change.and_then(|index| changes.get(index)) else {
        // The kernel does not know the subsystem of the batch.
        let hint = if first.errno == Errno::EOPNOTSUPP { " (modprobe nf_tables)" } else { "" };
        return NetError::new(format!("nft: transaction{hint}"), first.errno);
    };
    let lacks = matches!(first.errno, Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT);
    if change.adds() && lacks {
        let modules = change.modules();
        let why = format!("{change} (does this kernel have it? modprobe {})", modules.join(" "));
        return NetError::new(why, first.errno);
    }
    NetError::new(change.to_string(), first.errno)
}

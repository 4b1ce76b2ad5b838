//! The value that one write gives a block: what a holder wants, and what it has to repair.

use std::net::IpAddr;

use crate::block::{Block, BlockKey};
use crate::entry::{Entry, Holder};
use crate::name::Name;
use crate::rules::{Rule, Rules};
use crate::runs::Runs;

/// What to do in one block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Aim {
    /// Give these back. Those that pods use stay.
    pub release: Runs,
    /// Claim some.
    pub claim: Claim,
    /// Claim suspects too, as unproven ones.
    pub suspects: bool,
    /// These were given to pods after a silent probe, so they are unproven no longer.
    pub proven: Runs,
    /// Make suspect what this node holds under this epoch or an earlier one.
    pub lost: Option<Lost>,
}

/// What to claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Claim {
    /// Nothing.
    #[default]
    Nothing,
    /// As many of these as that, whichever are free.
    Any(u8, Runs),
    /// These, as far as they are free.
    These(Runs),
}

/// A node that lives no longer under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lost {
    /// The node.
    pub node: Name,
    /// The last epoch that was lost.
    pub epoch: u32,
    /// The last epoch that an operator called off for good. Home addresses are lost up to this one.
    pub gone: u32,
}

/// The network of this node that a stock is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Me {
    /// The node.
    pub node: Name,
    /// The network.
    pub network: Name,
    /// The epoch under which the node lives now.
    pub epoch: u32,
    /// The first epoch of this machine. An older one was another machine's, which had the same name.
    pub since: u32,
}

impl Me {
    /// Whether a holder is this network, under any epoch of this machine.
    pub fn is(&self, holder: &Holder) -> bool {
        let own = holder.node == self.node && holder.network == self.network;
        own && (self.since..=self.epoch).contains(&holder.epoch)
    }

    fn holder(&self) -> Holder {
        Holder { node: self.node.clone(), network: self.network.clone(), epoch: self.epoch }
    }
}

/// What is known on this node about the addresses of a block.
#[derive(Clone, Debug)]
pub(crate) struct Local<'a> {
    /// The holder.
    pub(crate) me: &'a Me,
    /// The holder's own slice.
    pub(crate) slice: &'a Runs,
    /// Addresses granted that shall stay so.
    pub(crate) granted: &'a Runs,
    /// Those of them that are unproven.
    pub(crate) unproven: &'a Runs,
    /// Addresses that are not granted and that pods use. None if nobody looked.
    pub(crate) in_use: Option<&'a Runs>,
    /// Whether the store went back, and this holder has not caught up with it.
    pub(crate) behind: bool,
    /// The rules that hold.
    pub(crate) rules: Rules,
}

/// The value to write and what it means for the grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    /// The value.
    pub(crate) block: Block,
    /// Addresses that are granted once it is written, and were not.
    pub(crate) gained: Runs,
    /// Granted addresses that are unproven once it is written.
    pub(crate) unproven: Runs,
    /// Addresses that pods use and that the store grants to somebody else.
    pub(crate) fenced: Runs,
}

/// Whether the store grants an address to this holder. The slice of a node that had no agent is the network's
/// whose slice it is.
fn is_mine(entry: &Entry, addr: IpAddr, me: &Me, slice: &Runs) -> bool {
    match entry {
        Entry::Slice(node) => *node == me.node && slice.contains(addr),
        _ => entry.holder().is_some_and(|holder| me.is(holder)),
    }
}

/// The addresses of the block that the store grants to this holder.
pub(crate) fn held(block: &Block, key: BlockKey, me: &Me, slice: &Runs) -> Runs {
    let entries = block.entries().map(|(offset, entry)| (key.address(offset), entry));
    entries.filter(|(addr, entry)| is_mine(entry, *addr, me, slice)).map(|(addr, _)| addr).collect()
}

/// What one write to the block does.
pub(crate) fn plan(block: &Block, key: BlockKey, local: &Local<'_>, aim: &Aim) -> Plan {
    let mut plan = Plan { block: block.clone(), ..Plan::default() };
    let mut wanted = match &aim.claim {
        Claim::Any(count, _) => usize::from(*count),
        _ => 0,
    };
    let free_first = [false, true];
    for (offset, addr) in key.addresses().enumerate().map(|(offset, addr)| (offset as u8, addr)) {
        let entry = settled(&mut plan, block.entry(offset), addr, local, aim);
        plan.block.set(offset, entry);
    }
    for suspect in free_first.into_iter().filter(|suspect| !suspect || aim.suspects) {
        for (offset, addr) in key.addresses().enumerate().map(|(offset, addr)| (offset as u8, addr)) {
            let asked = match &aim.claim {
                Claim::Nothing => false,
                Claim::Any(_, of) => wanted > 0 && of.contains(addr),
                Claim::These(these) => these.contains(addr),
            };
            // What was given back in this very write is not claimed again by it.
            if !asked || aim.release.contains(addr) || local.granted.contains(addr) {
                continue;
            }
            if let Some(entry) = claimed(&mut plan, offset, addr, suspect, local) {
                plan.block.set(offset, Some(entry));
                wanted = wanted.saturating_sub(1);
            }
        }
    }
    plan
}

/// The entry of an address after what this node knows of it is written down.
fn settled(
    plan: &mut Plan,
    entry: Option<&Entry>,
    addr: IpAddr,
    local: &Local<'_>,
    aim: &Aim,
) -> Option<Entry> {
    let me = local.me;
    let mine = entry.is_some_and(|entry| is_mine(entry, addr, me, local.slice));
    let suspected = matches!(entry, Some(Entry::Suspect { of, .. }) if me.is(of));
    if local.granted.contains(addr) {
        return match entry {
            Some(entry) if mine => Some(renewed(plan, entry, addr, local, aim)),
            None if local.behind => Some(granted(addr, local)),
            _ => entry.cloned(),
        };
    }
    let used = local.in_use.is_some_and(|in_use| in_use.contains(addr));
    match entry {
        // Nobody may take from a pod what nobody else has.
        _ if used && (mine || suspected || entry.is_none()) => {
            plan.gained.insert(addr);
            match entry {
                Some(entry @ Entry::Unproven { .. }) => Some(renewed(plan, entry, addr, local, aim)),
                _ => Some(granted(addr, local)),
            }
        }
        // Only a store that went back shows another's suspect here. The other does not use it.
        Some(Entry::Suspect { of, .. }) if used => {
            plan.gained.insert(addr);
            plan.unproven.insert(addr);
            Some(Entry::Unproven { by: me.holder(), of: of.clone() })
        }
        Some(_) if used => {
            plan.fenced.insert(addr);
            entry.cloned()
        }
        _ if local.behind && (mine || suspected || entry.is_none()) => {
            recovered(plan, entry, addr, local, aim.release.contains(addr))
        }
        Some(entry) if mine && !local.rules.hold(Rule::Settle) && !aim.release.contains(addr) => {
            plan.gained.insert(addr);
            Some(entry.clone())
        }
        Some(Entry::Unproven { of, .. }) if mine && local.rules.hold(Rule::BackAsSuspect) => {
            Some(Entry::Suspect { of: of.clone(), answered: None })
        }
        // A slice that is not taken up yet: pods may use it that this agent does not know.
        Some(Entry::Slice(_)) if mine && !aim.release.contains(addr) => entry.cloned(),
        // The slice stays reserved for this node, whatever interrupted its claim.
        Some(Entry::Home(_)) if mine && local.slice.contains(addr) && !aim.release.contains(addr) => {
            plan.gained.insert(addr);
            Some(granted(addr, local))
        }
        Some(_) if mine => None,
        Some(entry) => Some(aim.lost.as_ref().and_then(|lost| suspect(entry, lost)).unwrap_or(entry.clone())),
        None => None,
    }
}

/// The entry of an address that no pod here uses, after the store went back. Another node may have got it
/// since, and not be heard of yet. So an address that is not granted here any more is suspect, and a granted
/// address has to be proved.
fn recovered(
    plan: &mut Plan,
    entry: Option<&Entry>,
    addr: IpAddr,
    local: &Local<'_>,
    was_granted: bool,
) -> Option<Entry> {
    let of = match entry {
        Some(Entry::Unproven { of, .. } | Entry::Suspect { of, .. }) => of.clone(),
        Some(entry) => entry.holder().cloned().unwrap_or_else(|| local.me.holder()),
        None => local.me.holder(),
    };
    if was_granted {
        plan.gained.insert(addr);
        plan.unproven.insert(addr);
        return Some(Entry::Unproven { by: local.me.holder(), of });
    }
    match entry {
        None | Some(Entry::Suspect { .. }) => entry.cloned(),
        Some(_) => Some(Entry::Suspect { of, answered: None }),
    }
}

/// The entry of an address that this node keeps, under its epoch of now.
fn renewed(plan: &mut Plan, entry: &Entry, addr: IpAddr, local: &Local<'_>, aim: &Aim) -> Entry {
    match entry {
        Entry::Unproven { of, .. } if !aim.proven.contains(addr) => {
            plan.unproven.insert(addr);
            Entry::Unproven { by: local.me.holder(), of: of.clone() }
        }
        _ => {
            // The node may know better than the store that nobody has proved it.
            if local.unproven.contains(addr) && !aim.proven.contains(addr) {
                plan.unproven.insert(addr);
            }
            granted(addr, local)
        }
    }
}

/// The entry of an address that this node is granted.
fn granted(addr: IpAddr, local: &Local<'_>) -> Entry {
    let by = local.me.holder();
    if local.slice.contains(addr) { Entry::Home(by) } else { Entry::Granted(by) }
}

/// The entry of an address that this node claims. None if it can't.
fn claimed(plan: &mut Plan, offset: u8, addr: IpAddr, suspect: bool, local: &Local<'_>) -> Option<Entry> {
    let entry = match plan.block.entry(offset) {
        None if !suspect => granted(addr, local),
        Some(entry @ Entry::Slice(_)) if !suspect && is_mine(entry, addr, local.me, local.slice) => {
            granted(addr, local)
        }
        Some(Entry::Suspect { .. }) if suspect && !local.rules.hold(Rule::Probe) => granted(addr, local),
        Some(Entry::Suspect { of, .. }) if suspect => {
            plan.unproven.insert(addr);
            if local.rules.hold(Rule::MarkUnproven) {
                Entry::Unproven { by: local.me.holder(), of: of.clone() }
            } else {
                granted(addr, local)
            }
        }
        _ => return None,
    };
    plan.gained.insert(addr);
    Some(entry)
}

/// What becomes of another's entry if its holder is lost. None if it stays.
fn suspect(entry: &Entry, lost: &Lost) -> Option<Entry> {
    let until = if matches!(entry, Entry::Home(_)) { lost.gone } else { lost.epoch };
    let of = entry.holder().filter(|holder| holder.node == lost.node && holder.epoch <= until)?;
    Some(Entry::Suspect { of: of.clone(), answered: None })
}

//! The table of a range whose addresses a shared pool grants. It has no address that was never assigned: what
//! is granted and not held is in the queue, and nothing else.

use std::io;
use std::net::IpAddr;

use kernel::open;
use vlan_bridge_pool::runs::Runs;

use super::layout::{AddressState, ENTRY, Entry, HEAD};
use super::{AddressRange, FreedAddress, RangeTable};

impl RangeTable {
    /// Offers what is granted, and nothing else. What is new comes first in the queue, because it has rested
    /// elsewhere. Reads the file once, and writes only what differs. Returns what is offered no more.
    pub(in crate::store) fn show(&mut self, granted: &Runs, now: u32) -> io::Result<Vec<IpAddr>> {
        let known = self.entries()?;
        let mut withdrawn = Vec::new();
        for (position, entry) in &known {
            let addr = self.span.address(*position);
            if entry.is_queued() && !granted.contains(addr) {
                self.forget(addr)?;
                withdrawn.push(addr);
            }
        }
        // Each one goes to the head of the queue, so the last comes first.
        for (first, last) in granted.iter_runs().collect::<Vec<_>>().into_iter().rev() {
            let Some((first, last)) = self.span.positions(first, last) else { continue };
            for position in (first..=last).rev() {
                if known.binary_search_by_key(&position, |(position, _)| *position).is_err() {
                    self.push_first(position, now)?;
                }
            }
        }
        Ok(withdrawn)
    }

    /// Records that an address is neither held nor offered.
    pub(in crate::store) fn forget(&mut self, addr: IpAddr) -> io::Result<()> {
        let Some(position) = self.span.position(addr) else { return Ok(()) };
        let entry = self.entry(position)?;
        if entry.is_queued() {
            self.unlink(entry)?;
        }
        if entry.state != AddressState::Fresh {
            self.put(position, Entry::default())?;
        }
        Ok(())
    }

    /// The addresses of the queue that became free up to one time, or that were granted up to another.
    pub(in crate::store) fn rested(&self, freed: u32, granted: u32) -> io::Result<Vec<FreedAddress>> {
        let has_rested = |entry: &Entry| match entry.state {
            AddressState::Free => entry.at <= freed,
            AddressState::Granted => entry.at <= granted,
            AddressState::Fresh | AddressState::Held => false,
        };
        let known = self.entries()?.into_iter().filter(|(_, entry)| has_rested(entry));
        let rested = known.map(|(position, entry)| (self.span.address(position), entry.at));
        Ok(rested.map(|(addr, at)| FreedAddress { addr, at }).collect())
    }

    /// How many addresses are in the queue.
    pub(in crate::store) fn queued(&self) -> u32 {
        self.head.free
    }

    /// Puts an address at the head of the queue.
    fn push_first(&mut self, position: u32, now: u32) -> io::Result<()> {
        let next = self.head.longest_free;
        self.put(position, Entry { state: AddressState::Granted, at: now, next, previous: 0 })?;
        match next.checked_sub(1) {
            Some(first) => {
                let entry = self.entry(first)?;
                self.put(first, Entry { previous: position + 1, ..entry })?;
            }
            None => self.head.last_freed = position + 1,
        }
        self.head.longest_free = position + 1;
        self.head.free += 1;
        self.changed = true;
        Ok(())
    }

    /// Every entry that is not empty, with its position, in order.
    fn entries(&self) -> io::Result<Vec<(u32, Entry)>> {
        let bytes = open::read_at(&self.file, HEAD, ENTRY * u64::from(self.span.window()))?;
        let entries = (0..).zip(bytes.as_chunks::<{ ENTRY as usize }>().0);
        let known = entries.map(|(position, bytes)| (position, Entry::decode(bytes)));
        Ok(known.filter(|(_, entry)| entry.state != AddressState::Fresh).collect())
    }
}

impl AddressRange {
    /// The first and last position of these addresses, as far as they have entries.
    fn positions(&self, first: IpAddr, last: IpAddr) -> Option<(u32, u32)> {
        let end = self.address(self.window().checked_sub(1)?);
        let (first, last) = (first.max(self.first), last.min(end));
        Some((self.position(first)?, self.position(last)?)).filter(|(first, last)| first <= last)
    }
}

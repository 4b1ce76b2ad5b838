//! The addresses of one range and their order: first those that were never assigned, then the one that has
//! been free the longest.
//!
//! The file has one entry of fixed size for each address, at a computed offset. Any query reads only a few
//! bytes, however many addresses are held. The entries of free addresses form a linked queue. The file is
//! rebuilt from the leases whenever the [index](super::index) says that it may be wrong.
//!
//! A head of 32 bytes is followed by an entry of 16 bytes for each address. All numbers are little-endian. A
//! position is stored plus one. Zero means none. Entries after the end of the file are all zero.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;

use cni_conf::family::Family;
use kernel::open;

use crate::allocate::Offer;
use layout::{AddressState, ENTRY, Entry, HEAD, Head, offset};
pub(super) use make::Fresh;

mod layout;
mod make;
mod shared;
#[cfg(test)]
mod tests;

/// So many addresses of a range are assigned, from its first on. The others must be requested.
pub(crate) const WINDOW: u128 = 1 << 20;
/// When so many free addresses are recorded, the one that has been free the longest comes before those that
/// were never assigned. This limits the size of a large range's table.
const MEMORY: u32 = 1 << 16;

/// The first and last address of a range, which are also the name of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressRange {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

/// The open table of a range.
#[derive(Debug)]
pub(super) struct RangeTable {
    file: File,
    span: AddressRange,
    head: Head,
    /// Whether the head must be written.
    changed: bool,
}

/// A free address, and when it became free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreedAddress {
    pub(super) addr: IpAddr,
    pub(super) at: u32,
}

impl AddressRange {
    /// Parses a table's name.
    pub(super) fn parse(name: &str) -> Option<AddressRange> {
        let (first, last) = name.split_once('-')?;
        let span = AddressRange { first: first.parse().ok()?, last: last.parse().ok()? };
        (Family::of(span.first) == Family::of(span.last) && bits(span.first) <= bits(span.last))
            .then_some(span)
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }

    /// Whether the address is in the range.
    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        Family::of(addr) == Family::of(self.first) && self.first <= addr && addr <= self.last
    }

    /// The number of addresses.
    pub(super) fn len(&self) -> u128 {
        (bits(self.last) - bits(self.first)).saturating_add(1)
    }

    /// The number of addresses that have an entry.
    fn window(&self) -> u32 {
        u32::try_from(self.len().min(WINDOW)).unwrap_or(u32::MAX)
    }

    /// Whether an address has an entry.
    pub(super) fn covers(&self, addr: IpAddr) -> bool {
        self.position(addr).is_some()
    }

    fn position(&self, addr: IpAddr) -> Option<u32> {
        let offset = bits(addr).checked_sub(bits(self.first))?;
        let position = u32::try_from(offset).ok()?;
        (Family::of(addr) == Family::of(self.first) && position < self.window()).then_some(position)
    }

    fn address(&self, position: u32) -> IpAddr {
        let bits = bits(self.first).saturating_add(position.into());
        match (self.first, u32::try_from(bits)) {
            (IpAddr::V4(_), Ok(bits)) => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl RangeTable {
    /// Opens a table. `None` if there is none, or if the file is no table.
    pub(super) fn open(path: &Path, span: AddressRange) -> Option<RangeTable> {
        let file = open::options().read(true).write(true).open(path).ok()?;
        let mut bytes = [0; HEAD as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let head = Head::decode(&bytes, span.window())?;
        Some(RangeTable { file, span, head, changed: false })
    }

    /// The next address that was never assigned. It stays the next one until it is held.
    pub(super) fn fresh(&mut self, offered: impl Fn(IpAddr) -> Offer) -> io::Result<Option<IpAddr>> {
        let window = self.span.window();
        while self.head.left > 0 {
            let position = self.head.cursor;
            let Some(end) = self.passes(position, &offered)? else {
                return Ok(Some(self.span.address(position)));
            };
            self.head.left = self.head.left.saturating_sub(end - position);
            self.head.cursor = end % window;
            self.changed = true;
        }
        Ok(None)
    }

    /// Whether the search for an address that was never assigned stops at a position (none), or continues at
    /// another.
    fn passes(&self, position: u32, offered: &impl Fn(IpAddr) -> Offer) -> io::Result<Option<u32>> {
        let window = self.span.window();
        let entry = self.entry(position)?;
        let end = match (entry.state, offered(self.span.address(position))) {
            (AddressState::Fresh, Offer::Yes) => return Ok(None),
            (AddressState::Held, _) => entry.next.max(position + 1),
            (_, Offer::NotUntil(last)) => self.span.position(last).map_or(window, |last| last + 1),
            _ => position + 1,
        };
        Ok(Some(end.min(window)))
    }

    /// Up to `most` addresses that were never assigned, in the order of their assignment.
    pub(super) fn next_fresh(
        &self,
        offered: impl Fn(IpAddr) -> Offer,
        most: usize,
    ) -> io::Result<Vec<IpAddr>> {
        let (window, mut found) = (self.span.window(), Vec::new());
        let (mut position, mut left) = (self.head.cursor, self.head.left);
        while left > 0 && found.len() < most {
            let end = match self.passes(position, &offered)? {
                Some(end) => end,
                None => {
                    found.push(self.span.address(position));
                    position + 1
                }
            };
            left = left.saturating_sub(end - position);
            position = end % window;
        }
        Ok(found)
    }

    /// Up to `most` addresses that have been free the longest.
    pub(super) fn next_free(
        &self,
        offered: impl Fn(IpAddr) -> Offer,
        most: usize,
    ) -> io::Result<Vec<FreedAddress>> {
        let (mut next, mut found) = (self.head.longest_free, Vec::new());
        for _ in 0..self.head.free {
            let Some(position) = next.checked_sub(1).filter(|_| found.len() < most) else { break };
            let (entry, addr) = (self.entry(position)?, self.span.address(position));
            if entry.is_queued() && offered(addr) == Offer::Yes {
                found.push(FreedAddress { addr, at: entry.at });
            }
            next = entry.next;
        }
        Ok(found)
    }

    /// Of the offered addresses, the one that has been free the longest.
    pub(super) fn longest_free(&self, offered: impl Fn(IpAddr) -> Offer) -> io::Result<Option<FreedAddress>> {
        let mut next = self.head.longest_free;
        // The limit ends the search even if the queue is circular.
        for _ in 0..self.head.free {
            let Some(position) = next.checked_sub(1) else { break };
            let (entry, addr) = (self.entry(position)?, self.span.address(position));
            if entry.is_queued() && offered(addr) == Offer::Yes {
                return Ok(Some(FreedAddress { addr, at: entry.at }));
            }
            next = entry.next;
        }
        Ok(None)
    }

    /// The addresses that became free after `since`, the latest first.
    pub(super) fn freed_after(&self, since: u32) -> io::Result<Vec<FreedAddress>> {
        let (mut next, mut freed) = (self.head.last_freed, Vec::new());
        for _ in 0..self.head.free {
            let Some(position) = next.checked_sub(1) else { break };
            let entry = self.entry(position)?;
            // Behind the addresses that were granted, none was freed.
            if entry.state != AddressState::Free || entry.at <= since {
                break;
            }
            freed.push(FreedAddress { addr: self.span.address(position), at: entry.at });
            next = entry.previous;
        }
        Ok(freed)
    }

    /// The number of addresses of the range that may be assigned, according to the last ADD.
    pub(super) fn capacity(&self) -> u32 {
        self.head.capacity
    }

    /// Records the number of addresses of the range that may be assigned.
    pub(super) fn set_capacity(&mut self, capacity: u128) {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        self.changed |= self.head.capacity != capacity;
        self.head.capacity = capacity;
    }

    /// Whether the address that has been free the longest comes before those that were never assigned.
    pub(super) fn is_large(&self) -> bool {
        self.head.free >= MEMORY
    }

    /// Records that an address is held.
    pub(super) fn hold(&mut self, addr: IpAddr) -> io::Result<()> {
        let Some(position) = self.span.position(addr) else { return Ok(()) };
        let entry = self.entry(position)?;
        if entry.is_queued() {
            self.unlink(entry)?;
        }
        if entry.state != AddressState::Held {
            self.put(position, Entry { state: AddressState::Held, ..Entry::default() })?;
        }
        Ok(())
    }

    /// Records that an address is free since `now`.
    pub(super) fn free(&mut self, addr: IpAddr, now: u32) -> io::Result<()> {
        let Some(position) = self.span.position(addr) else { return Ok(()) };
        if self.entry(position)?.is_queued() {
            return Ok(());
        }
        let previous = self.head.last_freed;
        self.put(position, Entry { state: AddressState::Free, at: now, next: 0, previous })?;
        match previous.checked_sub(1) {
            Some(last) => {
                let entry = self.entry(last)?;
                self.put(last, Entry { next: position + 1, ..entry })?;
            }
            None => self.head.longest_free = position + 1,
        }
        self.head.last_freed = position + 1;
        self.head.free += 1;
        self.changed = true;
        Ok(())
    }

    /// Whether an address was never assigned.
    pub(super) fn is_fresh(&self, addr: IpAddr) -> io::Result<bool> {
        let Some(position) = self.span.position(addr) else { return Ok(false) };
        Ok(self.entry(position)?.state == AddressState::Fresh)
    }

    /// Writes the head, if it has changed.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.changed) {
            self.file.write_all_at(&self.head.encode(), 0)?;
        }
        Ok(())
    }

    /// Removes an entry from the queue.
    fn unlink(&mut self, entry: Entry) -> io::Result<()> {
        match entry.previous.checked_sub(1) {
            Some(position) => {
                let before = self.entry(position)?;
                self.put(position, Entry { next: entry.next, ..before })?;
            }
            None => self.head.longest_free = entry.next,
        }
        match entry.next.checked_sub(1) {
            Some(position) => {
                let behind = self.entry(position)?;
                self.put(position, Entry { previous: entry.previous, ..behind })?;
            }
            None => self.head.last_freed = entry.previous,
        }
        self.head.free = self.head.free.saturating_sub(1);
        self.changed = true;
        Ok(())
    }

    /// The entry of an address. An empty one if the address is outside the range.
    fn entry(&self, position: u32) -> io::Result<Entry> {
        if position >= self.span.window() {
            return Ok(Entry::default());
        }
        let mut bytes = [0; ENTRY as usize];
        match self.file.read_exact_at(&mut bytes, offset(position)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Entry::default()),
            Err(error) => Err(error),
            Ok(()) => Ok(Entry::decode(&bytes)),
        }
    }

    fn put(&self, position: u32, entry: Entry) -> io::Result<()> {
        if position >= self.span.window() {
            return Err(io::Error::other("an entry points outside the table"));
        }
        self.file.write_all_at(&entry.encode(), offset(position))
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

//! The addresses of one range, and in which order they come: first those that were never given, then the one
//! that has been free the longest.
//!
//! A file of fixed entries, one for each address, found by arithmetic: any question costs a few reads of some
//! bytes, however many addresses are held. Entries of free addresses are linked to a queue. All of it can be
//! made anew from the leases, and is, whenever the [index](super::index) says that it may be wrong.
//!
//! A head of 32 bytes, then an entry of 16 bytes for each address, all numbers little-endian. A position is
//! stored plus one; zero is none. Entries behind the end of the file are all zero.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;

use cni_conf::family::Family;
use kernel::open;

use crate::allocate::Offer;
use layout::{ENTRY, Entry, HEAD, Head, State, offset};

mod layout;
#[cfg(test)]
mod tests;

/// How many addresses of a range are handed out of their own accord, from its first on. Of a larger range,
/// such as a v6 /64, the others can be requested.
pub(super) const WINDOW: u128 = 1 << 20;
/// So many free addresses are remembered before the longest-free one is used again although there are others
/// that never were: what a large range costs on disk stays bounded.
const MEMORY: u32 = 1 << 16;

/// The first and last address of a range, which are also the name of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AddressRange {
    pub(super) first: IpAddr,
    pub(super) last: IpAddr,
}

/// A range's table, open.
#[derive(Debug)]
pub(super) struct Table {
    file: File,
    span: AddressRange,
    head: Head,
    /// Whether the head is to be written.
    changed: bool,
}

/// An address that has been free the longest, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreedAddress {
    pub(super) addr: IpAddr,
    pub(super) at: u32,
}

impl AddressRange {
    /// Reads a table's name.
    pub(super) fn parse(name: &str) -> Option<AddressRange> {
        let (first, last) = name.split_once('-')?;
        let span = AddressRange { first: first.parse().ok()?, last: last.parse().ok()? };
        (Family::of(span.first) == Family::of(span.last) && bits(span.first) <= bits(span.last))
            .then_some(span)
    }

    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.first, self.last)
    }

    /// Whether an address is between the two.
    pub(super) fn contains(&self, addr: IpAddr) -> bool {
        Family::of(addr) == Family::of(self.first) && self.first <= addr && addr <= self.last
    }

    /// How many addresses have an entry.
    fn window(&self) -> u32 {
        let len = (bits(self.last) - bits(self.first)).saturating_add(1);
        u32::try_from(len.min(WINDOW)).unwrap_or(u32::MAX)
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

impl Table {
    /// Opens a table. `None` when there is none, or something else in its place.
    pub(super) fn open(path: &Path, span: AddressRange) -> Option<Table> {
        let file = open::options().read(true).write(true).open(path).ok()?;
        let mut bytes = [0; HEAD as usize];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let head = Head::decode(&bytes, span.window())?;
        Some(Table { file, span, head, changed: false })
    }

    /// Makes a table, in the place of one that may have been there: what is held, and what the old one knows
    /// of how long the others have been free. What was held and is no more became free at `now`. Without an
    /// old one the search begins behind `last`.
    pub(super) fn make(
        path: &Path,
        span: AddressRange,
        held: &BTreeSet<IpAddr>,
        last: Option<IpAddr>,
        now: u32,
    ) -> io::Result<Table> {
        let held: BTreeSet<u32> = held.iter().filter_map(|addr| span.position(*addr)).collect();
        let window = span.window();
        let old = open::read(path, offset(window)).ok().and_then(|bytes| Old::read(&bytes, window));
        let (mut head, mut free) = match old {
            Some(old) => (Head { free: 0, ..old.head }, old.free),
            None => {
                let cursor = last.and_then(|addr| span.position(addr)).map_or(0, |last| (last + 1) % window);
                (Head { cursor, left: window, ..Head::default() }, Vec::new())
            }
        };
        free.retain(|(_, position)| !held.contains(position));
        for (at, _) in &mut free {
            *at = (*at).min(now);
        }
        free.sort_unstable();
        let end = held.last().into_iter().chain(free.iter().map(|(_, position)| position)).max();
        let mut bytes = vec![0; (HEAD + ENTRY * end.map_or(0, |end| u64::from(*end) + 1)) as usize];
        let mut put = |position: u32, entry: Entry| {
            let start = offset(position) as usize;
            bytes[start..start + ENTRY as usize].copy_from_slice(&entry.encode());
        };
        let mut run_end = 0;
        for position in held.iter().rev() {
            run_end = if held.contains(&(position + 1)) { run_end } else { position + 1 };
            put(*position, Entry { state: State::Held, next: run_end, ..Entry::default() });
        }
        for (i, (at, position)) in free.iter().enumerate() {
            let neighbour = |i: Option<usize>| i.and_then(|i| free.get(i)).map_or(0, |(_, p)| p + 1);
            let (next, previous) = (neighbour(Some(i + 1)), neighbour(i.checked_sub(1)));
            put(*position, Entry { state: State::Free, at: *at, next, previous });
        }
        head.longest_free = free.first().map_or(0, |(_, position)| position + 1);
        head.last_freed = free.last().map_or(0, |(_, position)| position + 1);
        head.free = u32::try_from(free.len()).unwrap_or(u32::MAX);
        bytes[..HEAD as usize].copy_from_slice(&head.encode());
        // Whatever is in its place, even something that is no file, or of which nobody knows how large it is.
        let _ = std::fs::remove_file(path);
        let file = open::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&bytes, 0)?;
        Ok(Table { file, span, head, changed: false })
    }

    /// The next address that was never given. It stays the next until somebody holds it.
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

    /// The search for an address that was never given stops at a position (none), or goes on at another.
    fn passes(&self, position: u32, offered: &impl Fn(IpAddr) -> Offer) -> io::Result<Option<u32>> {
        let window = self.span.window();
        let entry = self.entry(position)?;
        let end = match (entry.state, offered(self.span.address(position))) {
            (State::Fresh, Offer::Yes) => return Ok(None),
            (State::Held, _) => entry.next.max(position + 1),
            (_, Offer::NotUntil(last)) => self.span.position(last).map_or(window, |last| last + 1),
            _ => position + 1,
        };
        Ok(Some(end.min(window)))
    }

    /// Up to `most` addresses that were never given, in the order in which they will be.
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

    /// Up to `most` of the addresses that have been free the longest.
    pub(super) fn next_free(
        &self,
        offered: impl Fn(IpAddr) -> Offer,
        most: usize,
    ) -> io::Result<Vec<FreedAddress>> {
        let (mut next, mut found) = (self.head.longest_free, Vec::new());
        for _ in 0..self.head.free {
            let Some(position) = next.checked_sub(1).filter(|_| found.len() < most) else { break };
            let (entry, addr) = (self.entry(position)?, self.span.address(position));
            if entry.state == State::Free && offered(addr) == Offer::Yes {
                found.push(FreedAddress { addr, at: entry.at });
            }
            next = entry.next;
        }
        Ok(found)
    }

    /// The address that has been free the longest of those that are offered.
    pub(super) fn longest_free(&self, offered: impl Fn(IpAddr) -> Offer) -> io::Result<Option<FreedAddress>> {
        let mut next = self.head.longest_free;
        // A queue that leads in a circle ends, too.
        for _ in 0..self.head.free {
            let Some(position) = next.checked_sub(1) else { break };
            let (entry, addr) = (self.entry(position)?, self.span.address(position));
            if entry.state == State::Free && offered(addr) == Offer::Yes {
                return Ok(Some(FreedAddress { addr, at: entry.at }));
            }
            next = entry.next;
        }
        Ok(None)
    }

    /// The free addresses that became free after `since`, the last one first.
    pub(super) fn freed_after(&self, since: u32) -> io::Result<Vec<FreedAddress>> {
        let (mut next, mut freed) = (self.head.last_freed, Vec::new());
        while freed.len() < self.head.free as usize
            && let Some(position) = next.checked_sub(1)
        {
            let entry = self.entry(position)?;
            if entry.state != State::Free || entry.at <= since {
                break;
            }
            freed.push(FreedAddress { addr: self.span.address(position), at: entry.at });
            next = entry.previous;
        }
        Ok(freed)
    }

    /// How many addresses of the range may be given, as the last ADD had it.
    pub(super) fn capacity(&self) -> u32 {
        self.head.capacity
    }

    /// Notes how many addresses of the range may be given.
    pub(super) fn set_capacity(&mut self, capacity: u128) {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        self.changed |= self.head.capacity != capacity;
        self.head.capacity = capacity;
    }

    /// Whether the longest-free address comes before one that was never given.
    pub(super) fn is_large(&self) -> bool {
        self.head.free >= MEMORY
    }

    /// Notes that an address is held.
    pub(super) fn hold(&mut self, addr: IpAddr) -> io::Result<()> {
        let Some(position) = self.span.position(addr) else { return Ok(()) };
        let entry = self.entry(position)?;
        if entry.state == State::Free {
            self.unlink(entry)?;
        }
        if entry.state != State::Held {
            self.put(position, Entry { state: State::Held, ..Entry::default() })?;
        }
        Ok(())
    }

    /// Notes that an address is free since `now`.
    pub(super) fn free(&mut self, addr: IpAddr, now: u32) -> io::Result<()> {
        let Some(position) = self.span.position(addr) else { return Ok(()) };
        if self.entry(position)?.state == State::Free {
            return Ok(());
        }
        let previous = self.head.last_freed;
        self.put(position, Entry { state: State::Free, at: now, next: 0, previous })?;
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

    /// Whether an address was never given.
    pub(super) fn is_fresh(&self, addr: IpAddr) -> io::Result<bool> {
        let Some(position) = self.span.position(addr) else { return Ok(false) };
        Ok(self.entry(position)?.state == State::Fresh)
    }

    /// Writes the head, if it has changed.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.changed) {
            self.file.write_all_at(&self.head.encode(), 0)?;
        }
        Ok(())
    }

    /// Takes an entry out of the queue.
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

    /// What is known of an address; nothing of one that the range does not have.
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
            return Err(io::Error::other("an entry leads out of the table"));
        }
        self.file.write_all_at(&entry.encode(), offset(position))
    }
}

/// What a table that is to be replaced knows.
struct Old {
    head: Head,
    /// When they became free, and their positions. What was held comes with the latest time there is.
    free: Vec<(u32, u32)>,
}

impl Old {
    fn read(bytes: &[u8], window: u32) -> Option<Old> {
        let (head, entries) = bytes.split_first_chunk::<{ HEAD as usize }>()?;
        let head = Head::decode(head, window)?;
        let mut free = Vec::new();
        for (position, bytes) in (0..window).zip(entries.chunks_exact(ENTRY as usize)) {
            let entry = Entry::decode(bytes.try_into().ok()?);
            match entry.state {
                State::Fresh => {}
                State::Held => free.push((u32::MAX, position)),
                State::Free => free.push((entry.at, position)),
            }
        }
        Some(Old { head, free })
    }
}

fn bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

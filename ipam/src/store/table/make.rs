//! Makes tables.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;

use kernel::open;

use super::layout::{AddressState, ENTRY, Entry, HEAD, Head, offset};
use super::{AddressRange, RangeTable};

/// The addresses of a new table that were never assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Fresh {
    /// All that are neither held nor free. The search for them begins after this one.
    After(Option<IpAddr>),
    /// None: the table offers only what a shared pool grants, see [`RangeTable::show`].
    None,
}

impl RangeTable {
    /// Builds a table and replaces an existing one. The held addresses are given. How long the other
    /// addresses have been free comes from the old table. Addresses that the old table has as held and that
    /// no longer are became free at `now`.
    pub(in crate::store) fn make(
        path: &Path,
        span: AddressRange,
        held: &BTreeSet<IpAddr>,
        fresh: Fresh,
        now: u32,
    ) -> io::Result<RangeTable> {
        let held: BTreeSet<u32> = held.iter().filter_map(|addr| span.position(*addr)).collect();
        let window = span.window();
        let old = open::read(path, offset(window)).ok().and_then(|bytes| Old::read(&bytes, window));
        let (old, mut free) = old.map_or((None, Vec::new()), |old| (Some(old.head), old.free));
        let mut head = match fresh {
            Fresh::None => Head::default(),
            Fresh::After(last) => old.unwrap_or_else(|| {
                let cursor = last.and_then(|addr| span.position(addr)).map_or(0, |last| (last + 1) % window);
                Head { cursor, left: window, ..Head::default() }
            }),
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
            put(*position, Entry { state: AddressState::Held, next: run_end, ..Entry::default() });
        }
        for (i, (at, position)) in free.iter().enumerate() {
            let neighbour = |i: Option<usize>| i.and_then(|i| free.get(i)).map_or(0, |(_, p)| p + 1);
            let (next, previous) = (neighbour(Some(i + 1)), neighbour(i.checked_sub(1)));
            put(*position, Entry { state: AddressState::Free, at: *at, next, previous });
        }
        head.longest_free = free.first().map_or(0, |(_, position)| position + 1);
        head.last_freed = free.last().map_or(0, |(_, position)| position + 1);
        head.free = u32::try_from(free.len()).unwrap_or(u32::MAX);
        bytes[..HEAD as usize].copy_from_slice(&head.encode());
        // Any existing file is removed, even if it is not a regular file or its size is unknown.
        let _ = std::fs::remove_file(path);
        let file = open::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&bytes, 0)?;
        Ok(RangeTable { file, span, head, changed: false })
    }
}

/// The content of a table that is being replaced.
struct Old {
    head: Head,
    /// When each address became free, and its position. Held addresses have the latest possible time.
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
                // What a shared pool grants is added again.
                AddressState::Fresh | AddressState::Granted => {}
                AddressState::Held => free.push((u32::MAX, position)),
                AddressState::Free => free.push((entry.at, position)),
            }
        }
        Some(Old { head, free })
    }
}

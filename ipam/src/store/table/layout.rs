//! The layout of a table.

/// The first bytes of a table, with the version of its layout.
const MAGIC: [u8; 8] = *b"vbrange1";
/// Length of the head in bytes.
pub(super) const HEAD: u64 = 32;
/// Length of an entry in bytes.
pub(super) const ENTRY: u64 = 16;

/// The state of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum AddressState {
    /// Never assigned.
    #[default]
    Fresh,
    Held,
    Free,
    /// Granted by a shared pool, and not assigned since.
    Granted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Entry {
    pub(super) state: AddressState,
    /// When it became free or was granted, in tenths of a second since the boot.
    pub(super) at: u32,
    /// Free or granted: the next address in the queue. Held: the end of its run of held addresses when the
    /// table was built.
    pub(super) next: u32,
    /// Free or granted: the previous address in the queue.
    pub(super) previous: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Head {
    /// Where the search for an address that was never assigned continues.
    pub(super) cursor: u32,
    /// The number of addresses that the cursor has not passed.
    pub(super) left: u32,
    /// The queue of free addresses.
    pub(super) longest_free: u32,
    pub(super) last_freed: u32,
    pub(super) free: u32,
    /// The number of addresses that may be assigned, all ones for more. Only for display.
    pub(super) capacity: u32,
}

impl Head {
    pub(super) fn decode(bytes: &[u8; HEAD as usize], window: u32) -> Option<Head> {
        let word = |i: usize| word(bytes, i);
        let head = Head {
            cursor: word(2),
            left: word(3),
            longest_free: word(4),
            last_freed: word(5),
            free: word(6),
            capacity: word(7),
        };
        let sane = bytes[..8] == MAGIC
            && head.cursor < window
            && [head.left, head.longest_free, head.last_freed, head.free].iter().all(|n| *n <= window);
        sane.then_some(head)
    }

    pub(super) fn encode(&self) -> [u8; HEAD as usize] {
        let mut bytes = [0; HEAD as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        let words = [self.cursor, self.left, self.longest_free, self.last_freed, self.free, self.capacity];
        bytes[8..32].copy_from_slice(words.map(u32::to_le_bytes).as_flattened());
        bytes
    }
}

impl Entry {
    /// Whether the address is in the queue.
    pub(super) fn is_queued(self) -> bool {
        matches!(self.state, AddressState::Free | AddressState::Granted)
    }

    pub(super) fn decode(bytes: &[u8; ENTRY as usize]) -> Entry {
        let state = match bytes[0] {
            1 => AddressState::Held,
            2 => AddressState::Free,
            3 => AddressState::Granted,
            _ => AddressState::Fresh,
        };
        Entry { state, at: word(bytes, 1), next: word(bytes, 2), previous: word(bytes, 3) }
    }

    pub(super) fn encode(&self) -> [u8; ENTRY as usize] {
        let state = match self.state {
            AddressState::Fresh => 0,
            AddressState::Held => 1,
            AddressState::Free => 2,
            AddressState::Granted => 3,
        };
        let mut bytes = [0; ENTRY as usize];
        bytes
            .copy_from_slice([state, self.at, self.next, self.previous].map(u32::to_le_bytes).as_flattened());
        bytes
    }
}

fn word(bytes: &[u8], i: usize) -> u32 {
    bytes.get(i * 4..i * 4 + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// The offset of an entry.
pub(super) fn offset(position: u32) -> u64 {
    HEAD + ENTRY * u64::from(position)
}

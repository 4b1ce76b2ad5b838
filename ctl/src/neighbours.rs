//! The kernel's neighbour tables. There is one for each family, which all network namespaces of the machine
//! share.

/// A neighbour table, as `/proc/net/stat/arp_cache` or `ndisc_cache` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NeighbourTable {
    pub(crate) ipv6: bool,
    /// How many there are, in all namespaces. Permanent ones are among them, which do not count against the
    /// limit (before Linux 5.0 they do).
    pub(crate) entries: u64,
    /// `gc_thresh3`: so many are kept; to one more the kernel answers ENOBUFS.
    pub(crate) limit: u64,
    /// How often it has answered so since the boot (`table_fulls`).
    pub(crate) fulls: u64,
}

impl NeighbourTable {
    /// Reads the kernel's text: a line of names, and a line of hexadecimal numbers for each processor.
    pub(crate) fn parse(ipv6: bool, text: &str, limit: u64) -> Option<NeighbourTable> {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next()?.split_whitespace().collect();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        let column = |name: &str| {
            let index = names.iter().position(|there| *there == name)?;
            rows.iter().map(|row| u64::from_str_radix(row.get(index)?, 16).ok()).collect::<Option<Vec<u64>>>()
        };
        // The number of entries is the table's, and each processor's line repeats it.
        let entries = *column("entries")?.first()?;
        Some(NeighbourTable { ipv6, entries, limit, fulls: column("table_fulls")?.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let text = "entries  allocs   lookups  table_fulls\n\
                    000003e8 00000002 00000004 0000000f\n\
                    000003e8 00000000 00000003 00000001\n";
        let expected = NeighbourTable { ipv6: false, entries: 1000, limit: 1024, fulls: 16 };
        assert_eq!(NeighbourTable::parse(false, text, 1024), Some(expected));
        for unlike in
            ["", "entries allocs\n00000001 00000002\n", "entries table_fulls\n", "entries table_fulls\nx y\n"]
        {
            assert_eq!(NeighbourTable::parse(false, unlike, 1024), None, "{unlike:?}");
        }
    }
}

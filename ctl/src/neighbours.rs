//! The kernel's neighbour tables, one for each address family. All network namespaces of the machine share
//! them.

use cni_conf::family::Family;

/// A neighbour table, from `/proc/net/stat/arp_cache` or `ndisc_cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NeighbourTable {
    pub(crate) family: Family,
    /// The number of entries in all namespaces. It includes permanent entries, which do not count against
    /// the limit since Linux 5.0.
    pub(crate) entries: u64,
    /// `gc_thresh3`: the largest number of entries. Beyond it the kernel returns ENOBUFS.
    pub(crate) limit: u64,
    /// How often it was full since boot (`table_fulls`).
    pub(crate) fulls: u64,
}

impl NeighbourTable {
    /// Parses the kernel's text: a line of column names, then a line of hexadecimal numbers for each CPU.
    pub(crate) fn parse(family: Family, text: &str, limit: u64) -> Option<NeighbourTable> {
        let mut lines = text.lines();
        let names: Vec<&str> = lines.next()?.split_whitespace().collect();
        let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
        let column = |name: &str| {
            let index = names.iter().position(|there| *there == name)?;
            rows.iter().map(|row| u64::from_str_radix(row.get(index)?, 16).ok()).collect::<Option<Vec<u64>>>()
        };
        // Each CPU's line repeats the number of entries of the whole table.
        let entries = *column("entries")?.first()?;
        Some(NeighbourTable { family, entries, limit, fulls: column("table_fulls")?.iter().sum() })
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
        let expected = NeighbourTable { family: Family::V4, entries: 1000, limit: 1024, fulls: 16 };
        assert_eq!(NeighbourTable::parse(Family::V4, text, 1024), Some(expected));
        for unlike in
            ["", "entries allocs\n00000001 00000002\n", "entries table_fulls\n", "entries table_fulls\nx y\n"]
        {
            assert_eq!(NeighbourTable::parse(Family::V4, unlike, 1024), None, "{unlike:?}");
        }
    }
}

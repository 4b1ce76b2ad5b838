//! Whether the kernel's neighbour tables are large enough for the VLANs of the pods.

use super::finding::Finding;
use crate::facts::Facts;
use crate::neighbours::NeighbourTable;

const CHECK: &str = "neighbours";

/// The smallest recommended gc_thresh3. The kernel's default is 1024.
const MIN_RECOMMENDED: u64 = 4096;

/// The usage of the tables, and whether they overflowed.
pub(super) fn tables(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.neighbours.iter().filter_map(nearly_full).collect();
    if findings.is_empty() && !facts.neighbours.is_empty() {
        let tables: Vec<String> = facts.neighbours.iter().map(described).collect();
        findings.push(Finding::ok(CHECK, tables.join("; ")));
    }
    findings
}

fn described(table: &NeighbourTable) -> String {
    let family = table.family;
    let fulls = match table.fulls {
        0 => String::new(),
        fulls => format!(", full {fulls} times since boot"),
    };
    format!("{family}: {} entries, gc_thresh3 {}{fulls}", table.entries, table.limit)
}

/// A table that is nearly full, or that overflowed and whose limit is still below the recommendation.
fn nearly_full(table: &NeighbourTable) -> Option<Finding> {
    let recommended = (4 * table.entries).next_power_of_two().max(MIN_RECOMMENDED);
    let is_nearly_full = 5 * table.entries >= 4 * table.limit;
    let was_full = table.fulls > 0 && table.limit < recommended;
    let why = "all pods and this node share it: when it is full, sending to a new neighbour fails with ENOBUFS, and the kernel logs \"neighbor table overflow\"";
    let finding = match (is_nearly_full, was_full) {
        (true, true) => Finding::fail(CHECK, described(table), why),
        (false, false) => return None,
        _ => Finding::warn(CHECK, described(table), why),
    };
    let family = table.family.sysctl_folder();
    let path = format!("/etc/sysctl.d/90-neighbours-{family}.conf");
    let key = |name: &str, value: u64| format!("net.{family}.neigh.default.{name} = {value}\\n");
    let lines = key("gc_thresh2", recommended / 2) + &key("gc_thresh3", recommended);
    Some(finding.fix(format!("printf '{lines}' > {path}")).fix(format!("sysctl -p {path}")))
}

#[cfg(test)]
mod tests {
    use cni_conf::family::Family;

    use super::*;

    #[test]
    fn a_table_is_named_when_it_is_nearly_full_or_was_full() {
        let judge = |entries, limit, fulls| {
            let neighbours = vec![NeighbourTable { family: Family::V6, entries, limit, fulls }];
            let findings = tables(&Facts { neighbours, ..Facts::default() });
            assert_eq!(findings.len(), 1, "{findings:?}");
            findings[0].to_string()
        };
        assert_eq!(judge(3, 1024, 0), "ok    neighbours    IPv6: 3 entries, gc_thresh3 1024");
        assert!(judge(819, 1024, 0).starts_with("ok "));
        let nearly_full = judge(820, 1024, 0);
        assert!(
            nearly_full.starts_with("warn  neighbours    IPv6: 820 entries, gc_thresh3 1024\n"),
            "{nearly_full}"
        );
        let cure = "printf 'net.ipv6.neigh.default.gc_thresh2 = 2048\\nnet.ipv6.neigh.default.gc_thresh3 = 4096\\n' \
                    > /etc/sysctl.d/90-neighbours-ipv6.conf\n      fix: sysctl -p /etc/sysctl.d/90-neighbours-ipv6.conf";
        assert!(nearly_full.ends_with(cure), "{nearly_full}");
        // After a burst only the counter shows the overflow, until the limit is as recommended.
        assert!(
            judge(300, 1024, 7)
                .starts_with("warn  neighbours    IPv6: 300 entries, gc_thresh3 1024, full 7 times")
        );
        assert!(
            judge(300, 4096, 7)
                .starts_with("ok    neighbours    IPv6: 300 entries, gc_thresh3 4096, full 7 times")
        );
        assert!(judge(1020, 1024, 7).starts_with("fail  neighbours "));
        assert!(judge(4000, 4096, 7).contains("gc_thresh3 = 16384"));
        assert!(tables(&Facts::default()).is_empty(), "another namespace than the machine's cannot see them");
    }
}

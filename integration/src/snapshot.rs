//! The state of a namespace, as text that can be compared.

use crate::Namespace;
use crate::process::run;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// All that a plugin could make or change in a namespace, one fact in each line. Counters, timers, interface
/// indexes, learned neighbours and IPv6's link-local addresses are left out: they change by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    lines: Vec<String>,
}

impl Snapshot {
    /// Looks at links, addresses, routes, rules, permanent neighbours, bridge VLANs, nftables and sysctls.
    #[track_caller]
    pub fn of(namespace: &Namespace) -> Snapshot {
        let mut lines = Vec::new();
        let [links, addresses, neighbours] =
            namespace.ip_json_each("-details", ["link show", "address show", "neigh show nud permanent"]);
        collect(&mut lines, "link", &links, &LINK);
        for link in array(&addresses) {
            let name = link["ifname"].as_str().unwrap_or_default();
            collect(&mut lines, &format!("address of {name}"), &link["addr_info"], &ADDRESS);
        }
        for family in ["-4", "-6"] {
            let [routes, rules] = namespace.ip_json_each(family, ["route show table all", "rule show"]);
            collect(&mut lines, "route", &routes, &ROUTE);
            collect(&mut lines, "rule", &rules, &RULE);
        }
        collect(&mut lines, "neighbour", &neighbours, &NEIGHBOUR);
        let vlans = run(Command::new("bridge").args(["-n", namespace.name(), "-json", "vlan", "show"]));
        for port in array(&serde_json::from_str(&vlans.stdout).unwrap_or_default()) {
            lines.push(format!("port vlans {} {}", port["ifname"], port["vlans"]));
        }
        let sysctls =
            namespace.enter(|| SYSCTLS.map(|key| fs::read_to_string(Path::new("/proc/sys").join(key))));
        for (key, value) in SYSCTLS.iter().zip(sysctls) {
            let value =
                value.unwrap_or_else(|error| panic!("cannot read {key} in {}: {error}", namespace.name()));
            lines.push(format!("sysctl {key} {}", value.trim()));
        }
        lines.sort();
        // Here the order matters.
        let rules = namespace.run("nft list ruleset").expect_ok().stdout;
        lines.extend(rules.lines().map(|line| format!("nft {line}")));
        Snapshot { lines }
    }

    /// The lines that only the other snapshot has (`+`) and those that only this one has (`-`).
    pub fn difference(&self, later: &Snapshot) -> Vec<String> {
        let missing = |from: &[String], other: &[String], sign: char| -> Vec<String> {
            let mut rest = other.to_vec();
            from.iter()
                .filter(|line| match rest.iter().position(|there| there == *line) {
                    Some(index) => {
                        rest.swap_remove(index);
                        false
                    }
                    None => true,
                })
                .map(|line| format!("{sign} {line}"))
                .collect()
        };
        let mut difference = missing(&self.lines, &later.lines, '-');
        difference.extend(missing(&later.lines, &self.lines, '+'));
        difference
    }

    /// Panics with the difference unless the namespace is as it was.
    #[track_caller]
    pub fn assert_unchanged(&self, namespace: &Namespace) {
        let difference = self.difference(&Snapshot::of(namespace));
        assert!(difference.is_empty(), "{} has changed:\n{}", namespace.name(), difference.join("\n"));
    }
}

impl std::fmt::Display for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The kernel gives every interface that is up a link-local address and its routes, at any time.
const BY_ITSELF: [&str; 2] = ["\"fe80:", "\"ff00:"];

/// The facts about a link, by their path in iproute2's JSON.
const LINK: [&str; 12] = [
    "/ifname",
    "/link",
    "/master",
    "/mtu",
    "/address",
    "/ifalias",
    "/linkinfo/info_kind",
    "/linkinfo/info_data/id",
    "/linkinfo/info_data/protocol",
    "/linkinfo/info_data/vlan_filtering",
    "/linkinfo/info_slave_data/hairpin",
    "/linkinfo/info_slave_data/isolated",
];
const ADDRESS: [&str; 4] = ["/local", "/prefixlen", "/scope", "/peer"];
const ROUTE: [&str; 9] =
    ["/type", "/dst", "/gateway", "/dev", "/table", "/metric", "/scope", "/prefsrc", "/metrics"];
const RULE: [&str; 5] = ["/priority", "/src", "/dst", "/fwmark", "/table"];
const NEIGHBOUR: [&str; 3] = ["/dst", "/dev", "/lladdr"];

/// Namespace-wide settings that network plugins are known to change.
const SYSCTLS: [&str; 5] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/accept_ra",
];

fn collect(lines: &mut Vec<String>, kind: &str, list: &Value, keys: &[&str]) {
    for item in array(list) {
        let mut line = kind.to_owned();
        for key in keys {
            if let Some(value) = item.pointer(key) {
                line += &format!(" {}={value}", key.rsplit('/').next().unwrap_or(key));
            }
        }
        if let Some(flags) = item["flags"].as_array().filter(|_| kind == "link") {
            let told = ["UP", "PROMISC", "ALLMULTI"]
                .into_iter()
                .filter(|flag| flags.iter().any(|there| there == flag));
            line += &format!(" flags={}", told.collect::<Vec<_>>().join(","));
        }
        if kind == "link" || !BY_ITSELF.iter().any(|prefix| line.contains(prefix)) {
            lines.push(line);
        }
    }
}

fn array(value: &Value) -> &[Value] {
    // iproute2 answers with empty objects where it filtered something out.
    value.as_array().map_or(&[], Vec::as_slice)
}

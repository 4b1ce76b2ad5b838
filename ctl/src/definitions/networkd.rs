//! systemd-networkd's files: systemd.network(5), systemd.netdev(5), networkd.conf(5).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::definition::{Definition, Management, NETWORKD};
use super::device::{Condition, Property};
use super::ini;

/// The directories of its files, highest precedence first.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];
/// The directories of its own settings, likewise.
const OWN_FOLDERS: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// Whether it removes routes and rules that it did not configure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ForeignRouting {
    /// Whether it runs on this node.
    pub(crate) runs: bool,
    /// ManageForeignRoutes=no.
    pub(crate) keeps_routes: bool,
    /// ManageForeignRoutingPolicyRules=no.
    pub(crate) keeps_rules: bool,
}

/// Every definition, in the order of precedence.
pub(super) fn find() -> Result<Vec<Definition>> {
    let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    for (name, path) in ini::by_name(&folders)? {
        let is_network = name.ends_with(".network");
        if !is_network && !name.ends_with(".netdev") {
            continue;
        }
        let Some(text) = ini::with_drop_ins(&path, &ini::drop_in_folders(&FOLDERS, &name))? else { continue };
        found.extend(if is_network { network(&path, &text) } else { netdev(&path, &text) });
    }
    Ok(found)
}

/// Parses a `*.netdev` file, which creates an interface.
fn netdev(path: &Path, text: &str) -> Option<Definition> {
    let name = ini::values(text, "NetDev", "Name").pop()?;
    Some(Definition::named(NETWORKD, path, name, false))
}

/// Parses a `*.network` file. Without a condition it is ignored.
fn network(path: &Path, text: &str) -> Option<Definition> {
    let conditions: Vec<Condition> = KEYS
        .iter()
        .map(|(key, property)| Condition { property: *property, patterns: ini::words(text, "Match", key) })
        .filter(|test| !test.patterns.is_empty())
        .collect();
    if conditions.is_empty() {
        return None;
    }
    let is_on = |key: &str| ini::boolean(text, "Network", key) == Some(true);
    let last = |key: &str| ini::values(text, "Network", key).pop().unwrap_or_default();
    let asks = is_on("DHCP") || ["ipv4", "ipv6", "both", "v4", "v6"].contains(&last("DHCP"));
    let advertised =
        is_on("IPv6AcceptRA") || is_on("LinkLocalAddressing") || last("LinkLocalAddressing") == "ipv4";
    let given =
        ["Network", "Address"].iter().any(|section| !ini::values(text, section, "Address").is_empty());
    let has_master = ["Bond", "Bridge"].iter().any(|key| !last(key).is_empty());
    let management = match () {
        () if ini::boolean(text, "Link", "Unmanaged") == Some(true) => Management::None,
        () if has_master || is_on("KeepMaster") => Management::KeepsMaster,
        () => Management::Whole,
    };
    Some(Definition {
        program: NETWORKD,
        path: path.to_owned(),
        conditions,
        addresses: asks || advertised || given,
        management,
        profile: None,
    })
}

/// The conditions of `[Match]`, except those of wireless interfaces.
const KEYS: [(&str, Property); 17] = [
    ("Name", Property::Name),
    ("Type", Property::Type),
    ("Kind", Property::Kind),
    ("Driver", Property::Driver),
    ("MACAddress", Property::Mac),
    ("PermanentMACAddress", Property::PermanentMac),
    ("Path", Property::Unknown),
    ("Property", Property::Unknown),
    ("Host", Property::Unknown),
    ("Virtualization", Property::Unknown),
    ("KernelCommandLine", Property::Unknown),
    ("KernelVersion", Property::Unknown),
    ("Version", Property::Unknown),
    ("Credential", Property::Unknown),
    ("Architecture", Property::Unknown),
    ("Firmware", Property::Unknown),
    ("SSID", Property::Unknown),
];

/// Its settings for foreign routes and rules.
pub(super) fn foreign() -> Result<ForeignRouting> {
    let named: BTreeMap<String, PathBuf> =
        ini::by_name(&OWN_FOLDERS.iter().map(PathBuf::from).collect::<Vec<_>>())?;
    let mut text = match named.get("networkd.conf") {
        Some(path) => ini::text(path)?.unwrap_or_default(),
        None => String::new(),
    };
    for (_, path) in ini::by_name(&ini::drop_in_folders(&OWN_FOLDERS, "networkd.conf"))? {
        text += "\n";
        text += &ini::text(&path)?.unwrap_or_default();
    }
    let keeps = |key: &str| ini::boolean(&text, "Network", key) == Some(false);
    Ok(ForeignRouting {
        runs: runs(),
        keeps_routes: keeps("ManageForeignRoutes"),
        keeps_rules: keeps("ManageForeignRoutingPolicyRules"),
    })
}

/// Whether it runs in this network namespace. The kernel truncates program names to 15 characters.
fn runs() -> bool {
    let own = fs::read_link("/proc/self/ns/net").ok();
    let is_it = |path: PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "systemd-network")
            && own.is_some()
            && fs::read_link(path.join("ns/net")).ok() == own
    };
    fs::read_dir("/proc").is_ok_and(|entries| entries.flatten().any(|entry| is_it(entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definitions::device::{Applies, Device};

    fn read(text: &str) -> Definition {
        network(Path::new("a.network"), text).unwrap()
    }

    #[test]
    fn a_files_conditions_all_have_to_hold() {
        let device = |name: &str, kind: Option<&str>| Device {
            name: name.into(),
            type_: Some(if kind == Some("bridge") { "bridge" } else { "ether" }),
            kind: kind.map(str::to_owned),
            ..Device::default()
        };
        let (nic, bridge, veth) =
            (device("nic0", None), device("br136", Some("bridge")), device("veth1", Some("veth")));
        for (conditions, expected) in [
            ("Name=nic*", [true, false, false]),
            ("Type=ether", [true, false, true]),
            ("Type=!ether", [false, true, false]),
            ("Type=ether\nKind=!*", [true, false, false]),
            ("Kind=veth bridge", [false, true, true]),
            ("Name=nic0\nName=br136", [true, true, false]),
            ("Name=nic0\nName=\nName=br136", [false, true, false]),
            ("Name=!nic* br*", [false, false, true]),
        ] {
            let about = read(&format!("[Match]\n{conditions}\n[Network]\nDHCP=yes\n"));
            let seen = [&nic, &bridge, &veth].map(|device| about.matches(device));
            assert_eq!(seen, expected.map(Applies::from), "{conditions}");
        }
        assert_eq!(read("[Match]\nName=nic*\nPath=pci-*\n").matches(&nic), Applies::Maybe);
        assert_eq!(read("[Match]\nName=nic*\nPath=pci-*\n").matches(&bridge), Applies::No);
        assert_eq!(network(Path::new("a"), "[Network]\nDHCP=yes\n"), None);
    }

    #[test]
    fn addresses_masters_and_unmanaged_interfaces_are_distinguished() {
        let judged = |rest: &str| {
            let read = read(&format!("[Match]\nName=nic0\n{rest}\n"));
            (read.addresses, read.management)
        };
        for (rest, addresses, care) in [
            ("[Network]\nDHCP=yes", true, Management::Whole),
            ("[Network]\nDHCP=ipv4", true, Management::Whole),
            ("[Network]\nDHCP=no", false, Management::Whole),
            ("[Network]\nIPv6AcceptRA=true", true, Management::Whole),
            ("[Address]\nAddress=10.0.0.1/24", true, Management::Whole),
            ("[Network]\nBond=bond0", false, Management::KeepsMaster),
            ("[Network]\nKeepMaster=yes", false, Management::KeepsMaster),
            ("[Link]\nUnmanaged=yes", false, Management::None),
        ] {
            assert_eq!(judged(rest), (addresses, care), "{rest}");
        }
    }
}

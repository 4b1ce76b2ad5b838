//! systemd-networkd's files: systemd.network(5), systemd.netdev(5), networkd.conf(5).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::definition::{Care, Definition, NETWORKD};
use super::device::{Property, Test};
use super::ini;

/// Where its files are, the folder that counts most first.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];
/// Where its own settings are, likewise.
const OWN_FOLDERS: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// What it does with routes and rules that are not its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// It runs on this node.
    pub(crate) runs: bool,
    /// It leaves routes alone.
    pub(crate) keeps_routes: bool,
    /// It leaves rules alone.
    pub(crate) keeps_rules: bool,
}

/// Every definition, in the order in which it looks at them.
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

/// `*.netdev` makes interfaces.
fn netdev(path: &Path, text: &str) -> Option<Definition> {
    let name = ini::values(text, "NetDev", "Name").pop()?;
    Some(Definition::named(NETWORKD, path, name, false))
}

/// `*.network` says what happens to interfaces. Without a condition it is passed over.
fn network(path: &Path, text: &str) -> Option<Definition> {
    let tests: Vec<Test> = KEYS
        .iter()
        .map(|(key, property)| Test { property: *property, patterns: ini::words(text, "Match", key) })
        .filter(|test| !test.patterns.is_empty())
        .collect();
    if tests.is_empty() {
        return None;
    }
    let is_on = |key: &str| ini::switch(text, "Network", key) == Some(true);
    let last = |key: &str| ini::values(text, "Network", key).pop().unwrap_or_default();
    let asks = is_on("DHCP") || ["ipv4", "ipv6", "both", "v4", "v6"].contains(&last("DHCP"));
    let advertised =
        is_on("IPv6AcceptRA") || is_on("LinkLocalAddressing") || last("LinkLocalAddressing") == "ipv4";
    let given =
        ["Network", "Address"].iter().any(|section| !ini::values(text, section, "Address").is_empty());
    let has_master = ["Bond", "Bridge"].iter().any(|key| !last(key).is_empty());
    let care = match () {
        () if ini::switch(text, "Link", "Unmanaged") == Some(true) => Care::None,
        () if has_master || is_on("KeepMaster") => Care::KeepsMaster,
        () => Care::Whole,
    };
    Some(Definition {
        program: NETWORKD,
        path: path.to_owned(),
        tests,
        addresses: asks || advertised || given,
        care,
        profile: None,
    })
}

/// The conditions of `[Match]`. Of a wireless interface there is no bridge of ours.
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

/// What it is told about others' routes and rules.
pub(super) fn foreign() -> Result<Foreign> {
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
    let keeps = |key: &str| ini::switch(&text, "Network", key) == Some(false);
    Ok(Foreign {
        runs: runs(),
        keeps_routes: keeps("ManageForeignRoutes"),
        keeps_rules: keeps("ManageForeignRoutingPolicyRules"),
    })
}

/// Whether it runs in this network namespace. The kernel cuts a program's name after fifteen letters.
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
    use crate::definitions::device::{About, Device};

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
            let seen = [&nic, &bridge, &veth].map(|device| about.is_about(device));
            assert_eq!(seen, expected.map(About::from), "{conditions}");
        }
        assert_eq!(read("[Match]\nName=nic*\nPath=pci-*\n").is_about(&nic), About::Perhaps);
        assert_eq!(read("[Match]\nName=nic*\nPath=pci-*\n").is_about(&bridge), About::No);
        assert_eq!(network(Path::new("a"), "[Network]\nDHCP=yes\n"), None);
    }

    #[test]
    fn addresses_masters_and_what_is_left_alone_are_told_apart() {
        let judged = |rest: &str| {
            let read = read(&format!("[Match]\nName=nic0\n{rest}\n"));
            (read.addresses, read.care)
        };
        for (rest, addresses, care) in [
            ("[Network]\nDHCP=yes", true, Care::Whole),
            ("[Network]\nDHCP=ipv4", true, Care::Whole),
            ("[Network]\nDHCP=no", false, Care::Whole),
            ("[Network]\nIPv6AcceptRA=true", true, Care::Whole),
            ("[Address]\nAddress=10.0.0.1/24", true, Care::Whole),
            ("[Network]\nBond=bond0", false, Care::KeepsMaster),
            ("[Network]\nKeepMaster=yes", false, Care::KeepsMaster),
            ("[Link]\nUnmanaged=yes", false, Care::None),
        ] {
            assert_eq!(judged(rest), (addresses, care), "{rest}");
        }
    }
}

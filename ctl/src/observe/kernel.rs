//! Kernel state: modules, drivers, sysctls, counters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cni_conf::family::Family;
use kernel::link::{Kind, Link};

use crate::facts::{Modules, Sysctls, is_bond};
use crate::files;
use crate::neighbours::NeighbourTable;

/// The drivers of NICs. Virtual interfaces have a kind instead.
pub(super) fn drivers(links: &[Link]) -> BTreeMap<String, String> {
    let read = |link: &Link| {
        let driver =
            fs::read_link(Path::new("/sys/class/net").join(&link.name).join("device/driver")).ok()?;
        Some((link.name.clone(), driver.file_name()?.to_string_lossy().into_owned()))
    };
    links.iter().filter_map(read).collect()
}

pub(super) fn modules(links: &[Link]) -> Modules {
    let names = |folder: &str| files::names(Path::new(folder)).unwrap_or_default();
    let mut modules = Modules { present: names("/sys/module").into_iter().collect(), ..Modules::default() };
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = Path::new("/lib/modules").join(release.trim());
    let built_in = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    modules.built_in.extend(built_in.lines().map(module_of));
    modules.present.extend(modules_in_use(links).map(str::to_owned));
    // A loaded module has this file, a built-in one does not.
    let is_loaded = |name: &str| Path::new("/sys/module").join(name).join("initstate").exists();
    modules.built_in.extend(modules.present.iter().filter(|name| !is_loaded(name)).cloned());
    if Path::new("/proc/modules").exists() {
        let there = fs::read_to_string(folder.join("modules.dep")).ok();
        modules.loadable = there.map(|text| text.lines().map(module_of).collect());
    } else {
        // A kernel without module support has everything built in. Only for 8021q does it show whether it
        // has it.
        modules.built_in.extend(["bonding", "bridge", "veth"].map(str::to_owned));
        modules.loadable = Some(BTreeSet::new());
    }
    for folder in [
        "/etc/modules-load.d",
        "/run/modules-load.d",
        "/usr/lib/modules-load.d",
        "/usr/local/lib/modules-load.d",
    ] {
        for name in names(folder).iter().filter(|name| name.ends_with(".conf")) {
            let text = fs::read_to_string(Path::new(folder).join(name)).unwrap_or_default();
            modules.at_boot.extend(module_names(&text));
        }
    }
    // The older file of Debian.
    modules.at_boot.extend(module_names(&fs::read_to_string("/etc/modules").unwrap_or_default()));
    modules
}

/// The name of a module in a line of `modules.builtin` or `modules.dep`: `kernel/net/8021q/8021q.ko.xz: …`.
fn module_of(line: &str) -> String {
    let path = line.split(':').next().unwrap_or(line);
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// The modules that are evidently in use, loaded or built in.
fn modules_in_use(links: &[Link]) -> impl Iterator<Item = &'static str> {
    let has = |of: fn(&Link) -> bool| links.iter().any(of);
    let seen = [
        ("bonding", has(is_bond)),
        ("bridge", has(|link| link.bridge().is_some())),
        ("veth", has(|link| link.kind == Kind::Veth)),
        ("8021q", Path::new("/proc/net/vlan").exists() || has(|link| matches!(link.kind, Kind::Vlan { .. }))),
    ];
    seen.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name)
}

/// The names in a file of modules-load.d(5): one on each line. `#` and `;` begin comments, and `-` means
/// `_`.
fn module_names(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| Some(line.split_whitespace().next()?.replace('-', "_"))).collect()
}

pub(super) fn sysctls(links: &[Link]) -> Sysctls {
    let mut keys: Vec<String> = [
        "ipv4/ip_forward",
        "ipv4/conf/all/log_martians",
        "ipv6/conf/all/forwarding",
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ]
    .map(str::to_owned)
    .to_vec();
    let names = links.iter().map(|link| link.name.as_str()).chain(["all"]);
    for name in names {
        keys.push(format!("ipv4/conf/{name}/rp_filter"));
        keys.push(format!("ipv4/conf/{name}/log_martians"));
        keys.push(format!("ipv6/conf/{name}/forwarding"));
    }
    let read =
        |key: &String| fs::read_to_string(Path::new("/proc/sys/net").join(key)).ok()?.trim().parse().ok();
    Sysctls(keys.into_iter().filter_map(|key| Some((key.clone(), read(&key)?))).collect())
}

/// The neighbour table of an address family.
pub(super) fn neighbours(family: Family) -> Option<NeighbourTable> {
    let table = match family {
        Family::V4 => "arp_cache",
        Family::V6 => "ndisc_cache",
    };
    let folder = family.sysctl_folder();
    let limit = fs::read_to_string(format!("/proc/sys/net/{folder}/neigh/default/gc_thresh3")).ok()?;
    let text = fs::read_to_string(format!("/proc/net/stat/{table}")).ok()?;
    NeighbourTable::parse(family, &text, limit.trim().parse().ok()?)
}

/// The counter from `/proc/net/netstat`, which has a line of names and a line of numbers for each group.
pub(super) fn rp_filtered() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/netstat").ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let (_, number) = names
        .split_whitespace()
        .zip(numbers.split_whitespace())
        .find(|(name, _)| *name == "IPReversePathFilter")?;
    number.parse().ok()
}

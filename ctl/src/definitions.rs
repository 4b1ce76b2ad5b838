//! The configuration files of other programs for network interfaces: ifcfg, NetworkManager,
//! systemd-networkd, netplan, ifupdown.

mod definition;
mod device;
mod ini;
mod netplan;
mod network_manager;
mod networkd;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::files;
use network_manager::DeviceSpec;

pub(crate) use definition::{Definition, Management};
pub(crate) use device::{Applies, Device};
pub(crate) use networkd::ForeignRouting;

/// The definitions of all programs.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// systemd-networkd's are in the order of its file names, which is its order of precedence.
    pub(crate) all: Vec<Definition>,
    /// The devices that NetworkManager does not manage.
    unmanaged: Vec<DeviceSpec>,
    pub(crate) foreign: ForeignRouting,
    /// Files that cannot be parsed, and the reason.
    pub(crate) invalid: Vec<(PathBuf, String)>,
}

/// A program without a module of its own: where its files are, and how to parse them.
struct FileFormat {
    program: &'static str,
    /// Directories or files.
    places: &'static [&'static str],
    read: fn(name: &str, text: &str) -> Vec<(String, bool)>,
}

const FORMATS: [FileFormat; 2] = [
    FileFormat {
        program: "ifcfg",
        places: &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"],
        read: ifcfg,
    },
    FileFormat {
        program: "ifupdown",
        places: &["/etc/network/interfaces", "/etc/network/interfaces.d"],
        read: ifupdown,
    },
];

/// Every definition on this node.
///
/// # Errors
/// A directory or file that cannot be read.
pub(crate) fn find() -> Result<Definitions> {
    let mut all = Vec::new();
    for format in &FORMATS {
        for place in format.places.iter().map(Path::new) {
            let paths: Vec<PathBuf> = match place.is_dir() {
                true => files::names(place)?.into_iter().map(|name| place.join(name)).collect(),
                false => vec![place.to_owned()],
            };
            for path in paths.into_iter().filter(|path| path.is_file()) {
                let Some(content) = files::read(&path)? else { continue };
                let definitions = (format.read)(&ini::file_name(&path), &String::from_utf8_lossy(&content));
                all.extend(
                    definitions
                        .into_iter()
                        .map(|(name, addresses)| Definition::named(format.program, &path, &name, addresses)),
                );
            }
        }
    }
    let (of_netplan, invalid) = netplan::find()?;
    all.extend(of_netplan);
    all.extend(network_manager::find()?);
    all.extend(networkd::find()?);
    Ok(Definitions { all, unmanaged: network_manager::unmanaged()?, foreign: networkd::foreign()?, invalid })
}

impl Definitions {
    /// The definitions in effect for an interface. Of systemd-networkd's .network files these are the first
    /// that matches, and those before it that may match.
    pub(crate) fn matching(&self, device: &Device) -> Vec<(&Definition, Applies)> {
        let is_unmanaged = self.unmanaged.iter().any(|spec| spec.matches(device));
        let (mut found, mut has_match) = (Vec::new(), false);
        for definition in &self.all {
            let matched = definition.matches(device);
            let is_ignored = has_match && definition.is_networkd_network()
                || is_unmanaged && definition.program == network_manager::PROGRAM;
            if matched == Applies::No || is_ignored {
                continue;
            }
            has_match |= definition.is_networkd_network() && matched == Applies::Yes;
            if definition.management != Management::None {
                found.push((definition, matched));
            }
        }
        found
    }
}

/// One file for each interface, in shell syntax: `ifcfg-nic0`.
fn ifcfg(name: &str, text: &str) -> Vec<(String, bool)> {
    let Some(of_name) = name.strip_prefix("ifcfg-") else { return Vec::new() };
    let value = |key: &str| {
        let assigned = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        assigned.map(|value| value.trim().trim_matches(['"', '\'']).to_lowercase())
    };
    let asks = value("BOOTPROTO").is_some_and(|protocol| protocol.starts_with("dhcp") || protocol == "bootp");
    let given =
        text.lines().any(|line| ["IPADDR", "IPV6ADDR"].iter().any(|key| line.trim().starts_with(key)));
    vec![(value("DEVICE").unwrap_or_else(|| of_name.to_owned()), asks || given)]
}

/// `iface NAME inet METHOD`.
fn ifupdown(_: &str, text: &str) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["iface", name, rest @ ..] = &words[..]
            && *name != "lo"
        {
            let addresses = rest.last().is_some_and(|method| !["manual", "loopback"].contains(method));
            found.push(((*name).to_owned(), addresses && !rest.is_empty()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_programs_files_are_read() {
        let own = |name: &str, addresses| vec![(name.to_owned(), addresses)];
        assert_eq!(ifcfg("ifcfg-nic0", "BOOTPROTO=\"dhcp\"\n"), own("nic0", true));
        assert_eq!(ifcfg("ifcfg-a", "DEVICE=nic0\nBOOTPROTO=none\nMASTER=bond0\n"), own("nic0", false));
        assert_eq!(ifcfg("ifcfg-a", "IPADDR0=10.0.0.1\n"), own("a", true));
        assert_eq!(ifcfg("route-a", "IPADDR=10.0.0.1\n"), []);
        assert_eq!(ifupdown("", "auto nic0\niface nic0 inet dhcp\n"), own("nic0", true));
        assert_eq!(
            ifupdown("", "iface lo inet loopback\niface bond0 inet manual\n  bond-mode 4\n"),
            own("bond0", false)
        );
    }
}

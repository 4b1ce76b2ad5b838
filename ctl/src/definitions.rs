//! What other programs are told to do with interfaces: ifcfg files, NetworkManager, systemd-networkd, netplan, ifupdown.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::files;

/// One program's word on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The interface, or a pattern of interfaces.
    pub(crate) interface: String,
    /// The program.
    pub(crate) program: &'static str,
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether it gives the interface addresses, or has it ask for some.
    pub(crate) addresses: bool,
}

/// A program, where its files are, and how they are read.
struct Kind {
    program: &'static str,
    /// Folders, or single files.
    places: &'static [&'static str],
    read: fn(name: &str, text: &str) -> Vec<(String, bool)>,
}

const KINDS: [Kind; 5] = [
    Kind {
        program: "ifcfg",
        places: &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"],
        read: ifcfg,
    },
    Kind {
        program: "NetworkManager",
        places: &["/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections"],
        read: network_manager,
    },
    Kind {
        program: "systemd-networkd",
        places: &["/etc/systemd/network", "/run/systemd/network"],
        read: networkd,
    },
    Kind { program: "netplan", places: &["/etc/netplan", "/run/netplan"], read: netplan },
    Kind {
        program: "ifupdown",
        places: &["/etc/network/interfaces", "/etc/network/interfaces.d"],
        read: ifupdown,
    },
];

/// Every definition on this node.
///
/// # Errors
/// A folder or file that cannot be read.
pub(crate) fn find() -> Result<Vec<Definition>> {
    let mut found = Vec::new();
    for kind in &KINDS {
        for place in kind.places.iter().map(Path::new) {
            let paths: Vec<PathBuf> = match place.is_dir() {
                true => files::names(place)?.into_iter().map(|name| place.join(name)).collect(),
                false => vec![place.to_owned()],
            };
            for path in paths.into_iter().filter(|path| path.is_file()) {
                let Some(content) = files::read(&path)? else { continue };
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let definitions = (kind.read)(&name, &String::from_utf8_lossy(&content));
                found.extend(definitions.into_iter().map(|(interface, addresses)| Definition {
                    interface,
                    program: kind.program,
                    path: path.clone(),
                    addresses,
                }));
            }
        }
    }
    Ok(found)
}

impl Definition {
    /// Whether it is about an interface. Patterns are those of systemd.network(5).
    pub(crate) fn is_about(&self, interface: &str) -> bool {
        let (positive, negative) = match self.interface.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (self.interface.as_str(), false),
        };
        positive.split_whitespace().any(|pattern| matches(pattern.as_bytes(), interface.as_bytes()))
            != negative
    }
}

/// `*` and `?`, as in file names.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, name)| matches(pattern, name))
        }
        (Some((b'?', pattern)), Some((_, name))) => matches(pattern, name),
        (Some((a, pattern)), Some((b, name))) if a == b => matches(pattern, name),
        _ => false,
    }
}

/// A file an interface, with lines of shell: `ifcfg-nic0`.
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

/// The value of a key in a section of an INI file; the last one counts.
fn ini<'a>(text: &'a str, section: &str, key: &str) -> Vec<&'a str> {
    let mut within = false;
    let mut values = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            within = name == section;
        } else if within
            && let Some((name, value)) = line.split_once('=')
            && name.trim() == key
        {
            values.push(value.trim());
        }
    }
    values
}

/// A keyfile a connection. One that is a port of something gets no addresses; any other asks for some unless told not to.
fn network_manager(_: &str, text: &str) -> Vec<(String, bool)> {
    let Some(interface) = ini(text, "connection", "interface-name").pop() else { return Vec::new() };
    let is_port = ["master", "controller"].iter().any(|key| !ini(text, "connection", key).is_empty());
    let quiet = |family: &str| {
        ini(text, family, "method")
            .pop()
            .is_some_and(|method| ["disabled", "ignore", "link-local"].contains(&method))
    };
    let silent = is_port || quiet("ipv4") && quiet("ipv6");
    vec![(interface.to_owned(), !silent)]
}

/// `*.network` says what happens to interfaces, `*.netdev` makes them.
fn networkd(name: &str, text: &str) -> Vec<(String, bool)> {
    if name.ends_with(".netdev") {
        return ini(text, "NetDev", "Name").into_iter().map(|name| (name.to_owned(), false)).collect();
    }
    if !name.ends_with(".network") {
        return Vec::new();
    }
    let asks =
        ini(text, "Network", "DHCP").pop().is_some_and(|dhcp| !["no", "false", "0", "off"].contains(&dhcp));
    let given = ["Network", "Address"].iter().any(|section| !ini(text, section, "Address").is_empty());
    ini(text, "Match", "Name").into_iter().map(|name| (name.to_owned(), asks || given)).collect()
}

/// YAML, of which lines and their indents are enough here: `NAME:` stands alone on a line, its settings are further in.
fn netplan(name: &str, text: &str) -> Vec<(String, bool)> {
    /// The settings above an interface's name: `network: ethernets: NAME:`.
    const LEVEL: usize = 2;
    if !name.ends_with(".yaml") {
        return Vec::new();
    }
    let mut above: Vec<usize> = Vec::new();
    let mut found: Vec<(String, bool)> = Vec::new();
    for line in text.lines() {
        let setting = line.split('#').next().unwrap_or_default().trim_end();
        let indent = setting.len() - setting.trim_start().len();
        let setting = setting.trim();
        if setting.is_empty() {
            continue;
        }
        above.retain(|level| *level < indent);
        if above.len() == LEVEL
            && let Some(interface) = setting.strip_suffix(':')
        {
            found.push((interface.trim_matches(['"', '\'']).to_owned(), false));
        } else if above.len() > LEVEL
            && let Some((_, addresses)) = found.last_mut()
        {
            let asks = ["dhcp4:", "dhcp6:"].iter().any(|key| {
                setting.strip_prefix(key).is_some_and(|value| ["true", "yes", "on"].contains(&value.trim()))
            });
            *addresses |= asks
                || setting.starts_with("addresses:") && !setting.ends_with("[]") && above.len() == LEVEL + 1;
        }
        above.push(indent);
    }
    found
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

    fn about(interface: &str) -> Definition {
        Definition { interface: interface.into(), program: "x", path: PathBuf::new(), addresses: false }
    }

    #[test]
    fn every_programs_files_are_read() {
        let own = |name: &str, addresses| vec![(name.to_owned(), addresses)];
        assert_eq!(ifcfg("ifcfg-nic0", "BOOTPROTO=\"dhcp\"\n"), own("nic0", true));
        assert_eq!(ifcfg("ifcfg-a", "DEVICE=nic0\nBOOTPROTO=none\nMASTER=bond0\n"), own("nic0", false));
        assert_eq!(ifcfg("ifcfg-a", "IPADDR0=10.0.0.1\n"), own("a", true));
        assert_eq!(ifcfg("route-a", "IPADDR=10.0.0.1\n"), []);
        let keyfile = "[connection]\ninterface-name=nic0\n[ipv4]\nmethod=disabled\n[ipv6]\nmethod=ignore\n";
        assert_eq!(network_manager("", keyfile), own("nic0", false));
        assert_eq!(network_manager("", &keyfile.replace("ignore", "auto")), own("nic0", true));
        assert_eq!(
            network_manager("", "[connection]\ninterface-name=nic0\nmaster=bond0\n"),
            own("nic0", false)
        );
        assert_eq!(networkd("a.network", "[Match]\nName=nic*\n[Network]\nDHCP=yes\n"), own("nic*", true));
        assert_eq!(networkd("a.network", "[Match]\nName=nic0\n[Network]\nBond=bond0\n"), own("nic0", false));
        assert_eq!(networkd("a.netdev", "[NetDev]\nName=br136\nKind=bridge\n"), own("br136", false));
        assert_eq!(ifupdown("", "auto nic0\niface nic0 inet dhcp\n"), own("nic0", true));
        assert_eq!(
            ifupdown("", "iface lo inet loopback\niface bond0 inet manual\n  bond-mode 4\n"),
            own("bond0", false)
        );
    }

    #[test]
    fn netplans_indents_tell_interfaces_from_settings() {
        let text = "network:\n  version: 2\n  ethernets:\n    nic0: {}\n    nic1:\n      dhcp4: true\n  bonds:\n    bond0:\n      \
                    interfaces: [nic0, nic1]\n      parameters:\n        mode: 802.3ad\n  vlans:\n    bond0.51:\n      id: 51\n      \
                    addresses:\n        - 10.51.0.11/24\n";
        let expected = [("nic1", true), ("bond0", false), ("bond0.51", true)];
        assert_eq!(netplan("a.yaml", text), expected.map(|(name, addresses)| (name.to_owned(), addresses)));
    }

    #[test]
    fn patterns_are_matched_whole() {
        for (pattern, name, expected) in [
            ("nic0", "nic0", true),
            ("nic0", "nic01", false),
            ("n*0", "nic0", true),
            ("*", "br136", true),
            ("ni?0", "nic0", true),
            ("eth* nic*", "nic0", true),
            ("!nic*", "nic0", false),
            ("!nic*", "br136", true),
        ] {
            assert_eq!(about(pattern).is_about(name), expected, "{pattern} {name}");
        }
    }
}

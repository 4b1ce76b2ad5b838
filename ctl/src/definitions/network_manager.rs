//! NetworkManager's files: nm-settings-keyfile(5), NetworkManager.conf(5).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::definition::{Definition, Management};
use super::device::{Applies, Condition, Device, Property};
use super::ini;

pub(super) const PROGRAM: &str = "NetworkManager";

/// The directories of profiles, highest precedence first.
const PROFILES: [&str; 3] = [
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
];
/// The directories of NetworkManager's own settings, likewise.
const OWN_FOLDERS: [&str; 3] = ["/etc/NetworkManager", "/run/NetworkManager", "/usr/lib/NetworkManager"];

/// Every profile. Of several with one UUID the first is in effect.
pub(super) fn find() -> Result<Vec<Definition>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for folder in PROFILES {
        for (name, path) in ini::by_name(&[PathBuf::from(folder)])? {
            if name.starts_with('.') || name.ends_with('~') || name.ends_with(".nmmeta") {
                continue;
            }
            let Some(text) = ini::text(&path)? else { continue };
            let uuid = ini::values(&text, "connection", "uuid").pop().map_or(name, str::to_owned);
            if seen.insert(uuid) {
                found.extend(profile(&path, &text));
            }
        }
    }
    Ok(found)
}

/// Parses a profile. A port gets no addresses. Any other interface gets some unless both methods are off.
fn profile(path: &Path, text: &str) -> Option<Definition> {
    let last =
        |section: &str, key: &str| ini::values(text, section, key).pop().filter(|value| !value.is_empty());
    let is_wired = last("connection", "type").is_some_and(|of| ["ethernet", "802-3-ethernet"].contains(&of));
    let mut conditions = Vec::new();
    let mut test = |property, patterns: Vec<String>| {
        if !patterns.is_empty() {
            conditions.push(Condition { property, patterns });
        }
    };
    let name = last("connection", "interface-name").map(str::to_owned);
    let wired = ["ethernet", "802-3-ethernet"];
    let mac = wired.iter().find_map(|section| last(section, "mac-address"));
    let is_named = name.is_some();
    test(Property::Name, name.into_iter().collect());
    test(Property::PermanentMac, mac.map(str::to_owned).into_iter().collect());
    let listed = |key: &str| -> Vec<String> {
        let values = last("match", key).into_iter().flat_map(|value| value.split([';', ',']));
        // A leading `|` is the default. A leading `&` makes the pattern mandatory, which is the same for a
        // single pattern.
        values
            .map(|word| word.trim().trim_start_matches(['|', '&']).to_owned())
            .filter(|word| !word.is_empty())
            .collect()
    };
    test(Property::Name, listed("interface-name"));
    test(Property::Driver, listed("driver"));
    test(Property::Unknown, listed("path"));
    test(Property::Unknown, listed("kernel-command-line"));
    if !is_named {
        // Profiles of other types without an interface name create an interface. This one applies to
        // Ethernet and veth devices.
        let starts_by_itself = ini::boolean(text, "connection", "autoconnect") != Some(false);
        if !is_wired || !starts_by_itself {
            return None;
        }
        test(Property::Type, vec!["ether".into()]);
    }
    let has_master = ["master", "controller"].iter().any(|key| last("connection", key).is_some());
    let has_no_addresses = |family: &str| {
        last(family, "method").is_some_and(|method| ["disabled", "ignore", "link-local"].contains(&method))
    };
    let gets_no_addresses = has_master || has_no_addresses("ipv4") && has_no_addresses("ipv6");
    let profile = last("connection", "id").map(str::to_owned);
    Some(Definition {
        program: PROGRAM,
        path: path.to_owned(),
        conditions,
        addresses: !gets_no_addresses,
        management: if has_master { Management::KeepsMaster } else { Management::Whole },
        profile: profile.or_else(|| Some(ini::file_name(path).trim_end_matches(".nmconnection").to_owned())),
    })
}

/// The devices that NetworkManager does not manage.
pub(super) fn unmanaged() -> Result<Vec<DeviceSpec>> {
    let mut text = ini::text(&Path::new(OWN_FOLDERS[0]).join("NetworkManager.conf"))?.unwrap_or_default();
    // In conf.d, later names have precedence, and /etc over all other directories.
    let folders: Vec<PathBuf> = OWN_FOLDERS.iter().map(|folder| Path::new(folder).join("conf.d")).collect();
    let mut all: Vec<(String, PathBuf)> =
        ini::by_name(&folders)?.into_iter().filter(|(name, _)| name.ends_with(".conf")).collect();
    all.sort_by_key(|(name, path)| (path.starts_with(OWN_FOLDERS[0]), name.clone()));
    let mut rest = String::new();
    for (_, path) in all.iter().filter(|(_, path)| !path.starts_with(OWN_FOLDERS[0])) {
        rest += &ini::text(path)?.unwrap_or_default();
        rest += "\n";
    }
    text = rest + &text;
    for (_, path) in all.iter().filter(|(_, path)| path.starts_with(OWN_FOLDERS[0])) {
        text += "\n";
        text += &ini::text(path)?.unwrap_or_default();
    }
    Ok(unmanaged_devices(&text))
}

/// `[keyfile] unmanaged-devices=`, and every `[device…]` with `managed=0`.
fn unmanaged_devices(text: &str) -> Vec<DeviceSpec> {
    let mut found = Vec::new();
    let mut listed: Vec<&str> = Vec::new();
    // `+=` appends to earlier files, and `=` replaces them.
    let mut within = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            within = line == "[keyfile]";
        } else if within && let Some((key, value)) = line.split_once('=') {
            match key.trim() {
                "unmanaged-devices" => listed = vec![value],
                "unmanaged-devices+" => listed.push(value),
                _ => {}
            }
        }
    }
    found.extend(listed.into_iter().filter(|value| !value.trim().is_empty()).map(DeviceSpec::parse));
    let sections: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix('[')?.strip_suffix(']'))
        .filter(|name| name.starts_with("device"))
        .collect();
    for section in sections {
        if ini::boolean(text, section, "managed") == Some(false) {
            let matched = ini::values(text, section, "match-device").pop().unwrap_or("*");
            found.push(DeviceSpec::parse(matched));
        }
    }
    found
}

/// A device list: `interface-name:veth*;type:bridge;except:mac:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeviceSpec(Vec<(bool, Condition)>);

impl DeviceSpec {
    fn parse(text: &str) -> DeviceSpec {
        let words = text
            .split([';', ','])
            .map(|word| word.trim().trim_matches(['"', '\'']))
            .filter(|word| !word.is_empty());
        let parse = |word: &str| {
            let (excepted, word) = word.strip_prefix("except:").map_or((false, word), |rest| (true, rest));
            let (property, pattern) = match word.split_once(':') {
                Some(("interface-name", name)) => (Property::Name, name.trim_start_matches(['=', '~'])),
                Some(("driver", driver)) => (Property::Driver, driver),
                Some(("type", of)) => (Property::Type, if of == "ethernet" { "ether" } else { of }),
                Some(("mac", mac)) => (Property::Mac, mac),
                Some(("s390-subchannels" | "dhcp-plugin", what)) => (Property::Unknown, what),
                // A MAC address, or an interface name.
                Some(_) => (Property::Mac, word),
                None => (Property::Name, word),
            };
            (excepted, Condition { property, patterns: vec![pattern.to_owned()] })
        };
        DeviceSpec(words.map(parse).collect())
    }

    pub(super) fn matches(&self, device: &Device) -> bool {
        let fits = |test: &Condition| test.evaluate(device) == Applies::Yes;
        let mut positive = self.0.iter().filter(|(excepted, _)| !excepted).peekable();
        let is_meant = positive.peek().is_none() || positive.any(|(_, test)| fits(test));
        is_meant && !self.0.iter().any(|(excepted, test)| *excepted && fits(test))
    }
}

#[cfg(test)]
mod conditions {
    use super::*;

    fn device(name: &str) -> Device {
        Device { name: name.into(), type_: Some("ether"), ..Device::default() }
    }

    #[test]
    fn profiles_are_about_a_name_or_what_they_match() {
        let read = |text: &str| profile(Path::new("a.nmconnection"), text);
        let quiet = "[connection]\ntype=ethernet\ninterface-name=nic0\n[ipv4]\nmethod=disabled\n[ipv6]\nmethod=ignore\n";
        assert!(!read(quiet).unwrap().addresses);
        assert!(read(&quiet.replace("ignore", "auto")).unwrap().addresses);
        let port = read("[connection]\ntype=ethernet\ninterface-name=nic0\nmaster=bond0\n").unwrap();
        assert!(!port.addresses && port.management == Management::KeepsMaster);
        let any =
            read("[connection]\ntype=ethernet\nid=Wired\n[match]\ninterface-name=nic*;!nic1;\n").unwrap();
        assert_eq!(
            [device("nic0"), device("nic1"), device("eth0")].map(|it| any.matches(&it)),
            [true, false, false].map(Applies::from)
        );
        let all = read("[connection]\ntype=ethernet\n").unwrap();
        assert_eq!(all.matches(&device("nic0")), Applies::Yes);
    }

    #[test]
    fn unmanaged_devices_are_known() {
        let judged = |text: &str| {
            let all = unmanaged_devices(text);
            ["nic0", "br136"].map(|name| all.iter().any(|one| one.matches(&device(name))))
        };
        assert_eq!(
            judged("[keyfile]\nunmanaged-devices=interface-name:br*;interface-name:veth*\n"),
            [false, true]
        );
        assert_eq!(judged("[keyfile]\nunmanaged-devices=*,except:interface-name:nic0\n"), [false, true]);
        assert_eq!(
            judged("[keyfile]\nunmanaged-devices=nic0\n[keyfile]\nunmanaged-devices+=br136\n"),
            [true, true]
        );
        assert_eq!(judged("[keyfile]\nunmanaged-devices=nic0\nunmanaged-devices=\n"), [false, false]);
        assert_eq!(judged("[device-pods]\nmatch-device=interface-name:br*\nmanaged=0\n"), [false, true]);
    }
}

//! netplan's files (netplan-yaml(5)).

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_yaml_ng::{Mapping, Value};

use super::definition::Definition;
use super::device::{Condition, Property};
use super::ini;
use crate::files;

const PROGRAM: &str = "netplan";
/// A file hides those of the same name in later directories.
const FOLDERS: [&str; 3] = ["/run/netplan", "/etc/netplan", "/lib/netplan"];
/// The sections below `network` that define interfaces.
const SECTIONS: [&str; 9] = [
    "ethernets",
    "bonds",
    "bridges",
    "vlans",
    "wifis",
    "modems",
    "tunnels",
    "dummy-devices",
    "virtual-ethernets",
];

/// A file that is not valid YAML, and the reason.
type Invalid = (PathBuf, String);

/// Every definition, and the files that cannot be parsed.
pub(super) fn find() -> Result<(Vec<Definition>, Vec<Invalid>)> {
    let folders: Vec<PathBuf> = FOLDERS.iter().map(PathBuf::from).collect();
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for (name, path) in ini::by_name(&folders)? {
        if !name.ends_with(".yaml") {
            continue;
        }
        let Some(content) = files::read(&path)? else { continue };
        match parse(&path, &content) {
            Ok(definitions) => found.extend(definitions),
            Err(error) => invalid.push((path, error.to_string())),
        }
    }
    Ok((found, invalid))
}

fn parse(path: &Path, content: &[u8]) -> Result<Vec<Definition>, serde_yaml_ng::Error> {
    let file: Value = serde_yaml_ng::from_slice(content)?;
    let mut found = Vec::new();
    for section in SECTIONS {
        let Some(interfaces) = file.get("network").and_then(|network| network.get(section)) else { continue };
        for (id, settings) in interfaces.as_mapping().into_iter().flatten() {
            let (Some(id), Some(settings)) = (id.as_str(), settings.as_mapping()) else { continue };
            // Not an interface, but a setting of the whole section.
            if id != "renderer" {
                found.push(definition(path, id, settings));
            }
        }
    }
    Ok(found)
}

/// One interface, or all that a `match` selects. An interface that is renamed goes by its new name.
fn definition(path: &Path, id: &str, settings: &Mapping) -> Definition {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let addresses = ["dhcp4", "dhcp6", "accept-ra"].iter().any(|key| settings.get(*key).is_some_and(is_true))
        || settings.get("addresses").and_then(Value::as_sequence).is_some_and(|list| !list.is_empty());
    let named = |name: &str| Definition::named(PROGRAM, path, name, addresses);
    let Some(selected) = settings.get("match").and_then(Value::as_mapping) else { return named(id) };
    if let Some(name) = text(settings.get("set-name")) {
        return named(&name);
    }
    let keys =
        [("name", Property::Name), ("macaddress", Property::PermanentMac), ("driver", Property::Driver)];
    let condition = |(key, property): (&str, Property)| {
        let patterns = match selected.get(key)? {
            Value::Sequence(list) => list.iter().filter_map(|item| text(Some(item))).collect(),
            value => vec![text(Some(value))?],
        };
        Some(Condition { property, patterns })
    };
    Definition { conditions: keys.into_iter().filter_map(condition).collect(), ..named(id) }
}

/// A boolean of YAML 1.1, which netplan reads.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::String(word) => ["yes", "on", "y", "true"].contains(&word.to_lowercase().as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::device::{Applies, Device};
    use super::*;

    fn parsed(text: &str) -> Vec<Definition> {
        parse(Path::new("/etc/netplan/a.yaml"), text.as_bytes()).unwrap()
    }

    #[test]
    fn interfaces_are_told_from_their_settings() {
        let text = "network:\n  version: 2\n  ethernets:\n    renderer: networkd\n    nic0: {}\n    nic1:\n      dhcp4: true\n  \
                    bonds:\n    bond0:\n      interfaces: [nic0, nic1]\n      parameters:\n        mode: 802.3ad\n  vlans:\n    \
                    bond0.51:\n      id: 51\n      addresses:\n        - 10.51.0.11/24\n";
        let found = parsed(text);
        let expected = [("nic0", false), ("nic1", true), ("bond0", false), ("bond0.51", true)];
        assert_eq!(found.len(), expected.len());
        for (definition, (name, addresses)) in found.iter().zip(expected) {
            assert!(definition.names(name), "{definition:?}");
            assert_eq!(definition.addresses, addresses, "{name}");
        }
    }

    #[test]
    fn every_form_of_a_setting_is_read() {
        let asks =
            |settings: &str| parsed(&format!("network: {{bonds: {{bond0: {settings}}}}}"))[0].addresses;
        for settings in [
            "{dhcp4: true}",
            "{dhcp6: Yes}",
            "{dhcp4: \"on\"}",
            "{accept-ra: true}",
            "{addresses: [10.0.0.1/8]}",
        ] {
            assert!(asks(settings), "{settings}");
        }
        for settings in ["{}", "{dhcp4: false}", "{dhcp4: no}", "{addresses: []}", "{macaddress: \"#\"}"] {
            assert!(!asks(settings), "{settings}");
        }
    }

    #[test]
    fn a_match_selects_by_name_mac_or_driver() {
        let device = |name: &str, driver: &str, mac: &str| Device {
            name: name.to_owned(),
            driver: Some(driver.to_owned()),
            permanent_mac: Some(mac.to_owned()),
            ..Device::default()
        };
        let found = |settings: &str| parsed(&format!("network: {{ethernets: {{a: {settings}}}}}"))[0].clone();
        let by_name = found("{match: {name: \"en*\"}}");
        assert_eq!(by_name.matches(&device("eno1", "ixgbe", "")), Applies::Yes);
        assert_eq!(by_name.matches(&device("a", "ixgbe", "")), Applies::No);
        let both = found("{match: {macaddress: \"02:00:00:00:00:0A\", driver: [ixgbe, ice]}}");
        assert_eq!(both.matches(&device("x", "ice", "02:00:00:00:00:0a")), Applies::Yes);
        assert_eq!(both.matches(&device("x", "e1000", "02:00:00:00:00:0a")), Applies::No);
        let renamed = found("{match: {macaddress: \"02:00:00:00:00:0a\"}, set-name: lan0}");
        assert_eq!(renamed.matches(&device("lan0", "ice", "")), Applies::Yes);
        assert!(parse(Path::new("a"), b"network: [\n").is_err());
    }
}

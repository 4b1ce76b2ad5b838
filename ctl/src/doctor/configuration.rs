//! Files: network lists, plugins, and what other programs are told of the same interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cni_conf::cni::version::Version;
use cni_conf::uplink::UplinkPort;
use vlan_bridge::ownership::is_ours;

use super::finding::Finding;
use crate::definitions::Definition;
use crate::facts::{Facts, Plugin};
use crate::lists::Found;
use crate::runtimes;

const LISTS: &str = "lists";

/// The lists in the folders where runtimes look.
pub(super) fn lists(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, why) in &facts.refused {
        findings.push(
            Finding::fail(
                LISTS,
                format!("{}: {why}", path.display()),
                "every ADD is refused with these words",
            )
            .mend("vlan-bridgectl install with a template that is right"),
        );
    }
    for (folder, found) in &facts.folders {
        findings.extend(in_folder(facts, folder, found));
    }
    findings
}

fn in_folder(facts: &Facts, folder: &Path, found: &[Found]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for list in found {
        let shown = list.path.display();
        if let Err(why) = &list.content {
            findings.push(
                Finding::fail(
                    LISTS,
                    format!("{shown}: {why}"),
                    "a runtime that reads it may take no list at all",
                )
                .mend(format!("rm {shown}")),
            );
        }
        findings.extend(version(facts, list));
    }
    let Some(ours) = found.iter().find(|list| list.is_ours()) else {
        if facts.networks.iter().all(|network| network.path.starts_with(folder)) {
            let seen = format!("no network list of ours in {}", folder.display());
            findings.push(
                Finding::fail(LISTS, seen, "no pod gets to our network").mend("vlan-bridgectl install"),
            );
        }
        return findings;
    };
    if let Some(first) = found.first().filter(|first| first.path != ours.path) {
        let seen = format!("{} sorts before {}", first.path.display(), ours.path.display());
        findings.push(Finding::warn(LISTS, seen, "containerd and CRI-O take the first list alone").mend(
            format!(
                "mv {} out of {}, or give ours a name that sorts first",
                first.path.display(),
                folder.display()
            ),
        ));
    }
    let mut names: BTreeMap<&str, &Found> = BTreeMap::new();
    for list in found {
        let Some(name) = list.name() else { continue };
        if let Some(other) = names.insert(name, list) {
            let seen =
                format!("{} and {} both describe network {name}", other.path.display(), list.path.display());
            findings.push(
                Finding::fail(LISTS, seen, "which one a runtime takes for a DEL is chance")
                    .mend("remove one of them"),
            );
        }
    }
    if findings.is_empty() && facts.refused.is_empty() {
        findings.push(Finding::ok(LISTS, ours.path.display()));
    }
    findings
}

/// A list in a version that a runtime refuses.
fn version(facts: &Facts, list: &Found) -> Option<Finding> {
    let content = list.content.as_ref().ok().filter(|_| list.is_ours())?;
    let version = Version::parse(content["cniVersion"].as_str()?).ok()?;
    let accepted = runtimes::common_cni(&facts.runtimes);
    if facts.runtimes.is_empty() || version <= accepted {
        return None;
    }
    let (version, accepted) = (version.as_str(), accepted.as_str());
    let seen = format!("{}: cniVersion {version}", list.path.display());
    Some(
        Finding::fail(LISTS, seen, format!("a runtime of this node takes {accepted} at the most"))
            .mend("vlan-bridgectl install"),
    )
}

/// The plugins that the lists of ours name.
pub(super) fn plugins(facts: &Facts) -> Vec<Finding> {
    let findings: Vec<Finding> = facts.plugins.iter().filter_map(|plugin| broken(facts, plugin)).collect();
    if !findings.is_empty() || facts.plugins.is_empty() {
        return findings;
    }
    let told = facts.plugins.iter().map(|plugin| match &plugin.version {
        Some(Ok(version)) => format!("{} {version}", plugin.name),
        _ => plugin.name.clone(),
    });
    vec![Finding::ok("plugins", told.collect::<Vec<_>>().join(", "))]
}

fn broken(facts: &Facts, plugin: &Plugin) -> Option<Finding> {
    const CHECK: &str = "plugins";
    let name = &plugin.name;
    let Some(path) = &plugin.path else {
        let dirs: Vec<String> = facts.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let seen = format!("{name} is not in {}", dirs.join(", "));
        return Some(
            Finding::fail(CHECK, seen, "every ADD fails")
                .mend("vlan-bridgectl install, or the package of that plugin"),
        );
    };
    let shown = path.display();
    if !plugin.executable {
        let seen = format!("{shown} is not executable");
        return Some(Finding::fail(CHECK, seen, "every ADD fails").mend(format!("chmod 0755 {shown}")));
    }
    let own = env!("CARGO_PKG_VERSION");
    match plugin.version.as_ref()? {
        Err(why) => Some(
            Finding::fail(
                CHECK,
                format!("{shown} is somebody else's, or does not run: {why}"),
                "ADDs fail, or do something else",
            )
            .mend("vlan-bridgectl install"),
        ),
        Ok(version) if version != own => Some(
            Finding::warn(
                CHECK,
                format!("{shown} is {version}, vlan-bridgectl {own}"),
                "an upgrade was left half done",
            )
            .mend("vlan-bridgectl install"),
        ),
        Ok(_) => None,
    }
}

/// What the plugin itself says of each network: whether an ADD would be refused, and why.
pub(super) fn status(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "status";
    let asked =
        facts.networks.iter().filter_map(|network| Some((&network.ours.name, network.status.as_ref()?)));
    let judge = |(name, status): (&String, &Result<(), String>)| match status {
        Ok(()) => Finding::ok(CHECK, format!("the plugin can serve network {name}")),
        Err(why) => {
            let seen = format!("the plugin cannot serve network {name}: {why}");
            Finding::fail(CHECK, seen, "the runtime reports the node as not ready, or ADDs fail")
                .mend("as the plugin says")
        }
    };
    asked.map(judge).collect()
}

/// What an interface is to a network of ours.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A NIC of a bond.
    Member,
    /// The bond or NIC, where its VLANs are the ports: it may well have addresses.
    Master,
    /// A port of a bridge of ours.
    Port,
    /// A bridge or sub-interface that the plugins made.
    Made,
}

/// Other programs' definitions of the interfaces that a network hangs on.
pub(super) fn definitions(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "definitions";
    let mut findings = Vec::new();
    let mut seen_files = BTreeSet::new();
    for (interface, role) in roles(facts) {
        let about: Vec<&Definition> =
            facts.definitions.iter().filter(|definition| definition.is_about(interface)).collect();
        for definition in &about {
            let Definition { program, path, .. } = definition;
            let path = path.display();
            let fights = definition.addresses && role != Role::Master;
            if fights && seen_files.insert((interface, &definition.path)) {
                let why =
                    format!("{interface} must carry none: answers to the pods' VLAN would be the node's");
                let seen = format!("{program} gives {interface} addresses: {path}");
                findings
                    .push(Finding::fail(CHECK, seen, why).mend(format!("take {interface} out of {path}")));
            } else if role == Role::Made && definition.interface == interface {
                let seen = format!("{program} defines {interface}, which vlan-bridge made: {path}");
                let why = "two programs that make one interface undo each other at the next boot";
                findings
                    .push(Finding::warn(CHECK, seen, why).mend(format!("take {interface} out of {path}")));
            }
        }
        let programs: BTreeSet<&str> = about.iter().map(|definition| definition.program).collect();
        // netplan writes what networkd and NetworkManager read.
        if programs.len() > 1 && !programs.contains("netplan") {
            let programs: Vec<&str> = programs.into_iter().collect();
            let paths: Vec<String> =
                about.iter().map(|definition| definition.path.display().to_string()).collect();
            let seen = format!("{} both define {interface}: {}", programs.join(" and "), paths.join(", "));
            let why = "whichever starts last wins, and may take the interface out of its bond";
            findings.push(Finding::warn(CHECK, seen, why).mend("keep one of them"));
        }
    }
    if findings.is_empty() {
        findings
            .push(Finding::ok(CHECK, format!("{} of interfaces, none that fights", facts.definitions.len())));
    }
    findings
}

fn roles(facts: &Facts) -> BTreeMap<&str, Role> {
    let mut roles = BTreeMap::new();
    for network in &facts.networks {
        let Some(uplink) = &network.ours.network.uplink else { continue };
        let whole = !matches!(uplink.port, UplinkPort::SubInterface { .. });
        roles.insert(uplink.master.as_str(), if whole { Role::Port } else { Role::Master });
        let members = facts.bonds.get(&uplink.master).map(|bond| bond.members.as_slice()).unwrap_or_default();
        roles.extend(members.iter().map(|member| (member.name.as_str(), Role::Member)));
        for name in [network.ours.network.bridge.as_str(), uplink.port_name()] {
            if name == uplink.master {
                continue;
            }
            let made = facts.link(name).is_none_or(is_ours);
            roles.insert(name, if made { Role::Made } else { Role::Port });
        }
    }
    roles
}

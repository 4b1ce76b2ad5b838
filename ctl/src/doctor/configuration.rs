//! Network lists and plugins in the directories of the runtimes.

use std::collections::BTreeMap;
use std::path::Path;

use cni_conf::cni::version::Version;

use super::finding::Finding;
use crate::facts::{Facts, NetworkState, Plugin};
use crate::lists::ListFile;
use crate::runtimes::{self, Runtime};

const LISTS: &str = "lists";
/// Without a list, `install` installs the plugins only.
const INSTALL: &str = "vlan-bridgectl install --network FILE --slice CIDR (or, without a FILE: --name, --master, --vlan, --subnet)";

/// The lists in the directories of the runtimes.
pub(super) fn lists(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, why) in &facts.refused {
        findings.push(
            Finding::fail(LISTS, format!("{}: {why}", path.display()), "every ADD fails with this error")
                .fix("vlan-bridgectl install --network FILE --slice CIDR, with a corrected FILE"),
        );
    }
    for (folder, found) in &facts.folders {
        findings.extend(in_folder(facts, folder, found));
    }
    findings
}

fn in_folder(facts: &Facts, folder: &Path, found: &[ListFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for list in found {
        let shown = list.path.display();
        if let Err(why) = &list.content {
            findings.push(
                Finding::fail(
                    LISTS,
                    format!("{shown}: {why}"),
                    "a runtime that reads it may reject all lists",
                )
                .fix(unreadable_list_fix(facts, &list.path)),
            );
        }
        findings.extend(version(facts, list));
        findings.extend(misnamed(list));
    }
    findings.extend(unused_list(facts, folder, found));
    let Some(own) = found.iter().find(|list| list.names_vlan_bridge()) else {
        if facts.networks.iter().all(|network| network.path.starts_with(folder)) {
            findings.push(without_list(facts, folder));
        }
        return findings;
    };
    if let Some(first) = found.first().filter(|first| first.path != own.path) {
        let seen = format!("{} sorts before {}", first.path.display(), own.path.display());
        findings.push(Finding::warn(LISTS, seen, "containerd and CRI-O use only the first list").fix(
            format!(
                "move {} out of {}, or rename the vlan-bridge list to sort first",
                first.path.display(),
                folder.display()
            ),
        ));
    }
    let mut names: BTreeMap<&str, &ListFile> = BTreeMap::new();
    for list in found {
        let Some(name) = list.name() else { continue };
        if let Some(other) = names.insert(name, list) {
            let seen =
                format!("{} and {} both describe network {name}", other.path.display(), list.path.display());
            findings.push(
                Finding::fail(LISTS, seen, "a runtime may use the wrong one for a DEL")
                    .fix("remove one of them"),
            );
        }
    }
    if findings.is_empty() && facts.refused.is_empty() {
        findings.push(Finding::ok(LISTS, own.path.display()));
    }
    findings
}

/// A list whose file has the extension of a single plugin's configuration, or the other way round.
fn misnamed(list: &ListFile) -> Option<Finding> {
    let name = list.misnamed.as_ref().filter(|_| list.names_vlan_bridge())?;
    let (shown, name) = (list.path.display(), name.display());
    let seen = match list.path.extension().is_some_and(|ending| ending == "conflist") {
        true => format!("{shown}: a single plugin's configuration in a .conflist file"),
        false => format!("{shown}: a list in a file that is not named .conflist"),
    };
    Some(Finding::fail(LISTS, seen, "no runtime accepts it").fix(format!("mv {shown} {name}")))
}

/// A directory of a runtime without a vlan-bridge list. Attached pods show that some runtime has a list, in
/// another directory.
fn without_list(facts: &Facts, folder: &Path) -> Finding {
    let seen = format!("no network list with vlan-bridge in {}", folder.display());
    if let Some(attached) = attached(facts) {
        let why = "their runtime uses another directory, or the list that their DEL needs was removed";
        return Finding::warn(LISTS, format!("{seen}, and {attached}"), why)
            .fix("vlan-bridgectl doctor --conf-dir DIR, with the network list directory of their runtime");
    }
    let place = match runtimes::conf_dirs(&facts.runtimes).iter().any(|dir| dir == folder) {
        true => String::new(),
        false => format!(" --conf-dir {}", folder.display()),
    };
    Finding::fail(LISTS, seen, "pods do not get a vlan-bridge interface").fix(format!("{INSTALL}{place}"))
}

/// How many pods are attached; none if there are none.
fn attached(facts: &Facts) -> Option<String> {
    match facts.attachments().count() {
        0 => None,
        1 => Some("1 pod is attached".to_owned()),
        count => Some(format!("{count} pods are attached")),
    }
}

/// The fix for a list that cannot be read: the copy that install or uninstall kept, if there is one.
fn unreadable_list_fix(facts: &Facts, path: &Path) -> String {
    let shown = path.display();
    if let Some(kept) = facts.kept.iter().find(|kept| kept.file_name() == path.file_name()) {
        return format!("cp {} {shown}   # the previous list; or rm {shown}", kept.display());
    }
    format!("rm {shown}")
}

/// A vlan-bridge list that no runtime reads, because install was given another directory.
fn unused_list(facts: &Facts, folder: &Path, found: &[ListFile]) -> Option<Finding> {
    let looked_at = runtimes::conf_dirs(&facts.runtimes);
    let is_looked_at = |folder: &Path| looked_at.iter().any(|dir| dir == folder);
    let mut others = facts.folders.iter().filter(|(other, _)| is_looked_at(other)).peekable();
    others.peek()?;
    if facts.list_readers().next().is_none()
        || is_looked_at(folder)
        || others.any(|(_, lists)| lists.iter().any(ListFile::names_vlan_bridge))
    {
        return None;
    }
    let own = found.iter().find(|list| list.names_vlan_bridge())?.path.display();
    let seen = format!("{own} is in no directory of {}", runtime_names(facts));
    let command = format!("vlan-bridgectl install --network {own}");
    let why = match attached(facts) {
        None => "their pods do not get a vlan-bridge interface".to_owned(),
        Some(attached) => {
            format!("{attached}: by a runtime that was not found, or before this one was installed")
        }
    };
    Some(Finding::warn(LISTS, seen, why).fix(command))
}

fn runtime_names(facts: &Facts) -> String {
    facts.list_readers().map(|runtime| runtime.name).collect::<Vec<_>>().join(" or ")
}

/// A list with a cniVersion that a runtime refuses.
fn version(facts: &Facts, list: &ListFile) -> Option<Finding> {
    let content = list.content.as_ref().ok().filter(|_| list.names_vlan_bridge())?;
    let version = Version::parse(content["cniVersion"].as_str()?).ok()?;
    let accepted = runtimes::common_cni(&facts.runtimes);
    if facts.list_readers().next().is_none() || version <= accepted {
        return None;
    }
    let (version, accepted) = (version.as_str(), accepted.as_str());
    let seen = format!("{}: cniVersion {version}", list.path.display());
    Some(
        Finding::fail(LISTS, seen, format!("a runtime of this node accepts at most {accepted}"))
            .fix(format!("vlan-bridgectl install --network {}", list.path.display())),
    )
}

/// The plugins that the vlan-bridge lists name.
pub(super) fn plugins(facts: &Facts) -> Vec<Finding> {
    let findings: Vec<Finding> =
        facts.plugins.iter().filter_map(|plugin| broken_plugin(facts, plugin)).collect();
    if !findings.is_empty() || facts.plugins.is_empty() {
        return findings;
    }
    let versions = facts.plugins.iter().map(|plugin| match &plugin.version {
        Some(Ok(version)) => format!("{} {version}", plugin.name),
        _ => plugin.name.clone(),
    });
    vec![Finding::ok("plugins", versions.collect::<Vec<_>>().join(", "))]
}

/// The command that installs the plugins into the directory of the runtimes.
fn install_plugins(facts: &Facts) -> String {
    let places = runtimes::bin_dirs(&facts.runtimes);
    match facts.bin_dirs.first().filter(|dir| !places.contains(dir)) {
        Some(dir) => format!("vlan-bridgectl install --bin-dir {}", dir.display()),
        None => "vlan-bridgectl install".to_owned(),
    }
}

/// The effect of a plugin that cannot run.
fn effect_of_missing_plugin(facts: &Facts) -> &'static str {
    if attached(facts).is_none() { "every ADD fails" } else { "the next ADD or DEL fails" }
}

fn broken_plugin(facts: &Facts, plugin: &Plugin) -> Option<Finding> {
    const CHECK: &str = "plugins";
    let name = &plugin.name;
    let Some(path) = &plugin.path else {
        let dirs: Vec<String> = facts.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let seen = format!("{name} is not in {}", dirs.join(", "));
        let command = format!("{}, or install the package of that plugin", install_plugins(facts));
        // If another vlan-bridge plugin is there, the directory is right.
        let has_other_plugin = facts.plugins.iter().any(|it| it.version.is_some());
        let Some(attached) = attached(facts).filter(|_| !has_other_plugin) else {
            return Some(Finding::fail(CHECK, seen, effect_of_missing_plugin(facts)).fix(command));
        };
        let why =
            "their runtime uses another directory, or the plugin was removed and the next ADD or DEL fails";
        return Some(
            Finding::warn(CHECK, format!("{seen}, and {attached}"), why)
                .fix("vlan-bridgectl doctor --bin-dir DIR, with the plugin directory of their runtime")
                .fix(command),
        );
    };
    let shown = path.display();
    if !plugin.executable {
        let seen = format!("{shown} is not executable");
        return Some(
            Finding::fail(CHECK, seen, effect_of_missing_plugin(facts)).fix(format!("chmod 0755 {shown}")),
        );
    }
    let looks = |runtime: &Runtime| runtime.bin_dirs.iter().any(|dir| path.starts_with(dir));
    if facts.list_readers().next().is_some() && !facts.list_readers().any(looks) {
        let seen = format!("{shown} is in no directory of {}", runtime_names(facts));
        let why = match attached(facts) {
            None => "every ADD by them fails".to_owned(),
            Some(attached) => {
                format!("{attached}: by a runtime that was not found, or before this one was installed")
            }
        };
        return Some(Finding::warn(CHECK, seen, why).fix("vlan-bridgectl install"));
    }
    let own = env!("CARGO_PKG_VERSION");
    match plugin.version.as_ref()? {
        Err(why) => Some(
            Finding::fail(
                CHECK,
                format!("{shown} is another program, or does not run: {why}"),
                "ADDs fail, or misbehave",
            )
            .fix(install_plugins(facts)),
        ),
        Ok(version) if version != own => Some(
            Finding::warn(
                CHECK,
                format!("{shown} is {version}, vlan-bridgectl {own}"),
                "an upgrade was not completed",
            )
            .fix(install_plugins(facts)),
        ),
        Ok(_) => None,
    }
}

/// The plugin's answer to STATUS for each network.
pub(super) fn status(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "status";
    // STATUS does not check for kernel modules. The check `modules` reports a missing one.
    let is_shown = |network: &&NetworkState| {
        !(facts.lacks_vlan_module(&network.config) && network.status == Some(Ok(())))
    };
    let networks = facts.networks.iter().filter(is_shown);
    let asked = networks.filter_map(|network| Some((&network.config.name, network.status.as_ref()?)));
    let judge = |(name, status): (&String, &Result<(), String>)| match status {
        Ok(()) => Finding::ok(CHECK, format!("the plugin is ready for network {name}")),
        Err(why) => {
            let seen = format!("the plugin is not ready for network {name}: {why}");
            Finding::fail(CHECK, seen, "the runtime reports the node as not ready, or ADDs fail")
                .fix(format!("fix this: {why} (docs/errors.md explains the code)"))
        }
    };
    asked.map(judge).collect()
}

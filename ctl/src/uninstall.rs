//! `uninstall`: removes what install and the plugins created, lists first, so that no runtime calls a
//! plugin that is gone.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use cni_conf::family::Family;
use ipnet::IpNet;
use kernel::link::{Kind, Link};
use kernel::sysctl::forwards;
use kernel::{Conn, NetError, addr, remove};
use serde_json::{Value, json};
use vlan_bridge::AgentLock;
use vlan_bridge::ownership::{Attachment, attachment_of, is_attachment, is_ours};
use vlan_bridge::record::{GuardRecord, NatRecord, Records};
use vlan_bridge::{boundary, guard, host_access, nat, ports, trunk};

use crate::args::{Output, Uninstall};
use crate::lists::PLUGIN_TYPE;
use crate::lock::InstallLock;
use crate::manifest::{self, Manifest};
use crate::{files, lists, node, output, plugin, runtimes};

/// What was removed, and what stays on purpose.
#[derive(Default)]
struct Report {
    files: Vec<PathBuf>,
    /// Foreign lists that were restored.
    restored: Vec<PathBuf>,
    interfaces: Vec<String>,
    left: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &Uninstall, out: &mut dyn Write) -> Result<()> {
    // Without the directory nothing was installed, and uninstall does not create it.
    let _lock = Path::new(manifest::FOLDER).exists().then(InstallLock::acquire).transpose()?;
    if AgentLock::is_held()? {
        bail!(
            "the agent runs on this node: end it first, with systemctl disable --now vlan-bridge-agent, or by \
             deleting its pod"
        );
    }
    let report = node::runtime()?.block_on(async {
        let conn = Conn::open()?;
        let links = node::links(&conn).await?;
        let attached: Vec<&Link> = links.iter().filter(|link| is_attachment(link)).collect();
        if !attached.is_empty() && !args.force {
            bail!("{}", attached_error(&attached));
        }
        let mut report = Report::default();
        let manifest = Manifest::read()?;
        let lists = known_lists(&manifest)?;
        for list in &manifest.lists {
            remove_list(list, &mut report)?;
        }
        for link in attached {
            detach(&conn, link, &lists, &manifest, &mut report).await?;
        }
        for path in manifest.agent.iter().chain(&manifest.binaries) {
            remove_file(path, &mut report)?;
        }
        let uplinks = uplinks(&lists);
        if let Err(why) = delete_state_of_dead_pods(&conn, &lists).await {
            report.left.push(format!("rules or routes of pods that no longer exist: {why:#}"));
        }
        remove_interfaces(&conn, &uplinks, &mut report).await?;
        report.left.extend(forwarding_left(&lists, forwards)?);
        // Last, because a runtime that finds a list starts pods.
        for (list, kept) in &manifest.kept {
            restore(list, kept, &mut report)?;
        }
        Manifest::remove()?;
        Ok(report)
    })?;
    print(&report, args.output, out)
}

/// Removes the state outside the pods' interfaces of pods that ended without a DEL, or whose DEL could not
/// be called. At this point no pod is attached.
async fn delete_state_of_dead_pods(conn: &Conn, lists: &[Value]) -> Result<()> {
    let recorded =
        Records::<NatRecord>::of_this_node()?.all().into_iter().map(|(_, record)| record.pod.network.clone());
    let named = lists.iter().filter_map(|list| list["name"].as_str().map(str::to_owned));
    for network in recorded.chain(named).collect::<BTreeSet<String>>() {
        nat::collect(conn, &network, &[], false).await?;
    }
    nat::remove_leftovers(conn).await?;
    // The guard's rule set stays for the next pod, and there will be none.
    guard::remove_table()?;
    boundary::remove()?;
    let guards = Records::<GuardRecord>::of_this_node()?;
    for (veth, _) in guards.all() {
        guards.remove(&veth)?;
    }
    guards.end();
    trunk::remove_records()?;
    ports::delete_all_records()?;
    AgentLock::remove_folder()?;
    host_access::delete_stale_records(conn, &host_access::recorded_veths()?, &[]).await?;
    // These routes use the bridge, which stays if something else uses it.
    host_access::remove_stale(conn, &host_access::OwnRoutes::look(conn).await?, &[])?;
    Ok(())
}

/// An error that names a few of the attached pods.
fn attached_error(attached: &[&Link]) -> String {
    const MAX_NAMED: usize = 5;
    let name = |link: &&Link| match attachment_of(link) {
        Some(pod) => format!("{} {} of {}", pod.container_id, pod.ifname, pod.network),
        None => link.name.clone(),
    };
    let named: Vec<String> = attached.iter().take(MAX_NAMED).map(name).collect();
    let more = if attached.len() > MAX_NAMED { ", …" } else { "" };
    let pods = match attached.len() {
        1 => "1 pod is".to_owned(),
        count => format!("{count} pods are"),
    };
    format!(
        "{pods} attached ({}{more}): drain the node first, or use --force to delete their interfaces",
        named.join(", ")
    )
}

/// Whether the plugin switches forwarding on for pods of an entry: it is a gateway, or translates packets.
fn needs_forwarding(entry: &Value) -> bool {
    let is_on = |key: &str| entry[key] == true;
    ["isGateway", "isDefaultGateway", "ipMasq"].into_iter().any(is_on)
        || entry["capabilities"]["portMappings"] == true
        || entry.get("serviceCIDRs").is_some()
}

/// The forwarding that the plugins may have switched on, with the command that switches it off. It stays,
/// because other programs may have come to need it.
fn forwarding_left(
    lists: &[Value],
    is_on: impl Fn(Family) -> Result<bool, NetError>,
) -> Result<Vec<String>, NetError> {
    if !lists.iter().flat_map(lists::entries).any(|entry| needs_forwarding(&entry)) {
        return Ok(Vec::new());
    }
    let mut left = Vec::new();
    for (family, key) in [(Family::V4, "net.ipv4.ip_forward"), (Family::V6, "net.ipv6.conf.all.forwarding")] {
        if is_on(family)? {
            left.push(format!(
                "{key} = 1, which the plugins switch on for such networks: if nothing else on this node needs it, \
                 sysctl -w {key}=0"
            ));
        }
    }
    Ok(left)
}

/// Every list that may have created something here, earlier ones included.
fn known_lists(manifest: &Manifest) -> Result<Vec<Value>> {
    let mut paths = manifest.lists.clone();
    // A runtime's broken configuration must not stop uninstall.
    let runtimes = runtimes::find(None).unwrap_or_else(|why| {
        output::report(&format!("warning: {why:#}: the network lists of that runtime are not read"));
        Vec::new()
    });
    let mut folders = runtimes::conf_dirs(&runtimes);
    folders.extend([manifest::backup_dir(), manifest::uninstalled_dir()]);
    for folder in folders {
        paths.extend(lists::in_folder(&folder)?.into_iter().map(|found| found.path));
    }
    Ok(paths.iter().filter_map(|path| lists::read(path).ok()).collect())
}

/// The uplink ports of the bridges that the lists name.
fn uplinks(lists: &[Value]) -> Vec<String> {
    let configs = lists.iter().filter_map(|list| lists::check(list).ok()).flatten();
    configs.filter_map(|config| Some(config.network.uplink?.port_name().to_owned())).collect()
}

/// Removes a file that install wrote.
fn remove_file(path: &Path, report: &mut Report) -> Result<()> {
    if files::remove(path)? {
        report.files.push(path.to_owned());
    }
    Ok(())
}

/// Removes a list that install wrote, and keeps a copy where no runtime reads it. A list that no longer has
/// a vlan-bridge entry stays.
fn remove_list(path: &Path, report: &mut Report) -> Result<()> {
    match files::read(path)? {
        None => Ok(()),
        Some(content) if lists::names_vlan_bridge(&content) => {
            let name = path.file_name().unwrap_or_default();
            files::write_atomically(&manifest::uninstalled_dir().join(name), &content, files::mode(path)?)?;
            remove_file(path, report)
        }
        Some(_) => {
            report.left.push(format!("{}: it no longer has a plugin of type {PLUGIN_TYPE}", path.display()));
            Ok(())
        }
    }
}

/// Restores a foreign list, unless its path is taken. A list that needs vlan-bridge stays in the backup,
/// because the plugin is gone.
fn restore(list: &Path, kept: &Path, report: &mut Report) -> Result<()> {
    let Some(content) = files::read(kept)? else { return Ok(()) };
    match files::read(list)? {
        Some(there) if there != content => {
            report.left.push(format!(
                "{}: not restored: {} is another list now",
                kept.display(),
                list.display()
            ));
            return Ok(());
        }
        Some(_) => {}
        None if lists::names_vlan_bridge(&content) => {
            let why = format!(
                "not restored as {}: it needs the plugin {PLUGIN_TYPE}, which was removed",
                list.display()
            );
            report.left.push(format!("{}: {why}", kept.display()));
            return Ok(());
        }
        None => {
            files::write_atomically(list, &content, files::mode(kept)?)?;
            report.restored.push(list.to_owned());
        }
    }
    files::remove(kept).map(drop)
}

/// Detaches a pod with the plugin's DEL, which removes everything. If DEL cannot be called, deletes the
/// interface only.
async fn detach(
    conn: &Conn,
    link: &Link,
    lists: &[Value],
    manifest: &Manifest,
    report: &mut Report,
) -> Result<()> {
    let attachment = attachment_of(link);
    let outcome = match &attachment {
        Some(attachment) => del(attachment, lists, &manifest.binaries),
        None => Err(anyhow!("its alias names no attachment")),
    };
    if let Err(why) = outcome {
        report.left.push(format!("the state of {}, its lease included: {why:#}", link.name));
    }
    remove::link(conn, link.index, &link.name).await?;
    report.interfaces.push(link.name.clone());
    Ok(())
}

/// Calls the plugin's DEL for an attachment without a namespace, as a runtime does if the pod's namespace
/// is gone.
fn del(attachment: &Attachment<'_>, lists: &[Value], binaries: &[PathBuf]) -> Result<()> {
    let list = lists.iter().find(|list| list["name"] == attachment.network);
    let list = list.ok_or_else(|| anyhow!("no list describes network {}", attachment.network))?;
    let is_plugin =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name == PLUGIN_TYPE) && path.exists();
    let plugin = binaries
        .iter()
        .find(is_plugin)
        .ok_or_else(|| anyhow!("the plugin {PLUGIN_TYPE} is not installed"))?;
    let entry = lists::entries(list).next();
    let entry =
        entry.ok_or_else(|| anyhow!("no plugin of type {PLUGIN_TYPE} in network {}", attachment.network))?;
    plugin::call(plugin, "DEL", &entry, Some(attachment))
}

/// Removes bridges that the plugins created, then sub-interfaces, unless something else uses them.
async fn remove_interfaces(conn: &Conn, uplinks: &[String], report: &mut Report) -> Result<()> {
    for is_bridge in [true, false] {
        // Read again each time: a deleted bridge has no ports.
        let links = node::links(conn).await?;
        for link in links.iter().filter(|link| is_ours(link) && link.bridge().is_some() == is_bridge) {
            match user_of(conn, link, &links, uplinks).await? {
                Some(why) => report.left.push(format!("{}: {why}", link.name)),
                None => {
                    remove::link(conn, link.index, &link.name).await?;
                    report.interfaces.push(link.name.clone());
                }
            }
        }
    }
    Ok(())
}

/// What else uses an interface that the plugins created; none if nothing does.
async fn user_of(conn: &Conn, link: &Link, links: &[Link], uplinks: &[String]) -> Result<Option<String>> {
    let by_index = |index| links.iter().find(|other| other.index == index);
    if let Some(master) = link.master.and_then(by_index) {
        return Ok(Some(format!("it is a port of {}, which stays", master.name)));
    }
    // Other ports belong to containers or virtual machines.
    let is_uplink = |port: &Link| {
        is_ours(port)
            || uplinks.contains(&port.name)
            || matches!(port.kind, Kind::Bond(_) | Kind::Vlan { .. })
            || port.kind_name() == "hardware"
    };
    let (ways_out, guests): (Vec<&Link>, Vec<&Link>) =
        links.iter().filter(|port| port.master == Some(link.index)).partition(|port| is_uplink(port));
    // A bridge without an uplink has the gateway address that the plugin gave it. A bridge with an uplink
    // has no address from the plugin, and the node may need it.
    if (link.bridge().is_none() || !ways_out.is_empty())
        && let Some(net) = configured_address(conn, link).await?
    {
        return Ok(Some(format!("it has the address {net}")));
    }
    if let Some(port) = guests.first() {
        return Ok(Some(format!("{} is a port of it", port.name)));
    }
    for upper in links.iter().filter(|upper| upper.parent == Some(link.index)) {
        if matches!(upper.kind, Kind::Vlan { .. }) && !is_ours(upper) {
            return Ok(Some(format!("{} is a sub-interface of it", upper.name)));
        }
        // It would be deleted with the bridge.
        if let Some(net) = configured_address(conn, upper).await?.filter(|_| !ways_out.is_empty()) {
            return Ok(Some(format!("{} on top of it has the address {net}", upper.name)));
        }
    }
    Ok(None)
}

/// An address of an interface that neither the kernel nor the plugin configured.
async fn configured_address(conn: &Conn, link: &Link) -> Result<Option<IpNet>> {
    let all = addr::list(conn, link.index).await?;
    Ok(all
        .iter()
        .find(|address| !address.link_local && address.net != trunk::DUMMY)
        .map(|address| address.net))
}

fn print(report: &Report, format: Output, out: &mut dyn Write) -> Result<()> {
    if format == Output::Json {
        let all = json!({"files": report.files, "interfaces": report.interfaces, "restored": report.restored, "left": report.left});
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for path in &report.files {
        writeln!(out, "removed   {}", path.display())?;
    }
    for name in &report.interfaces {
        writeln!(out, "removed   interface {name}")?;
    }
    for path in &report.restored {
        writeln!(out, "restored  {}: the list from before install", path.display())?;
    }
    if report.files.is_empty() && report.interfaces.is_empty() && report.restored.is_empty() {
        writeln!(out, "nothing was installed")?;
    }
    report.left.iter().for_each(|left| output::report(&format!("warning: left {left}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarding_that_the_plugins_needed_is_named_with_what_switches_it_off() {
        let left = |entry: Value, v4: bool, v6: bool| {
            let mut entry = entry;
            entry["type"] = PLUGIN_TYPE.into();
            let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [entry]});
            forwarding_left(&[list], |family| Ok(if family == Family::V4 { v4 } else { v6 })).unwrap()
        };
        for entry in [
            json!({"isGateway": true}),
            json!({"isDefaultGateway": true}),
            json!({"ipMasq": true}),
            json!({"capabilities": {"portMappings": true}}),
            json!({"serviceCIDRs": ["10.96.0.0/12"]}),
        ] {
            let told = left(entry.clone(), true, false);
            assert!(told.len() == 1 && told[0].starts_with("net.ipv4.ip_forward = 1, "), "{entry}: {told:?}");
            assert!(told[0].ends_with("sysctl -w net.ipv4.ip_forward=0"), "{told:?}");
            let told = left(entry.clone(), false, true);
            assert!(
                told.len() == 1 && told[0].ends_with("sysctl -w net.ipv6.conf.all.forwarding=0"),
                "{told:?}"
            );
            assert_eq!(left(entry.clone(), true, true).len(), 2);
            assert_eq!(left(entry, false, false), [""; 0]);
        }
        let bridged =
            json!({"uplink": {"master": "bond0"}, "isGateway": false, "capabilities": {"mac": true}});
        assert_eq!(left(bridged, true, true), [""; 0], "bridged pods need no forwarding");
    }
}

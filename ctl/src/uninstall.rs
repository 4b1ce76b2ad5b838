//! `uninstall`: takes back what install and the plugins put there, lists first, so that no runtime calls a
//! plugin that is gone.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use ipnet::IpNet;
use kernel::link::{Kind, Link};
use kernel::{Conn, addr, remove};
use serde_json::{Value, json};
use vlan_bridge::ownership::{Attachment, attachment_of, is_attachment, is_ours};
use vlan_bridge::record::Records;
use vlan_bridge::{boundary, guard, host_access, nat, ports, trunk};

use crate::args::{Output, Uninstall};
use crate::lists::OUR_PLUGIN;
use crate::lock::InstallLock;
use crate::manifest::{self, Manifest};
use crate::{files, lists, node, output, plugin, runtimes};

/// What was taken away, and what is left on purpose.
#[derive(Default)]
struct Done {
    files: Vec<PathBuf>,
    /// Lists of others that are where they were before.
    restored: Vec<PathBuf>,
    interfaces: Vec<String>,
    left: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(call: &Uninstall, out: &mut dyn Write) -> Result<()> {
    // Where the folder is not there, nothing was installed, and none is made for that.
    let _lock = Path::new(manifest::FOLDER).exists().then(InstallLock::acquire).transpose()?;
    let done = node::runtime()?.block_on(async {
        let conn = Conn::open()?;
        let links = node::links(&conn).await?;
        let attached: Vec<&Link> = links.iter().filter(|link| is_attachment(link)).collect();
        if !attached.is_empty() && !call.force {
            bail!("{}", refusal(&attached));
        }
        let mut done = Done::default();
        let manifest = Manifest::read()?;
        let lists = known_lists(&manifest)?;
        for list in &manifest.lists {
            remove_list(list, &mut done)?;
        }
        for link in attached {
            detach(&conn, link, &lists, &manifest, &mut done).await?;
        }
        for binary in &manifest.binaries {
            take(binary, &mut done)?;
        }
        let uplinks = uplinks(&lists);
        if let Err(why) = delete_state_of_dead_pods(&conn, &lists).await {
            done.left.push(format!("rules or routes of pods that are gone: {why:#}"));
        }
        remove_interfaces(&conn, &uplinks, &mut done).await?;
        // Last: a runtime that sees a list starts pods.
        for (list, kept) in &manifest.kept {
            restore(list, kept, &mut done)?;
        }
        Manifest::remove()?;
        Ok(done)
    })?;
    tell(&done, call.output, out)
}

/// Takes away what was given to pods outside their interfaces, and was not taken back: of those that died
/// without a DEL, or whose DEL could not be called. By now nobody is attached.
async fn delete_state_of_dead_pods(conn: &Conn, lists: &[Value]) -> Result<()> {
    let recorded = Records::of_this_node()?.all().into_iter().map(|(_, record)| record.network);
    let named = lists.iter().filter_map(|list| list["name"].as_str().map(str::to_owned));
    for network in recorded.chain(named).collect::<BTreeSet<String>>() {
        nat::collect(conn, &network, &[], false).await?;
    }
    nat::remove_leftovers(conn).await?;
    // The guard's frame stays for the next pod, and there will be none.
    guard::remove_table()?;
    boundary::remove()?;
    let guards = Records::of_guards()?;
    for (veth, _) in guards.all() {
        guards.remove(&veth)?;
    }
    guards.end();
    trunk::remove_records()?;
    ports::delete_all_records()?;
    host_access::delete_stale_records(conn, &host_access::recorded_veths()?, &[]).await?;
    // They hang on the bridge, which stays where somebody else uses it.
    host_access::remove_stale(&host_access::OwnRoutes::look(conn).await?, &[])?;
    Ok(())
}

/// Names a few of them.
fn refusal(attached: &[&Link]) -> String {
    const MOST: usize = 5;
    let name = |link: &&Link| match attachment_of(link) {
        Some(pod) => format!("{} {} of {}", pod.container_id, pod.ifname, pod.network),
        None => link.name.clone(),
    };
    let named: Vec<String> = attached.iter().take(MOST).map(name).collect();
    let more = if attached.len() > MOST { ", …" } else { "" };
    let pods = match attached.len() {
        1 => "1 pod is".to_owned(),
        count => format!("{count} pods are"),
    };
    format!(
        "{pods} attached ({}{more}): drain the node first; --force takes their interfaces away as well",
        named.join(", ")
    )
}

/// Every list that may have made something here, those of earlier included.
fn known_lists(manifest: &Manifest) -> Result<Vec<Value>> {
    let mut paths = manifest.lists.clone();
    // What a runtime's configuration says is not worth staying for.
    let runtimes = runtimes::find(None).unwrap_or_else(|why| {
        output::report(&format!("warning: {why:#}: where that runtime looks for lists is not looked into"));
        Vec::new()
    });
    let mut folders = runtimes::conf_dirs(&runtimes);
    folders.extend([manifest::backup_dir(), manifest::uninstalled_dir()]);
    for folder in folders {
        paths.extend(lists::in_folder(&folder)?.into_iter().map(|found| found.path));
    }
    Ok(paths.iter().filter_map(|path| lists::read(path).ok()).collect())
}

/// The ports by which bridges of this node reach their networks, as far as lists tell.
fn uplinks(lists: &[Value]) -> Vec<String> {
    let ours = lists.iter().filter_map(|list| lists::check(list).ok()).flatten();
    ours.filter_map(|ours| Some(ours.network.uplink?.port_name().to_owned())).collect()
}

/// Removes a file of ours.
fn take(path: &Path, done: &mut Done) -> Result<()> {
    if files::remove(path)? {
        done.files.push(path.to_owned());
    }
    Ok(())
}

/// Removes a list of ours, which is kept where no runtime looks. What somebody has put into its place is not
/// ours to take.
fn remove_list(path: &Path, done: &mut Done) -> Result<()> {
    match files::read(path)? {
        None => Ok(()),
        Some(content) if lists::is_ours(&content) => {
            let name = path.file_name().unwrap_or_default();
            files::put(&manifest::uninstalled_dir().join(name), &content, files::mode(path)?)?;
            take(path, done)
        }
        Some(_) => {
            done.left.push(format!("{}: no plugin of type {OUR_PLUGIN} is in it by now", path.display()));
            Ok(())
        }
    }
}

/// Gives a list of others back, unless something else is there by now. One that names our plugin would have
/// no plugin.
fn restore(list: &Path, kept: &Path, done: &mut Done) -> Result<()> {
    let Some(content) = files::read(kept)? else { return Ok(()) };
    match files::read(list)? {
        Some(there) if there != content => {
            done.left.push(format!("{}: {} has another list by now", kept.display(), list.display()));
            return Ok(());
        }
        Some(_) => {}
        None if lists::is_ours(&content) => {
            let why =
                format!("it is not put back as {}, for its plugin {OUR_PLUGIN} is gone", list.display());
            done.left.push(format!("{}: {why}", kept.display()));
            return Ok(());
        }
        None => {
            files::put(list, &content, files::mode(kept)?)?;
            done.restored.push(list.to_owned());
        }
    }
    files::remove(kept).map(drop)
}

/// Takes a pod's interface away, with all that the plugin gave it: its own DEL knows best. Where that cannot
/// be called, the interface alone goes.
async fn detach(
    conn: &Conn,
    link: &Link,
    lists: &[Value],
    manifest: &Manifest,
    done: &mut Done,
) -> Result<()> {
    let attachment = attachment_of(link);
    let outcome = match &attachment {
        Some(attachment) => del(attachment, lists, &manifest.binaries),
        None => Err(anyhow!("nobody knows whose it is")),
    };
    if let Err(why) = outcome {
        done.left.push(format!("what belongs to {}, its address included: {why:#}", link.name));
    }
    remove::link(conn, link.index, &link.name).await?;
    done.interfaces.push(link.name.clone());
    Ok(())
}

/// Calls the plugin's DEL for an attachment, as a runtime does of a pod whose namespace it has lost.
fn del(attachment: &Attachment<'_>, lists: &[Value], binaries: &[PathBuf]) -> Result<()> {
    let list = lists.iter().find(|list| list["name"] == attachment.network);
    let list = list.ok_or_else(|| anyhow!("no list describes network {}", attachment.network))?;
    let is_plugin =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name == OUR_PLUGIN) && path.exists();
    let plugin = binaries.iter().find(is_plugin).ok_or_else(|| anyhow!("the plugin is gone"))?;
    let entry = lists::entries(list).next();
    let entry = entry.ok_or_else(|| anyhow!("no plugin of ours in network {}", attachment.network))?;
    plugin::call(plugin, "DEL", &entry, Some(attachment))
}

/// Bridges that the plugins made, then sub-interfaces: those that nobody else uses.
async fn remove_interfaces(conn: &Conn, uplinks: &[String], done: &mut Done) -> Result<()> {
    for is_bridge in [true, false] {
        // Anew each time: a bridge that has gone has no ports.
        let links = node::links(conn).await?;
        for link in links.iter().filter(|link| is_ours(link) && link.bridge().is_some() == is_bridge) {
            match user_of(conn, link, &links, uplinks).await? {
                Some(why) => done.left.push(format!("{}: {why}", link.name)),
                None => {
                    remove::link(conn, link.index, &link.name).await?;
                    done.interfaces.push(link.name.clone());
                }
            }
        }
    }
    Ok(())
}

/// Who uses an interface of ours besides us; none if nobody does.
async fn user_of(conn: &Conn, link: &Link, links: &[Link], uplinks: &[String]) -> Result<Option<String>> {
    let by_index = |index| links.iter().find(|other| other.index == index);
    if let Some(master) = link.master.and_then(by_index) {
        return Ok(Some(format!("a port of {}, which stays", master.name)));
    }
    // What is no uplink of ours is somebody's container or machine.
    let is_uplink = |port: &Link| {
        is_ours(port)
            || uplinks.contains(&port.name)
            || matches!(port.kind, Kind::Bond(_) | Kind::Vlan { .. })
            || port.kind_name() == "hardware"
    };
    let (ways_out, guests): (Vec<&Link>, Vec<&Link>) =
        links.iter().filter(|port| port.master == Some(link.index)).partition(|port| is_uplink(port));
    // A bridge of ours that is a gateway has the address that we gave it. One with an uplink has none from
    // us, and the node may live on it.
    if (link.bridge().is_none() || !ways_out.is_empty())
        && let Some(net) = carried(conn, link).await?
    {
        return Ok(Some(format!("carries {net}")));
    }
    if let Some(port) = guests.first() {
        return Ok(Some(format!("{} is a port of it", port.name)));
    }
    for upper in links.iter().filter(|upper| upper.parent == Some(link.index)) {
        if matches!(upper.kind, Kind::Vlan { .. }) && !is_ours(upper) {
            return Ok(Some(format!("{} is a sub-interface of it", upper.name)));
        }
        // It would go with the bridge.
        if let Some(net) = carried(conn, upper).await?.filter(|_| !ways_out.is_empty()) {
            return Ok(Some(format!("{} above it carries {net}", upper.name)));
        }
    }
    Ok(None)
}

/// An address that an interface carries, and that neither the kernel nor a pod's services brought there.
async fn carried(conn: &Conn, link: &Link) -> Result<Option<IpNet>> {
    let all = addr::list(conn, link.index).await?;
    Ok(all
        .iter()
        .find(|address| !address.link_local && address.net != trunk::DUMMY)
        .map(|address| address.net))
}

fn tell(done: &Done, format: Output, out: &mut dyn Write) -> Result<()> {
    if format == Output::Json {
        let all = json!({"files": done.files, "interfaces": done.interfaces, "restored": done.restored, "left": done.left});
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for path in &done.files {
        writeln!(out, "removed   {}", path.display())?;
    }
    for name in &done.interfaces {
        writeln!(out, "removed   interface {name}")?;
    }
    for path in &done.restored {
        writeln!(out, "restored  {}: the one that was there before install", path.display())?;
    }
    if done.files.is_empty() && done.interfaces.is_empty() && done.restored.is_empty() {
        writeln!(out, "nothing was installed")?;
    }
    done.left.iter().for_each(|left| output::report(&format!("warning: left {left}")));
    Ok(())
}

//! Gathers the [`Facts`] of a node.

mod filter;
mod host_routes;
mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ::kernel::ask::{self, Answers};
use ::kernel::{Conn, addr, link, port, route, rule};
use anyhow::Result;
use cni_conf::cni::version::Version;
use cni_conf::family::Family;
use cni_conf::ipam::DEFAULT_DATA_DIR;
use cni_skel::lock::LOOK_LIMIT;
use serde_json::Value;
use vlan_bridge::is_executable;
use vlan_bridge::ownership::attachment_of;
use vlan_bridge::ports::{self, AttachmentId};
use vlan_bridge::record::{NatRecord, Records};
use vlan_bridge_agent::AgentState;
use vlan_bridge_ipam::store::{Store, StoreError};

use crate::args::Lists;
use crate::bond::BondState;
use crate::facts::{Facts, Leases, NetworkState, Plugin, ProbeResult, is_bond};
use crate::install::agent;
use crate::install::binaries::{self, PLUGINS};
use crate::lists::{self, ListFile, NetworkConfig, PLUGIN_TYPE};
use crate::manifest::{self, Manifest};
use crate::runtimes::Runtime;
use crate::{definitions, files, node, output, plugin, runtimes};

/// How many addresses of a range are probed at most.
const MAX_PER_RANGE: u128 = 256;

/// Where lists and plugins are.
#[derive(Debug)]
pub(crate) struct Places {
    runtimes: Vec<Runtime>,
    /// Why the runtimes are unknown.
    pub(crate) unclear_runtime: Option<String>,
    bin_dirs: Vec<PathBuf>,
    conf_dirs: Vec<PathBuf>,
}

impl Places {
    /// Finds them: these directories, else those of the runtimes and of install.
    pub(crate) fn find(conf_dir: Option<&Path>, bin_dir: Option<&Path>) -> Places {
        let (runtimes, unclear_runtime) = match runtimes::find(None) {
            Ok(runtimes) => (runtimes, None),
            Err(why) => (Vec::new(), Some(format!("{why:#}"))),
        };
        let installed = installed();
        let bin_dirs = match bin_dir {
            Some(dir) => vec![dir.to_owned()],
            None => search_dirs(&runtimes, runtimes::bin_dirs, &installed.binaries),
        };
        let conf_dirs = match conf_dir {
            Some(dir) => vec![dir.to_owned()],
            None => search_dirs(&runtimes, runtimes::conf_dirs, &installed.lists),
        };
        Places { runtimes, unclear_runtime, bin_dirs, conf_dirs }
    }

    /// The lists in the directories.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub(crate) fn installed_lists(&self) -> Result<Vec<ListFile>> {
        let lists: Result<Vec<Vec<ListFile>>> =
            self.conf_dirs.iter().map(|dir| lists::in_folder(dir)).collect();
        Ok(lists?.into_iter().flatten().collect())
    }

    /// The directories of the network lists.
    pub(crate) fn conf_dirs(&self) -> &[PathBuf] {
        &self.conf_dirs
    }
}

/// Gathers everything except the answers to probes.
///
/// # Errors
/// If something cannot be read at all. Wrong configuration is a fact, not an error.
pub(crate) fn gather(lists: &Lists, bin_dir: Option<&Path>) -> Result<Facts> {
    let mut places = Places::find(lists.conf_dir.as_deref(), bin_dir);
    let mut facts = what_is_shown(&places, &lists.network)?;
    node::runtime()?.block_on(addresses_and_routes(&mut facts))?;
    facts.runtimes = std::mem::take(&mut places.runtimes);
    facts.bin_dirs = places.bin_dirs;
    let has_loopback = |dir: &PathBuf| is_executable(&dir.join("loopback"));
    let lacks = |runtime: &&Runtime| runtime.needs_loopback && !runtime.bin_dirs.iter().any(has_loopback);
    facts.without_loopback = facts.runtimes.iter().filter(lacks).map(|runtime| runtime.name).collect();
    for folder in [manifest::uninstalled_dir(), manifest::backup_dir()] {
        facts.kept.extend(files::names(&folder)?.iter().map(|name| folder.join(name)));
    }
    for network in &mut facts.networks {
        network.status = status(&facts.bin_dirs, &network.entry);
    }
    facts.plugins = plugins(&facts);
    facts.definitions = definitions::find()?;
    facts.drivers = kernel::drivers(&facts.links);
    facts.modules = kernel::modules(&facts.links);
    facts.sysctls = kernel::sysctls(&facts.links);
    facts.rp_filtered = kernel::rp_filtered();
    facts.neighbours = Family::BOTH.into_iter().filter_map(kernel::neighbours).collect();
    facts.has_agent_unit = agent::is_installed();
    filter::packet_filter(&mut facts)?;
    facts.without_veth = without_veth(&facts)?;
    facts.missing_routes = node::runtime()?.block_on(host_routes::missing(&facts))?;
    Ok(facts)
}

/// Gathers what `status` shows. It starts no program, and asks the kernel only for interfaces, so it can be
/// called again and again. `extra` are lists outside the directories.
///
/// # Errors
/// As [`gather`].
pub(crate) fn what_is_shown(places: &Places, extra: &[PathBuf]) -> Result<Facts> {
    let mut facts = node::runtime()?.block_on(interfaces())?;
    facts.unclear_runtime.clone_from(&places.unclear_runtime);
    for folder in &places.conf_dirs {
        facts.folders.push((folder.clone(), lists::in_folder(folder)?));
    }
    networks(&mut facts, extra)?;
    facts.unlisted = unlisted(&facts);
    let records = Records::<NatRecord>::of_this_node()?;
    let veths: Vec<String> = facts.attachments().map(|link| link.name.clone()).collect();
    let recorded = |veth: String| Some((veth.clone(), Arc::unwrap_or_clone(records.read(&veth)?)));
    facts.records = veths.into_iter().filter_map(recorded).collect();
    facts.agent = AgentState::of_this_node().map_err(|why| why.to_string()).transpose();
    Ok(facts)
}

/// Gathers what `topology` draws.
///
/// # Errors
/// As [`gather`].
pub(crate) fn data_path(lists: &Lists) -> Result<Facts> {
    let mut facts = what_is_shown(&Places::find(lists.conf_dir.as_deref(), None), &lists.network)?;
    node::runtime()?.block_on(addresses_and_routes(&mut facts))?;
    Ok(facts)
}

/// The manifest. If it cannot be read, this warns and goes on.
fn installed() -> Manifest {
    Manifest::read().unwrap_or_else(|why| {
        output::report(&format!("warning: {why:#}: the directories that install used are not read"));
        Manifest::default()
    })
}

/// The directories of the runtimes, and those that install used. Without a known runtime, only the latter.
fn search_dirs(
    runtimes: &[Runtime],
    of_runtimes: fn(&[Runtime]) -> Vec<PathBuf>,
    installed: &[PathBuf],
) -> Vec<PathBuf> {
    let given: BTreeSet<&Path> = installed.iter().filter_map(|path| path.parent()).collect();
    let mut dirs = of_runtimes(runtimes);
    if runtimes::list_readers(runtimes).next().is_none() && !given.is_empty() {
        dirs.clear();
    }
    let others: Vec<&Path> =
        given.into_iter().filter(|folder| !dirs.iter().any(|place| place == folder)).collect();
    dirs.extend(others.into_iter().map(Path::to_owned));
    dirs
}

async fn interfaces() -> Result<Facts> {
    let conn = Conn::open()?;
    let links = link::all(&conn).await?;
    let mut bonds = BTreeMap::new();
    for bond in links.iter().filter(|link| is_bond(link)) {
        // The file is missing if the bond was deleted meanwhile.
        let text = fs::read_to_string(Path::new("/proc/net/bonding").join(&bond.name)).unwrap_or_default();
        bonds.insert(bond.name.clone(), BondState::parse(&text));
    }
    Ok(Facts {
        now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        links,
        bonds,
        ..Facts::default()
    })
}

async fn addresses_and_routes(facts: &mut Facts) -> Result<()> {
    let conn = Conn::open()?;
    facts.addresses = addr::all(&conn).await?;
    facts.routes = route::list(&conn).await?;
    facts.rules = rule::by_source(&conn).await?;
    facts.port_vlans = port::vlans(&conn).await?;
    Ok(())
}

fn networks(facts: &mut Facts, extra: &[PathBuf]) -> Result<()> {
    let in_folders = facts.folders.iter().flat_map(|(_, found)| found);
    let mut all: Vec<(PathBuf, Value)> = in_folders
        .filter(|found| found.names_vlan_bridge())
        .filter_map(|found| Some((found.path.clone(), found.content.clone().ok()?)))
        .collect();
    for path in extra {
        all.push((path.clone(), lists::read(path)?));
    }
    let mut named: BTreeSet<String> =
        all.iter().filter_map(|(_, list)| list["name"].as_str()).map(str::to_owned).collect();
    named.extend(
        facts
            .folders
            .iter()
            .flat_map(|(_, found)| found)
            .filter_map(lists::ListFile::name)
            .map(str::to_owned),
    );
    for (path, content) in all {
        match lists::check(&content) {
            Err(why) => facts.refused.push((path, format!("{why:#}"))),
            Ok(checked) => facts.networks.extend(checked.into_iter().zip(lists::entries(&content)).map(
                |(config, entry)| {
                    let (leases, path) = (leases(&config), path.clone());
                    NetworkState { leases, config, path, entry, status: None, probe: None }
                },
            )),
        }
    }
    facts.orphans = orphans(facts, &named);
    Ok(())
}

/// STATUS exists since 1.1.0, so the entry is passed with that version.
fn status(bin_dirs: &[PathBuf], entry: &Value) -> Option<Result<(), String>> {
    let mut entry = entry.clone();
    entry["cniVersion"] = Version::V1_1_0.as_str().into();
    let plugin = bin_dirs.iter().map(|dir| dir.join(PLUGIN_TYPE)).find(|path| is_executable(path))?;
    Some(plugin::call(&plugin, "STATUS", &entry, None).map_err(|why| format!("{why:#}")))
}

/// Networks with leases in the networks' data directories, and without a list. Errors of a data directory
/// are reported with its own network.
fn orphans(facts: &Facts, named: &BTreeSet<String>) -> Vec<(PathBuf, usize)> {
    let ipams = facts.networks.iter().filter_map(|network| network.config.network.addresses.as_ref());
    let folders: BTreeSet<&Path> = ipams.map(|ipam| ipam.data_dir.as_path()).collect();
    let found = folders.into_iter().flat_map(|folder| {
        let orphans = Store::orphans(folder, named).unwrap_or_default();
        orphans.into_iter().map(|(network, held)| (folder.join(network), held))
    });
    found.collect()
}

fn leases(config: &NetworkConfig) -> Leases {
    match &config.network.addresses {
        Some(ipam) => leases_in(&ipam.data_dir, &config.name, ipam.cooldown),
        None => Leases::default(),
    }
}

/// The leases of attached pods whose network is in no known list, in the default data directory.
fn unlisted(facts: &Facts) -> Vec<(String, Leases)> {
    let is_listed = |name: &&str| facts.networks.iter().any(|network| network.config.name == *name);
    let attached = facts.attachments().filter_map(|link| Some(attachment_of(link)?.network));
    let names: BTreeSet<&str> = attached.filter(|name| !is_listed(name)).collect();
    let read = |name: &str| (name.to_owned(), leases_in(Path::new(DEFAULT_DATA_DIR), name, 0));
    names.into_iter().map(read).collect()
}

fn leases_in(data_dir: &Path, network: &str, cooldown: u32) -> Leases {
    let read = || -> Result<Leases, StoreError> {
        let Some(mut store) = Store::open(data_dir, network, LOOK_LIMIT)? else {
            return Ok(Leases::default());
        };
        let usage = store.usage_of_all(cooldown)?;
        let quarantined =
            store.all_quarantined().into_iter().map(|(addr, seen, left)| (addr, seen.mac, left));
        let quarantined = quarantined.collect();
        let (mut addresses, inspector) = (store.addresses()?, store.inspector());
        // Read the rest without the lock, which pods wait for.
        store.finish();
        addresses.sort_unstable();
        let mut held = Vec::new();
        for addr in addresses {
            held.extend(inspector.look(addr)?.map(|known| (addr, known)));
        }
        Ok(Leases { held, usage, quarantined, unreadable: None })
    };
    read().unwrap_or_else(|error| Leases { unreadable: Some(error), ..Leases::default() })
}

fn plugins(facts: &Facts) -> Vec<Plugin> {
    let lists = facts.folders.iter().flat_map(|(_, found)| found).filter(|found| found.names_vlan_bridge());
    let mut names: BTreeSet<String> = BTreeSet::new();
    for list in lists {
        names.extend(list.types().into_iter().map(str::to_owned));
        names.extend(list.ipam_types().into_iter().map(str::to_owned));
    }
    let read = |name: String| {
        let path = facts.bin_dirs.iter().map(|dir| dir.join(&name)).find(|path| path.exists());
        let executable = path.as_deref().is_some_and(is_executable);
        let is_known = PLUGINS.contains(&name.as_str()) && executable;
        let version = path
            .as_deref()
            .filter(|_| is_known)
            .map(|path| binaries::version(path).map_err(|why| format!("{why:#}")));
        Plugin { name, path, executable, version }
    };
    names.into_iter().map(read).collect()
}

/// Attachments with another IPAM plugin and without a veth. With vlan-bridge-ipam, the leases show them.
fn without_veth(facts: &Facts) -> Result<Vec<AttachmentId>> {
    let has_leases = |name: &str| {
        let mut networks = facts.networks.iter();
        networks.any(|network| network.config.name == name && network.config.network.addresses.is_some())
    };
    let recorded = ports::of_living_pods()?.into_iter();
    let gone = recorded.filter(|(veth, pod)| facts.link(veth).is_none() && !has_leases(&pod.network));
    Ok(gone.map(|(_, pod)| pod).collect())
}

/// Probes the gateways and this node's addresses of every network.
pub(crate) fn probe(facts: &mut Facts) {
    let vantages: Vec<_> =
        facts.networks.iter().map(|network| facts.probe_interface(&network.config)).collect();
    for (network, vantage) in facts.networks.iter_mut().zip(vantages) {
        let (Some(from), Some(_)) = (vantage, &network.config.network.addresses) else { continue };
        let known = |asked: io::Result<Option<Answers>>| match asked {
            Ok(Some(answers)) => Ok(answers),
            Ok(None) => Err(format!("there is no interface {}", from.interface)),
            Err(error) => Err(error.to_string()),
        };
        let answers = known(ask::ask(&from, &probe_targets(network)));
        let has_answered = |gateway: &IpAddr| answers.as_ref().is_ok_and(|all| all.contains_key(gateway));
        let gateways: Vec<IpAddr> = network.gateways().into_iter().filter(has_answered).collect();
        let other_mac_answers = known(ask::ask_from_another_mac(&from, &gateways));
        network.probe = Some(ProbeResult { from, answers, other_mac_answers });
    }
}

/// The gateways, the leased addresses, and the addresses that this node may lease.
fn probe_targets(network: &NetworkState) -> Vec<IpAddr> {
    let mut addrs: BTreeSet<IpAddr> = network.leases.held.iter().map(|(addr, _)| *addr).collect();
    addrs.extend(network.gateways());
    for (set, range) in network.config.network.addresses.iter().flat_map(|ipam| ipam.own_ranges()) {
        let offered = (0..MAX_PER_RANGE.min(range.len())).filter_map(|offset| range.nth(offset));
        addrs.extend(offered.filter(|addr| set.offers(*addr)));
    }
    addrs.into_iter().collect()
}

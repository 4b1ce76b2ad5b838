//! `install`: the plugins first and the network list last, so that a runtime never finds a list without its
//! plugins.
//!
//! Install reads, decides and checks everything before it writes the first byte. Then it takes the
//! [lock](crate::lock), compares with the current files, and writes.

pub(crate) mod agent;
pub(crate) mod binaries;
mod list;
mod part;
mod slice;
mod watch;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cni_conf::cni::version::Version;
use kernel::Conn;
use serde_json::{Value, json};

use crate::args::{Install, Output};
use crate::denial;
use crate::files;
use crate::lists::{self, NetworkConfig};
use crate::lock::InstallLock;
use crate::manifest::{self, Manifest};
use crate::node;
use crate::output;
use crate::runtimes::{self, Runtime};

use agent::AgentFile;
use binaries::Binary;

/// What install writes, and its warnings.
struct InstallPlan {
    runtimes: Vec<Runtime>,
    binaries: Vec<Binary>,
    /// The agent's files; empty without `--agent`.
    agent: Vec<AgentFile>,
    lists: Vec<NewList>,
    warnings: Vec<String>,
}

/// A network list of this node, to be written into a directory.
struct NewList {
    path: PathBuf,
    content: Value,
    /// The slices in it, and their source.
    slices: Option<slice::NodeSlices>,
    /// The current content of the file, once it was read.
    before: Option<Vec<u8>>,
    /// Where the current content is kept, if it is replaced.
    kept: Option<PathBuf>,
}

impl InstallPlan {
    /// Checks every target directory, so that either everything is written or nothing.
    fn check_folders(&mut self) -> Result<()> {
        let bin_dirs = self.binaries.iter().filter_map(|binary| binary.target.parent());
        let bin_dirs: BTreeSet<&Path> = bin_dirs.collect();
        let conf_dirs = self.lists.iter().filter_map(|list| list.path.parent());
        let own_dirs = [Path::new(manifest::FOLDER)].into_iter();
        let own_dirs = own_dirs.chain(self.agent.iter().filter_map(AgentFile::folder));
        for folder in own_dirs.chain(bin_dirs.iter().copied()).chain(conf_dirs) {
            files::check_writable(folder)?;
        }
        for dir in bin_dirs {
            if let Some(mount) = denial::mount_of(dir).filter(denial::Mount::forbids_programs) {
                let (dir, point) = (dir.display(), mount.point);
                self.warnings
                    .push(format!("{dir} is mounted noexec (mount {point}): the plugins there cannot run"));
            }
        }
        Ok(())
    }

    /// Reads the current files at the targets.
    fn read_targets(&mut self) -> Result<()> {
        for binary in &mut self.binaries {
            binary.read_installed()?;
        }
        for file in &mut self.agent {
            file.read_installed()?;
        }
        for list in &mut self.lists {
            list.before = files::read(&list.path)?;
        }
        Ok(())
    }
}

impl NewList {
    fn text(&self) -> String {
        format!("{:#}\n", self.content)
    }

    fn state(&self) -> &'static str {
        match &self.before {
            None => "new",
            Some(before) if *before == self.text().into_bytes() => "unchanged",
            Some(_) => "replaced",
        }
    }
}

/// Runs the verb.
pub(crate) fn run(args: &Install, out: &mut dyn Write) -> Result<()> {
    if args.watch { watch::watch(args, install_once, out) } else { install_once(args, out) }
}

/// Installs once.
fn install_once(args: &Install, out: &mut dyn Write) -> Result<()> {
    let mut plan = plan(args)?;
    // Only now, so that a refused install leaves no trace.
    let _lock = InstallLock::acquire()?;
    plan.read_targets()?;
    let mut manifest = Manifest::read()?;
    for list in plan.lists.iter_mut().filter(|list| list.state() == "replaced") {
        // Before `add_list`, which records the file as ours.
        list.kept = list.before.as_ref().map(|before| manifest.back_up(&list.path, before)).transpose()?;
    }
    plan.binaries.iter().for_each(|binary| manifest.add_binary(&binary.target));
    plan.lists.iter().for_each(|list| manifest.add_list(&list.path));
    if !plan.agent.is_empty() {
        manifest.add_agent(&agent::installed_paths());
    }
    manifest.write()?;
    for binary in &plan.binaries {
        binary.install()?;
    }
    for list in plan.lists.iter().filter(|list| list.state() != "unchanged") {
        files::write_atomically(&list.path, list.text().as_bytes(), 0o644)?;
    }
    plan.agent.iter().try_for_each(AgentFile::install)?;
    print(&plan, args.output, out)
}

/// The masters that do not exist here. Not an error: a node may get its bond after its plugins.
fn missing_masters(configs: &[NetworkConfig]) -> Result<Vec<String>> {
    node::runtime()?.block_on(async {
        let conn = Conn::open()?;
        let mut missing = Vec::new();
        for uplink in configs.iter().filter_map(|config| config.network.uplink.as_ref()) {
            let name = &uplink.master;
            if kernel::link::by_name(&conn, name).await?.is_none() {
                missing.push(format!(
                    "uplink.master: there is no interface {name} yet: pods fail until there is one"
                ));
            }
        }
        Ok(missing)
    })
}

/// Decides everything, and writes nothing.
fn plan(args: &Install) -> Result<InstallPlan> {
    let cluster = slice::Cluster::find(args)?;
    let runtimes = runtimes::find(cluster.as_ref().and_then(slice::Cluster::runtime))?;
    let chosen_dirs = |asked: &Option<PathBuf>, found: fn(&[Runtime]) -> Vec<PathBuf>| match asked {
        Some(dir) => vec![dir.clone()],
        None => found(&runtimes),
    };
    let bin_dirs = chosen_dirs(&args.directories.bin_dir, runtimes::bin_dirs);
    let conf_dirs = chosen_dirs(&args.directories.conf_dir, runtimes::conf_dirs);
    let version = args.cni_version.as_deref().map(Version::parse).transpose()?;
    let mut plan = InstallPlan {
        binaries: binaries::plan(args.from.as_deref(), &bin_dirs)?,
        agent: if args.agent { agent::plan()? } else { Vec::new() },
        runtimes,
        lists: Vec::new(),
        warnings: Vec::new(),
    };
    for runtime in plan.runtimes.iter().filter(|runtime| runtime.has_netavark()) {
        let shown = runtime.shown();
        let why = "its containers do not use CNI network lists";
        plan.warnings.push(format!("{shown} uses netavark: {why}"));
    }
    let templates = list::templates(args)?;
    part::check_slices_apply(args, &templates)?;
    for template in templates {
        let mut content = template.content;
        plan.warnings.extend(list::set_version(&mut content, version, &plan.runtimes));
        plan.warnings.extend(list::set_gc(&mut content, template.is_single, &plan.runtimes, &conf_dirs));
        let mut slices = match part::wants_slice(&content) {
            true => Some(slice::choose(args, cluster.as_ref())?),
            false => slice::find(args, cluster.as_ref())?,
        };
        if let Some(chosen) = &mut slices {
            plan.warnings.extend(part::insert_slices(&mut content, &template.from, chosen)?);
        }
        let slices = slices.filter(|chosen| !chosen.slices.is_empty());
        let configs = lists::check(&content)?;
        if configs.is_empty() {
            bail!("{}: no plugin of type {} in the list", template.from, lists::PLUGIN_TYPE);
        }
        for config in &configs {
            plan.warnings.extend(config.warnings.iter().map(|odd| format!("{}: {odd}", template.from)));
            part::check_shared(config)?;
            if let Some(chosen) = &slices {
                plan.warnings.extend(slice::check_overlaps(args, chosen, cluster.as_ref())?);
            }
        }
        plan.warnings.extend(list::missing_plugins(&content, &bin_dirs, &plan.binaries));
        plan.warnings.extend(missing_masters(&configs)?);
        for dir in &conf_dirs {
            let path = dir.join(&template.file);
            plan.warnings.extend(list::conflicts(dir, &path, &content)?);
            let single = if template.is_single { lists::unwrap_single(&content) } else { None };
            let (content, slices) = (single.unwrap_or_else(|| content.clone()), slices.clone());
            plan.lists.push(NewList { path, content, slices, before: None, kept: None });
        }
    }
    plan.check_folders()?;
    Ok(plan)
}

fn print(plan: &InstallPlan, format: Output, out: &mut dyn Write) -> Result<()> {
    if format == Output::Json {
        let lists: Vec<Value> = plan.lists.iter().map(list_json).collect();
        let runtimes: Vec<Value> = plan.runtimes.iter().map(Runtime::to_json).collect();
        let binaries: Vec<Value> = plan.binaries.iter().map(Binary::to_json).collect();
        let mut all =
            json!({"runtimes": runtimes, "binaries": binaries, "lists": lists, "warnings": plan.warnings});
        if !plan.agent.is_empty() {
            let files: Vec<Value> = plan.agent.iter().map(AgentFile::to_json).collect();
            all["agent"] = json!({"files": files, "commands": agent::commands(&plan.agent)});
        }
        writeln!(out, "{all:#}")?;
        return Ok(());
    }
    for runtime in &plan.runtimes {
        let shown = runtime.shown();
        match (runtime.reads_lists(), runtime.has_netavark()) {
            (true, _) => writeln!(out, "found     {shown}, up to CNI {}", runtime.cni.as_str())?,
            (false, true) => writeln!(out, "found     {shown}, with netavark instead of CNI")?,
            (false, false) => writeln!(out, "found     {shown}, with CRI (and so CNI) disabled")?,
        }
    }
    for binary in &plan.binaries {
        writeln!(out, "{binary}")?;
    }
    if plan.lists.is_empty() {
        writeln!(out, "plugins only: without --network or --name no list is installed")?;
    }
    for list in &plan.lists {
        let version = list.content["cniVersion"].as_str().unwrap_or_default();
        let slices = list.slices.as_ref().map_or(String::new(), |chosen| format!(", slice {chosen}"));
        writeln!(out, "{:9} {}: CNI {version}{slices}", list.state(), list.path.display())?;
        if let Some(kept) = &list.kept {
            writeln!(out, "kept      {}: the list that it replaces", kept.display())?;
        }
    }
    for file in &plan.agent {
        writeln!(out, "{file}")?;
    }
    for command in agent::commands(&plan.agent) {
        writeln!(out, "then run  {command}")?;
    }
    plan.warnings.iter().for_each(|warning| output::report(&format!("warning: {warning}")));
    Ok(())
}

fn list_json(list: &NewList) -> Value {
    let slices = list.slices.as_ref().map(slice::NodeSlices::to_json);
    let mut value = json!({"path": list.path, "name": list.content["name"],
        "cniVersion": list.content["cniVersion"], "state": list.state(), "slice": slices});
    if let Some(kept) = &list.kept {
        value["previous"] = json!(kept);
    }
    value
}

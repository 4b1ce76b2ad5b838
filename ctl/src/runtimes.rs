//! The container runtimes of this node: where they look for plugins and network lists, and which CNI they speak.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use cni_conf::cni::version::Version;
use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use crate::files;

/// Where every runtime looks for plugins unless it is told otherwise.
pub(crate) const BIN_DIR: &str = "/opt/cni/bin";
/// Where every runtime looks for network lists unless it is told otherwise.
pub(crate) const CONF_DIR: &str = "/etc/cni/net.d";

/// One runtime that this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// The program's name.
    pub(crate) name: &'static str,
    /// What it calls its version; none where its program is out of reach, as from within a container.
    pub(crate) version: Option<String>,
    /// The configuration files that were read.
    pub(crate) files: Vec<PathBuf>,
    /// Where it looks for plugins, first place first.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// Where it looks for network lists.
    pub(crate) conf_dir: PathBuf,
}

/// What is known of a runtime before a node is looked at.
struct Kind {
    name: &'static str,
    /// Its configuration, later files going before earlier ones; a folder stands for the files in it.
    files: &'static [&'static str],
    /// Where in it the plugins' folders are: dotted paths, a text or a list of texts each.
    bin_keys: &'static [&'static [&'static str]],
    /// Where in it the network lists' folder is.
    conf_keys: &'static [&'static [&'static str]],
    bin_dirs: &'static [&'static str],
    /// The first version whose releases accept CNI 1.1.0; none where that is not known of any.
    cni_1_1: Option<u32>,
}

/// containerd's version 2 and 3 of the configuration name the same plugin differently.
const CONTAINERD_1: [&str; 3] = ["plugins", "io.containerd.grpc.v1.cri", "cni"];
const CONTAINERD_2: [&str; 3] = ["plugins", "io.containerd.cri.v1.runtime", "cni"];

const KINDS: [Kind; 3] = [
    Kind {
        name: "containerd",
        files: &["/etc/containerd/config.toml", "/etc/containerd/conf.d"],
        bin_keys: &[
            &[CONTAINERD_1[0], CONTAINERD_1[1], CONTAINERD_1[2], "bin_dir"],
            &[CONTAINERD_2[0], CONTAINERD_2[1], CONTAINERD_2[2], "bin_dir"],
            &[CONTAINERD_2[0], CONTAINERD_2[1], CONTAINERD_2[2], "bin_dirs"],
        ],
        conf_keys: &[
            &[CONTAINERD_1[0], CONTAINERD_1[1], CONTAINERD_1[2], "conf_dir"],
            &[CONTAINERD_2[0], CONTAINERD_2[1], CONTAINERD_2[2], "conf_dir"],
        ],
        bin_dirs: &[BIN_DIR],
        cni_1_1: Some(2),
    },
    Kind {
        name: "crio",
        files: &["/etc/crio/crio.conf", "/etc/crio/crio.conf.d"],
        bin_keys: &[&["crio", "network", "plugin_dirs"]],
        conf_keys: &[&["crio", "network", "network_dir"]],
        bin_dirs: &[BIN_DIR],
        cni_1_1: None,
    },
    Kind {
        name: "podman",
        files: &[
            "/usr/share/containers/containers.conf",
            "/etc/containers/containers.conf",
            "/etc/containers/containers.conf.d",
        ],
        bin_keys: &[&["network", "cni_plugin_dirs"]],
        conf_keys: &[&["network", "network_config_dir"]],
        bin_dirs: &[
            "/usr/local/libexec/cni",
            "/usr/libexec/cni",
            "/usr/local/lib/cni",
            "/usr/lib/cni",
            BIN_DIR,
        ],
        cni_1_1: None,
    },
];

/// Looks for runtimes. `kubelet` is what the node's kubelet says of its runtime, `containerd://1.6.20` for one.
///
/// # Errors
/// A configuration that cannot be read: the wrong folders would be taken.
pub(crate) fn find(kubelet: Option<&str>) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    for kind in &KINDS {
        let told = kubelet.and_then(|text| text.split_once("://")).map(|(name, version)| {
            let name = if name == "cri-o" { "crio" } else { name };
            (name, version.to_owned())
        });
        let told = told.filter(|(name, _)| *name == kind.name).map(|(_, version)| version);
        let version = told.or_else(|| ask_version(kind.name));
        let files = configuration(kind)?;
        // podman's defaults are there on nodes without podman.
        let configured = files.iter().any(|(path, _)| path.starts_with("/etc")) && kind.name != "podman";
        if version.is_none() && !configured {
            continue;
        }
        found.push(read(kind, version, files));
    }
    Ok(found)
}

fn read(kind: &Kind, version: Option<String>, files: Vec<(PathBuf, Table)>) -> Runtime {
    let last = |keys: &[&[&str]]| {
        files.iter().rev().find_map(|(_, table)| keys.iter().find_map(|key| folders(table, key)))
    };
    let defaults = || kind.bin_dirs.iter().map(PathBuf::from).collect();
    Runtime {
        name: kind.name,
        version,
        bin_dirs: last(kind.bin_keys).unwrap_or_else(defaults),
        conf_dir: last(kind.conf_keys)
            .and_then(|dirs| dirs.into_iter().next())
            .unwrap_or_else(|| CONF_DIR.into()),
        files: files.into_iter().map(|(path, _)| path).collect(),
    }
}

/// The folders at a key: a text or a list of texts, none of them empty.
fn folders(table: &Table, key: &[&str]) -> Option<Vec<PathBuf>> {
    let (last, parents) = key.split_last()?;
    let mut table = table;
    for parent in parents {
        table = table.get(*parent)?.as_table()?;
    }
    let texts: Vec<&str> = match table.get(*last)? {
        Toml::String(text) => vec![text],
        Toml::Array(list) => list.iter().filter_map(Toml::as_str).collect(),
        _ => return None,
    };
    let folders: Vec<PathBuf> =
        texts.into_iter().filter(|text| !text.is_empty()).map(PathBuf::from).collect();
    (!folders.is_empty()).then_some(folders)
}

fn configuration(kind: &Kind) -> Result<Vec<(PathBuf, Table)>> {
    let mut files = Vec::new();
    for place in kind.files.iter().map(Path::new) {
        let inside = if place.is_dir() { files::names(place)? } else { Vec::new() };
        let paths = inside
            .iter()
            .filter(|name| name.ends_with(".conf") || name.ends_with(".toml"))
            .map(|name| place.join(name));
        let paths: Vec<PathBuf> = if place.is_dir() { paths.collect() } else { vec![place.to_owned()] };
        for path in paths {
            let Some(content) = files::read(&path)? else { continue };
            let text = String::from_utf8_lossy(&content);
            let table =
                text.parse::<Table>().with_context(|| format!("cannot understand {}", path.display()))?;
            files.push((path, table));
        }
    }
    Ok(files)
}

/// What `PROGRAM --version` says: the first word that begins with a digit, or with v and a digit.
fn ask_version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    version_in(&String::from_utf8_lossy(&output.stdout))
}

fn version_in(text: &str) -> Option<String> {
    text.split_whitespace()
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
}

impl Runtime {
    /// The newest CNI that it is known to accept: containerd before 2 and podman 4 refuse results of 1.1.0.
    pub(crate) fn cni(&self) -> Version {
        let newer = KINDS.iter().find(|kind| kind.name == self.name).and_then(|kind| kind.cni_1_1);
        let major = self.version.as_ref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        match (major, newer) {
            (Some(major), Some(newer)) if major >= newer => Version::V1_1_0,
            _ => Version::V1_0_0,
        }
    }

    /// For `-o json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.name, "version": self.version, "configuration": self.files,
            "binDirs": self.bin_dirs, "confDir": self.conf_dir, "cniVersion": self.cni().as_str()})
    }
}

/// The folders to put plugins into: for each runtime one that it looks into, as few as will do.
pub(crate) fn bin_dirs(runtimes: &[Runtime]) -> Vec<PathBuf> {
    let mut chosen: Vec<PathBuf> = Vec::new();
    for runtime in runtimes {
        let common = Path::new(BIN_DIR);
        let first = runtime.bin_dirs.iter().find(|dir| *dir == common).or(runtime.bin_dirs.first());
        if !runtime.bin_dirs.iter().any(|dir| chosen.contains(dir)) {
            chosen.extend(first.cloned());
        }
    }
    if chosen.is_empty() { vec![BIN_DIR.into()] } else { chosen }
}

/// The folders to put network lists into.
pub(crate) fn conf_dirs(runtimes: &[Runtime]) -> Vec<PathBuf> {
    let mut chosen: Vec<PathBuf> = Vec::new();
    for runtime in runtimes {
        if !chosen.contains(&runtime.conf_dir) {
            chosen.push(runtime.conf_dir.clone());
        }
    }
    if chosen.is_empty() { vec![CONF_DIR.into()] } else { chosen }
}

/// The newest version of the specification that all of them accept; 1.0.0 where none is known.
pub(crate) fn common_cni(runtimes: &[Runtime]) -> Version {
    runtimes.iter().map(Runtime::cni).min().unwrap_or(Version::V1_0_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(name: &'static str, version: &str, bin_dirs: &[&str]) -> Runtime {
        Runtime {
            name,
            version: Some(version.into()),
            files: Vec::new(),
            bin_dirs: bin_dirs.iter().map(PathBuf::from).collect(),
            conf_dir: CONF_DIR.into(),
        }
    }

    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        let containerd = "containerd github.com/containerd/containerd v1.6.20~ds1 1.6.20~ds1-1+b1";
        assert_eq!(version_in(containerd).as_deref(), Some("1.6.20~ds1"));
        assert_eq!(version_in("podman version 4.3.1\n").as_deref(), Some("4.3.1"));
        assert_eq!(version_in("crio version 1.31.2\nGitCommit: x\n").as_deref(), Some("1.31.2"));
        assert_eq!(version_in("unheard of"), None);
    }

    #[test]
    fn the_oldest_runtime_decides_which_cni_is_spoken() {
        let new = runtime("containerd", "2.1.9", &[]);
        assert_eq!(common_cni(std::slice::from_ref(&new)), Version::V1_1_0);
        assert_eq!(common_cni(&[new, runtime("podman", "4.3.1", &[])]), Version::V1_0_0);
        assert_eq!(common_cni(&[runtime("containerd", "1.7.2", &[])]), Version::V1_0_0);
        assert_eq!(common_cni(&[]), Version::V1_0_0);
    }

    #[test]
    fn plugins_go_where_every_runtime_looks() {
        let podman = runtime("podman", "4.3.1", KINDS[2].bin_dirs);
        assert_eq!(bin_dirs(std::slice::from_ref(&podman)), [Path::new(BIN_DIR)]);
        let debian = runtime("containerd", "1.6.20", &["/usr/lib/cni"]);
        assert_eq!(bin_dirs(&[debian, podman]), [Path::new("/usr/lib/cni")]);
        assert_eq!(bin_dirs(&[]), [Path::new(BIN_DIR)]);
    }

    #[test]
    fn both_generations_of_containerds_configuration_are_understood() {
        let read_text = |text: &str| read(&KINDS[0], None, vec![("c".into(), text.parse().unwrap())]);
        let old = read_text(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"/c\"\n",
        );
        assert_eq!((old.bin_dirs, old.conf_dir), (vec!["/usr/lib/cni".into()], "/c".into()));
        let new =
            read_text("version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/a', '/b']\n");
        assert_eq!((new.bin_dirs, new.conf_dir), (vec!["/a".into(), "/b".into()], CONF_DIR.into()));
    }
}

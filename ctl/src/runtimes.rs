//! The container runtimes of this node: their directories for plugins and network lists, and the CNI
//! versions that they accept.
//!
//! A runtime is found by its process, else by the directory of its distribution, else by its default
//! configuration files.

mod configuration;
mod kinds;
mod podman;
mod process;
mod version;

use std::path::{Path, PathBuf};

use anyhow::Result;
use cni_conf::cni::version::Version;
use serde_json::{Value, json};

use configuration::{Configuration, at};
use kinds::{CONTAINERD, DISTRIBUTION_PROGRAM, DISTRIBUTIONS, Distribution, PROGRAMS, Program};
use podman::Backend;
use process::Process;
use version::{ask_version, numbers};

pub(crate) use kinds::{BIN_DIR, CONF_DIR};

/// A runtime of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// The program's name, or that of its distribution.
    pub(crate) name: &'static str,
    /// The program's name.
    pub(crate) program: &'static str,
    /// Its version; none if the program cannot be run, as from within a container.
    pub(crate) version: Option<String>,
    /// Whether a process of it was found.
    pub(crate) runs: bool,
    /// Its configuration files.
    pub(crate) files: Vec<PathBuf>,
    /// Its plugin directories, in its order.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// Its network list directory.
    pub(crate) conf_dir: PathBuf,
    /// The newest CNI version that it is known to accept. containerd before 2 and podman 4 refuse results
    /// of 1.1.0.
    pub(crate) cni: Version,
    /// The network backend of podman.
    pub(crate) backend: Option<Backend>,
    /// Whether it calls the plugin `loopback` for each pod.
    pub(crate) needs_loopback: bool,
    /// Whether it serves Kubernetes' CRI. containerd's CRI can be disabled.
    pub(crate) serves_cri: bool,
}

/// Finds the runtimes. `kubelet` is the runtime that kubelet reports, such as `containerd://1.6.20`.
///
/// # Errors
/// A configuration that cannot be read. Its directories would be missing.
pub(crate) fn find(kubelet: Option<&str>) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    let processes = process::of(&PROGRAMS.each_ref().map(|program| program.name));
    for program in &PROGRAMS {
        let reported = kubelet.and_then(|text| text.split_once("://")).map(|(name, version)| {
            let name = if name == "cri-o" { "crio" } else { name };
            (name, version.to_owned())
        });
        let mut reported = reported.filter(|(name, _)| *name == program.name).map(|(_, version)| version);
        let running = running(program, &processes)?;
        let of_distributions = distributions(program, &running, &mut reported)?;
        // Without a running one, the installed one.
        if !running.iter().any(|runtime| runtime.name == program.name && runtime.serves_cri) {
            // Docker's containerd is the same program with another configuration.
            let is_program_dockers = running.iter().any(|runtime| !runtime.serves_cri);
            let usual = by_default(program, reported, is_program_dockers)?;
            found.extend(usual.filter(|usual| !running.iter().any(|runtime| runtime.files == usual.files)));
        }
        found.extend(running);
        found.extend(of_distributions);
    }
    Ok(found)
}

/// The running runtimes, each configuration once.
fn running(program: &'static Program, processes: &[Process]) -> Result<Vec<Runtime>> {
    let mut found: Vec<Runtime> = Vec::new();
    let mut seen = Vec::new();
    for process in
        processes.iter().filter(|process| process.name == program.name && program.is_daemon(process))
    {
        let places = program.places(process);
        let distribution = DISTRIBUTIONS
            .iter()
            .find(|it| program.name == DISTRIBUTION_PROGRAM && it.owns(&places, &process.program));
        let options = [&process.values_of(program.bin_options), &process.values_of(program.conf_options)]
            .map(|values| values.iter().map(PathBuf::from).collect::<Vec<_>>());
        let key = (places, options);
        if seen.contains(&key) {
            continue;
        }
        let mut runtime =
            read(program, distribution, ask_version(&process.program), Configuration::read(&key.0)?);
        let [bin_dirs, conf_dirs] = &key.1;
        if !bin_dirs.is_empty() {
            runtime.bin_dirs.clone_from(bin_dirs);
        }
        if let Some(dir) = conf_dirs.last() {
            runtime.conf_dir.clone_from(dir);
        }
        runtime.runs = true;
        found.push(runtime);
        seen.push(key);
    }
    Ok(found)
}

/// The distributions whose directory exists and which do not run. kubelet's version is for one whose
/// program cannot be run: a container sees only the directories.
fn distributions(
    program: &'static Program,
    running: &[Runtime],
    reported: &mut Option<String>,
) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    for distribution in DISTRIBUTIONS.iter().filter(|_| program.name == DISTRIBUTION_PROGRAM) {
        if Path::new(distribution.root).is_dir()
            && !running.iter().any(|runtime| runtime.name == distribution.name)
        {
            let configuration = Configuration::read(&[distribution.config.into()])?;
            let version = ask_version(Path::new(distribution.program)).or_else(|| reported.take());
            found.push(read(program, Some(distribution), version, configuration));
        }
    }
    Ok(found)
}

/// The runtime with the default configuration files, if it is installed.
fn by_default(
    program: &'static Program,
    reported: Option<String>,
    is_program_dockers: bool,
) -> Result<Option<Runtime>> {
    let is_reported = reported.is_some();
    let version = reported.or_else(|| ask_version(Path::new(program.name)));
    let places: Vec<PathBuf> = program.files.iter().map(PathBuf::from).collect();
    let configuration = Configuration::read(&places)?;
    let has_program = is_reported || (version.is_some() && !is_program_dockers);
    let is_configured = (program.is_found_by_files && !configuration.0.is_empty())
        || program.folders.iter().any(|folder| Path::new(folder).is_dir());
    Ok((has_program || is_configured).then(|| read(program, None, version, configuration)))
}

fn read(
    program: &'static Program,
    distribution: Option<&'static Distribution>,
    version: Option<String>,
    configuration: Configuration,
) -> Runtime {
    let first_start = distribution.filter(|_| configuration.0.is_empty());
    let bin_dirs = configuration.folders(program.bin_keys).unwrap_or_else(|| match first_start {
        Some(distribution) => distribution.first_bin_dirs(),
        None => program.bin_dirs.iter().map(PathBuf::from).collect(),
    });
    let conf_dir = configuration.folders(program.conf_keys).and_then(|dirs| dirs.into_iter().next());
    let conf_dir = conf_dir
        .unwrap_or_else(|| first_start.map_or(program.conf_dir, |distribution| distribution.conf_dir).into());
    let lasting = |dir: &PathBuf| {
        distribution.map_or_else(|| dir.clone(), |distribution| distribution.stable_path(dir))
    };
    let serves_cri = program.name != "containerd" || !is_cri_disabled(&configuration);
    Runtime {
        name: distribution.map_or(program.name, |distribution| distribution.name),
        program: program.name,
        runs: false,
        bin_dirs: bin_dirs.iter().map(lasting).collect(),
        conf_dir: lasting(&conf_dir),
        backend: (program.name == "podman")
            .then(|| podman::backend(version.as_deref(), &configuration))
            .flatten(),
        needs_loopback: serves_cri && needs_loopback(program, version.as_deref(), &configuration),
        serves_cri,
        cni: cni(program, version.as_deref(), &configuration),
        files: configuration.0.into_iter().map(|(path, _)| path).collect(),
        version,
    }
}

/// Without a version, the configuration decides: its version 3 came with containerd 2.
fn cni(program: &Program, version: Option<&str>, configuration: &Configuration) -> Version {
    let major = version.and_then(numbers).map(|(major, _)| major).or_else(|| {
        let of_file = configuration.last(|table| table.get("version")?.as_integer());
        (program.name == "containerd" && of_file.is_some_and(|of_file| of_file >= 3)).then_some(2)
    });
    match (major, program.cni_1_1) {
        (Some(major), Some(newer)) if major >= newer => Version::V1_1_0,
        _ => Version::V1_0_0,
    }
}

/// Docker's package configures containerd without CRI.
fn is_cri_disabled(configuration: &Configuration) -> bool {
    let names = configuration.last(|table| {
        let list = table.get("disabled_plugins")?.as_array()?;
        Some(list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect::<Vec<_>>())
    });
    let is_cri = |name: &String| CONTAINERD.iter().any(|key| key[1] == name);
    names.is_some_and(|names| names.iter().any(is_cri))
}

/// CRI-O sets up `lo` itself since 1.19. containerd can since 2.0, if it is configured.
fn needs_loopback(program: &Program, version: Option<&str>, configuration: &Configuration) -> bool {
    match program.name {
        "containerd" => {
            let setting = |table: &toml::Table| {
                at(table, &[CONTAINERD[2][0], CONTAINERD[2][1], "cni", "use_internal_loopback"])?.as_bool()
            };
            !configuration.last(setting).unwrap_or(false)
        }
        "crio" => version.and_then(numbers).is_none_or(|version| version < (1, 19)),
        _ => false,
    }
}

impl Runtime {
    /// Whether it reads network lists. A containerd without CRI does not, although `ctr` reads those in its
    /// built-in directories.
    pub(crate) fn reads_lists(&self) -> bool {
        self.serves_cri && !self.has_netavark()
    }

    /// Whether it uses netavark instead of CNI.
    pub(crate) fn has_netavark(&self) -> bool {
        self.backend == Some(Backend::Netavark)
    }

    /// Its name and version, such as `k3s (containerd) 2.1.4`.
    pub(crate) fn shown(&self) -> String {
        let program = if self.name == self.program { String::new() } else { format!(" ({})", self.program) };
        format!("{}{program} {}", self.name, self.version.as_deref().unwrap_or("of unknown version"))
    }

    /// For `-o json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.name, "program": self.program, "version": self.version, "running": self.runs,
            "configuration": self.files, "takesLists": self.reads_lists(),
            "binDirs": self.bin_dirs, "confDir": self.conf_dir, "cniVersion": self.cni.as_str()})
    }
}

/// The runtimes that read network lists.
pub(crate) fn list_readers(runtimes: &[Runtime]) -> impl Iterator<Item = &Runtime> {
    runtimes.iter().filter(|runtime| runtime.reads_lists())
}

/// The directories to install plugins into: one of each runtime's, as few as possible.
pub(crate) fn bin_dirs(runtimes: &[Runtime]) -> Vec<PathBuf> {
    let mut chosen: Vec<PathBuf> = Vec::new();
    for runtime in list_readers(runtimes) {
        let common = Path::new(BIN_DIR);
        let first = runtime.bin_dirs.iter().find(|dir| *dir == common).or(runtime.bin_dirs.first());
        if !runtime.bin_dirs.iter().any(|dir| chosen.contains(dir)) {
            chosen.extend(first.cloned());
        }
    }
    if chosen.is_empty() { vec![BIN_DIR.into()] } else { chosen }
}

/// The directories to install network lists into.
pub(crate) fn conf_dirs(runtimes: &[Runtime]) -> Vec<PathBuf> {
    let mut chosen: Vec<PathBuf> = Vec::new();
    for runtime in list_readers(runtimes) {
        if !chosen.contains(&runtime.conf_dir) {
            chosen.push(runtime.conf_dir.clone());
        }
    }
    if chosen.is_empty() { vec![CONF_DIR.into()] } else { chosen }
}

/// The newest CNI version that all of them accept; 1.0.0 without a runtime.
pub(crate) fn common_cni(runtimes: &[Runtime]) -> Version {
    list_readers(runtimes).map(|runtime| runtime.cni).min().unwrap_or(Version::V1_0_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(name: &'static str, version: &str, bin_dirs: &[&str]) -> Runtime {
        let program = PROGRAMS.iter().find(|program| program.name == name).unwrap();
        let runtime = read(program, None, Some(version.into()), Configuration::default());
        Runtime { bin_dirs: bin_dirs.iter().map(PathBuf::from).collect(), ..runtime }
    }

    #[test]
    fn the_oldest_runtime_decides_the_cni_version() {
        let new = runtime("containerd", "2.1.9", &[]);
        assert_eq!(common_cni(std::slice::from_ref(&new)), Version::V1_1_0);
        assert_eq!(common_cni(&[new, runtime("podman", "4.3.1", &[])]), Version::V1_0_0);
        assert_eq!(common_cni(&[runtime("containerd", "1.7.2", &[])]), Version::V1_0_0);
        assert_eq!(common_cni(&[]), Version::V1_0_0);
    }

    #[test]
    fn plugins_go_where_every_runtime_looks() {
        let podman = runtime("podman", "4.3.1", PROGRAMS[2].bin_dirs);
        assert_eq!(bin_dirs(std::slice::from_ref(&podman)), [Path::new(BIN_DIR)]);
        let debian = runtime("containerd", "1.6.20", &["/usr/lib/cni"]);
        assert_eq!(bin_dirs(&[debian, podman]), [Path::new("/usr/lib/cni")]);
        assert_eq!(bin_dirs(&[]), [Path::new(BIN_DIR)]);
    }

    #[test]
    fn both_generations_of_containerds_configuration_are_understood() {
        let read_text = |text: &str| {
            let configuration = Configuration(vec![("c".into(), text.parse().unwrap())]);
            read(&PROGRAMS[0], None, None, configuration)
        };
        let old = read_text(
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"/c\"\n",
        );
        assert_eq!((old.bin_dirs, old.conf_dir), (vec!["/usr/lib/cni".into()], "/c".into()));
        let new =
            read_text("version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/a', '/b']\n");
        assert_eq!((new.bin_dirs, new.conf_dir), (vec!["/a".into(), "/b".into()], CONF_DIR.into()));
    }

    #[test]
    fn version_and_configuration_decide_whether_loopback_is_needed() {
        let needs = |name: &str, version: Option<&str>, text: &str| {
            let program = PROGRAMS.iter().find(|program| program.name == name).unwrap();
            let configuration = Configuration(vec![("c".into(), text.parse().unwrap())]);
            read(program, None, version.map(str::to_owned), configuration).needs_loopback
        };
        assert!(needs("containerd", Some("1.7.2"), "") && needs("containerd", Some("2.1.9"), ""));
        let internal = "[plugins.'io.containerd.cri.v1.runtime'.cni]\nuse_internal_loopback = true\n";
        assert!(!needs("containerd", Some("2.1.9"), internal));
        assert!(!needs("containerd", Some("1.7.2"), "disabled_plugins = ['cri']\n"));
        assert!(needs("crio", Some("1.18.4"), "") && needs("crio", None, ""));
        assert!(!needs("crio", Some("1.31.2"), "") && !needs("podman", Some("3.4.1"), ""));
    }

    #[test]
    fn a_podman_without_cni_takes_no_lists() {
        let with = |version: &str, text: &str| {
            let configuration = Configuration(vec![("c".into(), text.parse().unwrap())]);
            read(&PROGRAMS[2], None, Some(version.into()), configuration)
        };
        let netavark = "[network]\nnetwork_backend = 'netavark'\n";
        let cni = "[network]\nnetwork_backend = 'cni'\n";
        assert!(!with("5.4.0", "").reads_lists() && !with("5.4.0", cni).reads_lists());
        assert!(!with("4.9.3", netavark).reads_lists() && with("4.9.3", cni).reads_lists());
        assert!(with("3.4.1", "").reads_lists());
        // It is shown, and does not affect directories or versions.
        let all = [with("5.4.0", ""), runtime("containerd", "2.1.9", &["/b"])];
        assert_eq!((bin_dirs(&all), common_cni(&all)), (vec!["/b".into()], Version::V1_1_0));
    }
}

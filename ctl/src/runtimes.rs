//! The container runtimes of this node: where they look for plugins and network lists, and which CNI they
//! speak. Those that run are asked first, then the folders of distributions, then the places where a
//! runtime's configuration is by default.

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
use kinds::{CONTAINERD, KINDS, Kind, PRODUCT_KIND, PRODUCTS, Product};
use podman::Backend;
use process::Process;
use version::{ask_version, numbers};

pub(crate) use kinds::{BIN_DIR, CONF_DIR};

/// One runtime that this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// The program's name, or that of the distribution which brings it along.
    pub(crate) name: &'static str,
    /// The program's name.
    pub(crate) program: &'static str,
    /// What it calls its version; none where its program is out of reach, as from within a container.
    pub(crate) version: Option<String>,
    /// Whether it was seen to run.
    pub(crate) runs: bool,
    /// The configuration files that were read.
    pub(crate) files: Vec<PathBuf>,
    /// Where it looks for plugins, first place first.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// Where it looks for network lists.
    pub(crate) conf_dir: PathBuf,
    /// The newest CNI that it is known to accept: containerd before 2 and podman 4 refuse results of 1.1.0.
    pub(crate) cni: Version,
    /// What makes podman's networks.
    pub(crate) backend: Option<Backend>,
    /// Whether it calls the plugin `loopback` for each pod.
    pub(crate) needs_loopback: bool,
    /// Whether it can serve Kubernetes: a containerd can be told not to.
    pub(crate) serves_cri: bool,
}

/// Looks for runtimes. `kubelet` is what the node's kubelet says of its runtime, `containerd://1.6.20` for
/// one.
///
/// # Errors
/// A configuration that cannot be read: the wrong folders would be taken.
pub(crate) fn find(kubelet: Option<&str>) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    let processes = process::of(&KINDS.each_ref().map(|kind| kind.name));
    for kind in &KINDS {
        let told = kubelet.and_then(|text| text.split_once("://")).map(|(name, version)| {
            let name = if name == "cri-o" { "crio" } else { name };
            (name, version.to_owned())
        });
        let mut told = told.filter(|(name, _)| *name == kind.name).map(|(_, version)| version);
        let running = running(kind, &processes)?;
        let of_products = products(kind, &running, &mut told)?;
        // Without one that runs, the one that would.
        if !running.iter().any(|runtime| runtime.name == kind.name && runtime.serves_cri) {
            // Docker's is of the same program, but not of that configuration.
            let is_program_dockers = running.iter().any(|runtime| !runtime.serves_cri);
            let usual = by_default(kind, told, is_program_dockers)?;
            found.extend(usual.filter(|usual| !running.iter().any(|runtime| runtime.files == usual.files)));
        }
        found.extend(running);
        found.extend(of_products);
    }
    Ok(found)
}

/// Those that run, each configuration once.
fn running(kind: &'static Kind, processes: &[Process]) -> Result<Vec<Runtime>> {
    let mut found: Vec<Runtime> = Vec::new();
    let mut seen = Vec::new();
    for process in processes.iter().filter(|process| process.name == kind.name && kind.stays(process)) {
        let places = kind.places(process);
        let product =
            PRODUCTS.iter().find(|it| kind.name == PRODUCT_KIND && it.owns(&places, &process.program));
        let options = [&process.values_of(kind.bin_options), &process.values_of(kind.conf_options)]
            .map(|values| values.iter().map(PathBuf::from).collect::<Vec<_>>());
        let key = (places, options);
        if seen.contains(&key) {
            continue;
        }
        let mut runtime = read(kind, product, ask_version(&process.program), Configuration::read(&key.0)?);
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

/// The distributions whose folder is there, beside those that run. What kubelet has told is of one that
/// cannot be asked: a container sees no more of it than its folders.
fn products(kind: &'static Kind, running: &[Runtime], told: &mut Option<String>) -> Result<Vec<Runtime>> {
    let mut found = Vec::new();
    for product in PRODUCTS.iter().filter(|_| kind.name == PRODUCT_KIND) {
        if Path::new(product.root).is_dir() && !running.iter().any(|runtime| runtime.name == product.name) {
            let configuration = Configuration::read(&[product.config.into()])?;
            let version = ask_version(Path::new(product.program)).or_else(|| told.take());
            found.push(read(kind, Some(product), version, configuration));
        }
    }
    Ok(found)
}

/// The one whose configuration is where it is by default, if there is one.
fn by_default(
    kind: &'static Kind,
    told: Option<String>,
    is_program_dockers: bool,
) -> Result<Option<Runtime>> {
    let is_told = told.is_some();
    let version = told.or_else(|| ask_version(Path::new(kind.name)));
    let places: Vec<PathBuf> = kind.files.iter().map(PathBuf::from).collect();
    let configuration = Configuration::read(&places)?;
    let has_program = is_told || (version.is_some() && !is_program_dockers);
    let is_configured = (kind.is_told_by_files && !configuration.0.is_empty())
        || kind.folders.iter().any(|folder| Path::new(folder).is_dir());
    Ok((has_program || is_configured).then(|| read(kind, None, version, configuration)))
}

fn read(
    kind: &'static Kind,
    product: Option<&'static Product>,
    version: Option<String>,
    configuration: Configuration,
) -> Runtime {
    let first_start = product.filter(|_| configuration.0.is_empty());
    let bin_dirs = configuration.folders(kind.bin_keys).unwrap_or_else(|| match first_start {
        Some(product) => product.first_bin_dirs(),
        None => kind.bin_dirs.iter().map(PathBuf::from).collect(),
    });
    let conf_dir = configuration.folders(kind.conf_keys).and_then(|dirs| dirs.into_iter().next());
    let conf_dir =
        conf_dir.unwrap_or_else(|| first_start.map_or(kind.conf_dir, |product| product.conf_dir).into());
    let lasting = |dir: &PathBuf| product.map_or_else(|| dir.clone(), |product| product.lasting(dir));
    let serves_cri = kind.name != "containerd" || !is_cri_disabled(&configuration);
    Runtime {
        name: product.map_or(kind.name, |product| product.name),
        program: kind.name,
        runs: false,
        bin_dirs: bin_dirs.iter().map(lasting).collect(),
        conf_dir: lasting(&conf_dir),
        backend: (kind.name == "podman")
            .then(|| podman::backend(version.as_deref(), &configuration))
            .flatten(),
        needs_loopback: serves_cri && needs_loopback(kind, version.as_deref(), &configuration),
        serves_cri,
        cni: cni(kind, version.as_deref(), &configuration),
        files: configuration.0.into_iter().map(|(path, _)| path).collect(),
        version,
    }
}

/// Where the program cannot be asked, its configuration tells: version 3 came with containerd 2.
fn cni(kind: &Kind, version: Option<&str>, configuration: &Configuration) -> Version {
    let major = version.and_then(numbers).map(|(major, _)| major).or_else(|| {
        let of_file = configuration.last(|table| table.get("version")?.as_integer());
        (kind.name == "containerd" && of_file.is_some_and(|of_file| of_file >= 3)).then_some(2)
    });
    match (major, kind.cni_1_1) {
        (Some(major), Some(newer)) if major >= newer => Version::V1_1_0,
        _ => Version::V1_0_0,
    }
}

/// Docker's package configures a containerd without the part that serves Kubernetes.
fn is_cri_disabled(configuration: &Configuration) -> bool {
    let names = configuration.last(|table| {
        let list = table.get("disabled_plugins")?.as_array()?;
        Some(list.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect::<Vec<_>>())
    });
    let is_cri = |name: &String| CONTAINERD.iter().any(|key| key[1] == name);
    names.is_some_and(|names| names.iter().any(is_cri))
}

/// CRI-O has set `lo` up by itself since 1.19; containerd can since 2.0, where it is told to.
fn needs_loopback(kind: &Kind, version: Option<&str>, configuration: &Configuration) -> bool {
    match kind.name {
        "containerd" => {
            let say = |table: &toml::Table| {
                at(table, &[CONTAINERD[2][0], CONTAINERD[2][1], "cni", "use_internal_loopback"])?.as_bool()
            };
            !configuration.last(say).unwrap_or(false)
        }
        "crio" => version.and_then(numbers).is_none_or(|version| version < (1, 19)),
        _ => false,
    }
}

impl Runtime {
    /// Whether it reads network lists by itself. `ctr` has its folders built in, whatever its containerd is
    /// told.
    pub(crate) fn takes_lists(&self) -> bool {
        self.serves_cri && !self.has_netavark()
    }

    /// Whether its containers are not for CNI at all.
    pub(crate) fn has_netavark(&self) -> bool {
        self.backend == Some(Backend::Netavark)
    }

    /// Its name and version, for people: `k3s (containerd) 2.1.4`.
    pub(crate) fn shown(&self) -> String {
        let program = if self.name == self.program { String::new() } else { format!(" ({})", self.program) };
        format!("{}{program} {}", self.name, self.version.as_deref().unwrap_or("of unknown version"))
    }

    /// For `-o json`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"name": self.name, "program": self.program, "version": self.version, "running": self.runs,
            "configuration": self.files, "takesLists": self.takes_lists(),
            "binDirs": self.bin_dirs, "confDir": self.conf_dir, "cniVersion": self.cni.as_str()})
    }
}

/// The runtimes that network lists are for.
pub(crate) fn takers(runtimes: &[Runtime]) -> impl Iterator<Item = &Runtime> {
    runtimes.iter().filter(|runtime| runtime.takes_lists())
}

/// The folders to put plugins into: for each runtime one that it looks into, as few as will do.
pub(crate) fn bin_dirs(runtimes: &[Runtime]) -> Vec<PathBuf> {
    let mut chosen: Vec<PathBuf> = Vec::new();
    for runtime in takers(runtimes) {
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
    for runtime in takers(runtimes) {
        if !chosen.contains(&runtime.conf_dir) {
            chosen.push(runtime.conf_dir.clone());
        }
    }
    if chosen.is_empty() { vec![CONF_DIR.into()] } else { chosen }
}

/// The newest version of the specification that all of them accept; 1.0.0 where none is known.
pub(crate) fn common_cni(runtimes: &[Runtime]) -> Version {
    takers(runtimes).map(|runtime| runtime.cni).min().unwrap_or(Version::V1_0_0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(name: &'static str, version: &str, bin_dirs: &[&str]) -> Runtime {
        let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
        let runtime = read(kind, None, Some(version.into()), Configuration::default());
        Runtime { bin_dirs: bin_dirs.iter().map(PathBuf::from).collect(), ..runtime }
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
        let read_text = |text: &str| {
            let configuration = Configuration(vec![("c".into(), text.parse().unwrap())]);
            read(&KINDS[0], None, None, configuration)
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
    fn who_needs_the_loopback_plugin_is_told_by_version_and_configuration() {
        let needs = |name: &str, version: Option<&str>, text: &str| {
            let kind = KINDS.iter().find(|kind| kind.name == name).unwrap();
            let configuration = Configuration(vec![("c".into(), text.parse().unwrap())]);
            read(kind, None, version.map(str::to_owned), configuration).needs_loopback
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
            read(&KINDS[2], None, Some(version.into()), configuration)
        };
        let netavark = "[network]\nnetwork_backend = 'netavark'\n";
        let cni = "[network]\nnetwork_backend = 'cni'\n";
        assert!(!with("5.4.0", "").takes_lists() && !with("5.4.0", cni).takes_lists());
        assert!(!with("4.9.3", netavark).takes_lists() && with("4.9.3", cni).takes_lists());
        assert!(with("3.4.1", "").takes_lists());
        // It is told of, and decides neither folders nor versions.
        let all = [with("5.4.0", ""), runtime("containerd", "2.1.9", &["/b"])];
        assert_eq!((bin_dirs(&all), common_cni(&all)), (vec!["/b".into()], Version::V1_1_0));
    }
}

//! The known runtimes, and the Kubernetes distributions that include one.

use std::path::{Path, PathBuf};

use super::process::Process;

/// The default plugin directory of most runtimes.
pub(crate) const BIN_DIR: &str = "/opt/cni/bin";
/// The default network list directory of most runtimes.
pub(crate) const CONF_DIR: &str = "/etc/cni/net.d";

/// A program that calls CNI plugins.
#[derive(Debug)]
pub(super) struct Program {
    /// The program's name.
    pub(super) name: &'static str,
    /// The subcommand of the daemon; none if it needs none.
    pub(super) verb: Option<&'static str>,
    /// Its default configuration, later files overriding earlier ones. A directory stands for its files.
    pub(super) files: &'static [&'static str],
    /// The options that replace `files`, in the same order.
    pub(super) file_options: &'static [&'static [&'static str]],
    /// The configuration keys of the plugin directories: key paths, each with a string or an array of
    /// strings.
    pub(super) bin_keys: &'static [&'static [&'static str]],
    /// The configuration keys of the network list directory.
    pub(super) conf_keys: &'static [&'static [&'static str]],
    /// Options that override these keys.
    pub(super) bin_options: &'static [&'static str],
    pub(super) conf_options: &'static [&'static str],
    /// The default directories.
    pub(super) bin_dirs: &'static [&'static str],
    pub(super) conf_dir: &'static str,
    /// Whether a configuration file proves that it is installed.
    pub(super) is_found_by_files: bool,
    /// Directories that prove it.
    pub(super) folders: &'static [&'static str],
    /// The first major version that accepts CNI 1.1.0; none if no version is known to.
    pub(super) cni_1_1: Option<u32>,
}

/// The CRI plugin's name in configuration versions 1, 2 and 3 of containerd.
pub(super) const CONTAINERD: [&[&str]; 3] = [
    &["plugins", "cri"],
    &["plugins", "io.containerd.grpc.v1.cri"],
    &["plugins", "io.containerd.cri.v1.runtime"],
];

pub(super) const PROGRAMS: [Program; 4] = [
    Program {
        name: "containerd",
        verb: None,
        files: &["/etc/containerd/config.toml", "/etc/containerd/conf.d"],
        file_options: &[&["-c", "--config"]],
        bin_keys: &[
            &[CONTAINERD[0][0], CONTAINERD[0][1], "cni", "bin_dir"],
            &[CONTAINERD[1][0], CONTAINERD[1][1], "cni", "bin_dir"],
            &[CONTAINERD[2][0], CONTAINERD[2][1], "cni", "bin_dirs"],
            &[CONTAINERD[2][0], CONTAINERD[2][1], "cni", "bin_dir"],
        ],
        conf_keys: &[
            &[CONTAINERD[0][0], CONTAINERD[0][1], "cni", "conf_dir"],
            &[CONTAINERD[1][0], CONTAINERD[1][1], "cni", "conf_dir"],
            &[CONTAINERD[2][0], CONTAINERD[2][1], "cni", "conf_dir"],
        ],
        bin_options: &[],
        conf_options: &[],
        bin_dirs: &[BIN_DIR],
        conf_dir: CONF_DIR,
        is_found_by_files: true,
        folders: &[],
        cni_1_1: Some(2),
    },
    Program {
        name: "crio",
        verb: None,
        files: &["/etc/crio/crio.conf", "/etc/crio/crio.conf.d"],
        file_options: &[&["-c", "--config"], &["-d", "--config-dir"]],
        bin_keys: &[&["crio", "network", "plugin_dirs"], &["crio", "network", "plugin_dir"]],
        conf_keys: &[&["crio", "network", "network_dir"]],
        bin_options: &["--cni-plugin-dir"],
        conf_options: &["--cni-config-dir"],
        bin_dirs: &[BIN_DIR],
        conf_dir: CONF_DIR,
        is_found_by_files: true,
        folders: &[],
        cni_1_1: None,
    },
    Program {
        name: "podman",
        verb: None,
        files: &[
            "/usr/share/containers/containers.conf",
            "/etc/containers/containers.conf",
            "/etc/containers/containers.conf.d",
        ],
        file_options: &[],
        bin_keys: &[&["network", "cni_plugin_dirs"]],
        conf_keys: &[&["network", "network_config_dir"]],
        bin_options: &[],
        conf_options: &[],
        bin_dirs: &[
            "/usr/local/libexec/cni",
            "/usr/libexec/cni",
            "/usr/local/lib/cni",
            "/usr/lib/cni",
            BIN_DIR,
        ],
        conf_dir: CONF_DIR,
        // Its default configuration also exists on nodes without podman.
        is_found_by_files: false,
        folders: &[],
        cni_1_1: None,
    },
    Program {
        name: "nomad",
        verb: Some("agent"),
        files: &["/etc/nomad.d"],
        file_options: &[&["-config", "--config"]],
        bin_keys: &[&["client", "cni_path"]],
        conf_keys: &[&["client", "cni_config_dir"]],
        bin_options: &["-cni-path", "--cni-path"],
        conf_options: &["-cni-config-dir", "--cni-config-dir"],
        bin_dirs: &[BIN_DIR],
        conf_dir: "/opt/cni/config",
        is_found_by_files: true,
        folders: &["/etc/nomad.d", "/opt/nomad", "/opt/cni/config"],
        cni_1_1: None,
    },
];

/// A Kubernetes distribution with its own containerd, found by its directory.
#[derive(Debug)]
pub(super) struct Distribution {
    pub(super) name: &'static str,
    /// The directory that proves that it is installed.
    pub(super) root: &'static str,
    /// The `--config` of its containerd.
    pub(super) config: &'static str,
    /// Its containerd.
    pub(super) program: &'static str,
    /// Its plugin directories before its first start writes the configuration. If several are given, those
    /// that exist.
    pub(super) bin_dirs: &'static [&'static str],
    pub(super) conf_dir: &'static str,
    /// A symlink to the directory of the current release. A new release has a new directory, which may lack
    /// the files of the last one.
    pub(super) current: Option<&'static str>,
}

pub(super) const DISTRIBUTIONS: [Distribution; 4] = [
    Distribution {
        name: "k3s",
        root: "/var/lib/rancher/k3s",
        config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        program: "/var/lib/rancher/k3s/data/current/bin/containerd",
        // The first since the releases of October 2024.
        bin_dirs: &["/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/data/current/bin"],
        conf_dir: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        current: Some("/var/lib/rancher/k3s/data/current"),
    },
    Distribution {
        name: "RKE2",
        root: "/var/lib/rancher/rke2",
        config: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
        program: "/var/lib/rancher/rke2/bin/containerd",
        bin_dirs: &[BIN_DIR],
        conf_dir: CONF_DIR,
        current: None,
    },
    Distribution {
        name: "MicroK8s",
        root: "/var/snap/microk8s",
        config: "/var/snap/microk8s/current/args/containerd.toml",
        program: "/snap/microk8s/current/bin/containerd",
        bin_dirs: &["/var/snap/microk8s/current/opt/cni/bin"],
        conf_dir: "/var/snap/microk8s/current/args/cni-network",
        current: Some("/var/snap/microk8s/current"),
    },
    Distribution {
        name: "k0s",
        root: "/var/lib/k0s",
        config: "/etc/k0s/containerd.toml",
        program: "/var/lib/k0s/bin/containerd",
        bin_dirs: &[BIN_DIR],
        conf_dir: CONF_DIR,
        current: None,
    },
];

/// The program of all distributions.
pub(super) const DISTRIBUTION_PROGRAM: &str = "containerd";

impl Program {
    /// Whether a process is the daemon, and not its client.
    pub(super) fn is_daemon(&self, process: &Process) -> bool {
        // podman has no daemon, and its containers' monitors have other names.
        let is_daemon = !self.file_options.is_empty();
        is_daemon && self.verb.is_none_or(|verb| process.arguments.iter().any(|word| word == verb))
    }

    /// The configuration files of a process, from its options. A default without an option applies only if
    /// no option is set.
    pub(super) fn places(&self, process: &Process) -> Vec<PathBuf> {
        let given: Vec<Vec<PathBuf>> =
            self.file_options.iter().map(|names| process.paths_of(names)).collect();
        let is_given = given.iter().any(|paths| !paths.is_empty());
        let of = |(index, file): (usize, &&str)| match given.get(index) {
            Some(paths) if !paths.is_empty() => paths.clone(),
            None if is_given => Vec::new(),
            _ => vec![PathBuf::from(file)],
        };
        self.files.iter().enumerate().flat_map(of).collect()
    }
}

impl Distribution {
    /// Whether a running containerd belongs to this distribution.
    pub(super) fn owns(&self, places: &[PathBuf], program: &Path) -> bool {
        let is_own = |path: &Path| path == Path::new(self.config) || path.starts_with(self.root);
        places.first().is_some_and(|config| is_own(config)) || is_own(program)
    }

    /// Its plugin directories before its containerd has a configuration.
    pub(super) fn first_bin_dirs(&self) -> Vec<PathBuf> {
        let all = self.bin_dirs.iter().map(PathBuf::from);
        let there: Vec<PathBuf> = all.clone().filter(|dir| dir.is_dir()).collect();
        if there.is_empty() { all.take(1).collect() } else { there }
    }

    /// The path of a directory through the symlink that survives an upgrade, if there is one. A snap's
    /// `$SNAP_DATA` is that symlink too.
    pub(super) fn stable_path(&self, folder: &Path) -> PathBuf {
        let Some(current) = self.current.map(Path::new) else { return folder.to_owned() };
        if let Ok(rest) = folder.strip_prefix("${SNAP_DATA}") {
            return current.join(rest);
        }
        let release = current.canonicalize().ok();
        let rest = release.as_deref().and_then(|release| folder.strip_prefix(release).ok());
        rest.map_or_else(|| folder.to_owned(), |rest| current.join(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_which_configuration_is_read() {
        let places = |kind: usize, arguments: &[&str]| {
            let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
            let process =
                Process { name: "x", program: "/usr/bin/x".into(), arguments, folder: "/srv".into() };
            PROGRAMS[kind].places(&process).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(places(0, &[]), PROGRAMS[0].files);
        for arguments in
            [&["-c", "/a"] as &[&str], &["--config", "/a", "-l", "debug"], &["--config=/a"], &["-c=/a"]]
        {
            assert_eq!(places(0, arguments), ["/a"], "{arguments:?}");
        }
        assert_eq!(places(0, &["--config", "a.toml"]), ["/srv/a.toml"]);
        assert_eq!(places(1, &["-d", "/d"]), ["/etc/crio/crio.conf", "/d"]);
        assert_eq!(places(1, &["--config=/a"]), ["/a", "/etc/crio/crio.conf.d"]);
        assert_eq!(places(3, &["agent", "-config=/a", "-config", "/b"]), ["/a", "/b"]);
    }

    #[test]
    fn a_distributions_containerd_is_known_by_its_directories() {
        let owner = |config: &str, program: &str| {
            DISTRIBUTIONS.iter().find(|it| it.owns(&[config.into()], Path::new(program))).map(|it| it.name)
        };
        assert_eq!(owner("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "containerd"), Some("k3s"));
        assert_eq!(
            owner("/data/agent/etc/containerd/config.toml", "/var/lib/rancher/rke2/b/containerd"),
            Some("RKE2")
        );
        assert_eq!(
            owner("/var/snap/microk8s/7229/args/containerd.toml", "/snap/b/containerd"),
            Some("MicroK8s")
        );
        assert_eq!(owner("/etc/k0s/containerd.toml", "containerd"), Some("k0s"));
        assert_eq!(owner("/etc/containerd/config.toml", "/usr/bin/containerd"), None);
    }
}

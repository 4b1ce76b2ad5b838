//! podman with its CNI backend.

use super::{Host, IMAGE};
use crate::{Namespace, Outcome, run};
use serde_json::Value;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::chown;

const CONFIGURATION: &str = r#"[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
log_driver = "k8s-file"
"#;

/// A host with podman, which has no daemon. Dereferences to its [`Host`].
#[derive(Debug)]
pub struct Podman {
    host: Host,
}

impl Podman {
    /// Makes the host in the network namespace of a node and gives podman the image.
    pub fn new(namespace: &Namespace) -> Podman {
        let host = Host::new(namespace, "podman");
        fs::create_dir_all(host.path("/etc/containers")).expect("the host is writable");
        fs::write(host.path("/etc/containers/containers.conf"), CONFIGURATION).expect("the host is writable");
        let podman = Podman { host };
        // The package brings a list for the reference plugins.
        podman.set_lists(&[]);
        podman.podman("load --input /pod.tar").expect_ok();
        podman
    }

    /// Runs `podman`.
    #[track_caller]
    pub fn podman(&self, line: &str) -> Outcome {
        self.host.run(&format!("podman {line}"))
    }

    /// Starts a container in the background, attached to a network.
    #[track_caller]
    pub fn run_container(&self, name: &str, network: &str, options: &str) -> Outcome {
        self.podman(&format!("run --detach --name {name} --network {network} {options} {IMAGE}"))
    }
}

/// A user other than root, on a host with podman.
#[derive(Debug)]
pub struct User<'a> {
    podman: &'a Podman,
    home: String,
}

impl Podman {
    /// A new user. The user's podman has the image too.
    pub fn user(&self, name: &str) -> User<'_> {
        let home = format!("/var/users/{name}");
        let add = |file: &str, line: &str| {
            let text = fs::read_to_string(self.path(file)).unwrap_or_default();
            fs::write(self.path(file), format!("{text}{line}\n")).expect("the host is writable");
        };
        add("/etc/passwd", &format!("{name}:x:1000:1000::{home}:/bin/bash"));
        add("/etc/group", &format!("{name}:x:1000:"));
        add("/etc/subuid", &format!("{name}:100000:65536"));
        add("/etc/subgid", &format!("{name}:100000:65536"));
        for folder in [home.as_str(), "/run/user/1000"] {
            fs::create_dir_all(self.path(folder)).expect("the host is writable");
            chown(self.path(folder), Some(1000), Some(1000)).expect("the host is ours");
        }
        let user = User { podman: self, home };
        user.podman("load --input /pod.tar").expect_ok();
        user
    }
}

impl User<'_> {
    /// Makes this the user's only network list.
    pub fn set_list(&self, list: &Value) {
        let folder = self.podman.path(&format!("{}/.config/cni/net.d", self.home));
        fs::create_dir_all(&folder).expect("the host is writable");
        fs::write(folder.join("list.conflist"), list.to_string()).expect("the host is writable");
        self.podman.run(&format!("chown -R 1000:1000 {}", self.home)).expect_ok();
    }

    /// Runs `podman` as this user.
    #[track_caller]
    pub fn podman(&self, line: &str) -> Outcome {
        let mut command = self.podman.command("setpriv");
        command.args(["--reuid", "1000", "--regid", "1000", "--clear-groups", "podman"]);
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", "/run/user/1000");
        run(command.args(line.split_whitespace()))
    }
}

impl Deref for Podman {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

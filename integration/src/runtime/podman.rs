//! podman with its CNI backend.

use super::{Host, IMAGE};
use crate::{Namespace, Outcome};
use std::fs;
use std::ops::Deref;

/// No limits are asked for: not every kernel has the controllers where we look.
const CONFIGURATION: &str = r#"[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
[containers]
cgroups = "disabled"
log_driver = "k8s-file"
"#;

/// A host with podman; there is no daemon. Dereferences to its [`Host`].
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

impl Deref for Podman {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

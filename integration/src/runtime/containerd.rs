//! containerd, driven by `ctr` and through its CRI socket.

use super::{Cri, Host, IMAGE, LIMIT, Sandbox};
use crate::{Background, Namespace, Outcome, poll, programs, run};
use std::fs;
use std::ops::Deref;
use std::process::Command;

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// The machine's own release of Debian has 1.6 or newer.
    Stable,
    /// Debian's unstable release has 2.x.
    Sid,
}

impl Release {
    /// Both.
    pub const ALL: [Release; 2] = [Release::Stable, Release::Sid];

    fn packages(self) -> &'static str {
        match self {
            Release::Stable => "containerd",
            Release::Sid => "containerd-sid",
        }
    }
}

/// A pod's sandbox has our image. Limits are off, because not every kernel has the controllers.
const CONFIGURATION: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pod:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"
"#;

const SOCKET: &str = "/run/containerd/containerd.sock";

/// A running containerd. Dereferences to its [`Host`].
#[derive(Debug)]
pub struct Containerd {
    host: Host,
    release: Release,
}

impl Containerd {
    /// Starts it in the network namespace of a node and gives it the image, for `ctr` and for CRI.
    pub fn start(namespace: &Namespace, release: Release) -> Containerd {
        let host = Host::new(namespace, release.packages());
        fs::create_dir_all(host.path("/etc/containerd")).expect("the host is writable");
        fs::write(host.path("/etc/containerd/config.toml"), CONFIGURATION).expect("the host is writable");
        let containerd = Containerd { host, release };
        containerd.launch();
        for namespace in ["default", "k8s.io"] {
            containerd.ctr(&format!("--namespace {namespace} image import /pod.tar")).expect_ok();
        }
        containerd
    }

    /// Ends the daemon by a signal and starts it again. Its containers go on.
    pub fn restart(&self, signal: &str) {
        self.host.stop("containerd", signal);
        self.launch();
    }

    /// Its CRI, as kubelet sees it.
    pub fn cri(&self) -> Cri {
        Cri::new(self.host.path(SOCKET))
    }

    /// Removes a sandbox as kubelet does: stops it twice, then removes it.
    #[track_caller]
    pub fn remove(&self, sandbox: &Sandbox) {
        for _ in 0..2 {
            self.cri().stop(sandbox).expect("StopPodSandbox");
        }
        self.cri().remove(sandbox).expect("RemovePodSandbox");
    }

    /// Runs `ctr`.
    #[track_caller]
    pub fn ctr(&self, line: &str) -> Outcome {
        run(&mut self.ctr_command(line))
    }

    /// `ctr`, to be started.
    pub fn ctr_command(&self, line: &str) -> Command {
        let mut command = self.host.command("ctr");
        command.args(line.split_whitespace());
        command
    }

    /// Gives it the product's own image, for `ctr` and for CRI, and returns its name.
    pub fn import_product(&self) -> String {
        fs::copy(programs::image(), self.host.path("/product.tar")).expect("the image is there");
        for namespace in ["default", "k8s.io"] {
            self.ctr(&format!("--namespace {namespace} image import /product.tar")).expect_ok();
        }
        format!("localhost/vlan-bridge:{}", env!("CARGO_PKG_VERSION"))
    }

    /// Starts a container with `ctr run --cni`, which takes the network away again when the container has
    /// ended.
    pub fn run_container(&self, id: &str) -> Background {
        let mut command = self.host.command("ctr");
        // No CPU share, for the same reason as in the configuration.
        command.args(["run", "--rm", "--cni", "--cpu-shares", "0", IMAGE, id]);
        Background::start(&mut command)
    }

    fn launch(&self) {
        self.host.start("containerd", "containerd");
        let answers = || run(self.host.command("ctr").arg("version")).ok();
        let what = format!("containerd of {:?}\n{}", self.release, self.host.log("containerd"));
        poll(LIMIT, &what, answers);
    }
}

impl Deref for Containerd {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

//! kubectl, as the administrator.

use crate::control::Control;
use integration::{Outcome, run, run_with};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// How long a cluster may take for anything.
pub const LIMIT: Duration = Duration::from_secs(240);

impl Control {
    fn command(&self, line: &str) -> Command {
        let mut command = self.host.command("/opt/kubernetes/kubectl");
        command.env("KUBECONFIG", "/etc/kubernetes/admin.conf").args(line.split_whitespace());
        command
    }

    /// Runs `kubectl`; the words are split at spaces.
    #[track_caller]
    pub fn kubectl(&self, line: &str) -> Outcome {
        run(&mut self.command(line))
    }

    /// What `kubectl get` tells.
    #[track_caller]
    pub fn get(&self, line: &str) -> Value {
        self.kubectl(&format!("get -o json {line}")).expect_ok().json()
    }

    /// The items of what `kubectl get` tells.
    #[track_caller]
    pub fn items(&self, line: &str) -> Vec<Value> {
        self.get(line)["items"].as_array().expect("a list has items").clone()
    }

    /// Applies one object.
    #[track_caller]
    pub fn apply(&self, object: &Value) {
        run_with(&mut self.command("apply -f -"), object.to_string().as_bytes()).expect_ok();
    }

    /// Runs busybox in a pod.
    #[track_caller]
    pub fn busybox(&self, pod: &str, line: &str) -> Outcome {
        self.kubectl(&format!("exec {pod} -- /bin/busybox {line}"))
    }

    /// What a server on TCP answers a pod that asks it for `path`, header and all.
    #[track_caller]
    pub fn fetch(&self, pod: &str, to: SocketAddr, path: &str) -> Outcome {
        // Not wget, which busybox cannot be where the C library misses its files.
        let (ip, port) = (to.ip(), to.port());
        let script = format!(r"printf 'GET {path} HTTP/1.0\r\n\r\n' | /bin/busybox nc -w 5 {ip} {port}");
        let mut command = self.command(&format!("exec {pod} -- /bin/busybox sh -c"));
        run(command.arg(script))
    }
}

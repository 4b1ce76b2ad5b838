//! kubectl, as the administrator.

use crate::control::Control;
use integration::{Outcome, run, run_with};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// The time limit for any change in the cluster.
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

    /// The answer of `kubectl get`.
    #[track_caller]
    pub fn get(&self, line: &str) -> Value {
        self.kubectl(&format!("get -o json {line}")).expect_ok().json()
    }

    /// The items in the answer of `kubectl get`.
    #[track_caller]
    pub fn items(&self, line: &str) -> Vec<Value> {
        self.get(line)["items"].as_array().expect("a list has items").clone()
    }

    /// Applies one object.
    #[track_caller]
    pub fn apply(&self, object: &Value) {
        run_with(&mut self.command("apply -f -"), object.to_string().as_bytes()).expect_ok();
    }

    /// Merges a file of this host into an object.
    #[track_caller]
    pub fn patch(&self, object: &str, file: &str) -> Outcome {
        let text = std::fs::read_to_string(self.host.path(file)).expect("a patch is text");
        run(self.command(&format!("patch {object} --patch")).arg(text))
    }

    /// Runs busybox in a pod.
    #[track_caller]
    pub fn busybox(&self, pod: &str, line: &str) -> Outcome {
        self.kubectl(&format!("exec {pod} -- /bin/busybox {line}"))
    }

    /// The answer of an HTTP server to a pod that asks for `path`, with its header.
    #[track_caller]
    pub fn fetch(&self, pod: &str, to: SocketAddr, path: &str) -> Outcome {
        // busybox's wget does not work without some files of the C library.
        let (ip, port) = (to.ip(), to.port());
        let script = format!(r"printf 'GET {path} HTTP/1.0\r\n\r\n' | /bin/busybox nc -w 5 {ip} {port}");
        let mut command = self.command(&format!("exec {pod} -- /bin/busybox sh -c"));
        run(command.arg(script))
    }
}

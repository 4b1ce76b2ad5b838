//! What a kernel announces and what is heard on a segment, in network namespaces. They take root, as
//! `cargo xtask test` does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod listen;
mod monitor;

use std::future::Future;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a test on a thread that has a network namespace to itself. Programs that it executes are in there
/// too.
fn in_namespace<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("a network namespace takes root: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert!(tokio::time::timeout(LIMIT, test()).await.is_ok(), "nothing came for {LIMIT:?}");
        });
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Runs a command line; the words are split at spaces.
fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs commands of `ip` in one go.
fn ip(lines: &str) {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn index(name: &str) -> u32 {
    vlan_bridge_kernel::PacketInterface::find(name).unwrap().unwrap().index as u32
}

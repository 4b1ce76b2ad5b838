//! One run of the emulator.

use super::{Job, LockedUp, console};
use anyhow::{Context, Result, anyhow, bail};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Kernel parameters. Errors that would make a verdict worthless end the guest at once. So does a CPU that
/// runs one thing of the kernel for 120 seconds, which is twice the threshold and the most that can be set: a
/// kernel that is only emulated slowly gets on in that time. Level 5 shows the traces of all CPUs. Libraries
/// have the same addresses in every process, so the emulator translates them once, and programs start in less
/// than half the time.
const PARAMETERS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic softlockup_panic=1 \
    softlockup_all_cpu_backtrace=1 watchdog_thresh=60 mitigations=off norandmaps random.trust_cpu=on";

/// Boots, forwards the job's output line by line, returns the job's exit code.
pub(super) fn boot(
    kernel: &Path,
    initramfs: &Path,
    dir: &Path,
    job: &Job,
    line: &mut dyn FnMut(&str),
) -> Result<i32> {
    let (console_file, verdict) = (dir.join("console"), dir.join("verdict"));
    let interactive = job.command.is_empty();
    // The guest ends with this process, however it ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    // Emulation instead of KVM, because nested guests that hang are worse than slow ones. The emulator's
    // threads can use all CPUs of the host. Four levels of page tables are faster than five.
    command.args([
        "-M",
        "pc",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max,la57=off",
        "-smp",
        "2",
        "-m",
        "3072",
    ]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", PARAMETERS]);
    command.arg("-serial").arg(format!("file:{}", console_file.display()));
    // Ctrl-C at an interactive guest is for the program in it.
    let signals = if interactive { "off" } else { "on" };
    command.args(["-chardev", &format!("stdio,id=job,signal={signals}"), "-serial", "chardev:job"]);
    command.arg("-serial").arg(format!("file:{}", verdict.display()));
    command.stdin(if interactive { Stdio::inherit() } else { Stdio::null() });
    command.stdout(if interactive { Stdio::inherit() } else { Stdio::piped() });

    let mut child = command.spawn().context("cannot run qemu-system-x86_64")?;
    let in_time = forward(&mut child, job.deadline, line);
    if !in_time {
        child.kill().context("cannot end the emulator")?;
    }
    child.wait().context("the emulator cannot be waited for")?;
    let console = String::from_utf8_lossy(&fs::read(console_file).unwrap_or_default()).into_owned();
    if console::locked_up(&console) {
        return Err(LockedUp(console::excerpt(&console)).into());
    }
    if !in_time {
        let seconds = job.deadline.as_secs();
        bail!("the guest was not done after {seconds} s\n{}", console::excerpt(&console));
    }
    exit_code(&fs::read_to_string(&verdict).unwrap_or_default())
        .ok_or_else(|| anyhow!("the guest died without a verdict\n{}", console::excerpt(&console)))
}

/// Forwards output until the emulator closes it. False if the deadline came first.
fn forward(child: &mut Child, deadline: Duration, line: &mut dyn FnMut(&str)) -> bool {
    let Some(stdout) = child.stdout.take() else {
        // A person uses the guest's terminal, so there is no deadline and nothing to forward.
        return child.wait().is_ok();
    };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned();
            if sender.send(text).is_err() {
                break;
            }
            bytes.clear();
        }
    });
    let end = Instant::now() + deadline;
    loop {
        match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// The verdict that init wrote.
fn exit_code(verdict: &str) -> Option<i32> {
    verdict.trim().strip_prefix("exit ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_verdict_counts() {
        assert_eq!(exit_code("exit 0\n"), Some(0));
        assert_eq!(exit_code("exit 101\r\n"), Some(101));
        assert_eq!(exit_code(""), None);
        assert_eq!(exit_code("exit"), None);
    }
}

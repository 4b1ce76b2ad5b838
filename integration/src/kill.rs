//! SIGKILL at a chosen system call.

use crate::process::{Outcome, collected, start};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// Runs a program and kills it as it enters its `nth` system call, counted from 0. The program may end before
/// that. Its input and its output must each fit into a pipe.
#[track_caller]
pub fn run_killed_at(command: &mut Command, input: &[u8], nth: usize) -> Outcome {
    // SAFETY: between fork and exec this makes one system call and allocates nothing.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let mut child = start(command, input);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"));
    let status = follow(pid, nth).unwrap_or_else(|error| panic!("cannot trace {pid}: {error}"));
    collected(&mut child, command, |_| status)
}

/// Lets a program run from its exec to its end, or to the system call at which it is killed.
fn follow(pid: Pid, nth: usize) -> nix::Result<ExitStatus> {
    let (mut entered, mut inside, mut signal) = (0, false, None);
    let mut seen = waitpid(pid, None)?;
    ptrace::setoptions(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)?;
    loop {
        match seen {
            WaitStatus::Exited(_, code) => return Ok(ExitStatus::from_raw(code << 8)),
            WaitStatus::Signaled(_, signal, _) => return Ok(ExitStatus::from_raw(signal as i32)),
            WaitStatus::PtraceSyscall(_) => {
                if !inside && entered == nth {
                    kill(pid, Signal::SIGKILL)?;
                }
                entered += usize::from(!inside);
                inside = !inside;
            }
            // The exec itself.
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
            WaitStatus::Stopped(_, other) => signal = Some(other),
            _ => {}
        }
        match ptrace::syscall(pid, signal.take()) {
            // It was killed, and the next wait reports that.
            Ok(()) | Err(nix::Error::ESRCH) => {}
            Err(error) => return Err(error),
        }
        seen = waitpid(pid, None)?;
    }
}

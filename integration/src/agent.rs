//! `vlan-bridgectl agent` on a node.

use crate::{Background, Ctl, poll, programs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The time limit for a process to obey a signal.
const OBEYED: Duration = Duration::from_secs(20);
/// A part of the report of the first pass.
const FIRST_LOOK: &str = "has looked at the node";

/// A running agent. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Background,
    /// The agent's own process, if another one traces it.
    traced: Option<Pid>,
    log: PathBuf,
}

impl Agent {
    /// Starts an agent with the words of a line, and waits until it has looked at the node once.
    pub fn start(ctl: &Ctl<'_>, line: &str) -> Agent {
        Agent::start_as(ctl, ctl.command(&format!("agent {line}")))
    }

    /// The same with a command that runs an agent.
    pub fn start_as(ctl: &Ctl<'_>, command: Command) -> Agent {
        let agent = Agent::spawn(ctl, command);
        agent.await_first_look();
        agent
    }

    fn spawn(ctl: &Ctl<'_>, mut command: Command) -> Agent {
        let log = ctl.path("agent.log");
        let file = File::create(&log).expect("a folder of ours can be filled");
        let process = Background::start(command.stderr(file));
        Agent { process, traced: None, log }
    }

    /// Starts an agent under strace with these options, none of which contains a space.
    pub fn spawn_traced(ctl: &Ctl<'_>, options: &str) -> Agent {
        let program = programs::product().join("vlan-bridgectl");
        let line = format!("-qq -f -e signal=none {options} {} agent", program.display());
        let mut agent = Agent::spawn(ctl, ctl.command_of(Path::new("strace"), &line));
        let children = format!("/proc/{0}/task/{0}/children", agent.process.pid());
        poll(OBEYED, "the traced agent", || {
            let pids = fs::read_to_string(&children).unwrap_or_default();
            // strace first tries the kernel with a child of its own.
            let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let found = pids.split_whitespace().find(|pid| name(pid).trim() == "vlan-bridgectl");
            agent.traced = found.and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
            agent.traced.is_some() || !agent.process.is_alive()
        });
        agent
    }

    /// Starts an agent with the words of a line, and does not wait.
    pub fn begin(ctl: &Ctl<'_>, line: &str) -> Agent {
        Agent::spawn(ctl, ctl.command(&format!("agent {line}")))
    }

    /// What it has reported so far.
    pub fn reports(&self) -> String {
        fs::read_to_string(&self.log).expect("the log of ours can be read")
    }

    /// Waits until its reports contain these words.
    #[track_caller]
    pub fn await_report(&self, text: &str) {
        // What the kernel does not announce, such as most sysctls, is looked at once a minute.
        poll(Duration::from_secs(90), &format!("a report of {text:?}"), || self.reports().contains(text));
    }

    /// Waits until it has looked at the node once.
    #[track_caller]
    pub fn await_first_look(&self) {
        self.await_report(FIRST_LOOK);
    }

    /// Whether it has looked at the node once.
    pub fn has_looked(&self) -> bool {
        self.reports().contains(FIRST_LOOK)
    }

    /// A size of `/proc/PID/status` in KiB, such as `VmRSS`.
    pub fn memory(&self, key: &str) -> f64 {
        let size = self.status(key);
        size.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a size in KiB")
    }

    /// The time that its threads have had a CPU.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the agent runs");
        let time = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            text.split_whitespace()
                .next()
                .and_then(|nanos| nanos.parse().ok())
                .map_or(Duration::ZERO, Duration::from_nanos)
        };
        tasks.flatten().map(time).sum()
    }

    /// Its process, or the one that traces it.
    pub fn process(&mut self) -> &mut Background {
        &mut self.process
    }

    /// Stops it with SIGSTOP while `action` runs.
    pub fn while_stopped(&self, action: impl FnOnce()) {
        self.signal(Signal::SIGSTOP);
        poll(OBEYED, "the stopped agent", || self.status("State").starts_with('T'));
        action();
        self.signal(Signal::SIGCONT);
    }

    /// Ends it with SIGTERM.
    pub fn end(mut self) {
        self.signal(Signal::SIGTERM);
        poll(OBEYED, "the end of the agent", || !self.process.is_alive());
    }

    /// The process id of the agent itself.
    pub fn pid(&self) -> Pid {
        let own = || Pid::from_raw(self.process.pid().try_into().expect("a process id fits"));
        self.traced.unwrap_or_else(own)
    }

    /// Its resident set, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.status("VmRSS").trim_end_matches(" kB").parse().expect("a number")
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the agent runs");
    }

    /// A value of `/proc/PID/status`.
    fn status(&self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the agent runs");
        let mut lines = status.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It would go on without the process that traces it.
        if let Some(traced) = self.traced.filter(|_| self.process.is_alive()) {
            let _ = kill(traced, Signal::SIGKILL);
        }
    }
}

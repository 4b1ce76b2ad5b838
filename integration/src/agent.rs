//! `vlan-bridgectl agent` on a node.

use crate::{Background, Ctl, poll};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// A running agent. It is killed when the value is dropped.
#[derive(Debug)]
pub struct Agent {
    process: Background,
    log: PathBuf,
}

impl Agent {
    /// Starts an agent with the words of a line, and waits until it has looked at the node once.
    pub fn start(ctl: &Ctl<'_>, line: &str) -> Agent {
        Agent::start_as(ctl, ctl.command(&format!("agent {line}")))
    }

    /// The same with a command that runs an agent.
    pub fn start_as(ctl: &Ctl<'_>, mut command: Command) -> Agent {
        let log = ctl.path("agent.log");
        let file = File::create(&log).expect("a folder of ours can be filled");
        let process = Background::start(command.stderr(file));
        let agent = Agent { process, log };
        agent.await_report("has looked at the node");
        agent
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

    /// Its process.
    pub fn process(&mut self) -> &mut Background {
        &mut self.process
    }
}

//! The command line: parses it and calls the verb.

use std::io::{self, Write};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::args::{Agent, Doctor, Install, PoolCommand, Repair, Status, Topology, Uninstall};
use crate::denial::effective_user;
use crate::output::{OutputWriter, is_output_error, report};
use crate::{agent, doctor, install, pool, repair, status, topology, uninstall};

/// Exit codes.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Installs vlan-bridge on a node and uninstalls it, and shows, checks and repairs the node's pod networks.
#[derive(Debug, Parser)]
#[command(name = "vlan-bridgectl", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Install(Box<Install>),
    Uninstall(Uninstall),
    Status(Status),
    Topology(Topology),
    Doctor(Doctor),
    Repair(Repair),
    Agent(Agent),
    Pool(PoolCommand),
}

impl Verb {
    /// Whether it changes nothing. Without root it then shows what it can see.
    fn only_looks(&self) -> bool {
        matches!(self, Verb::Status(_) | Verb::Topology(_) | Verb::Doctor(_))
    }

    /// Whether any user may run it. Files and the store may still refuse.
    fn is_for_all(&self) -> bool {
        matches!(self, Verb::Pool(_))
    }

    /// What a user other than root is told.
    fn lacks_root(&self, user: u32) -> String {
        let (name, effect) = match self {
            Verb::Install(_) => ("install", "nothing was changed"),
            Verb::Uninstall(_) => ("uninstall", "nothing was changed"),
            Verb::Repair(_) => ("repair", "nothing was changed"),
            Verb::Agent(_) => ("agent", "nothing was changed"),
            Verb::Pool(_) => ("pool", "nothing was changed"),
            Verb::Status(_) => ("status", "what follows is incomplete"),
            Verb::Topology(_) => ("topology", "what follows is incomplete"),
            Verb::Doctor(_) => ("doctor", "what follows is incomplete, and may be wrong"),
        };
        format!("vlan-bridgectl: {name} needs root, and runs as user {user}: {effect}")
    }
}

/// Runs a command line, and returns the exit code: 1 if the verb failed or was not run as root, 2 for a usage
/// error.
///
/// # Errors
/// When `out` cannot be written.
pub(crate) fn run(words: &[String], out: &mut dyn Write) -> io::Result<u8> {
    let own_name = [String::from("vlan-bridgectl")];
    let cli = match Cli::try_parse_from(own_name.iter().chain(words)) {
        Ok(cli) => cli,
        Err(answer) if matches!(answer.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            write!(out, "{answer}")?;
            return Ok(0);
        }
        Err(misuse) => {
            report(&misuse.to_string());
            return Ok(MISUSED);
        }
    };
    let user = if cli.verb.is_for_all() { 0 } else { effective_user().unwrap_or(0) };
    if user != 0 {
        report(&cli.verb.lacks_root(user));
        if !cli.verb.only_looks() {
            return Ok(FAILED);
        }
    }
    let out: &mut dyn Write = &mut OutputWriter(out);
    let outcome = match &cli.verb {
        Verb::Install(call) => install::run(call, out).map(|()| true),
        Verb::Uninstall(call) => uninstall::run(call, out).map(|()| true),
        Verb::Status(call) => status::run(call, out).map(|()| true),
        Verb::Topology(call) => topology::run(call, out).map(|()| true),
        Verb::Doctor(call) => doctor::run(call, out),
        Verb::Repair(call) => repair::run(call, out),
        Verb::Agent(call) => agent::run(call, out).map(|()| true),
        Verb::Pool(call) => pool::run(call, out).map(|()| true),
    };
    match outcome {
        Ok(true) if user == 0 => Ok(0),
        Ok(_) => Ok(FAILED),
        Err(error) if is_output_error(&error) => error.downcast::<io::Error>().map_or(Ok(FAILED), Err),
        Err(error) => {
            out.flush()?;
            report(&format!("vlan-bridgectl: {error:#}"));
            Ok(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Directories;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn who_is_not_root_is_told_so() {
        for (line, only_looks, effect) in [
            ("install", false, "install needs root, and runs as user 7: nothing was changed"),
            ("uninstall", false, "uninstall needs root, and runs as user 7: nothing was changed"),
            ("repair", false, "repair needs root, and runs as user 7: nothing was changed"),
            ("agent", false, "agent needs root, and runs as user 7: nothing was changed"),
            ("topology", true, "topology needs root, and runs as user 7: what follows is incomplete"),
            ("status", true, "status needs root, and runs as user 7: what follows is incomplete"),
            (
                "doctor",
                true,
                "doctor needs root, and runs as user 7: what follows is incomplete, and may be wrong",
            ),
        ] {
            let verb = Cli::try_parse_from(["vlan-bridgectl", line]).unwrap().verb;
            assert_eq!(verb.lacks_root(7), format!("vlan-bridgectl: {effect}"));
            assert_eq!(verb.only_looks(), only_looks, "{line}");
        }
    }

    #[test]
    fn paths_that_are_kept_or_printed_become_absolute() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.verb);
        let expected = Some(std::env::current_dir().unwrap().join("some/dir"));
        let line = "vlan-bridgectl install --bin-dir some/dir --conf-dir some/dir --from some/dir";
        let Verb::Install(call) = parse(line).unwrap() else { panic!("no install") };
        let Directories { bin_dir, conf_dir } = call.directories;
        assert_eq!([bin_dir, conf_dir, call.from], [(); 3].map(|()| expected.clone()));
        let line = "vlan-bridgectl doctor --bin-dir some/dir --conf-dir some/dir --network some/dir";
        let Verb::Doctor(Doctor { inspect, bin_dir, .. }) = parse(line).unwrap() else { panic!("no doctor") };
        let network = inspect.lists.network.first().cloned();
        assert_eq!([bin_dir, inspect.lists.conf_dir, network], [(); 3].map(|()| expected.clone()));
        let Verb::Status(Status { inspect, .. }) =
            parse("vlan-bridgectl status --conf-dir some/dir").unwrap()
        else {
            panic!("no status")
        };
        assert_eq!(inspect.lists.conf_dir, expected);
        assert!(Cli::try_parse_from(["vlan-bridgectl", "install", "--bin-dir", ""]).is_err());
    }
}

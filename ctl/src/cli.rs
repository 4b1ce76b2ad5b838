//! The command line: parses it and calls the verb.

use std::io::{self, Write};

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::args::{Doctor, Install, Repair, Status, Uninstall};
use crate::output::{OutputWriter, is_output_error, report};
use crate::{doctor, install, repair, status, uninstall};

/// Exit codes.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Installs vlan-bridge on a node, uninstalls it, and shows the state of the node.
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
    Doctor(Doctor),
    Repair(Repair),
}

/// Runs a command line, and returns the exit code: 1 if the verb failed, 2 for a usage error.
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
    let out: &mut dyn Write = &mut OutputWriter(out);
    let outcome = match &cli.verb {
        Verb::Install(call) => install::run(call, out).map(|()| true),
        Verb::Uninstall(call) => uninstall::run(call, out).map(|()| true),
        Verb::Status(call) => status::run(call, out).map(|()| true),
        Verb::Doctor(call) => doctor::run(call, out),
        Verb::Repair(call) => repair::run(call, out),
    };
    match outcome {
        Ok(true) => Ok(0),
        Ok(false) => Ok(FAILED),
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn directories_become_absolute() {
        let cli = Cli::try_parse_from(["vlan-bridgectl", "install", "--bin-dir", "bin"]).unwrap();
        let Verb::Install(call) = cli.verb else { panic!("no install") };
        assert_eq!(call.directories.bin_dir, Some(std::env::current_dir().unwrap().join("bin")));
    }
}

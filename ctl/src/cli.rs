//! The command line, and which verb it asks for.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::{doctor, install, repair, status, uninstall};

/// Exit codes.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

/// Puts vlan-bridge onto a node, takes it away again, and tells how the node is.
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

/// How facts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Put the plugins into the CNI bin dir, and this node's network list into the CNI conf dir, last and in one
/// step.
///
/// The network is a list in a file (--network), or described by flags (--name and --subnet, and --master for
/// an uplink); with neither, the plugins alone are installed. The node's part of its subnet comes from the
/// first of: --slice; the Node's annotation cni.vlan-bridge/slice; the Node's spec.podCIDRs; --mapping. The
/// Node is asked for where a service account is mounted, as in a pod. A slice that the list has already
/// stays; --slice or --mapping that says otherwise is an error. If anything is wrong nothing is changed: a
/// list that is there stays. One of others whose place ours takes is kept in /var/lib/vlan-bridge/previous,
/// and uninstall puts it back. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Install {
    /// A network list without slice (repeatable). It keeps its file name, if that ends in .conflist; any
    /// other, and one told by flags, is called 10-NAME.conflist
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) described: Described,
    /// This node's part of the subnet; for two families, one each
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr)]
    pub(crate) slice: Vec<IpNet>,
    /// A file with a line for each node: its name and its slice, or one slice of each family with a comma
    /// between
    #[arg(long, value_name = "FILE")]
    pub(crate) mapping: Option<PathBuf>,
    /// Name of this node [default: $NODE_NAME, else the host's name]
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Where the plugins are taken from [default: the folder of vlan-bridgectl itself]
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) places: Places,
    /// The version that the list is written in [default: its own, else 1.1.0, but none that a runtime of this
    /// node does not take, and 1.0.0 at most where no runtime is found]
    #[arg(long, value_name = "VERSION")]
    pub(crate) cni_version: Option<String>,
    /// Stay, and install again whenever a file of --network or --mapping has changed (looked at every 5 s),
    /// or the Node's annotation or podCIDR (asked for every 30 s)
    #[arg(long)]
    pub(crate) watch: bool,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Where runtimes look; without these, where those look that run, or that are found by their configuration or
/// folder.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Where runtimes look for plugins [default: as their configuration says, else /opt/cni/bin]
    #[arg(long, value_name = "DIR", value_parser = folder)]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Where runtimes look for network lists [default: as their configuration says, else /etc/cni/net.d]
    #[arg(long, value_name = "DIR", value_parser = folder)]
    pub(crate) conf_dir: Option<PathBuf>,
}

/// As a path from the root: it is noted for uninstall, which may be called from elsewhere.
fn folder(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

/// A network by its facts, instead of a file.
#[derive(Debug, Args)]
#[group(id = "described", conflicts_with = "network", multiple = true)]
pub(crate) struct Described {
    /// The network's name
    #[arg(long, requires = "subnet")]
    pub(crate) name: Option<String>,
    /// The bond or NIC that the bridge hangs on; none for a bridge of this node alone
    #[arg(long, value_name = "INTERFACE", requires = "name")]
    pub(crate) master: Option<String>,
    /// The pods' VLAN
    #[arg(long, value_name = "ID", requires = "master")]
    pub(crate) vlan: Option<u16>,
    /// The bridge [default: brVLAN, or cni0 without a VLAN]
    #[arg(long, value_name = "INTERFACE", requires = "name")]
    pub(crate) bridge: Option<String>,
    /// The pods' subnet
    #[arg(long, value_name = "CIDR", requires = "name", value_parser = cidr)]
    pub(crate) subnet: Option<IpNet>,
    /// The router [default: the subnet's first address]
    #[arg(long, value_name = "ADDRESS", requires = "name")]
    pub(crate) gateway: Option<std::net::IpAddr>,
    /// An address or CIDR that is never given to a pod (repeatable)
    #[arg(long, value_name = "CIDR", requires = "name")]
    pub(crate) exclude: Vec<String>,
}

/// Take away what install put: lists, plugins, and the bridges and sub-interfaces that the plugins made.
///
/// Takes away what /var/lib/vlan-bridge/installed.json names, wherever --bin-dir and --conf-dir put it, but
/// no list that somebody has changed into one without our plugin. A list of others whose place ours took is
/// put back, unless another is there by now or it names our plugin. Refuses while pods are attached. Leases
/// stay; with --force those of the attached pods are given back. /var/lib/vlan-bridge/previous remains, with
/// the lists that are not put back. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Even though pods are attached: their interfaces go too
    #[arg(long)]
    pub(crate) force: bool,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Show the node on one screen: bonds, VLANs, bridges, pods with their addresses, and how each range is used.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// A network list that is in no folder where runtimes look (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Vec<PathBuf>,
    /// Where to look for network lists [default: where runtimes look and install put some, else
    /// /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub(crate) conf_dir: Option<PathBuf>,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Check what experienced people would check by hand, and say what fixes what is wrong.
///
/// Each line is ok, warn or fail, with what was seen, why it matters, and the command that fixes it. The exit
/// status is 1 if anything fails. Nothing is changed; the pods' networks are asked by ARP and neighbour
/// discovery, in nobody's name.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// A network list that is in no folder where runtimes look (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Vec<PathBuf>,
    /// Where to look for network lists [default: where runtimes look and install put some, else
    /// /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub(crate) conf_dir: Option<PathBuf>,
    /// Where to look for plugins [default: where runtimes look and install put some, else /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Send nothing: whether the VLANs pass and addresses are used twice is then not told
    #[arg(long)]
    pub(crate) no_probe: bool,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Put back what others have taken away of attached pods' networks: after a firewall's reload, for one.
///
/// Rules and sets of the packet filter, ports that are in no bridge any more and their settings, bridges and
/// uplinks that are down or gone, entries of the forwarding database, the node's routes to pods, and sysctls
/// of the devices that the plugins made: what the next ADD or DEL on this node would put back, and no more.
/// What is in a pod's own namespace is left alone. Then looks at the node as doctor does, without sending
/// anything, and prints what still fails. The exit status is 1 if anything does. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// What is printed
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "no CIDR: 172.20.56.16/28, for one".to_owned())
}

/// Does what the words ask for, and returns the exit code: 1 for what could not be done, 2 for what is no
/// call.
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

/// Our output, whose errors are told from those of files.
struct OutputWriter<'a>(&'a mut dyn Write);

/// An error of our output.
#[derive(Debug)]
struct OutputError(io::Error);

impl std::error::Error for OutputError {}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Write for OutputWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(|error| io::Error::new(error.kind(), OutputError(error)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|error| io::Error::new(error.kind(), OutputError(error)))
    }
}

/// Whether nobody takes our output any more.
pub(crate) fn is_output_error(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
        .is_some_and(|cause| cause.is::<OutputError>())
}

/// Says something to the person, apart from the facts.
pub(crate) fn report(text: &str) {
    // With stderr closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "{}", text.trim_end());
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
    fn folders_are_told_from_the_root() {
        let cli = Cli::try_parse_from(["vlan-bridgectl", "install", "--bin-dir", "bin"]).unwrap();
        let Verb::Install(call) = cli.verb else { panic!("no install") };
        assert_eq!(call.places.bin_dir, Some(std::env::current_dir().unwrap().join("bin")));
    }
}

//! The arguments of each verb.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

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

/// Which network lists to inspect, and how to print the result: for `status` and `doctor`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A network list that is in no folder where runtimes look (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Vec<PathBuf>,
    /// Where to look for network lists [default: where runtimes look and install put some, else
    /// /etc/cni/net.d]
    #[arg(long, value_name = "DIR")]
    pub(crate) conf_dir: Option<PathBuf>,
    /// What is printed
    #[arg(short, long, value_enum, default_value_t, display_order = 100)]
    pub(crate) output: Output,
}

/// Show the node on one screen: bonds, VLANs, bridges, pods with their addresses, and how each range is used.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) inspect: Inspect,
}

/// Check what experienced people would check by hand, and say what fixes what is wrong.
///
/// Each line is ok, warn or fail, with what was seen, why it matters, and the command that fixes it. The exit
/// status is 1 if anything fails. Nothing is changed; the pods' networks are asked by ARP and neighbour
/// discovery, in nobody's name.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) inspect: Inspect,
    /// Where to look for plugins [default: where runtimes look and install put some, else /opt/cni/bin]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Send nothing: whether the VLANs pass and addresses are used twice is then not told
    #[arg(long)]
    pub(crate) no_probe: bool,
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

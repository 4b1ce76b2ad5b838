//! The arguments of each verb.

mod pool;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use vlan_bridge_agent::MetricsAddress;

pub(crate) use pool::{
    PoolCommand, PoolCreate, PoolList, PoolShow, PoolState, PoolThaw, PoolVerb, StoreOptions, WhoReclaims,
};

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Lines to read.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// Install the plugins into the CNI bin directory, then this node's network list into the CNI conf
/// directory.
///
/// The network is a list in a file (--network), or flags describe it (--name and --subnet, and --master for
/// an uplink). Without either, only the plugins are installed.
///
/// The node's slice of the subnet comes from the first of: --slice; the Node's annotation
/// cni.vlan-bridge/slice; the Node's spec.podCIDRs; --mapping. The API server is asked for the Node if a
/// service account is mounted, as in a pod. A slice that is already in the list stays. If --slice or
/// --mapping contradicts it, install fails.
///
/// If anything is wrong, nothing is changed. A foreign list with the same file name is moved to
/// /var/lib/vlan-bridge/previous, and uninstall restores it. Needs root.
#[derive(Debug, Default, Args)]
pub(crate) struct Install {
    /// A network list without slice (repeatable). Keeps its file name if that ends in .conflist; otherwise
    /// the file is named 10-NAME.conflist, as for --name
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) flags: NetworkFlags,
    /// This node's slice of the subnet, one for each address family
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr)]
    pub(crate) slice: Vec<IpNet>,
    /// A file with one line for each node: its name and its slice, or one slice for each family separated
    /// by a comma
    #[arg(long, value_name = "FILE")]
    pub(crate) mapping: Option<PathBuf>,
    /// Name of this node [default: $NODE_NAME, else the hostname]
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The directory with the plugins to install [default: the directory of vlan-bridgectl]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) directories: Directories,
    /// Install the node agent too, as the systemd unit vlan-bridge-agent. It runs vlan-bridgectl, which is
    /// copied to /usr/local/sbin. Install prints the commands that start it
    #[arg(long, conflicts_with = "watch")]
    pub(crate) agent: bool,
    /// The cniVersion of the installed list [default: that of the list, else 1.1.0, lowered to what every
    /// runtime of this node accepts, or to 1.0.0 if no runtime is found]
    #[arg(long, value_name = "VERSION")]
    pub(crate) cni_version: Option<String>,
    /// Keep running, and install again when a file of --network or --mapping changes, or when the Node's
    /// annotation or podCIDRs change (checked every 30 s)
    #[arg(long)]
    pub(crate) watch: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// The directories of the runtimes. By default those of the runtimes that run, or whose configuration or
/// directory exists.
#[derive(Debug, Default, Args)]
pub(crate) struct Directories {
    /// The directory where runtimes look for plugins [default: from the runtimes' configuration, else
    /// /opt/cni/bin]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) bin_dir: Option<PathBuf>,
    /// The directory where runtimes look for network lists [default: from the runtimes' configuration, else
    /// /etc/cni/net.d]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) conf_dir: Option<PathBuf>,
}

/// Makes a path absolute. The manifest records it, doctor prints commands with it, and both may be used in
/// another working directory.
fn absolute(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

/// A network that flags describe instead of a file.
#[derive(Debug, Default, Args)]
#[group(id = "described", conflicts_with = "network", multiple = true)]
pub(crate) struct NetworkFlags {
    /// The network's name
    #[arg(long, requires = "subnet")]
    pub(crate) name: Option<String>,
    /// The bond or NIC that is the bridge's uplink; without it the bridge is local to this node
    #[arg(long, value_name = "INTERFACE", requires = "name")]
    pub(crate) master: Option<String>,
    /// The VLAN ID of the pods' network
    #[arg(long, value_name = "ID", requires = "master")]
    pub(crate) vlan: Option<u16>,
    /// The bridge's name [default: brVLAN, or cni0 without --vlan]
    #[arg(long, value_name = "INTERFACE", requires = "name")]
    pub(crate) bridge: Option<String>,
    /// The pods' subnet
    #[arg(long, value_name = "CIDR", requires = "name", value_parser = cidr)]
    pub(crate) subnet: Option<IpNet>,
    /// The gateway [default: the first address of the subnet]
    #[arg(long, value_name = "ADDRESS", requires = "name")]
    pub(crate) gateway: Option<std::net::IpAddr>,
    /// An address or CIDR that no pod gets (repeatable)
    #[arg(long, value_name = "CIDR", requires = "name")]
    pub(crate) exclude: Vec<String>,
}

/// Remove what install installed: lists, plugins, and the bridges and sub-interfaces that the plugins
/// created.
///
/// Removes the files that /var/lib/vlan-bridge/installed.json names. A list that no longer has a plugin of
/// type vlan-bridge stays. A foreign list that install replaced is restored, unless its file name is taken
/// or it needs vlan-bridge. Fails while pods are attached.
///
/// Leases stay; --force releases those of the attached pods. /var/lib/vlan-bridge/previous stays, with the
/// lists that are not restored. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// Uninstall although pods are attached, and delete their interfaces
    #[arg(long)]
    pub(crate) force: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// The network lists that a verb inspects.
#[derive(Debug, Default, Args)]
pub(crate) struct Lists {
    /// A network list outside the directories of the runtimes (repeatable)
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    pub(crate) network: Vec<PathBuf>,
    /// The directory with the network lists [default: the directories of the runtimes and of install, else
    /// /etc/cni/net.d]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) conf_dir: Option<PathBuf>,
}

/// What `status` and `doctor` inspect, and the output format.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    pub(crate) lists: Lists,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, display_order = 100)]
    pub(crate) output: Output,
}

/// Show the node on one screen: bonds, VLANs, bridges, pods with their addresses, and the usage of each
/// range. Without root it shows less, says so, and fails.
///
/// With --watch, the screen is live: q or Ctrl-C ends it, and arrows, PgUp and PgDn scroll. It also shows the
/// agent's last reports. If stdin or stdout is no terminal, the text is printed again whenever something has
/// changed; with -o json, each time as one line.
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) inspect: Inspect,
    /// Keep showing the node until q or Ctrl-C
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Look at the node every so many seconds
    #[arg(short = 'n', long, value_name = "SECONDS", default_value_t = 2, requires = "watch",
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval: u64,
    /// The colours of the screen. With auto, NO_COLOR in the environment switches them off
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, requires = "watch")]
    pub(crate) color: Colour,
}

/// When a screen has colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    #[default]
    Auto,
    Always,
    Never,
}

/// Draw the data path of the node, from the NICs to the pods.
///
/// A line is an interface, below the one that its packets come from, with the state of each: bond mode and
/// active member, VLANs, MTU, carrier, and the pods' addresses. Bridges without an uplink are below the
/// interface with the default route, by which their pods leave the node.
#[derive(Debug, Args)]
pub(crate) struct Topology {
    #[command(flatten)]
    pub(crate) lists: Lists,
    /// Output format
    #[arg(short, long, value_enum, default_value_t, display_order = 100)]
    pub(crate) output: Picture,
    /// Draw the lines of text with ASCII characters, as without a locale in UTF-8
    #[arg(long)]
    pub(crate) ascii: bool,
}

/// The output format of `topology`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Picture {
    /// A tree to read.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// A picture for a browser.
    Svg,
    /// A graph for the programs of Graphviz.
    Dot,
}

/// Check the node, and print the command that fixes each problem.
///
/// Each line is ok, warn or fail, with what was found, why it matters, and the command that fixes it. The
/// exit status is 1 if a check fails, or without root, which doctor needs to see everything. Doctor changes
/// nothing. It probes the pods' networks with ARP and neighbour discovery, sent from 0.0.0.0 and ::, so that
/// no neighbour cache changes.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) inspect: Inspect,
    /// The directory with the plugins [default: the directories of the runtimes and of install, else
    /// /opt/cni/bin]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) bin_dir: Option<PathBuf>,
    /// Send no probes: doctor then does not check whether the VLANs pass or an address is used twice
    #[arg(long)]
    pub(crate) no_probe: bool,
}

/// Restore what other programs removed from attached pods' networks, for example after a firewall reload.
///
/// Restores rules and sets in nftables, bridge ports and their settings, bridges and uplinks that are down
/// or gone, forwarding database entries, the node's routes to pods, and sysctls of the devices that the
/// plugins created. Inside the pods' namespaces it changes only what follows the node: routes and neighbour
/// entries after a change of the node's addresses, and the MTU after a change of the uplink's. The next ADD
/// or DEL restores only the part of this that is cheap to notice.
///
/// Then it runs doctor's checks without probes, and prints those that still fail. The exit status is 1 if
/// one does. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Run the node agent: watch the node, and restore what other programs change as soon as the kernel announces
/// it.
///
/// The agent restores what `repair` restores. A thing that another program changes back three times within a
/// minute is left alone for a minute, then for two, up to an hour. Every 60 s the agent looks at everything.
/// After a failover of a bond it announces the addresses of all pods to the switches. It listens to networks
/// with conflictDetection: an ADD need not probe for addresses there, and a machine that uses a pod's address
/// is reported.
///
/// It takes addresses from the pools of the installed networks (ipam.pool), and gives back what the node does
/// not need. It is the only process of the node that speaks to the store of pools.
///
/// Reports go to stderr. In a pod of Kubernetes with a service account, the important ones become events too:
/// of the Node, or of the pod that an address conflict concerns. One of a kind is sent in ten minutes.
///
/// SIGTERM ends the agent, and everything stays as it is.
///
/// The agent is optional: without it, the next ADD or DEL restores what is cheap to notice, and `repair` the
/// rest. One agent runs on a node. Needs root.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// Report what differs, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The directory to write sysctls in instead of /proc/sys/net, which is read-only in a container: the
    /// node's /proc/sys/net, mounted there
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) sysctl_dir: Option<PathBuf>,
    /// Also do the work of install --watch: install this network list now, and again when the file or the
    /// Node changes (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) network: Vec<PathBuf>,
    /// Name of this node [default: $NODE_NAME, else the hostname]
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// The directory with the network lists, for networks with a pool [default: the directories of the
    /// runtimes and of install, else /etc/cni/net.d]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    pub(crate) conf_dir: Option<PathBuf>,
    /// Serve metrics for Prometheus there, as /metrics, and count the calls of the plugin from then on. Only
    /// root may connect to a unix socket, which replaces one that no process listens on
    #[arg(long, value_name = "ADDRESS:PORT|unix:/PATH")]
    pub(crate) metrics: Option<MetricsAddress>,
    /// Run no agent: succeed if this node's agent works, that is, if it runs and has looked at the node
    /// within the last 3 minutes
    #[arg(long, exclusive = true)]
    pub(crate) check: bool,
}

fn cidr(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| "not a CIDR such as 172.20.56.16/28".to_owned())
}

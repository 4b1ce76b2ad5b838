//! The arguments of `pool`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Output, absolute};

/// Make, show and freeze shared address pools, from which nodes take addresses beyond their slices.
///
/// Needs no root, and works on any machine that reaches the store.
#[derive(Debug, Args)]
pub(crate) struct PoolCommand {
    #[command(subcommand)]
    pub(crate) verb: PoolVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolVerb {
    Create(PoolCreate),
    List(PoolList),
    Show(PoolShow),
    /// Freeze a pool: no node claims from it any more. Pods still get addresses that their nodes hold
    Freeze(PoolState),
    /// Thaw a frozen pool: nodes claim from it again
    Thaw(PoolThaw),
}

/// Make a pool. Fails if there is one of this name, or one that has some of the addresses.
#[derive(Debug, Args)]
pub(crate) struct PoolCreate {
    /// The pool's name: that of the network, unless the network's list names another
    pub(crate) name: String,
    /// The pool's addresses (repeatable). The network and broadcast addresses of a CIDR are excluded; those
    /// of FIRST-LAST are not
    #[arg(long, value_name = "CIDR|FIRST-LAST", required = true, value_delimiter = ',')]
    pub(crate) range: Vec<String>,
    /// Addresses of other machines in these ranges, such as the gateway's (repeatable)
    #[arg(long, value_name = "ADDRESS|CIDR|FIRST-LAST", value_delimiter = ',')]
    pub(crate) exclude: Vec<String>,
    /// Who may say that a node is lost, so that others may take its addresses
    #[arg(long, value_enum, default_value_t)]
    pub(crate) reclaim: WhoReclaims,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

/// The machine or person that calls a node lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhoReclaims {
    /// An operator, who knows that the node is off
    #[default]
    Operator,
}

/// List the pools of the store.
#[derive(Debug, Args)]
pub(crate) struct PoolList {
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Show who holds a pool's addresses: counts, a map, and the nodes.
#[derive(Debug, Args)]
pub(crate) struct PoolShow {
    /// The pool's name
    pub(crate) name: String,
    /// Show the addresses of this node instead
    #[arg(long, value_name = "NODE", conflicts_with = "address")]
    pub(crate) node: Option<String>,
    /// Show who holds this address instead
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<IpAddr>,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// The pool whose state changes.
#[derive(Debug, Args)]
pub(crate) struct PoolState {
    /// The pool's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

/// The pool that opens again.
#[derive(Debug, Args)]
pub(crate) struct PoolThaw {
    #[command(flatten)]
    pub(crate) pool: PoolState,
    /// Open a pool that is recovering, because its store went back to an older state. Every node must have
    /// caught up, or be off for good
    #[arg(long)]
    pub(crate) after_restore: bool,
}

/// The store. By default that of the pools in the installed network lists.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Store")]
pub(crate) struct StoreOptions {
    /// A network list whose pool's store is used: a file, or the name of an installed network
    #[arg(long, value_name = "FILE|NETWORK", conflicts_with = "endpoints")]
    pub(crate) network: Option<String>,
    /// The endpoints of etcd
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) endpoints: Vec<String>,
    /// What the keys in etcd begin with [default: /vlan-bridge/v1]
    #[arg(long, value_name = "PREFIX", requires = "endpoints")]
    pub(crate) prefix: Option<String>,
    /// The certificate of the authority that signed etcd's [default: the machine's authorities]
    #[arg(long, value_name = "FILE", requires = "endpoints", value_parser = absolute)]
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate
    #[arg(long, value_name = "FILE", requires_all = ["endpoints", "key"], value_parser = absolute)]
    pub(crate) cert: Option<PathBuf>,
    /// The key of the client's certificate
    #[arg(long, value_name = "FILE", requires = "cert", value_parser = absolute)]
    pub(crate) key: Option<PathBuf>,
    /// The user of etcd
    #[arg(long, value_name = "NAME", requires_all = ["endpoints", "password_file"])]
    pub(crate) user: Option<String>,
    /// The file with the user's password
    #[arg(long, value_name = "FILE", requires = "user", value_parser = absolute)]
    pub(crate) password_file: Option<PathBuf>,
}

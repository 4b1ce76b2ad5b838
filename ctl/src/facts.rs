//! The state of a node, as values: `observe` fills them in, and `doctor` and `status` read them. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_conf::cni::mac::MacAddr;
use cni_conf::family::Family;
use cni_conf::uplink::UplinkPort;
use kernel::ask::{Answers, Vantage};
use kernel::link::{Address, Installed, Kind, Link, SourceRule};
use kernel::nft::ReversePathFilter;
use kernel::port::Memberships;
use serde_json::Value;
use vlan_bridge::host_access::Missing;
use vlan_bridge::nat::BridgedDrop;
use vlan_bridge::ownership::is_attachment;
use vlan_bridge::ports::AttachmentId;
use vlan_bridge::record::NatRecord;
use vlan_bridge_agent::{AgentState, KnownConflict, PoolShown};
use vlan_bridge_ipam::store::{Known, StoreError, Usage};

use crate::bond::BondState;
use crate::definitions::{Definitions, Device};
use crate::lists::{ListFile, NetworkConfig};
use crate::neighbours::NeighbourTable;
use crate::runtimes::{self, Runtime};

/// The state of a node at one moment.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// When the node was looked at, since the epoch.
    pub(crate) now: Duration,
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Installed>,
    pub(crate) rules: Vec<SourceRule>,
    /// The VLANs of bridge ports.
    pub(crate) port_vlans: Vec<Memberships>,
    /// By the bond's name.
    pub(crate) bonds: BTreeMap<String, BondState>,
    pub(crate) sysctls: Sysctls,
    pub(crate) modules: Modules,
    pub(crate) runtimes: Vec<Runtime>,
    /// Why the runtimes are unknown: a configuration file that cannot be parsed.
    pub(crate) unclear_runtime: Option<String>,
    /// The names of the runtimes that call the plugin `loopback` and do not have it.
    pub(crate) without_loopback: Vec<&'static str>,
    /// The directories of the plugins: those of the runtimes, and those that install used.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// The directories of the network lists (those of the runtimes, and those that install used), each with
    /// its lists.
    pub(crate) folders: Vec<(PathBuf, Vec<ListFile>)>,
    /// Copies of lists that install replaced or uninstall removed. Lists with a vlan-bridge entry come
    /// first.
    pub(crate) kept: Vec<PathBuf>,
    /// Every vlan-bridge network in those lists.
    pub(crate) networks: Vec<NetworkState>,
    /// The leases of attached pods whose network is in no list, by the network's name.
    pub(crate) unlisted: Vec<(String, Leases)>,
    /// Networks with leases in a known data directory but without a list: the lease directory, and the
    /// number of leases.
    pub(crate) orphans: Vec<(PathBuf, usize)>,
    /// Lists with a vlan-bridge entry that the plugins would refuse, and the error.
    pub(crate) refused: Vec<(PathBuf, String)>,
    /// Every plugin that the vlan-bridge lists name.
    pub(crate) plugins: Vec<Plugin>,
    pub(crate) definitions: Definitions,
    /// The drivers of NICs, by the interface's name.
    pub(crate) drivers: BTreeMap<String, String>,
    /// The records of attachments with NAT rules or host ports, by the name of the veth.
    pub(crate) records: BTreeMap<String, NatRecord>,
    /// Attachments whose NAT rules are incomplete, and what is missing.
    pub(crate) broken_rules: Vec<(String, String)>,
    /// The host ends of veths that have a guard in nftables; none if nftables cannot be read.
    pub(crate) guarded: Option<Vec<String>>,
    /// Attachments whose guard is incomplete, and what is missing.
    pub(crate) broken_guards: Vec<(String, String)>,
    /// Devices on networks with an uplink from which the node may forward to its other networks.
    pub(crate) open_uplinks: BTreeSet<String>,
    /// Why nftables cannot be read: a missing permission.
    pub(crate) filter_denied: Option<String>,
    /// Why nftables cannot do what the networks need.
    pub(crate) filter_lacks: Option<String>,
    /// Tables of iptables in which a rule of the plugin accepts all forwarded packets.
    pub(crate) accept_all_tables: Vec<String>,
    /// iptables FORWARD chains with policy drop in which the plugin can insert a rule.
    pub(crate) forward_drops: Vec<ForwardChain>,
    /// Other chains that forwarded packets pass, in which the plugin cannot insert a rule: those with
    /// policy drop, and firewalld's.
    pub(crate) forward_chains: Vec<ForwardChain>,
    /// Bridges of attached pods whose bridged packets a chain drops, and which chain.
    pub(crate) bridged_dropped: Vec<(String, BridgedDrop)>,
    /// Foreign chains that filter reverse paths, each with the pod devices that rules of its table name.
    pub(crate) reverse_path_filters: Vec<(ReversePathFilter, BTreeSet<String>)>,
    /// The legacy iptables programs that have a filter table.
    pub(crate) legacy: Vec<Legacy>,
    /// Attachments with another IPAM plugin whose veth is gone although the pod exists.
    pub(crate) without_veth: Vec<AttachmentId>,
    /// Missing host routes and neighbour entries of attached pods.
    pub(crate) missing_routes: Vec<MissingRoute>,
    /// Packets dropped by reverse-path filtering since boot (`IPReversePathFilter`).
    pub(crate) rp_filtered: Option<u64>,
    /// What the node's agent shows, or why that is unknown. None if no agent runs.
    pub(crate) agent: Option<Result<AgentState, String>>,
    /// The agent's systemd unit is installed.
    pub(crate) has_agent_unit: bool,
    /// Empty in a network namespace other than the initial one, which shows neither counters nor limits.
    pub(crate) neighbours: Vec<NeighbourTable>,
}

/// A foreign chain at the forward hook.
#[derive(Debug)]
pub(crate) struct ForwardChain {
    /// `inet`, `ip`, `ip6`
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) chain: String,
    /// The pod devices that rules of its table name.
    pub(crate) devices: BTreeSet<String>,
    /// The pod devices whose traffic a rule of the plugin in this chain accepts.
    pub(crate) let_through: BTreeSet<String>,
}

/// The FORWARD chain of legacy iptables, of one address family.
#[derive(Debug)]
pub(crate) struct Legacy {
    /// `iptables-legacy` or `ip6tables-legacy`
    pub(crate) program: &'static str,
    /// The output of `PROGRAM -S FORWARD`; none if the program is not installed.
    pub(crate) chain: Option<String>,
}

/// A missing host route or neighbour entry of a pod.
#[derive(Debug)]
pub(crate) struct MissingRoute {
    /// The host end of the pod's veth.
    pub(crate) veth: String,
    /// The device of the route.
    pub(crate) device: String,
    pub(crate) metric: u32,
    /// The pod's MAC, if a record has it.
    pub(crate) mac: Option<MacAddr>,
    pub(crate) missing: Missing,
}

/// A vlan-bridge network and its state on this node.
#[derive(Debug)]
pub(crate) struct NetworkState {
    pub(crate) config: NetworkConfig,
    /// The file of its list.
    pub(crate) path: PathBuf,
    pub(crate) leases: Leases,
    /// Its entry of the list.
    pub(crate) entry: Value,
    /// The answer of the plugin to STATUS; none if there is no plugin.
    pub(crate) status: Option<Result<(), String>>,
    /// The result of probing; none if the network was not probed.
    pub(crate) probe: Option<ProbeResult>,
}

impl NetworkState {
    /// Whether pods have addresses of a family. With another IPAM plugin, IPv4 is assumed.
    pub(crate) fn has_family(&self, family: Family) -> bool {
        let ranges = self.config.network.addresses.as_ref().map(|ipam| &ipam.ranges);
        ranges.map_or(family == Family::V4, |ranges| ranges.iter().any(|set| set.family() == family))
    }

    /// The gateways of its ranges.
    pub(crate) fn gateways(&self) -> BTreeSet<IpAddr> {
        let sets = self.config.network.addresses.iter().flat_map(|ipam| &ipam.ranges);
        sets.flat_map(|set| &set.0).filter_map(|range| range.gateway).collect()
    }
}

/// The leases of a network on this node.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub(crate) held: Vec<(IpAddr, Known)>,
    pub(crate) usage: Vec<Usage>,
    /// The address, the MAC that uses it, and the remaining seconds of its quarantine.
    pub(crate) quarantined: Vec<(IpAddr, MacAddr, u32)>,
    /// Why the leases cannot be read.
    pub(crate) unreadable: Option<StoreError>,
}

/// The answers to the probes of a network.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    pub(crate) from: Vantage,
    pub(crate) answers: Result<Answers, String>,
    /// The answers of those gateways to probes with another source MAC than the interface's.
    pub(crate) other_mac_answers: Result<Answers, String>,
}

/// Sysctls, as numbers.
#[derive(Debug, Default)]
pub(crate) struct Sysctls(pub(crate) BTreeMap<String, i64>);

impl Sysctls {
    /// A sysctl by its path below `/proc/sys/net`, such as `ipv4/ip_forward`.
    pub(crate) fn get(&self, key: &str) -> Option<i64> {
        self.0.get(key).copied()
    }

    /// The effective rp_filter of an interface: the larger of its own value and `all`.
    pub(crate) fn rp_filter(&self, interface: &str) -> i64 {
        let of = |name: &str| self.get(&format!("ipv4/conf/{name}/rp_filter")).unwrap_or(0);
        of(interface).max(of("all"))
    }
}

/// Kernel modules.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Loaded or built in.
    pub(crate) present: BTreeSet<String>,
    /// Built in, so present at boot too.
    pub(crate) built_in: BTreeSet<String>,
    /// Named by a file of modules-load.d(5).
    pub(crate) at_boot: BTreeSet<String>,
    /// Available to modprobe; none if that is unknown.
    pub(crate) loadable: Option<BTreeSet<String>>,
}

impl Modules {
    /// Whether a module is loaded or built in.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.present.contains(name) || self.built_in.contains(name)
    }

    /// Whether a module is neither loaded nor available.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        !self.has(name) && self.loadable.as_ref().is_some_and(|loadable| !loadable.contains(name))
    }
}

/// A plugin that a list names.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    /// Its file; none if no directory has it.
    pub(crate) path: Option<PathBuf>,
    pub(crate) executable: bool,
    /// The version that a vlan-bridge plugin prints, or why it prints none; none for other plugins.
    pub(crate) version: Option<Result<String, String>>,
}

impl Facts {
    /// Whether a network needs a VLAN sub-interface and this kernel has no 8021q module.
    pub(crate) fn lacks_vlan_module(&self, config: &NetworkConfig) -> bool {
        let port = config.network.uplink.as_ref().map(|uplink| &uplink.port);
        matches!(port, Some(UplinkPort::SubInterface { .. })) && self.modules.lacks("8021q")
    }

    /// The address conflicts that the agent knows.
    pub(crate) fn conflicts(&self) -> &[KnownConflict] {
        match &self.agent {
            Some(Ok(agent)) => &agent.conflicts,
            _ => &[],
        }
    }

    /// The pools that the agent shows.
    pub(crate) fn pools(&self) -> &[PoolShown] {
        match &self.agent {
            Some(Ok(agent)) => &agent.pools,
            _ => &[],
        }
    }

    /// An interface by name.
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The ports of a bridge, the members of a bond.
    pub(crate) fn ports<'a>(&'a self, master: &'a Link) -> impl Iterator<Item = &'a Link> {
        self.links.iter().filter(move |link| link.master == Some(master.index))
    }

    /// The addresses of an interface, without link-local ones.
    pub(crate) fn addresses<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = &'a Address> {
        self.addresses.iter().filter(move |address| address.interface == link.index && !address.link_local)
    }

    /// Whether an interface has a default route, in one table or in any.
    pub(crate) fn has_default_route(&self, link: &Link, table: Option<u32>) -> bool {
        self.routes.iter().any(|route| {
            route.interface == Some(link.index)
                && route.route.dst.prefix_len() == 0
                && table.is_none_or(|table| route.route.table == Some(table))
        })
    }

    /// The runtimes that read network lists.
    pub(crate) fn list_readers(&self) -> impl Iterator<Item = &Runtime> {
        runtimes::list_readers(&self.runtimes)
    }

    /// The host ends of attached pods' veths.
    pub(crate) fn attachments(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| is_attachment(link))
    }

    /// Whether an attached pod is a port of a bridge.
    pub(crate) fn has_pods(&self, bridge: &str) -> bool {
        let link = self.link(bridge);
        link.is_some_and(|link| self.attachments().any(|pod| pod.master == Some(link.index)))
    }

    /// The devices that pods' packets use on the node: bridges, and their VLAN interfaces on the node's
    /// side.
    pub(crate) fn devices(&self) -> BTreeSet<String> {
        let networks = self.networks.iter().map(|network| &network.config.network);
        networks.flat_map(|network| [network.bridge.clone(), network.node_device()]).collect()
    }

    /// The properties by which other programs match an interface. `kind` is the kind of an interface that
    /// does not exist yet.
    pub(crate) fn device(&self, name: &str, kind: &str) -> Device {
        let link = self.link(name);
        let kind = match link.map(|link| &link.kind) {
            Some(Kind::Other(kind)) if kind.is_empty() => None,
            Some(_) => link.map(|link| link.kind_name().to_owned()),
            None => Some(kind.to_owned()),
        };
        let driver = match kind.as_deref() {
            Some("bond") => Some("bonding".to_owned()),
            Some("vlan") => Some("802.1Q VLAN Support".to_owned()),
            Some(kind @ ("bridge" | "veth" | "dummy")) => Some(kind.to_owned()),
            Some(_) => None,
            None => self.drivers.get(name).cloned(),
        };
        // The types of udev and networkd. Ethernet interfaces of other kinds have no type there.
        let type_ = match kind.as_deref() {
            Some("bridge") => Some("bridge"),
            Some("bond") => Some("bond"),
            Some("vlan") => Some("vlan"),
            Some("veth" | "dummy" | "macvlan" | "tun") | None => Some("ether"),
            Some(_) => None,
        };
        let mac = link.and_then(|link| link.mac).map(|mac| mac.to_string());
        let permanent_mac = link.and_then(|link| link.permanent_mac).map(|mac| mac.to_string());
        Device { name: name.to_owned(), type_, kind, driver, mac, permanent_mac }
    }

    /// The bonds and NICs that are uplinks of networks.
    pub(crate) fn masters(&self) -> BTreeSet<&str> {
        let uplinks = self.networks.iter().filter_map(|network| network.config.network.uplink.as_ref());
        uplinks.map(|uplink| uplink.master.as_str()).collect()
    }

    /// The interface from which to probe a network: the bridge or its VLAN interface on the node's side.
    /// Before the first pod it is the uplink.
    pub(crate) fn probe_interface(&self, config: &NetworkConfig) -> Option<Vantage> {
        let network = &config.network;
        let uplink = network.uplink.as_ref()?;
        let near = network.node_side().map_or(network.bridge.clone(), |(name, _)| name);
        if self.link(&near).is_some() {
            return Some(Vantage { interface: near, tag: None });
        }
        let port = uplink.port_name();
        if port != uplink.master && self.link(port).is_some() {
            return Some(Vantage { interface: port.to_owned(), tag: None });
        }
        let tag = match &uplink.port {
            UplinkPort::SubInterface { vlan, .. } => Some(*vlan),
            UplinkPort::Master => None,
            UplinkPort::Trunk => network.port_vlans.as_ref().and_then(|vlans| vlans.access),
        };
        self.link(&uplink.master).map(|_| Vantage { interface: uplink.master.clone(), tag })
    }
}

/// Whether a link is a bond.
pub(crate) fn is_bond(link: &Link) -> bool {
    matches!(link.kind, Kind::Bond(_))
}

/// Whether frames pass an interface, in words.
pub(crate) fn state(link: &Link) -> &'static str {
    match (link.up, link.carrier) {
        (false, _) => "down",
        (true, false) => "no carrier",
        (true, true) => "up",
    }
}

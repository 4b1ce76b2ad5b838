//! Everything that was seen on a node, as values: `observe` fills it in, `doctor` and `status` look at it. No
//! I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use cni_conf::cni::mac::MacAddr;
use cni_conf::uplink::UplinkPort;
use kernel::ask::{Answers, Vantage};
use kernel::link::{Address, Installed, Kind, Link, SourceRule};
use kernel::nft::ReversePathFilter;
use vlan_bridge::host_access::Missing;
use vlan_bridge::nat::BridgedDrop;
use vlan_bridge::ownership::is_attachment;
use vlan_bridge::ports::AttachmentId;
use vlan_bridge::record::Record;
use vlan_bridge_ipam::store::{Known, StoreError, Usage};

use crate::bond::Bond;
use crate::definitions::{Definitions, Device};
use crate::lists::{Found, Ours};
use crate::neighbours::NeighbourTable;
use crate::runtimes::{self, Runtime};

/// A node at one moment.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// When the node was looked at, since the epoch.
    pub(crate) now: Duration,
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Installed>,
    pub(crate) rules: Vec<SourceRule>,
    /// By the bond's name.
    pub(crate) bonds: BTreeMap<String, Bond>,
    pub(crate) sysctls: Sysctls,
    pub(crate) modules: Modules,
    pub(crate) runtimes: Vec<Runtime>,
    /// Why they cannot be told: a configuration that nobody understands.
    pub(crate) unclear_runtime: Option<String>,
    /// The names of those that call the plugin `loopback` and do not have it.
    pub(crate) without_loopback: Vec<&'static str>,
    /// Where plugins are: where runtimes look, and where install was told to put them.
    pub(crate) bin_dirs: Vec<PathBuf>,
    /// Each folder where runtimes look for lists, or install was told to put them, and what is in it.
    pub(crate) folders: Vec<(PathBuf, Vec<Found>)>,
    /// The lists that others took the place of, or that were uninstalled: those of ours first.
    pub(crate) kept: Vec<PathBuf>,
    /// Every network of ours in those lists.
    pub(crate) networks: Vec<Network>,
    /// What attached pods hold whose network is in no list, by its name.
    pub(crate) unlisted: Vec<(String, Leases)>,
    /// Networks that have leases where ours have theirs, and that no list names: the folder, and how many
    /// leases.
    pub(crate) orphans: Vec<(PathBuf, usize)>,
    /// Lists with an entry of ours that the plugins would refuse, and why.
    pub(crate) refused: Vec<(PathBuf, String)>,
    /// Every plugin that the lists of ours name.
    pub(crate) plugins: Vec<Plugin>,
    pub(crate) definitions: Definitions,
    /// Hardware's drivers, by the interface's name.
    pub(crate) drivers: BTreeMap<String, String>,
    /// What was given to attachments outside their veths, by the name of the veth.
    pub(crate) records: BTreeMap<String, Record>,
    /// Attachments whose rules in the packet filter are not as they were put in, and what is missing.
    pub(crate) broken_rules: Vec<(String, String)>,
    /// The node's ends of pods' interfaces that have a guard in the packet filter; none if it cannot be
    /// asked.
    pub(crate) guarded: Option<Vec<String>>,
    /// Attachments whose guard is not as it was put in, and what is missing.
    pub(crate) broken_guards: Vec<(String, String)>,
    /// The node's devices on networks of uplinks from which it may forward to its others.
    pub(crate) open_uplinks: BTreeSet<String>,
    /// Why nobody can tell what is in the packet filter: we may not look.
    pub(crate) filter_denied: Option<String>,
    /// Why the packet filter cannot do what the networks ask for.
    pub(crate) filter_lacks: Option<String>,
    /// Tables of iptables in which a rule of ours accepts all that is forwarded.
    pub opened: Vec<String>,
    /// Chains FORWARD of iptables that drop what no rule accepts; a rule of ours can be there.
    pub(crate) forward_drops: Vec<ForwardChain>,
    /// Chains of others that forwarded packets have to pass, and which no rule of ours can meet: a policy of
    /// drop, or firewalld's.
    pub(crate) forward_chains: Vec<ForwardChain>,
    /// Bridges of attached pods whose packets the packet filter drops, and where.
    pub(crate) bridged_dropped: Vec<(String, BridgedDrop)>,
    /// Chains of others that filter reverse paths, each with the devices of ours that rules of its table are
    /// about.
    pub(crate) reverse_path_filters: Vec<(ReversePathFilter, BTreeSet<String>)>,
    /// Where legacy iptables filters as well.
    pub(crate) legacy: Vec<Legacy>,
    /// Attachments of other IPAM plugins' networks whose veth is gone, and whose pod is there.
    pub(crate) without_veth: Vec<AttachmentId>,
    /// Host routes and neighbour entries of the node for attached pods that are missing.
    pub(crate) missing_routes: Vec<MissingRoute>,
    /// Packets that reverse-path filtering has dropped since the boot (`IPReversePathFilter`).
    pub(crate) rp_filtered: Option<u64>,
    /// None in a network namespace that is not the machine's first one: these show neither counters nor
    /// limits.
    pub(crate) neighbours: Vec<NeighbourTable>,
}

/// A chain of somebody else's at the forward hook.
#[derive(Debug)]
pub(crate) struct ForwardChain {
    /// `inet`, `ip`, `ip6`
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) chain: String,
    /// The devices of ours that rules of its table are about.
    pub(crate) devices: BTreeSet<String>,
    /// The devices of ours whose pods a rule of ours there lets through.
    pub(crate) let_through: BTreeSet<String>,
}

/// The FORWARD chain of legacy iptables, of one family.
#[derive(Debug)]
pub(crate) struct Legacy {
    /// `iptables-legacy` or `ip6tables-legacy`
    pub(crate) program: &'static str,
    /// What the program prints of it; none where it is not there to be asked.
    pub(crate) chain: Option<String>,
}

/// A route or a neighbour entry of the node for a pod that is not there.
#[derive(Debug)]
pub(crate) struct MissingRoute {
    /// The veth's end on the node.
    pub(crate) veth: String,
    /// By which the pod is reached.
    pub(crate) device: String,
    pub(crate) metric: u32,
    /// The pod's, as far as a record tells.
    pub(crate) mac: Option<MacAddr>,
    pub(crate) missing: Missing,
}

/// A network of ours and what there is of it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) ours: Ours,
    /// The list that it is in.
    pub(crate) path: PathBuf,
    pub(crate) leases: Leases,
    /// What the plugin's STATUS says; none where there is no plugin to ask.
    pub(crate) status: Option<Result<(), String>>,
    /// From where it was asked who answers; none where nobody asked.
    pub(crate) asked: Option<Asked>,
}

impl Network {
    /// Whether pods have addresses of a family; of another IPAM's ranges, IPv4 is assumed.
    pub(crate) fn has_family(&self, ipv6: bool) -> bool {
        let ranges = self.ours.ipam.as_ref().map(|ipam| &ipam.ranges);
        ranges.map_or(!ipv6, |ranges| ranges.iter().any(|set| set.is_ipv4() != ipv6))
    }

    /// The gateways of its ranges.
    pub(crate) fn gateways(&self) -> BTreeSet<IpAddr> {
        let sets = self.ours.ipam.iter().flat_map(|ipam| &ipam.ranges);
        sets.flat_map(|set| &set.0).filter_map(|range| range.gateway).collect()
    }
}

/// The addresses of a network that are held here.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    pub(crate) held: Vec<(IpAddr, Known)>,
    pub(crate) usage: Vec<Usage>,
    /// The address, who uses it, and for how many seconds yet it is left alone.
    pub(crate) quarantined: Vec<(IpAddr, MacAddr, u32)>,
    /// Why nothing is known.
    pub(crate) unreadable: Option<StoreError>,
}

/// What probing has found.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) from: Vantage,
    pub(crate) answers: Result<Answers, String>,
    /// The same of the gateways that have answered, asked under another MAC than the interface's.
    pub(crate) as_another: Result<Answers, String>,
}

/// Kernel settings, as numbers.
#[derive(Debug, Default)]
pub(crate) struct Sysctls(pub(crate) BTreeMap<String, i64>);

impl Sysctls {
    /// A setting by its path below `/proc/sys/net`, `ipv4/ip_forward` for one.
    pub(crate) fn get(&self, key: &str) -> Option<i64> {
        self.0.get(key).copied()
    }

    /// The reverse-path filter that is in force on an interface: the larger one of its own and that of all.
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
    /// Built in, so there at boot too.
    pub(crate) built_in: BTreeSet<String>,
    /// Named by a file of modules-load.d(5).
    pub(crate) at_boot: BTreeSet<String>,
    /// There to be loaded; none where nobody can tell.
    pub(crate) loadable: Option<BTreeSet<String>>,
}

impl Modules {
    /// Whether one is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.present.contains(name) || self.built_in.contains(name)
    }

    /// Whether one is not there and will not come.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        !self.has(name) && self.loadable.as_ref().is_some_and(|loadable| !loadable.contains(name))
    }
}

/// A plugin that a list names, wherever it is.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    /// Its file; none if it is in no folder where runtimes look.
    pub(crate) path: Option<PathBuf>,
    pub(crate) executable: bool,
    /// What it says that it is, if it is one of ours; why it says nothing otherwise.
    pub(crate) version: Option<Result<String, String>>,
}

impl Facts {
    /// Whether a network wants a VLAN sub-interface that this kernel cannot make.
    pub(crate) fn cannot_tag(&self, ours: &Ours) -> bool {
        let port = ours.network.uplink.as_ref().map(|uplink| &uplink.port);
        matches!(port, Some(UplinkPort::SubInterface { .. })) && self.modules.lacks("8021q")
    }

    /// An interface by name.
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The ports of a bridge, the members of a bond.
    pub(crate) fn ports<'a>(&'a self, master: &'a Link) -> impl Iterator<Item = &'a Link> {
        self.links.iter().filter(move |link| link.master == Some(master.index))
    }

    /// An interface's addresses that are no link-local ones.
    pub(crate) fn addresses<'a>(&'a self, link: &'a Link) -> impl Iterator<Item = &'a Address> {
        self.addresses.iter().filter(move |address| address.interface == link.index && !address.link_local)
    }

    /// Whether a default route leaves by an interface, in one table or in any.
    pub(crate) fn has_default_route(&self, link: &Link, table: Option<u32>) -> bool {
        self.routes.iter().any(|route| {
            route.interface == Some(link.index)
                && route.route.dst.prefix_len() == 0
                && table.is_none_or(|table| route.route.table == Some(table))
        })
    }

    /// The runtimes that network lists are for.
    pub(crate) fn takers(&self) -> impl Iterator<Item = &Runtime> {
        runtimes::takers(&self.runtimes)
    }

    /// The node's ends of attached pods' interfaces.
    pub(crate) fn attachments(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| is_attachment(link))
    }

    /// Whether an attached pod's port is on a bridge.
    pub(crate) fn has_pods(&self, bridge: &str) -> bool {
        let link = self.link(bridge);
        link.is_some_and(|link| self.attachments().any(|pod| pod.master == Some(link.index)))
    }

    /// The devices by which pods' packets come and go: bridges, and their sides of VLANs.
    pub(crate) fn devices(&self) -> BTreeSet<String> {
        let networks = self.networks.iter().map(|network| &network.ours.network);
        networks.flat_map(|network| [network.bridge.clone(), network.node_device()]).collect()
    }

    /// What programs can be told an interface by. Of one that is not there yet: of this kind.
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
        // As udev and networkd have it: these say so themselves, all other Ethernet does not.
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

    /// The bonds and NICs that networks hang on, each once.
    pub(crate) fn masters(&self) -> BTreeSet<&str> {
        let uplinks = self.networks.iter().filter_map(|network| network.ours.network.uplink.as_ref());
        uplinks.map(|uplink| uplink.master.as_str()).collect()
    }

    /// From where a network can be asked: its bridge or the bridge's side of the VLAN, or, before the first
    /// pod, its uplink.
    pub(crate) fn vantage(&self, ours: &Ours) -> Option<Vantage> {
        let network = &ours.network;
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

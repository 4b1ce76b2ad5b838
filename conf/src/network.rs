//! The configuration of an entry of `"type": "vlan-bridge"`: every key of the reference `bridge`, and
//! `uplink`.

use std::ops::RangeInclusive;

use crate::family::Family;
use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::cni::error::CniError;
use crate::cni::mac::MacAddr;
use crate::cni::result::Dns;
use crate::guard::Guard;
use crate::host_access::{HostAccess, HostAccessUnavailable};
use crate::ifname;
use crate::ipam::IpamConfig;
use crate::ipam_plugin::IpamPlugin;
use crate::ports::PortMapping;
use crate::request::{Request, is_common_key};
use crate::section::{Section, UnknownKey};
use crate::uplink::Uplink;
use crate::vlans::{DEFAULT_BRIDGE, PortVlans, Trunk, node_side_name, parse_port_vlans};

mod teardown;

pub use teardown::Teardown;

/// The capability by which a runtime passes the node's ports that lead to the pod.
const PORT_MAPPINGS: &str = "portMappings";

/// The MTUs that Linux accepts for a veth (`ETH_MIN_MTU`, `ETH_MAX_MTU`), in bytes.
const MTUS: RangeInclusive<u64> = 68..=65535;

/// The smallest MTU for IPv6, in bytes (RFC 8200 section 5). Linux removes the interface's IPv6 addresses
/// below it.
const SMALLEST_IPV6_MTU: u32 = 1280;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Name of the bridge.
    pub bridge: String,
    /// How the bridge reaches the data-centre network. None for a bridge of this node only.
    pub uplink: Option<Uplink>,
    /// The IPAM's gateway becomes an address of the bridge (`isGateway`, `isDefaultGateway`).
    pub is_gateway: bool,
    /// The pod's default route goes to that gateway (`isDefaultGateway`).
    pub is_default_gateway: bool,
    /// Packets that leave a pod's subnet get the node's address as their source (`ipMasq`).
    pub masquerade: bool,
    /// The node forwards packets between the uplink's network and its other networks. It also forwards
    /// packets from other machines to the addresses of masqueraded pods (`allowDirectRouting`).
    pub allow_direct_routing: bool,
    /// Ports of the node that lead to the pod (capability `portMappings`, if this plugin's entry of the list
    /// declares it).
    pub ports: Vec<PortMapping>,
    /// A conflicting address of the bridge is replaced instead of refused (`forceAddress`).
    pub force_address: bool,
    /// MTU in bytes of the veth pair and of a bridge that we make. None for the uplink's MTU, or without
    /// uplink the kernel's default.
    pub mtu: Option<u32>,
    /// Bridge port flag: a frame may leave by the port that it arrived at (`hairpinMode`).
    pub hairpin: bool,
    /// The bridge is promiscuous (`promiscMode`).
    pub promisc: bool,
    /// A bridge that we make sends multicast only to ports that asked for it (`multicastSnooping`).
    pub multicast_snooping: bool,
    /// Bridge port flag: no frames between isolated ports (`portIsolation`).
    pub isolated: bool,
    /// The pod may send only from its own MAC (`macspoofchk`).
    pub mac_spoof_check: bool,
    /// Duplicate address detection for the pod's IPv6 addresses (`enabledad`).
    pub detect_duplicates: bool,
    /// Whether router advertisements configure the pod's interface (`acceptRA`). By default they do not if
    /// IPAM assigns IPv6 addresses, or if the guard allows only the assigned addresses. None leaves the
    /// kernel's setting, as the reference does.
    pub accept_ra: Option<bool>,
    /// The pod's interface stays down (`disableContainerInterface`).
    pub container_interface_down: bool,
    /// VLANs of the pod's port. None on a bridge that does not filter.
    pub port_vlans: Option<PortVlans>,
    /// The requested MAC, from `runtimeConfig`, `args` or `CNI_ARGS`.
    pub mac: Option<MacAddr>,
    /// Replaces the IPAM's DNS settings where any field is set.
    pub dns: Dns,
    /// The IPAM plugin. None for a layer 2 attachment.
    pub ipam: Option<IpamPlugin>,
    /// The keys of that plugin, if it is ours. They are checked before the bridge is made.
    pub addresses: Option<IpamConfig>,
    /// The direct path between pods and their own node (`hostAccess`). None if it is off or not possible.
    pub host_access: Option<HostAccess>,
    /// The frames that a pod may send (`guard`). None if it may send any.
    pub guard: Option<Guard>,
}

impl Network {
    /// Checks a whole configuration. Returns warnings for the log as the second value.
    pub fn parse(request: &Request) -> Result<(Network, Vec<String>), CniError> {
        let section = Section::new(&request.config, "");
        if section.value("plugins").is_some() {
            return Err(section.error(
                "plugins",
                "this is a network list; a plugin is given one entry of it, with the list's name and cniVersion",
            ));
        }
        let mut odd = Vec::new();
        let mut network = Network::parse_keys(request, &section, &mut odd)?;
        let backend = masquerade_backend(&section)?;
        network.check()?;
        if network.ipam.as_ref().is_some_and(IpamPlugin::is_ours) {
            network.addresses = Some(network.parse_addresses(request)?);
        }
        odd.extend(section.unknown_except(is_common_key));
        let backend = backend.filter(|_| network.masquerade);
        let odd = odd.iter().map(UnknownKey::to_string).chain(backend);
        let warnings = odd.chain(network.warnings()).collect();
        Ok((network, warnings))
    }

    /// Reads the keys of the plugin itself, without those of the IPAM plugin. `odd` gets unknown keys of its
    /// sections.
    fn parse_keys(
        request: &Request,
        section: &Section<'_>,
        odd: &mut Vec<UnknownKey>,
    ) -> Result<Network, CniError> {
        let port_vlans = parse_port_vlans(section, odd)?;
        let uplink = parse_uplink(section, port_vlans.is_some(), odd)?;
        let is_default_gateway = section.bool("isDefaultGateway")?;
        let ipam = IpamPlugin::parse(section)?;
        let without = HostAccessUnavailable::of(uplink.as_ref(), ipam.as_ref(), port_vlans.as_ref());
        let mut network = Network {
            bridge: ifname::read(section, "bridge")?.unwrap_or_else(|| DEFAULT_BRIDGE.into()),
            is_gateway: section.bool("isGateway")? || is_default_gateway,
            is_default_gateway,
            masquerade: section.bool("ipMasq")?,
            allow_direct_routing: section.bool("allowDirectRouting")?,
            ports: parse_ports(request)?,
            force_address: section.bool("forceAddress")?,
            mtu: section
                .uint_zero_as_none("mtu", "an MTU in bytes", MTUS, "the default")?
                .map(|mtu| mtu as u32),
            hairpin: section.bool("hairpinMode")?,
            promisc: section.bool("promiscMode")?,
            // Without a querier, usually a router, snooping only delays each port. On a bridge with several
            // VLANs, a querier in one VLAN would keep neighbour solicitations from the other VLANs.
            multicast_snooping: section
                .opt_bool("multicastSnooping")?
                .unwrap_or(uplink.is_some() && port_vlans.is_none()),
            isolated: section.bool("portIsolation")?,
            mac_spoof_check: section.bool("macspoofchk")?,
            detect_duplicates: section.bool("enabledad")?,
            accept_ra: None,
            container_interface_down: section.bool("disableContainerInterface")?,
            port_vlans,
            mac: request.requested_mac()?,
            dns: parse_dns(section, odd)?,
            host_access: HostAccess::parse(section, without)?,
            guard: Guard::parse(section, uplink.is_some(), ipam.as_ref())?,
            ipam,
            addresses: None,
            uplink,
        };
        let managed = network.guard.is_some() || network.ipam.is_some() && names_ipv6(&request.config);
        network.accept_ra = section.opt_bool("acceptRA")?.or(managed.then_some(false));
        Ok(network)
    }

    /// Reads the configuration of a finished attachment, to restore its bridge and its port. The keys of the
    /// IPAM plugin and the DNS settings have had their effect and are skipped, and so are contradictions: a
    /// later release may be stricter than the one that attached the pod.
    ///
    /// # Errors
    /// [`crate::cni::error::code::INVALID_CONFIG`]: a mistake in a key of the bridge, the uplink or the port.
    pub fn parse_attached(request: &Request) -> Result<Network, CniError> {
        let mut request = request.clone();
        request.config.remove("dns");
        if IpamPlugin::parse(&request.root()).is_err() {
            request.config.remove("ipam");
        }
        Network::parse_keys(&request, &request.root(), &mut Vec::new())
    }

    /// Warnings about keys that have no effect, or less than a reader expects.
    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = Vec::new();
        warnings.extend(self.guard.as_ref().and_then(|guard| guard.warning(self.ipam.as_ref())));
        if self.allow_direct_routing && self.uplink.is_none() && !self.masquerade {
            warnings.push("allowDirectRouting: true has no effect without uplink or ipMasq".into());
        }
        if self.accept_ra == Some(true) && self.guard.is_some() {
            warnings.push(
                "acceptRA: true with guard: an address that the pod makes of a router advertisement is not its own for the guard, which drops what is \
                 sent from it; guard: false lets it pass"
                    .into(),
            );
        }
        if self.masquerade && self.ipam.is_none() {
            warnings
                .push("ipMasq: true has no effect without ipam: pods have no address to masquerade".into());
        }
        warnings
    }

    /// Checks for contradictions between keys.
    fn check(&self) -> Result<(), CniError> {
        if self.hairpin && self.promisc {
            return Err(CniError::config(
                "hairpinMode and promiscMode exclude each other: both true would double frames",
            ));
        }
        if self.container_interface_down && self.ipam.is_some() {
            return Err(CniError::config(
                "disableContainerInterface: true needs a configuration without ipam: an interface that stays down carries no addresses",
            ));
        }
        if let Some(uplink) = &self.uplink {
            if self.masquerade {
                return Err(CniError::config(
                    "ipMasq: true excludes uplink: pods have addresses of the network itself, so there is nothing to masquerade; leave it out",
                ));
            }
            if !self.ports.is_empty() && self.host_access.is_none() && self.ipam.is_some() {
                return Err(CniError::config(
                    "runtimeConfig.portMappings needs hostAccess on a network with uplink: the pod's answers have to come back through its node; leave the capability portMappings or hostAccess: false out",
                ));
            }
            for (key, on) in [("isDefaultGateway", self.is_default_gateway), ("isGateway", self.is_gateway)] {
                if on {
                    return Err(CniError::config(format!(
                        "{key}: true excludes uplink: the gateway is the router behind {}, and its address would be there twice; leave it out",
                        uplink.master
                    )));
                }
            }
            if uplink.port_name() == self.bridge || uplink.master == self.bridge {
                return Err(CniError::config(format!(
                    "bridge: {:?} is also the name of the uplink",
                    self.bridge
                )));
            }
        }
        if let Some((name, _)) = self.node_side() {
            ifname::check_length("bridge (with its VLAN)", &name)?;
        }
        if !self.ports.is_empty() && self.ipam.is_none() {
            return Err(CniError::config(
                "runtimeConfig.portMappings needs a configuration with ipam: a host port must lead to an address of the pod",
            ));
        }
        Ok(())
    }

    /// The keys of our own IPAM plugin, in the order in which that plugin would refuse them.
    fn parse_addresses(&self, request: &Request) -> Result<IpamConfig, CniError> {
        let addresses = IpamConfig::parse(&request.config)?;
        addresses.check_version(request.version)?;
        self.check_addresses(&addresses)?;
        request.requested_ips()?;
        Ok(addresses)
    }

    /// What the addresses of our own IPAM plugin require of the interface.
    ///
    /// # Errors
    /// [`crate::cni::error::code::INVALID_CONFIG`]: IPv6 addresses for an interface too small for IPv6.
    fn check_addresses(&self, ipam: &IpamConfig) -> Result<(), CniError> {
        let Some(mtu) = self.mtu.filter(|mtu| *mtu < SMALLEST_IPV6_MTU) else { return Ok(()) };
        match ipam.ranges.iter().find(|set| set.family() == Family::V6) {
            Some(set) => Err(CniError::config(format!(
                "mtu: {mtu} excludes ipam's range {set}: IPv6 needs {SMALLEST_IPV6_MTU} or more"
            ))),
            None => Ok(()),
        }
    }

    /// Whether an attachment needs rules in the node's packet filter.
    pub fn has_nat(&self) -> bool {
        self.masquerade && self.ipam.is_some() || !self.ports.is_empty() || !self.services().is_empty()
    }

    /// The pod's destinations that go through its node (`serviceCIDRs`).
    pub fn services(&self) -> &[IpNet] {
        self.host_access.as_ref().map_or(&[], |access| &access.services)
    }

    /// The uplink as a trunk, if it is one.
    pub fn trunk(&self) -> Option<Trunk> {
        Trunk::of(&self.bridge, self.uplink.as_ref(), self.port_vlans.as_ref())
    }

    /// Name and VLAN of the node's interface in the pods' VLAN, on a bridge that filters by VLAN. On a trunk,
    /// probes and host access use it. On a gateway bridge, it has the gateway's address.
    pub fn node_side(&self) -> Option<(String, u16)> {
        let vid = self.port_vlans.as_ref()?.access?;
        (self.uplink.is_some() || self.is_gateway).then(|| (node_side_name(&self.bridge, vid), vid))
    }

    /// Whether the bridge gets a static entry for the pod's MAC and port. It does with an uplink, because
    /// frames from there could move the MAC, with `macspoofchk`, and if the MAC was requested.
    pub fn mac_is_pinned(&self) -> bool {
        self.uplink.is_some() || self.mac_spoof_check || self.mac.is_some()
    }

    /// Name of the node's own device on the pods' network: [`Network::node_side`], or the bridge.
    pub fn node_device(&self) -> String {
        self.node_side().map_or_else(|| self.bridge.clone(), |(name, _)| name)
    }
}

fn parse_uplink(
    section: &Section<'_>,
    has_vlans: bool,
    odd: &mut Vec<UnknownKey>,
) -> Result<Option<Uplink>, CniError> {
    let Some(keys) = section.section("uplink")? else { return Ok(None) };
    let uplink = Uplink::parse(&keys, has_vlans)?;
    odd.extend(keys.unknown());
    Ok(Some(uplink))
}

/// Whether the `ipam` section, or the runtime's additions to it, gives the pod an IPv6 address.
fn names_ipv6(config: &Map<String, Value>) -> bool {
    fn is_named(value: &Value) -> bool {
        match value {
            Value::String(text) => {
                let address = text.split(['/', '-']).next().unwrap_or_default();
                address.parse::<std::net::Ipv6Addr>().is_ok()
            }
            Value::Array(values) => values.iter().any(is_named),
            Value::Object(keys) => keys.values().any(is_named),
            _ => false,
        }
    }
    // Routes and DNS servers give the pod no address.
    let ranges = config.get("ipam").and_then(Value::as_object).into_iter().flatten();
    let runtime = config.get("runtimeConfig").and_then(Value::as_object).into_iter().flatten();
    ranges.filter(|(key, _)| !["routes", "dns"].contains(&key.as_str())).any(|(_, value)| is_named(value))
        || runtime
            .filter(|(key, _)| ["ips", "ipRanges"].contains(&key.as_str()))
            .any(|(_, value)| is_named(value))
}

/// `runtimeConfig.portMappings`, if this plugin's entry of the list declares the capability. Otherwise the
/// runtime passes it for a chained plugin.
fn parse_ports(request: &Request) -> Result<Vec<PortMapping>, CniError> {
    match request.runtime_config()? {
        Some(filled) if declares_ports(&request.root())? => PortMapping::parse_list(&filled, PORT_MAPPINGS),
        _ => Ok(Vec::new()),
    }
}

fn declares_ports(section: &Section<'_>) -> Result<bool, CniError> {
    section.section("capabilities")?.map_or(Ok(false), |declared| declared.bool(PORT_MAPPINGS))
}

/// `ipMasqBackend`: a warning if it asks for another backend than nftables.
fn masquerade_backend(section: &Section<'_>) -> Result<Option<String>, CniError> {
    match section.str("ipMasqBackend")? {
        None | Some("" | "nftables") => Ok(None),
        Some("iptables") => Ok(Some(
            "ipMasqBackend: \"iptables\" is ignored: the plugin uses nftables, which works beside iptables"
                .into(),
        )),
        Some(other) => Err(section.wrong("ipMasqBackend", &other.into(), "one of nftables, iptables")),
    }
}

fn parse_dns(section: &Section<'_>, odd: &mut Vec<UnknownKey>) -> Result<Dns, CniError> {
    let Some(keys) = section.section("dns")? else { return Ok(Dns::default()) };
    let dns = Dns::from_section(&keys)?;
    odd.extend(keys.unknown());
    Ok(dns)
}

#[cfg(test)]
mod tests;

//! One change to the node, as a value: planned here, applied by [`crate::apply`], undone by
//! [`crate::undo`].

use std::fmt;

use cni_conf::cni::mac::MacAddr;
use cni_conf::family::Family;
use kernel::link::Link;
use kernel::port::Membership;

use super::vlan::DUMMY;
use crate::ownership::NODE_ALIAS;

/// A change to an interface of the node's namespace. Interfaces are named, because some do not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `ip link add link PARENT name NAME type vlan id ID`.
    CreateVlan {
        /// Name of the sub-interface.
        name: String,
        /// The interface below it.
        parent: String,
        /// VLAN id.
        id: u16,
    },
    /// `ip link add NAME type bridge forward_delay 0 …`.
    CreateBridge {
        /// Name of the bridge.
        name: String,
        /// MAC to pin.
        mac: Option<MacAddr>,
        /// MTU in bytes.
        mtu: Option<u32>,
        /// Some: filter by VLAN, with this default VLAN for new ports.
        vlan_filtering: Option<u16>,
        /// Forward multicast only to ports with listeners.
        multicast_snooping: bool,
    },
    /// `ip link set NAME alias …`: marks an interface as ours if an ADD was killed before it could do so.
    MarkAsOurs(String),
    /// `sysctl net.FAMILY.conf.INTERFACE.KEY=VALUE`.
    Sysctl(Sysctl),
    /// `ip address add 192.0.0.8/32 dev NAME scope host`.
    AddDummyAddress(String),
    /// `ip link set PORT master BRIDGE`.
    Enslave {
        /// The interface that becomes a port.
        port: String,
        /// The bridge.
        bridge: String,
    },
    /// `ip link set NAME address MAC mtu BYTES`: keeps the MAC and MTU of a bridge that existed before its
    /// ports. The kernel would otherwise use the lowest MAC and MTU among its ports.
    Pin {
        /// The bridge.
        name: String,
        /// The MAC that it has.
        mac: Option<MacAddr>,
        /// The MTU that it has, in bytes. None if the MTU may still follow the ports.
        mtu: Option<u32>,
    },
    /// `ip link set NAME up`.
    Up(String),
    /// `ip link set NAME promisc on`.
    Promisc(String),
    /// `ip link set NAME type bridge forward_delay 0`.
    ClearForwardDelay(String),
    /// `ip link set NAME type bridge mcast_snooping 0`.
    NoMulticastSnooping(String),
    /// `bridge vlan add dev MEMBER vid …`.
    JoinVlans {
        /// The member that joins.
        member: VlanMember,
        /// The VLANs that it joins.
        vlans: Vec<Membership>,
    },
    /// `bridge vlan del dev MEMBER vid …`.
    LeaveVlans {
        /// The member that leaves.
        member: VlanMember,
        /// The VLANs that it leaves.
        vlans: Vec<Membership>,
    },
}

/// A member of VLANs of a bridge with VLAN filtering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VlanMember {
    /// A bridge port, by its name.
    Port(String),
    /// The bridge's own device (`self`).
    Bridge(String),
}

impl fmt::Display for VlanMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VlanMember::Port(name) => f.write_str(name),
            VlanMember::Bridge(name) => write!(f, "{name} self"),
        }
    }
}

/// A sysctl of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// The family, which selects the folder.
    pub family: Family,
    /// The interface.
    pub interface: String,
    /// Its name.
    pub key: &'static str,
    /// The new value.
    pub value: &'static str,
}

impl Sysctl {
    /// Router advertisements no longer configure the interface.
    pub fn accept_ra_off(interface: &str) -> Sysctl {
        Sysctl { family: Family::V6, interface: interface.to_owned(), key: "accept_ra", value: "0" }
    }

    /// The interface has a link-local address from a random MAC. While that address is tentative, for a
    /// second or two after the first pod, the kernel sends no neighbour solicitations on the interface
    /// (`ndisc_send_ns`), and packets for the pod are lost.
    pub fn accept_dad_off(interface: &str) -> Sysctl {
        Sysctl { family: Family::V6, interface: interface.to_owned(), key: "accept_dad", value: "0" }
    }

    /// ARP answers only for addresses that the interface itself carries.
    pub fn arp_ignore(interface: &str) -> Sysctl {
        Sysctl { family: Family::V4, interface: interface.to_owned(), key: "arp_ignore", value: "1" }
    }

    /// The source of a packet must be reachable by any interface (RFC 3704 section 2.4).
    pub fn rp_filter_loose(interface: &str) -> Sysctl {
        Sysctl { family: Family::V4, interface: interface.to_owned(), key: "rp_filter", value: "2" }
    }

    /// The current value.
    pub fn of(&self, link: &Link) -> Option<i32> {
        match self.key {
            "accept_ra" => link.accept_ra,
            "arp_ignore" => link.arp_ignore,
            "rp_filter" => link.rp_filter,
            _ => None,
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sysctl { family, interface, key, value } = self;
        write!(f, "sysctl -w net/{}/conf/{interface}/{key}={value}", family.sysctl_folder())
    }
}

impl fmt::Display for Step {
    /// The equivalent iproute2 command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::CreateVlan { name, parent, id } => {
                write!(f, "ip link add link {parent} name {name} type vlan id {id}")
            }
            Step::CreateBridge { name, mac, mtu, vlan_filtering, multicast_snooping } => {
                write!(f, "ip link add {name}")?;
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                write!(f, " type bridge forward_delay 0")?;
                if let Some(pvid) = vlan_filtering {
                    write!(f, " vlan_filtering 1 vlan_default_pvid {pvid}")?;
                }
                if *multicast_snooping { Ok(()) } else { write!(f, " mcast_snooping 0") }
            }
            Step::MarkAsOurs(name) => write!(f, "ip link set {name} alias {NODE_ALIAS}"),
            Step::Sysctl(setting) => setting.fmt(f),
            Step::AddDummyAddress(name) => write!(f, "ip address add {DUMMY} dev {name} scope host"),
            Step::Enslave { port, bridge } => write!(f, "ip link set {port} master {bridge}"),
            Step::Pin { name, mac, mtu } => {
                write!(f, "ip link set {name}")?;
                mac.map_or(Ok(()), |mac| write!(f, " address {mac}"))?;
                mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))
            }
            Step::Up(name) => write!(f, "ip link set {name} up"),
            Step::Promisc(name) => write!(f, "ip link set {name} promisc on"),
            Step::ClearForwardDelay(name) => write!(f, "ip link set {name} type bridge forward_delay 0"),
            Step::NoMulticastSnooping(name) => write!(f, "ip link set {name} type bridge mcast_snooping 0"),
            Step::JoinVlans { member, vlans } => write!(f, "bridge vlan add dev {member} {}", Vids(vlans)),
            Step::LeaveVlans { member, vlans } => write!(f, "bridge vlan del dev {member} {}", Vids(vlans)),
        }
    }
}

/// `vid 136 pvid untagged vid 137`.
struct Vids<'a>(&'a [Membership]);

impl fmt::Display for Vids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, vlan) in self.0.iter().enumerate() {
            let gap = if i > 0 { " " } else { "" };
            write!(f, "{gap}vid {}", vlan.vid)?;
            if vlan.pvid {
                write!(f, " pvid")?;
            }
            if vlan.untagged {
                write!(f, " untagged")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_as_the_command_that_does_the_same() {
        let create = Step::CreateBridge {
            name: "br0".into(),
            mac: "02:00:00:00:00:01".parse().ok(),
            mtu: Some(9000),
            vlan_filtering: Some(0),
            multicast_snooping: false,
        };
        assert_eq!(
            create.to_string(),
            "ip link add br0 address 02:00:00:00:00:01 mtu 9000 \
             type bridge forward_delay 0 vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0"
        );
        let vlans = vec![Membership::access(136), Membership::tagged(137)];
        let join = Step::JoinVlans { member: VlanMember::Port("bond0".into()), vlans };
        assert_eq!(join.to_string(), "bridge vlan add dev bond0 vid 136 pvid untagged vid 137");
    }
}

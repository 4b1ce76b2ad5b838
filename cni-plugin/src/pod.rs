//! The pod's side of an attachment: its namespace, its interface, its addresses and routes.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use cni_conf::cni::env::Environment;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::AddResult;
use cni_conf::network::Network;
use kernel::announce::{AdvertisementSocket, gratuitous_arp, renew_mac};
use kernel::link::Link;
use kernel::sysctl::InterfaceSysctls;
use kernel::{Conn, Namespace, NetError, addr, link, route};

use crate::plan::pod;

/// How long duplicate address detection may take before ADD gives up.
const DETECTION_LIMIT: Duration = Duration::from_secs(10);
/// How long ADD waits until a new interface forwards frames, before it announces the addresses anyway.
/// Spanning tree takes half a minute.
const FORWARDING_LIMIT: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_micros(500);
const LOOK_AGAIN_FOR_DUPLICATES: Duration = Duration::from_millis(20);

/// Opens `CNI_NETNS`. None if it is empty or gone. The plugin's own namespace is refused unless
/// `CNI_NETNS_OVERRIDE` is set: the pod's interface would end up on the node.
fn namespace(env: &Environment) -> Result<Option<Namespace>, CniError> {
    if env.netns.is_empty() {
        return Ok(None);
    }
    let namespace = Namespace::open(&env.netns)?;
    if let Some(namespace) = &namespace
        && !env.netns_override
        && namespace.is_own()?
    {
        return Err(CniError::new(
            code::INVALID_NETNS,
            format!("CNI_NETNS: {} is the plugin's own network namespace, not a container's", env.netns),
        ));
    }
    Ok(namespace)
}

/// The same for DEL, which works without the namespace: if it cannot be opened, the lease must still be
/// released.
pub fn namespace_if_usable(env: &Environment) -> Result<Option<Namespace>, CniError> {
    match namespace(env) {
        Err(e) if e.code != code::INVALID_NETNS => {
            log::warn!("{e}");
            Ok(None)
        }
        other => other,
    }
}

/// The same for verbs that need the namespace. Without it, they fail with this code.
pub fn required_namespace(env: &Environment, code: u32) -> Result<Namespace, CniError> {
    namespace(env)?
        .ok_or_else(|| CniError::new(code, format!("CNI_NETNS: {} is not a network namespace", env.netns)))
}

/// Sockets and folders of a pod's namespace, opened in one visit.
#[derive(Debug)]
pub struct Pod {
    /// Netlink in the pod.
    pub conn: Conn,
    ipv4: InterfaceSysctls,
    ipv6: InterfaceSysctls,
    /// None where the kernel has no IPv6.
    advertisements: Option<AdvertisementSocket>,
}

impl Pod {
    /// Enters the namespace, opens what ADD needs there, and leaves it.
    pub fn open(namespace: &Namespace) -> Result<Pod, NetError> {
        namespace.enter(|| {
            Ok(Pod {
                conn: Conn::open()?,
                ipv4: InterfaceSysctls::ipv4(),
                ipv6: InterfaceSysctls::ipv6(),
                advertisements: AdvertisementSocket::open().ok(),
            })
        })?
    }

    /// Called before the interface is up. A pod with addresses announces them again when a chained plugin
    /// changes the MAC. `accept_ra` says whether router advertisements configure the interface. None leaves
    /// that to the kernel.
    pub fn prepare(
        &self,
        interface: &Link,
        has_addresses: bool,
        accept_ra: Option<bool>,
    ) -> Result<(), NetError> {
        if has_addresses {
            self.ipv4.write(&interface.name, "arp_notify", "1")?;
            self.ipv6.write(&interface.name, "ndisc_notify", "1")?;
        }
        if let Some(accept) = accept_ra {
            self.ipv6.write(&interface.name, "accept_ra", if accept { "1" } else { "0" })?;
        }
        Ok(())
    }

    /// `ip link set IFNAME up`.
    pub async fn up(&self, interface: &Link) -> Result<(), NetError> {
        let up = link::Change { up: Some(true), ..Default::default() };
        link::change(&self.conn, interface.index, &up, || {
            format!("bring {} up in the container", interface.name)
        })
        .await
    }

    /// Adds addresses and routes to the interface, which is up.
    pub async fn configure(
        &self,
        network: &Network,
        interface: &Link,
        result: &AddResult,
    ) -> Result<(), CniError> {
        if result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
            self.ipv6.write(&interface.name, "disable_ipv6", "0")?;
            // The kernel removes IPv6 addresses when a chained plugin sets the interface down to change it.
            self.ipv6.write(&interface.name, "keep_addr_on_down", "1")?;
        }
        for ip in &result.ips {
            addr::add(&self.conn, interface.index, ip.address, network.detect_duplicates).await?;
        }
        if network.detect_duplicates && result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
            self.await_detection(interface, result).await?;
        }
        for planned in pod::routes(result) {
            route::add(&self.conn, interface.index, &planned.route, planned.onlink).await?;
        }
        Ok(())
    }

    /// RFC 4862 section 5.4: an address is tentative until duplicate address detection has ended.
    async fn await_detection(&self, interface: &Link, result: &AddResult) -> Result<(), CniError> {
        let deadline = tokio::time::Instant::now() + DETECTION_LIMIT;
        loop {
            let present = addr::list(&self.conn, interface.index).await?;
            let ours =
                || present.iter().filter(|address| result.ips.iter().any(|ip| ip.address == address.net));
            if let Some(duplicate) = ours().find(|address| address.duplicate) {
                return Err(CniError::new(
                    code::ADDRESS_UNAVAILABLE,
                    format!("another machine on the network has address {}", duplicate.net.addr()),
                ));
            }
            if ours().all(|address| !address.tentative) {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(CniError::new(
                    code::TRY_AGAIN_LATER,
                    format!(
                        "duplicate address detection has not ended after {} s",
                        DETECTION_LIMIT.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(LOOK_AGAIN_FOR_DUPLICATES).await;
        }
    }

    /// Announces the addresses on the segment as soon as the port forwards frames. Earlier frames are lost,
    /// including the first ones of the pod itself, which are repeated only after a second. The attachment
    /// works without announcements, so errors are only logged.
    pub async fn announce(&self, node: &Conn, host: &Link, interface: &Link, result: &AddResult) {
        if !result.ips.is_empty()
            && let Err(e) = self.await_forwarding(node, host, interface).await
        {
            log::warn!("{e}");
        }
        for ip in &result.ips {
            let told = match ip.address.addr() {
                IpAddr::V4(address) => gratuitous_arp(&self.conn, interface.index, address).await,
                IpAddr::V6(address) => self.advertise(interface, address),
            };
            if let Err(e) = told {
                log::warn!("{e}");
            }
        }
        if let Some(mac) = interface.mac.filter(|_| share_a_subnet(result))
            && let Err(e) = renew_mac(&self.conn, interface.index, mac).await
        {
            log::warn!("{e}");
        }
    }

    fn advertise(&self, interface: &Link, address: Ipv6Addr) -> Result<(), NetError> {
        let (Some(socket), Some(mac)) = (&self.advertisements, interface.mac) else { return Ok(()) };
        socket.advertise(interface.index, mac, address)
    }

    async fn await_forwarding(&self, node: &Conn, host: &Link, interface: &Link) -> Result<(), NetError> {
        let deadline = tokio::time::Instant::now() + FORWARDING_LIMIT;
        loop {
            let port = link::by_index(node, host.index).await?;
            let inside = link::by_index(&self.conn, interface.index).await?;
            let passes = port.is_none_or(|port| port.oper_up && port.forwarding)
                && inside.is_none_or(|inside| inside.oper_up);
            if passes || tokio::time::Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// True if two of the pod's IPv4 addresses are in one subnet.
fn share_a_subnet(result: &AddResult) -> bool {
    let v4 = || result.ips.iter().map(|ip| &ip.address).filter(|net| net.addr().is_ipv4());
    v4().enumerate().any(|(i, net)| {
        v4().skip(i + 1).any(|other| net.contains(&other.addr()) || other.contains(&net.addr()))
    })
}

//! The veth of an attachment: both ends, the bridge's port and what it lets through.

use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::mac::MacAddr;

use super::Add;
use crate::guard;
use crate::link::{Link, PortFlags};
use crate::net::{NetError, fdb, link, port};
use crate::plan::guard::{Limits, Port};
use crate::plan::nat::owner;
use crate::plan::vlan;
use crate::undo::{Undo, UndoLog};
use crate::{random, requested_mac};

impl Add<'_> {
    /// The pair, with the node's end in the bridge and in its VLANs, and both ends up.
    pub(super) async fn make_veth(
        &self,
        bridge: &Link,
        mtu: Option<u32>,
        undo: &mut UndoLog,
    ) -> Result<(Link, Link), CniError> {
        let attachment = self.attachment();
        let host_name = attachment.host_interface();
        let veth = link::Veth {
            host_name: &host_name,
            host_mac: attachment.host_mac(),
            pod_name: &self.request.env.ifname,
            pod_mac: self.network.mac.unwrap_or_else(random::mac),
            mtu,
            master: bridge.index,
        };
        link::add_veth(&self.node, &veth, &self.namespace).await?;
        undo.push(Undo::RemoveLink(host_name.clone()));
        let host = link::by_name(&self.node, &host_name).await?.ok_or_else(|| NetError::gone(&host_name))?;
        let flags = PortFlags {
            // With br_netfilter, what a pod sends to its own host port or service is turned back within the bridge.
            hairpin: self.network.hairpin
                || !self.network.ports.is_empty()
                || !self.network.services().is_empty(),
            isolated: self.network.isolated,
            locked: self.network.mac_spoof_check,
        };
        // Not before what limits the port: the pod's end is the pod's own to bring up, at once, and for as long as it likes if we are killed.
        let is_limited =
            self.guard.is_some() || self.network.port_vlans.is_some() || self.network.mac_spoof_check;
        let change = link::Change {
            up: (!is_limited).then_some(true),
            alias: Some(attachment.alias_while_adding()),
            // A bridge port has no use for one, and the kernel walks the routes that it brings for every pod that comes or goes.
            no_link_local: true,
            port: (flags != PortFlags::default()).then_some(flags),
            ..Default::default()
        };
        self.set_host(&host, change).await?;
        self.close(&host_name, veth.pod_mac, undo).await?;
        self.keep_mtu(bridge, mtu).await?;
        self.join_vlans(bridge, &host).await?;
        if self.network.mac_is_pinned() {
            self.pin_mac(bridge, &host, veth.pod_mac).await?;
        }
        if is_limited {
            self.set_host(&host, link::Change { up: Some(true), ..Default::default() }).await?;
        }
        let container = link::by_name(&self.pod.conn, veth.pod_name).await?;
        let container = container.ok_or_else(|| NetError::gone(veth.pod_name))?;
        if self.delegate.is_some() {
            self.pod.prepare(&container)?;
        }
        if !self.network.container_interface_down {
            self.pod.up(&container).await?;
        }
        Ok((host, container))
    }

    /// Before the node's end is up, so that nothing forged is ever let through.
    async fn close(&self, veth: &str, mac: MacAddr, undo: &mut UndoLog) -> Result<(), CniError> {
        let (Some(guard), Some(limits)) = (&self.guard, guard::limits(&self.network)) else { return Ok(()) };
        let limits = Limits { allowed: Vec::new(), ..limits };
        let comment = owner(&self.attachment());
        undo.push(Undo::RemoveGuard { veth: veth.to_owned() });
        let port = Port { veth, mac, addresses: &[], limits: &limits, comment: &comment };
        guard.close(&self.node, &port).await
    }

    /// The kernel lowers the MTU of a bridge with that of its ports until somebody sets it.
    async fn keep_mtu(&self, bridge: &Link, pod: Option<u32>) -> Result<(), NetError> {
        if pod.is_none_or(|mtu| mtu >= bridge.mtu) {
            return Ok(());
        }
        match link::by_index(&self.node, bridge.index).await? {
            Some(now) if now.mtu != bridge.mtu => {
                let change = link::Change { mtu: Some(bridge.mtu), ..Default::default() };
                link::change(&self.node, bridge.index, &change, || {
                    format!("ip link set {} mtu {}", bridge.name, bridge.mtu)
                })
                .await
            }
            _ => Ok(()),
        }
    }

    async fn join_vlans(&self, bridge: &Link, host: &Link) -> Result<(), NetError> {
        let Some(wanted) = &self.network.port_vlans else { return Ok(()) };
        let member = port::Member::Port(host.index);
        if let Some(default) = vlan::default_to_leave(&self.network, bridge) {
            port::leave(&self.node, member, &[default]).await?;
        }
        port::join(&self.node, member, &vlan::of_port(wanted)).await
    }

    /// So that the bridge does not forget a silent pod and flood what is for it, and no frame from elsewhere moves it. With `macspoofchk` the
    /// port is locked: only what is pinned to it is let in, in each of its VLANs.
    async fn pin_mac(&self, bridge: &Link, host: &Link, mac: MacAddr) -> Result<(), CniError> {
        if self.network.mac_spoof_check {
            let port = link::by_index(&self.node, host.index).await?;
            if !port.and_then(|link| link.port).is_some_and(|flags| flags.locked) {
                return Err(CniError::new(
                    code::UNSUPPORTED_FIELD,
                    "macspoofchk: true needs locked bridge ports, which this kernel lacks: Linux 5.18 or newer",
                ));
            }
        }
        match fdb::pin(&self.node, host.index, mac).await {
            Err(e) if e.exists() => self.pin_known_mac(bridge, host, mac).await,
            other => Ok(other?),
        }
    }

    /// Another port's entry, or the kernel's own, is never replaced. A machine that is still heard behind another port, as a virtual machine that
    /// moves here, is not pinned: the bridge learns when it is here.
    async fn pin_known_mac(&self, bridge: &Link, host: &Link, mac: MacAddr) -> Result<(), CniError> {
        for vid in requested_mac::vids(&self.network, bridge) {
            let Some(entry) = fdb::entry(&self.node, bridge.index, mac, vid).await? else { continue };
            if entry.port == host.index {
                continue;
            }
            let port = link::by_index(&self.node, entry.port).await?;
            let holder = requested_mac::behind(port.as_ref(), entry.kind);
            if entry.kind != fdb::Kind::Learned || self.network.mac_spoof_check {
                return Err(requested_mac::taken(&format!("the pod's MAC {mac}"), &holder));
            }
            log::warn!("{mac} is not pinned to the pod's port yet: it is {holder}");
            return Ok(());
        }
        Ok(fdb::pin_again(&self.node, host.index, mac).await?)
    }
}

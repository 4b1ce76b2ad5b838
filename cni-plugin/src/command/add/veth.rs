//! The veth of an attachment: both ends, the bridge port and its restrictions.

use cni_conf::cni::error::CniError;
use cni_conf::cni::mac::MacAddr;
use kernel::link::{Link, PortFlags};
use kernel::{NetError, link};

use super::Add;
use crate::plan::guard::{Limits, Port};
use crate::plan::nat::element_comment;
use crate::undo::UndoLog;
use crate::{apply, guard, ports, random};

impl Add<'_> {
    /// Makes the pair, adds the node's end to the bridge and its VLANs, and brings both ends up.
    pub(super) async fn make_veth<'a>(
        &'a self,
        bridge: &Link,
        mtu: Option<u32>,
        undo: &mut UndoLog<'a>,
    ) -> Result<(Link, Link), CniError> {
        let attachment = self.attachment();
        let host_name = attachment.host_interface();
        let veth = link::Veth {
            host_name: &host_name,
            host_mac: attachment.host_mac(),
            pod_name: &self.request.env.ifname,
            pod_mac: self.network.mac.map_or_else(random::mac, Ok)?,
            mtu,
            master: bridge.index,
        };
        link::add_veth(&self.node, &veth, &self.namespace).await?;
        apply::remove_on_failure(&self.node, &host_name, undo);
        let host = link::by_name(&self.node, &host_name).await?.ok_or_else(|| NetError::gone(&host_name))?;
        let flags = ports::flags(&self.network);
        // A restricted port comes up only after its restrictions are in place. The pod can bring its own
        // end up at once, and a killed ADD would leave the port open.
        let is_limited = ports::is_limited(&self.network);
        let change = link::Change {
            up: (!is_limited).then_some(true),
            alias: Some(attachment.alias_while_adding()),
            // A bridge port needs no link-local address. With one, the kernel would walk its routes each
            // time a pod is added or removed.
            no_link_local: true,
            port: (flags != PortFlags::default()).then_some(flags),
            ..Default::default()
        };
        self.set_host(&host, change).await?;
        self.restrict(&host_name, veth.pod_mac, undo).await?;
        self.keep_mtu(bridge, mtu).await?;
        ports::set_up(&self.node, &self.network, bridge, &host, veth.pod_mac).await?;
        if is_limited {
            self.set_host(&host, link::Change { up: Some(true), ..Default::default() }).await?;
        }
        let container = link::by_name(&self.pod.conn, veth.pod_name).await?;
        let container = container.ok_or_else(|| NetError::gone(veth.pod_name))?;
        self.pod.prepare(&container, self.delegate.is_some(), self.network.accept_ra)?;
        if !self.network.container_interface_down {
            self.pod.up(&container).await?;
        }
        Ok((host, container))
    }

    /// Runs before the node's end is up, so that no forged packet ever passes.
    async fn restrict<'a>(
        &'a self,
        veth: &str,
        mac: MacAddr,
        undo: &mut UndoLog<'a>,
    ) -> Result<(), CniError> {
        let (Some(guard), Some(limits)) = (&self.guard, guard::limits(&self.network)) else { return Ok(()) };
        let limits = Limits { allowed: Vec::new(), ..limits };
        let comment = element_comment(&self.attachment());
        let name = veth.to_owned();
        undo.push(format!("guard of {veth}"), async move {
            guard::detach(&self.node, &name, true).await.map(drop)
        });
        let port = Port { veth, mac, addresses: &[], limits: &limits, comment: &comment };
        guard.restrict_port(&self.node, &port).await
    }

    /// Until someone sets the MTU of a bridge, the kernel lowers it with the MTU of the bridge's ports.
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
}

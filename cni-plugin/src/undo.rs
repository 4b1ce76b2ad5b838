//! The way back from an operation that failed half way.

use crate::delegate::Delegate;
use crate::{guard, host_access, nat};
use cni_conf::cni::env::Command;
use ipnet::IpNet;
use kernel::link::HostRoute;
use kernel::port::Membership;
use kernel::sysctl::InterfaceSysctls;
use kernel::{Conn, NetError, addr, link, port, remove};

/// What takes one change back.
#[derive(Debug)]
pub enum Undo {
    /// Remove an interface that we made.
    RemoveLink(String),
    /// Take an interface out of the bridge that we put it into.
    ReleasePort(String),
    /// Take an interface down that we brought up.
    Down(String),
    /// Switch off promiscuous mode that we switched on.
    NotPromisc(String),
    /// Leave VLANs that we joined.
    LeaveVlans {
        /// Port, or bridge where `bridge_itself`.
        name: String,
        /// The VLANs.
        vlans: Vec<Membership>,
        /// The bridge's own device, not a port.
        bridge_itself: bool,
    },
    /// Join VLANs again that we left.
    RejoinVlans {
        /// Port.
        name: String,
        /// The VLANs.
        vlans: Vec<Membership>,
    },
    /// Accept router advertisements again as before.
    AcceptAdvertisements {
        /// Interface.
        name: String,
        /// Value of `accept_ra`.
        value: i32,
    },
    /// Answer ARP requests again as before.
    AnswerArp {
        /// Interface.
        name: String,
        /// Value of `arp_ignore`.
        value: i32,
    },
    /// Filter reverse paths again as before.
    ReversePath {
        /// Interface.
        name: String,
        /// Value of `rp_filter`.
        value: i32,
    },
    /// Take an address off an interface that we gave it.
    RemoveAddress {
        /// Interface.
        name: String,
        /// The address.
        net: IpNet,
    },
    /// Take a pod's way from its node away.
    RemoveHostAccess {
        /// The veth's end on the node.
        veth: String,
        /// The node's routes to it.
        routes: Vec<HostRoute>,
    },
    /// Give the bridge its forward delay back.
    ForwardDelay {
        /// Bridge.
        name: String,
        /// Delay in 1/100 s.
        ticks: u32,
    },
    /// Snoop multicast again.
    MulticastSnooping(String),
    /// Take an attachment's guard out of the packet filter.
    RemoveGuard {
        /// The veth's end on the node.
        veth: String,
    },
    /// Take an attachment's rules out of the packet filter, and its record away.
    RemoveNat {
        /// The veth's end on the node.
        veth: String,
    },
    /// Give addresses back to IPAM (its DEL).
    ReleaseLease(Delegate),
}

/// What has been done so far, in order.
#[derive(Debug, Default)]
pub struct UndoLog(Vec<Undo>);

impl UndoLog {
    /// Notes a change that has been made.
    pub fn push(&mut self, undo: Undo) {
        self.0.push(undo);
    }

    /// Walks back in reverse order. What cannot be undone is logged and the rest goes on: the error that the
    /// caller returns is the one that brought it here.
    pub async fn unwind(self, conn: &Conn) {
        for undo in self.0.into_iter().rev() {
            let description = format!("{undo:?}");
            if let Err(e) = undo_step(conn, undo).await {
                log::error!("could not undo {description}: {e}");
            }
        }
    }
}

async fn undo_step(conn: &Conn, undo: Undo) -> Result<(), String> {
    let change = |name: String, change: link::Change| async move {
        match link::by_name(conn, &name).await? {
            Some(found) => link::change(conn, found.index, &change, || format!("restore {name}")).await,
            None => Ok(()),
        }
    };
    let done: Result<(), NetError> = match undo {
        Undo::RemoveLink(name) => match link::by_name(conn, &name).await {
            Ok(Some(found)) => remove::link(conn, found.index, &name).await,
            other => other.map(drop),
        },
        Undo::ReleasePort(name) => change(name, link::Change { master: Some(0), ..Default::default() }).await,
        Undo::Down(name) => change(name, link::Change { up: Some(false), ..Default::default() }).await,
        Undo::NotPromisc(name) => {
            change(name, link::Change { promisc: Some(false), ..Default::default() }).await
        }
        Undo::LeaveVlans { name, vlans, bridge_itself } => match link::by_name(conn, &name).await {
            Ok(Some(found)) if bridge_itself => {
                port::leave(conn, port::Member::Bridge(found.index), &vlans).await
            }
            Ok(Some(found)) => port::leave(conn, port::Member::Port(found.index), &vlans).await,
            other => other.map(drop),
        },
        Undo::RejoinVlans { name, vlans } => match link::by_name(conn, &name).await {
            Ok(Some(found)) => port::join(conn, port::Member::Port(found.index), &vlans).await,
            other => other.map(drop),
        },
        Undo::AcceptAdvertisements { name, value } => {
            InterfaceSysctls::ipv6().write(&name, "accept_ra", &value.to_string()).map(drop)
        }
        Undo::AnswerArp { name, value } => {
            InterfaceSysctls::ipv4().write(&name, "arp_ignore", &value.to_string()).map(drop)
        }
        Undo::ReversePath { name, value } => {
            InterfaceSysctls::ipv4().write(&name, "rp_filter", &value.to_string()).map(drop)
        }
        Undo::RemoveAddress { name, net } => match link::by_name(conn, &name).await {
            Ok(Some(found)) => addr::del(conn, found.index, net).await,
            other => other.map(drop),
        },
        Undo::RemoveHostAccess { veth, routes } => {
            let forgotten = host_access::delete_record(&veth);
            host_access::remove(&routes).map_err(|e| e.to_string())?;
            return forgotten.map_err(|e| e.msg);
        }
        Undo::ForwardDelay { name, ticks } => {
            change(name, link::Change { forward_delay: Some(ticks), ..Default::default() }).await
        }
        Undo::MulticastSnooping(name) => {
            change(name, link::Change { multicast_snooping: Some(true), ..Default::default() }).await
        }
        Undo::RemoveGuard { veth } => {
            return guard::detach(conn, &veth, true).await.map(drop).map_err(|e| e.msg);
        }
        Undo::RemoveNat { veth } => return nat::detach(conn, &veth, true).await.map(drop).map_err(|e| e.msg),
        Undo::ReleaseLease(delegate) => {
            return delegate.call(Command::Del).map_err(|e| e.msg);
        }
    };
    done.map_err(|e| e.to_string())
}

//! Takes planned steps, one netlink message each, and walks back if one fails.

use cni_conf::cni::error::{CniError, code};
use cni_conf::network::Network;

use crate::link::Link;
use crate::lock::NodeLock;
use crate::net::sysctl::InterfaceSysctls;
use crate::net::{Conn, NetError, link, port};
use crate::observe;
use crate::ownership::NODE_ALIAS;
use crate::plan::uplink::{self, Seen};
use crate::plan::{Plan, Step};
use crate::random;
use crate::undo::{Undo, UndoLog};

/// How often a first ADD looks again after something that holds no lock of ours (an operator, a network manager) made the same
/// interface at the same time.
const ATTEMPTS: usize = 3;

/// The bridge and its uplink as they are.
pub struct Look {
    /// What was seen.
    pub seen: Seen,
    /// Held if the first look found anything amiss, so that nobody is in the middle of a change.
    lock: Option<NodeLock>,
}

/// Looks at what the configuration names. Where anything is missing or wrong, that may be another ADD half way through,
/// so the node's lock is taken and everything is looked at again, more closely.
pub async fn look(conn: &Conn, network: &Network) -> Result<Look, CniError> {
    let seen = observe::uplink(conn, network).await?;
    if uplink::plan(network, &seen).is_ok_and(|plan| plan.is_complete()) {
        return Ok(Look { seen, lock: None });
    }
    let lock = Some(NodeLock::acquire()?);
    Ok(Look { seen: observe::uplink_and_surroundings(conn, network).await?, lock })
}

/// Makes sure that the bridge and its uplink are there, and returns them as they are then. Where nothing is missing
/// this takes no lock and sends nothing but look-ups. What fails half way is taken back.
pub async fn ensure_uplink(conn: &Conn, network: &Network) -> Result<Seen, CniError> {
    let mut look = look(conn, network).await?;
    for attempt in 1.. {
        let plan = uplink::plan(network, &look.seen)?;
        match take_all(conn, &plan.steps).await {
            Ok(()) => {
                warn(&plan);
                if look.lock.is_some() {
                    look.seen = observe::uplink(conn, network).await?;
                }
                break;
            }
            Err(e) if e.exists() && attempt < ATTEMPTS => {
                look.seen = observe::uplink_and_surroundings(conn, network).await?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(look.seen)
}

fn warn(plan: &Plan) {
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
}

/// Takes steps in order; on failure, walks back those that were taken.
pub async fn take_all(conn: &Conn, steps: &[Step]) -> Result<(), NetError> {
    let mut undo = UndoLog::default();
    for step in steps {
        log::info!("{step:?}");
        if let Err(e) = take(conn, step, &mut undo).await {
            undo.unwind(conn).await;
            return Err(e);
        }
    }
    Ok(())
}

async fn take(conn: &Conn, step: &Step, undo: &mut UndoLog) -> Result<(), NetError> {
    match step {
        Step::CreateVlan { name, parent, id } => {
            let parent = find(conn, parent).await?;
            link::add_vlan(conn, name, parent.index, *id).await?;
            undo.push(Undo::RemoveLink(name.clone()));
            mark_as_ours(conn, name).await
        }
        Step::CreateBridge { name, mac, mtu, vlan_filtering } => {
            let bridge = link::NewBridge {
                name: name.clone(),
                mac: Some(mac.unwrap_or_else(random::mac)),
                mtu: *mtu,
                vlan_filtering: vlan_filtering.is_some(),
                default_pvid: vlan_filtering.unwrap_or_default(),
            };
            link::add_bridge(conn, &bridge).await?;
            undo.push(Undo::RemoveLink(name.clone()));
            mark_as_ours(conn, name).await
        }
        Step::MarkAsOurs(name) => mark_as_ours(conn, name).await,
        Step::RefuseAdvertisements(name) => InterfaceSysctls::ipv6().write(name, "accept_ra", "0").map(drop),
        Step::Enslave { port, bridge } => {
            let bridge = find(conn, bridge).await?;
            set(conn, port, link::Change { master: Some(bridge.index), ..Default::default() }).await?;
            undo.push(Undo::ReleasePort(port.clone()));
            Ok(())
        }
        Step::Pin { name, mac, mtu } => {
            set(conn, name, link::Change { mac: *mac, mtu: Some(*mtu), ..Default::default() }).await
        }
        Step::Up(name) => {
            set(conn, name, link::Change { up: Some(true), ..Default::default() }).await?;
            undo.push(Undo::Down(name.clone()));
            Ok(())
        }
        Step::Promisc(name) => {
            set(conn, name, link::Change { promisc: Some(true), ..Default::default() }).await?;
            undo.push(Undo::NotPromisc(name.clone()));
            Ok(())
        }
        Step::NoForwardDelay(name) => {
            set(conn, name, link::Change { forward_delay: Some(0), ..Default::default() }).await
        }
        Step::JoinVlans { port, vlans } => {
            port::join(conn, port::Member::Port(find(conn, port).await?.index), vlans).await?;
            undo.push(Undo::LeaveVlans { name: port.clone(), vlans: vlans.clone(), bridge_itself: false });
            Ok(())
        }
        Step::JoinVlansSelf { bridge, vlans } => {
            port::join(conn, port::Member::Bridge(find(conn, bridge).await?.index), vlans).await?;
            undo.push(Undo::LeaveVlans { name: bridge.clone(), vlans: vlans.clone(), bridge_itself: true });
            Ok(())
        }
        Step::LeaveVlans { port, vlans } => {
            port::leave(conn, port::Member::Port(find(conn, port).await?.index), vlans).await?;
            undo.push(Undo::RejoinVlans { name: port.clone(), vlans: vlans.clone() });
            Ok(())
        }
    }
}

async fn mark_as_ours(conn: &Conn, name: &str) -> Result<(), NetError> {
    set(conn, name, link::Change { alias: Some(NODE_ALIAS.into()), ..Default::default() }).await
}

async fn set(conn: &Conn, name: &str, change: link::Change) -> Result<(), NetError> {
    let link = find(conn, name).await?;
    link::change(conn, link.index, &change, || format!("change interface {name}: {change:?}")).await
}

async fn find(conn: &Conn, name: &str) -> Result<Link, NetError> {
    link::by_name(conn, name).await?.ok_or_else(|| NetError::gone(name))
}

impl From<NetError> for CniError {
    fn from(error: NetError) -> CniError {
        CniError::new(code::KERNEL_REFUSED, error.to_string())
    }
}

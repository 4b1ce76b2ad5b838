//! Takes planned steps, one netlink message each, and walks back if one fails.

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use kernel::link::Link;
use kernel::sysctl::InterfaceSysctls;
use kernel::{Conn, NetError, addr, link, port};

use crate::lock::NodeLock;
use crate::observe;
use crate::ownership::NODE_ALIAS;
use crate::plan::uplink::{self, Seen};
use crate::plan::vlan::DUMMY;
use crate::plan::{Plan, Step};
use crate::random;
use crate::undo::{Undo, UndoLog};

/// How often a first ADD looks again after something that holds no lock of ours (an operator, a network
/// manager) made the same interface at the same time.
const ATTEMPTS: usize = 3;

/// Makes sure that the bridge and its uplink are there, and returns them as they are then. Where nothing is
/// missing this takes no lock and sends nothing but look-ups. Where anything is missing or wrong, that may be
/// another ADD half way through, so everything is looked at again under the node's lock, and more closely.
/// What fails half way is taken back.
pub async fn ensure_uplink(conn: &Conn, network: &Network) -> Result<Seen, CniError> {
    let seen = observe::uplink(conn, network).await?;
    if let Ok(plan) = uplink::plan(network, &seen)
        && plan.steps.is_empty()
    {
        warn(&plan);
        return Ok(seen);
    }
    ensure_uplink_and_tell(conn, network).await?;
    Ok(observe::uplink(conn, network).await?)
}

/// The same with a close look in any case. Returns the steps that were taken.
pub async fn ensure_uplink_and_tell(conn: &Conn, network: &Network) -> Result<Vec<Step>, CniError> {
    let _lock = NodeLock::acquire()?;
    let mut attempt = 1;
    loop {
        let seen = observe::uplink_and_surroundings(conn, network).await?;
        let plan = uplink::plan(network, &seen)?;
        match apply_all(conn, &plan.steps).await {
            Ok(()) => {
                warn(&plan);
                return Ok(plan.steps);
            }
            Err(e) if e.exists() && attempt < ATTEMPTS => attempt += 1,
            Err(e) => return Err(e.into()),
        }
    }
}

fn warn(plan: &Plan) {
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
}

/// Takes steps in order; on failure, walks back those that were taken.
pub async fn apply_all(conn: &Conn, steps: &[Step]) -> Result<(), NetError> {
    let mut undo = UndoLog::default();
    for step in steps {
        log::info!("{step}");
        if let Err(e) = apply_step(conn, step, &mut undo).await {
            undo.unwind(conn).await;
            let attempted = Attempted(step, &e).to_string();
            return Err(e.of(attempted));
        }
    }
    Ok(())
}

/// A step that failed, with what usually is behind it.
struct Attempted<'a>(&'a Step, &'a NetError);

impl std::fmt::Display for Attempted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Attempted(step, error) = self;
        write!(f, "{step}")?;
        match step {
            Step::CreateVlan { .. } if error.unsupported() => {
                write!(f, " (does this kernel have 802.1q? modprobe 8021q)")
            }
            Step::CreateBridge { vlan_filtering: Some(_), .. } if error.unsupported() => {
                write!(f, " (this kernel's bridges do not filter by VLAN: CONFIG_BRIDGE_VLAN_FILTERING)")
            }
            Step::CreateBridge { .. } if error.unsupported() => write!(f, " (modprobe bridge)"),
            Step::Enslave { port, .. } if error.busy() => {
                write!(f, " (does a macvlan or ipvlan sit on {port}?)")
            }
            _ => Ok(()),
        }
    }
}

async fn apply_step(conn: &Conn, step: &Step, undo: &mut UndoLog) -> Result<(), NetError> {
    match step {
        Step::CreateVlan { name, parent, id } => {
            let parent = find(conn, parent).await?;
            link::add_vlan(conn, name, parent.index, *id).await?;
            undo.push(Undo::RemoveLink(name.clone()));
            mark_as_ours(conn, name).await
        }
        Step::CreateBridge { name, mac, mtu, vlan_filtering, multicast_snooping } => {
            let bridge = link::NewBridge {
                name: name.clone(),
                mac: Some(mac.unwrap_or_else(random::mac)),
                mtu: *mtu,
                vlan_filtering: vlan_filtering.is_some(),
                default_pvid: vlan_filtering.unwrap_or_default(),
                multicast_snooping: *multicast_snooping,
            };
            link::add_bridge(conn, &bridge).await?;
            undo.push(Undo::RemoveLink(name.clone()));
            if mac.is_none() {
                // Its link-local address comes of a random MAC. While that is tentative, a second or two from
                // the first pod on, the kernel looks for no neighbour behind it (ndisc_send_ns), and what
                // comes for the pod is lost.
                InterfaceSysctls::ipv6().write(name, "accept_dad", "0")?;
            }
            mark_as_ours(conn, name).await
        }
        Step::MarkAsOurs(name) => mark_as_ours(conn, name).await,
        Step::DisableAcceptRa(name) => {
            let before = find(conn, name).await?.accept_ra;
            if InterfaceSysctls::ipv6().write(name, "accept_ra", "0")?
                && let Some(value) = before
            {
                undo.push(Undo::AcceptAdvertisements { name: name.clone(), value });
            }
            Ok(())
        }
        Step::SetArpIgnore(name) => {
            let before = find(conn, name).await?.arp_ignore;
            if InterfaceSysctls::ipv4().write(name, "arp_ignore", "1")?
                && let Some(value) = before
            {
                undo.push(Undo::AnswerArp { name: name.clone(), value });
            }
            Ok(())
        }
        Step::SetRpFilterLoose(name) => {
            let device = find(conn, name).await?;
            if addr::add_for_the_host(conn, device.index, DUMMY).await? {
                undo.push(Undo::RemoveAddress { name: name.clone(), net: DUMMY });
            }
            let before = device.rp_filter;
            if InterfaceSysctls::ipv4().write(name, "rp_filter", "2")?
                && let Some(value) = before
            {
                undo.push(Undo::ReversePath { name: name.clone(), value });
            }
            Ok(())
        }
        Step::Enslave { port, bridge } => {
            let bridge = find(conn, bridge).await?;
            set(conn, port, link::Change { master: Some(bridge.index), ..Default::default() }).await?;
            undo.push(Undo::ReleasePort(port.clone()));
            Ok(())
        }
        Step::Pin { name, mac, mtu } => {
            set(conn, name, link::Change { mac: *mac, mtu: *mtu, ..Default::default() }).await
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
        Step::ClearForwardDelay(name) => {
            let before = find(conn, name).await?.bridge().map(|options| options.forward_delay);
            set(conn, name, link::Change { forward_delay: Some(0), ..Default::default() }).await?;
            if let Some(ticks) = before {
                undo.push(Undo::ForwardDelay { name: name.clone(), ticks });
            }
            Ok(())
        }
        Step::NoMulticastSnooping(name) => {
            set(conn, name, link::Change { multicast_snooping: Some(false), ..Default::default() }).await?;
            undo.push(Undo::MulticastSnooping(name.clone()));
            Ok(())
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
    link::change(conn, link.index, &change, || format!("change interface {name}")).await
}

async fn find(conn: &Conn, name: &str) -> Result<Link, NetError> {
    link::by_name(conn, name).await?.ok_or_else(|| NetError::gone(name))
}

//! Applies planned steps, one netlink message each, and undoes them if one fails.

use cni_conf::cni::error::CniError;
use cni_conf::network::Network;
use kernel::link::Link;
use kernel::port::Membership;
use kernel::sysctl::InterfaceSysctls;
use kernel::{Conn, NetError, addr, link, port, remove};

use crate::lock::NodeLock;
use crate::observe;
use crate::ownership::NODE_ALIAS;
use crate::plan::observed::BridgeAndUplink;
use crate::plan::uplink;
use crate::plan::vlan::DUMMY;
use crate::plan::{Plan, Step, Sysctl, VlanMember};
use crate::random;
use crate::undo::UndoLog;

/// How often a first ADD retries after another program (or an operator) made the same interface at the same
/// time.
const ATTEMPTS: usize = 3;

/// Makes sure that the bridge and its uplink exist, and returns their state. If nothing is missing, this
/// takes no lock and only looks things up. If something is missing or wrong, another ADD may be in
/// progress, so everything is observed again under the node's lock, and in more detail. After a failure,
/// the steps so far are undone.
pub async fn ensure_uplink(conn: &Conn, network: &Network) -> Result<BridgeAndUplink, CniError> {
    let seen = observe::uplink(conn, network).await?;
    if let Ok(plan) = uplink::plan(network, &seen)
        && plan.steps.is_empty()
    {
        warn(&plan);
        return Ok(seen);
    }
    ensure_uplink_and_report(conn, network).await?;
    Ok(observe::uplink(conn, network).await?)
}

/// The steps that [`ensure_uplink`] would apply. Changes nothing and takes no lock.
pub async fn missing(conn: &Conn, network: &Network) -> Result<Vec<Step>, CniError> {
    // The surroundings matter only for steps and refusals, and take long lists.
    let known = uplink::plan(network, &observe::uplink(conn, network).await?);
    if known.is_ok_and(|plan| plan.steps.is_empty()) {
        return Ok(Vec::new());
    }
    Ok(uplink::plan(network, &observe::uplink_and_surroundings(conn, network).await?)?.steps)
}

/// The same, but always observes in detail. Returns the applied steps.
pub async fn ensure_uplink_and_report(conn: &Conn, network: &Network) -> Result<Vec<Step>, CniError> {
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

/// Applies steps in order. After a failure, undoes the applied steps.
pub async fn apply_all(conn: &Conn, steps: &[Step]) -> Result<(), NetError> {
    let mut undo = UndoLog::default();
    for step in steps {
        log::info!("{step}");
        if let Err(e) = apply_step(conn, step, &mut undo).await {
            undo.unwind().await;
            let attempted = Attempted(step, &e).to_string();
            return Err(e.of(attempted));
        }
    }
    Ok(())
}

/// A failed step, displayed with the usual cause.
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

async fn apply_step<'a>(conn: &'a Conn, step: &Step, undo: &mut UndoLog<'a>) -> Result<(), NetError> {
    match step {
        Step::CreateVlan { name, parent, id } => {
            let parent = find(conn, parent).await?;
            link::add_vlan(conn, name, parent.index, *id).await?;
            remove_on_failure(conn, name, undo);
            mark_as_ours(conn, name).await
        }
        Step::CreateBridge { name, mac, mtu, vlan_filtering, multicast_snooping } => {
            let bridge = link::NewBridge {
                name: name.clone(),
                mac: Some(mac.map_or_else(random::mac, Ok)?),
                mtu: *mtu,
                vlan_filtering: vlan_filtering.is_some(),
                default_pvid: vlan_filtering.unwrap_or_default(),
                multicast_snooping: *multicast_snooping,
            };
            link::add_bridge(conn, &bridge).await?;
            remove_on_failure(conn, name, undo);
            mark_as_ours(conn, name).await
        }
        Step::MarkAsOurs(name) => mark_as_ours(conn, name).await,
        Step::Sysctl(setting) => set_sysctl(conn, setting, undo).await,
        Step::AddDummyAddress(name) => add_dummy_address(conn, name, undo).await,
        Step::Pin { name, mac, mtu } => {
            set(conn, name, link::Change { mac: *mac, mtu: *mtu, ..Default::default() }).await
        }
        Step::JoinVlans { member, vlans } | Step::LeaveVlans { member, vlans } => {
            let joins = matches!(step, Step::JoinVlans { .. });
            change_vlans(conn, member, vlans, joins).await?;
            let (member, vlans) = (member.clone(), vlans.clone());
            undo.push(step.to_string(), async move { change_vlans(conn, &member, &vlans, !joins).await });
            Ok(())
        }
        Step::Enslave { .. }
        | Step::Up(_)
        | Step::Promisc(_)
        | Step::ClearForwardDelay(_)
        | Step::NoMulticastSnooping(_) => change_link(conn, step, undo).await,
    }
}

/// Applies a step that changes settings of one interface. The old values are restored on failure.
async fn change_link<'a>(conn: &'a Conn, step: &Step, undo: &mut UndoLog<'a>) -> Result<(), NetError> {
    let none = link::Change::default;
    let (name, change, back) = match step {
        Step::Enslave { port, bridge } => {
            let master = Some(find(conn, bridge).await?.index);
            (port, link::Change { master, ..none() }, link::Change { master: Some(0), ..none() })
        }
        Step::Up(name) => {
            (name, link::Change { up: Some(true), ..none() }, link::Change { up: Some(false), ..none() })
        }
        Step::Promisc(name) => {
            let promisc = |on| link::Change { promisc: Some(on), ..none() };
            (name, promisc(true), promisc(false))
        }
        Step::ClearForwardDelay(name) => {
            let before = find(conn, name).await?.bridge().map(|options| options.forward_delay);
            let delay = |ticks| link::Change { forward_delay: ticks, ..none() };
            (name, delay(Some(0)), delay(before))
        }
        Step::NoMulticastSnooping(name) => {
            let snooping = |on| link::Change { multicast_snooping: Some(on), ..none() };
            (name, snooping(false), snooping(true))
        }
        _ => return Ok(()),
    };
    set(conn, name, change).await?;
    let name = name.clone();
    undo.push(step.to_string(), async move {
        match link::by_name(conn, &name).await? {
            Some(found) => link::change(conn, found.index, &back, || format!("restore {name}")).await,
            None => Ok(()),
        }
    });
    Ok(())
}

async fn set_sysctl<'a>(conn: &'a Conn, setting: &Sysctl, undo: &mut UndoLog<'a>) -> Result<(), NetError> {
    let before = setting.of(&find(conn, &setting.interface).await?);
    let Sysctl { family, interface, key, value } = setting.clone();
    if InterfaceSysctls::of(family).write(&interface, key, value)?
        && let Some(before) = before
    {
        undo.push(setting.to_string(), async move {
            InterfaceSysctls::of(family).write(&interface, key, &before.to_string()).map(drop)
        });
    }
    Ok(())
}

async fn add_dummy_address<'a>(conn: &'a Conn, name: &str, undo: &mut UndoLog<'a>) -> Result<(), NetError> {
    let device = find(conn, name).await?;
    if addr::add_host_scope(conn, device.index, DUMMY).await? {
        undo.push(format!("ip address add {DUMMY} dev {name}"), async move {
            addr::del(conn, device.index, DUMMY).await
        });
    }
    Ok(())
}

async fn change_vlans(
    conn: &Conn,
    member: &VlanMember,
    vlans: &[Membership],
    join: bool,
) -> Result<(), NetError> {
    let (name, of): (_, fn(u32) -> port::Member) = match member {
        VlanMember::Port(name) => (name, port::Member::Port),
        VlanMember::Bridge(name) => (name, port::Member::Bridge),
    };
    let member = of(find(conn, name).await?.index);
    if join { port::join(conn, member, vlans).await } else { port::leave(conn, member, vlans).await }
}

/// Registers that a failure removes the interface that was just made.
pub fn remove_on_failure<'a>(conn: &'a Conn, name: &str, undo: &mut UndoLog<'a>) {
    let name = name.to_owned();
    undo.push(format!("ip link add {name}"), async move {
        match link::by_name(conn, &name).await? {
            Some(found) => remove::link(conn, found.index, &name).await,
            None => Ok(()),
        }
    });
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

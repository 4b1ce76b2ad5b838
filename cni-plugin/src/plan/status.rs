//! STATUS: can this node serve the network now?

use cni_conf::cni::error::{CniError, code};
use cni_conf::network::Network;

use super::uplink::{Seen, plan};
use crate::link::{Kind, Link};

/// Why this node cannot serve the network now: 51 where pods that are attached are cut off too, else 50 (CNI 1.1, section 2,
/// STATUS).
pub fn status(network: &Network, seen: &Seen) -> Result<(), CniError> {
    if let Some(uplink) = &network.uplink
        && let Some(why) = cut_off(&uplink.master, seen.master.as_ref())
    {
        return Err(CniError::new(code::LIMITED_CONNECTIVITY, format!("uplink.master: {why}")));
    }
    plan(network, seen).map(drop).map_err(|e| e.with_code(code::PLUGIN_NOT_AVAILABLE))
}

fn cut_off(name: &str, master: Option<&Link>) -> Option<String> {
    match master {
        None => Some(format!("there is no interface {name} on this node")),
        Some(master) if !master.up => Some(format!("{name} is down")),
        Some(Link { carrier: true, .. }) => None,
        Some(Link { kind: Kind::Bond(_), .. }) => Some(format!("bond {name} has no active member")),
        Some(_) => Some(format!("{name} has no carrier")),
    }
}

//! STATUS: can pods reach the network beyond this node?

use cni_conf::cni::error::{CniError, code};
use cni_conf::network::Network;
use kernel::link::{Kind, Link};

use super::observed::BridgeAndUplink;

/// Returns error 51 if the uplink has no connectivity, and so the attached pods have none (CNI 1.1, section
/// 2, STATUS).
pub fn uplink_carries(network: &Network, seen: &BridgeAndUplink) -> Result<(), CniError> {
    let cut_off = network.uplink.as_ref().and_then(|uplink| cut_off(&uplink.master, seen.master.as_ref()));
    match cut_off {
        Some(why) => Err(CniError::new(code::LIMITED_CONNECTIVITY, format!("uplink.master: {why}"))),
        None => Ok(()),
    }
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

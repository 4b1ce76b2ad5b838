//! One file a verb (CNI 1.1, section 2, "CNI operations").

pub mod add;
pub mod check;
pub mod del;
pub mod gc;
pub mod status;

use cni_conf::ipam_plugin::IpamPlugin;
use kernel::link::Link;
use kernel::{Conn, NetError, link};

/// Takes a pod's interface down, and out of its bridge, before its address is given back: another pod may
/// have it the next moment. One that is gone is silent.
async fn set_down(conn: &Conn, interface: &Link, ipam: Option<&IpamPlugin>) -> Result<(), NetError> {
    if ipam.is_some_and(IpamPlugin::needs_live_link) {
        return Ok(());
    }
    // With each port that leaves or goes down, the kernel goes through all the others; a bridge that has been
    // left already is not asked a second time when the interface is removed.
    let down = link::Change { up: Some(false), master: interface.master.map(|_| 0), ..Default::default() };
    match link::change(conn, interface.index, &down, || format!("ip link set {} down", interface.name)).await
    {
        Err(e) if e.not_found() => Ok(()),
        other => other,
    }
}

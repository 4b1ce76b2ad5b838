//! One file per verb (CNI 1.1, section 2, "CNI operations").

pub mod add;
pub mod check;
pub mod del;
pub mod gc;
pub mod status;

use cni_conf::ipam_plugin::IpamPlugin;
use kernel::link::Link;
use kernel::{Conn, NetError, link};

/// Sets a pod's interface down and removes it from its bridge before its address is released: another pod
/// may get the address at once. An interface that is gone is no error.
async fn set_down(conn: &Conn, interface: &Link, ipam: Option<&IpamPlugin>) -> Result<(), NetError> {
    if ipam.is_some_and(IpamPlugin::needs_live_link) {
        return Ok(());
    }
    // For each port that leaves or goes down, the kernel walks all other ports. A port that has left
    // already does not cost that again when it is removed.
    let down = link::Change { up: Some(false), master: interface.master.map(|_| 0), ..Default::default() };
    match link::change(conn, interface.index, &down, || format!("ip link set {} down", interface.name)).await
    {
        Err(e) if e.not_found() => Ok(()),
        other => other,
    }
}

//! One file a verb (CNI 1.1, section 2, "CNI operations").

pub mod add;
pub mod check;
pub mod del;
pub mod gc;
pub mod status;

use kernel::link::Link;
use kernel::{Conn, NetError, link};

/// The IPAM plugin that talks over the interface while it gives its lease back.
const NEEDS_A_LIVE_LINK: &str = "dhcp";

/// Takes a pod's interface down, and out of its bridge, before its address is given back: another pod may
/// have it the next moment. One that is gone is silent.
async fn set_down(conn: &Conn, interface: &Link, ipam: Option<&str>) -> Result<(), NetError> {
    if ipam == Some(NEEDS_A_LIVE_LINK) {
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

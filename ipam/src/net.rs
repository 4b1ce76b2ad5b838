//! The only place that talks to the kernel about anything but files: sockets that see whole frames,
//! interfaces, and the process that started us.

mod interface;
mod packet;
mod parent;

pub use interface::{Interface, has_carrier, node_addresses};
pub use packet::{PacketSocket, wait};
pub use parent::end_with;

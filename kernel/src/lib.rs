//! Everything that talks to the kernel about more than plain files: netlink (links, addresses, routes,
//! neighbours, rules, forwarding database, VLANs, nf_tables, conntrack), network namespaces, sysctls, packet
//! sockets, ARP and neighbour discovery frames.
//!
//! Only this crate uses rtnetlink, netlink-packet-route, nix and libc, because their interfaces break often.

pub mod access;
pub mod addr;
pub mod announce;
pub mod ask;
mod batch;
mod boot;
mod bpf;
mod conn;
pub mod conntrack;
pub mod counters;
pub mod fdb;
pub mod folders;
mod header;
mod interface;
pub mod link;
pub mod listen;
pub mod monitor;
pub mod neigh;
mod netconf;
pub mod netfilter;
pub mod netns;
pub mod nft;
pub mod open;
mod packet;
mod parent;
pub mod port;
pub mod probe;
mod random;
pub mod remove;
pub mod route;
pub mod rule;
pub mod signals;
mod slim;
pub mod sysctl;
pub mod terminal;
pub mod unix;
mod watch;
mod whole;

pub use batch::NetlinkRequest;
pub use boot::since_boot;
pub use conn::Conn;
pub use interface::{PacketInterface, has_carrier, node_addresses};
pub use netns::Namespace;
pub use packet::{PacketSocket, wait};
pub use parent::die_with_parent;
pub use random::random;

use cni_conf::cni::error::{CniError, code};
use nix::errno::Errno;

/// A request that failed in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel answered with an error number.
    #[error("{action}: {}", .errno.desc())]
    Kernel {
        /// The request in `ip`'s terms.
        action: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel closed the connection, or its answer cannot be decoded.
    #[error("{action}: no readable answer from the kernel")]
    NoAnswer {
        /// The request in `ip`'s terms.
        action: String,
    },
    /// The objects changed each time while the kernel listed them. A list that may lack objects is never
    /// returned.
    #[error("{action}: what is listed kept changing for {} s: no list was complete", whole::PATIENCE.as_secs())]
    Changing {
        /// The request in `ip`'s terms.
        action: String,
    },
}

impl NetError {
    /// An error number, and the action that caused it.
    pub fn new(action: impl Into<String>, errno: Errno) -> NetError {
        NetError::Kernel { action: action.into(), errno }
    }

    /// The same for an error of the standard library.
    pub fn io(action: impl Into<String>, error: &std::io::Error) -> NetError {
        NetError::new(action, Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)))
    }

    /// The interface has vanished since it was looked up.
    pub fn gone(name: &str) -> NetError {
        NetError::new(format!("look up interface {name}"), Errno::ENODEV)
    }

    /// The same error with another action.
    pub fn of(self, action: String) -> NetError {
        match self {
            NetError::Kernel { errno, .. } => NetError::Kernel { action, errno },
            NetError::NoAnswer { .. } => NetError::NoAnswer { action },
            NetError::Changing { .. } => NetError::Changing { action },
        }
    }

    /// True if the object exists already.
    pub fn exists(&self) -> bool {
        self.is(Errno::EEXIST)
    }

    /// True if the object does not exist: no such device, file, address or process.
    pub fn not_found(&self) -> bool {
        [Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL, Errno::ENXIO]
            .into_iter()
            .any(|errno| self.is(errno))
    }

    /// True if no route leads to the address, or only one of type `unreachable`, `prohibit` or `blackhole`.
    pub fn unreachable(&self) -> bool {
        [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::ESRCH]
            .into_iter()
            .any(|errno| self.is(errno))
    }

    /// True if this process lacks the permission.
    pub fn denied(&self) -> bool {
        self.is(Errno::EPERM) || self.is(Errno::EACCES)
    }

    /// True if the interface is in use by something else.
    pub fn busy(&self) -> bool {
        self.is(Errno::EBUSY)
    }

    /// True if the kernel does not support this kind of object.
    pub fn unsupported(&self) -> bool {
        self.is(Errno::EOPNOTSUPP)
    }

    fn is(&self, wanted: Errno) -> bool {
        matches!(self, NetError::Kernel { errno, .. } if *errno == wanted)
    }
}

impl From<NetError> for CniError {
    fn from(error: NetError) -> CniError {
        let number = match error {
            NetError::Changing { .. } => code::TRY_AGAIN_LATER,
            NetError::Kernel { .. } | NetError::NoAnswer { .. } => code::KERNEL_REFUSED,
        };
        CniError::new(number, error.to_string())
    }
}

/// The result of a request to the kernel.
pub type Result<T, E = NetError> = std::result::Result<T, E>;

//! All that speaks to the kernel about anything but plain files: netlink (links, addresses, routes,
//! neighbours, rules, forwarding database, VLANs, nf_tables, conntrack), network namespaces, sysctls, packet
//! sockets, and the frames that ask for addresses.
//!
//! rtnetlink, netlink-packet-route, nix and libc are named here and nowhere else, because their interfaces
//! break often.

pub mod access;
pub mod addr;
pub mod announce;
pub mod ask;
mod batch;
mod conn;
pub mod conntrack;
pub mod fdb;
mod interface;
pub mod link;
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
pub mod remove;
pub mod route;
pub mod rule;
pub mod sysctl;

pub use batch::{Batch, Request};
pub use conn::Conn;
pub use interface::{Interface, has_carrier, node_addresses};
pub use netns::Namespace;
pub use packet::{PacketSocket, wait};
pub use parent::end_with;

use cni_conf::cni::error::{CniError, code};
use nix::errno::Errno;

/// What the kernel refused, and what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// A request was answered with an error number.
    #[error("{action}: {}", .errno.desc())]
    Kernel {
        /// The request in `ip`'s terms.
        action: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel closed the conversation or answered something we cannot read.
    #[error("{action}: no readable answer from the kernel")]
    NoAnswer {
        /// The request in `ip`'s terms.
        action: String,
    },
}

impl NetError {
    /// An error number with the action that met it.
    pub fn new(action: impl Into<String>, errno: Errno) -> NetError {
        NetError::Kernel { action: action.into(), errno }
    }

    /// The same for an error of the standard library.
    pub fn io(action: impl Into<String>, error: &std::io::Error) -> NetError {
        NetError::new(action, Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)))
    }

    /// The interface that a step needs has vanished since it was looked at.
    pub fn gone(name: &str) -> NetError {
        NetError::new(format!("look up interface {name}"), Errno::ENODEV)
    }

    /// The same error with what was being done in the caller's words.
    pub fn of(self, action: String) -> NetError {
        match self {
            NetError::Kernel { errno, .. } => NetError::Kernel { action, errno },
            NetError::NoAnswer { .. } => NetError::NoAnswer { action },
        }
    }

    /// True if the kernel said that the thing is there already.
    pub fn exists(&self) -> bool {
        self.is(Errno::EEXIST)
    }

    /// True if what was asked for is not there: no such device, file, address or process.
    pub fn not_found(&self) -> bool {
        [Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL, Errno::ENXIO]
            .into_iter()
            .any(|errno| self.is(errno))
    }

    /// True if no route leads there: none at all, or one that says so (`unreachable`, `prohibit`,
    /// `blackhole`).
    pub fn unreachable(&self) -> bool {
        [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::ESRCH]
            .into_iter()
            .any(|errno| self.is(errno))
    }

    /// True if we lack the right to ask for it.
    pub fn denied(&self) -> bool {
        self.is(Errno::EPERM) || self.is(Errno::EACCES)
    }

    /// True if something else holds the interface.
    pub fn busy(&self) -> bool {
        self.is(Errno::EBUSY)
    }

    /// True if the kernel does not know this kind of thing.
    pub fn unsupported(&self) -> bool {
        self.is(Errno::EOPNOTSUPP)
    }

    fn is(&self, wanted: Errno) -> bool {
        matches!(self, NetError::Kernel { errno, .. } if *errno == wanted)
    }
}

impl From<NetError> for CniError {
    fn from(error: NetError) -> CniError {
        CniError::new(code::KERNEL_REFUSED, error.to_string())
    }
}

/// Shorthand of this crate.
pub type Result<T, E = NetError> = std::result::Result<T, E>;

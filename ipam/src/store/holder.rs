//! The holder of a lease, and its form in the lease's file.

use std::fmt;

use cni_conf::cni::env::{MAX_CONTAINER_ID, is_identifier};
use cni_conf::ifname;
use cni_conf::request::Request;

/// An attachment: a container and one of its interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// `CNI_CONTAINERID`
    pub container_id: String,
    /// `CNI_IFNAME`
    pub ifname: String,
}

/// The holder of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A container's interface.
    Attachment(Owner),
    /// A container without an interface, as very old versions of host-local wrote it.
    Container(String),
    /// An empty file: its writer was killed before it wrote the content.
    Empty,
    /// The lease cannot be read, so the address counts as in use.
    Unreadable,
}

impl Owner {
    /// The attachment of a request.
    pub fn of(request: &Request) -> Owner {
        Owner { container_id: request.env.container_id.clone(), ifname: request.env.ifname.clone() }
    }

    /// The content of a lease, as host-local writes it.
    pub(super) fn record(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }
}

impl Holder {
    /// Parses the content of a lease. The content is not trusted: a holder that no runtime can have named
    /// counts as unreadable.
    pub(super) fn parse(bytes: &[u8]) -> Holder {
        let Ok(text) = std::str::from_utf8(bytes) else { return Holder::Unreadable };
        let mut lines = text.trim().lines().map(str::trim);
        match (lines.next(), lines.next()) {
            (None | Some(""), _) => Holder::Empty,
            (Some(id), _) if !is_container_id(id) => Holder::Unreadable,
            (Some(id), None) => Holder::Container(id.to_owned()),
            (Some(_), Some(ifname)) if ifname::check("interface", ifname).is_err() => Holder::Unreadable,
            (Some(id), Some(ifname)) => {
                Holder::Attachment(Owner { container_id: id.to_owned(), ifname: ifname.to_owned() })
            }
        }
    }

    /// Whether the lease names no possible holder.
    pub(super) fn names_no_holder(&self) -> bool {
        matches!(self, Holder::Empty | Holder::Unreadable)
    }

    /// Whether the lease belongs to this attachment. A lease that names only the container does.
    pub fn holds_for(&self, owner: &Owner) -> bool {
        match self {
            Holder::Attachment(other) => other == owner,
            Holder::Container(id) => *id == owner.container_id,
            Holder::Empty | Holder::Unreadable => false,
        }
    }
}

/// Whether a string can be a container id.
pub(super) fn is_container_id(text: &str) -> bool {
    is_identifier(text) && text.len() <= MAX_CONTAINER_ID
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of container {}", self.ifname, self.container_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_host_local_wrote() {
        let owner = Owner { container_id: "c1".into(), ifname: "eth0".into() };
        let check =
            |text: &str, expected: Holder| assert_eq!(Holder::parse(text.as_bytes()), expected, "{text:?}");
        check(&owner.record(), Holder::Attachment(owner.clone()));
        check("c1\neth0\n", Holder::Attachment(owner.clone()));
        check(" c1 \r\n", Holder::Container("c1".into()));
        check("c1", Holder::Container("c1".into()));
        check("", Holder::Empty);
        check("\r\n", Holder::Empty);
        for unreadable in
            [&[0xff, 0xfe][..], &[0; 4096], b"../x\r\neth0", b"c1\r\n../x", b"a b", &[b'c'; 201]]
        {
            assert_eq!(Holder::parse(unreadable), Holder::Unreadable);
        }
        assert_eq!(owner.record(), "c1\r\neth0");
    }
}

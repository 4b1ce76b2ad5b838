//! Who holds a lease, and how the file says so.

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

/// What a lease says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A container's interface.
    Attachment(Owner),
    /// A container, whichever its interface: written by very old versions of host-local.
    Container(String),
    /// An empty file: whoever wrote it died over it.
    Nobody,
    /// The lease cannot be read, so the address is in use.
    Unreadable,
}

impl Owner {
    /// The attachment that a request is about.
    pub fn of(request: &Request) -> Owner {
        Owner { container_id: request.env.container_id.clone(), ifname: request.env.ifname.clone() }
    }

    /// The content of a lease, as host-local writes it.
    pub(super) fn record(&self) -> String {
        format!("{}\r\n{}", self.container_id, self.ifname)
    }
}

impl Holder {
    /// Reads the content of a lease. What it says is not ours to trust: a holder that no runtime can have
    /// named is as good as unreadable.
    pub(super) fn parse(bytes: &[u8]) -> Holder {
        let Ok(text) = std::str::from_utf8(bytes) else { return Holder::Unreadable };
        let mut lines = text.trim().lines().map(str::trim);
        match (lines.next(), lines.next()) {
            (None | Some(""), _) => Holder::Nobody,
            (Some(id), _) if !is_container_id(id) => Holder::Unreadable,
            (Some(id), None) => Holder::Container(id.to_owned()),
            (Some(_), Some(ifname)) if ifname::check("interface", ifname).is_err() => Holder::Unreadable,
            (Some(id), Some(ifname)) => {
                Holder::Attachment(Owner { container_id: id.to_owned(), ifname: ifname.to_owned() })
            }
        }
    }

    /// Whether the lease names nobody who could hold it.
    pub(super) fn is_nobodys(&self) -> bool {
        matches!(self, Holder::Nobody | Holder::Unreadable)
    }

    /// Whether the lease is one of this attachment; one that names the container alone is.
    pub fn holds_for(&self, owner: &Owner) -> bool {
        match self {
            Holder::Attachment(other) => other == owner,
            Holder::Container(id) => *id == owner.container_id,
            Holder::Nobody | Holder::Unreadable => false,
        }
    }
}

/// Whether a text can be a container id.
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
        check("", Holder::Nobody);
        check("\r\n", Holder::Nobody);
        for unreadable in
            [&[0xff, 0xfe][..], &[0; 4096], b"../x\r\neth0", b"c1\r\n../x", b"a b", &[b'c'; 201]]
        {
            assert_eq!(Holder::parse(unreadable), Holder::Unreadable);
        }
        assert_eq!(owner.record(), "c1\r\neth0");
    }
}

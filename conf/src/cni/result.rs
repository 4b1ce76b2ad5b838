//! The result of an ADD, in the shape of every version (CNI 1.1, section 5, "ADD Success").
//!
//! [`AddResult`] has the newest shape. `decode` converts every version to it, `encode` converts it to the
//! caller's version.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::{CniError, code};
use super::version::Version;

mod decode;
mod encode;

/// The result of an ADD, or of a whole chain so far (`prevResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddResult {
    /// Every interface of the attachment so far, on the host and in the container. IPAM plugins have none.
    pub interfaces: Vec<Interface>,
    /// The container's addresses.
    pub ips: Vec<IpConfig>,
    /// The container's routes.
    pub routes: Vec<Route>,
    /// The container's resolver settings.
    pub dns: Dns,
}

/// One entry of `interfaces`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name.
    pub name: String,
    /// Its hardware address, if it has one.
    pub mac: Option<String>,
    /// Its MTU in bytes (1.1.0 only).
    pub mtu: Option<u32>,
    /// The path of its network namespace. None on the host.
    pub sandbox: Option<String>,
    /// The path of a vhost-user socket (1.1.0 only).
    pub socket_path: Option<String>,
    /// The PCI address of the device (1.1.0 only).
    pub pci_id: Option<String>,
}

/// One entry of `ips`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpConfig {
    /// The address with the prefix length of its subnet: 172.20.56.17/24.
    pub address: IpNet,
    /// The subnet's gateway.
    pub gateway: Option<IpAddr>,
    /// An index into `interfaces`.
    pub interface: Option<usize>,
}

/// One entry of `routes`. All but `dst` and `gw` are 1.1.0 only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: IpNet,
    /// The next hop. None for the address's gateway.
    pub gw: Option<IpAddr>,
    /// The path MTU in bytes.
    pub mtu: Option<u32>,
    /// The MSS to announce, in bytes.
    pub advmss: Option<u32>,
    /// The route's priority (metric). The lowest wins.
    pub priority: Option<u32>,
    /// The routing table.
    pub table: Option<u32>,
    /// The scope, as rtnetlink(7) numbers it: 0 global, 253 link, 254 host.
    pub scope: Option<u8>,
}

/// The `dns` dictionary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers, in order.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: Option<String>,
    /// Search domains, in order.
    pub search: Vec<String>,
    /// Options for the resolver.
    pub options: Vec<String>,
}

impl Route {
    /// A route without attributes.
    pub fn to(dst: IpNet, gw: Option<IpAddr>) -> Route {
        Route { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Dns {
    /// Whether no field is set.
    pub fn is_empty(&self) -> bool {
        *self == Dns::default()
    }
}

/// Checks, before anything is set up, that `version` can express a result with this many addresses. 0.1.0 and
/// 0.2.0 need an address, and have one for each family at most.
///
/// # Errors
/// [`code::UNSUPPORTED_FIELD`]. The message names the version and those that can.
pub fn convertible(version: Version, v4: usize, v6: usize) -> Result<(), CniError> {
    if version >= Version::V0_3_0 {
        return Ok(());
    }
    let why = match (v4, v6) {
        (0, 0) => "an attachment without addresses".to_owned(),
        (0..=1, 0..=1) => return Ok(()),
        _ => format!("{v4} v4 and {v6} v6 addresses for one interface"),
    };
    let msg = format!("cniVersion: {} has no result for {why}: use 0.3.0 or later", version.as_str());
    Err(CniError::new(code::UNSUPPORTED_FIELD, msg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_take_one_address_a_family() {
        let ok = |version, v4, v6| convertible(version, v4, v6).is_ok();
        for version in [Version::V0_1_0, Version::V0_2_0] {
            assert!(ok(version, 1, 0) && ok(version, 0, 1) && ok(version, 1, 1));
            assert!(!ok(version, 0, 0) && !ok(version, 2, 0) && !ok(version, 1, 2));
        }
        for version in Version::ALL.into_iter().skip(2) {
            assert!(ok(version, 0, 0) && ok(version, 9, 9), "{version:?}");
        }
        let error = convertible(Version::V0_2_0, 0, 0).unwrap_err();
        assert!(error.msg.contains("0.2.0") && error.msg.contains("0.3.0 or later"), "{}", error.msg);
    }
}

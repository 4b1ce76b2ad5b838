//! `hostAccess`, `hostAddresses` and `serviceCIDRs`: the direct path between pods and their node, without the
//! VLANs' router, and the traffic that uses it.

use std::fmt;

use ipnet::IpNet;
use serde_json::Value;

use crate::cni::error::CniError;
use crate::ifname;
use crate::ipam_plugin::IpamPlugin;
use crate::section::{Section, parse_cidr, parse_ip};
use crate::uplink::Uplink;
use crate::vlans::PortVlans;

/// The destinations on their own node that pods reach directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// The node's addresses (`hostAddresses`). Empty for the primary ones.
    pub addresses: Vec<HostAddress>,
    /// Destinations that go through the pod's node, for example the addresses of services (`serviceCIDRs`).
    pub services: Vec<IpNet>,
    /// The configuration requests host access, by `hostAccess: true` or one of the other two keys. Otherwise
    /// it is on because there is an `uplink`.
    pub asked_for: bool,
}

/// One entry of `hostAddresses`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// The node's addresses in this subnet. A single address is a subnet of its own.
    Within(IpNet),
    /// The addresses of this interface.
    Of(String),
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostAddress::Within(net) => net.fmt(f),
            HostAddress::Of(name) => name.fmt(f),
        }
    }
}

/// Why [`HostAccess`] is not possible in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostAccessUnavailable {
    /// A bridge of this node alone.
    Uplink,
    /// A layer 2 attachment.
    Ipam,
    /// Tagged VLANs only (`vlanTrunk` without `vlan`): the node has no interface in a VLAN that is untagged
    /// for the pods.
    Vlan,
}

impl HostAccessUnavailable {
    /// The first missing requirement. None if host access is possible.
    pub(crate) fn of(
        uplink: Option<&Uplink>,
        ipam: Option<&IpamPlugin>,
        vlans: Option<&PortVlans>,
    ) -> Option<HostAccessUnavailable> {
        match (uplink, ipam, vlans) {
            (None, _, _) => Some(HostAccessUnavailable::Uplink),
            (_, None, _) => Some(HostAccessUnavailable::Ipam),
            (_, _, Some(PortVlans { access: None, .. })) => Some(HostAccessUnavailable::Vlan),
            _ => None,
        }
    }
}

impl HostAccess {
    /// Reads the three keys. Host access is on by default if it is possible. If it is not, a request for it
    /// is an error.
    pub(crate) fn parse(
        section: &Section<'_>,
        without: Option<HostAccessUnavailable>,
    ) -> Result<Option<HostAccess>, CniError> {
        let wanted = section.opt_bool("hostAccess")?;
        let (addresses, services) = (parse_addresses(section)?, parse_services(section)?);
        let needs_it = match (addresses.is_empty(), services.is_empty()) {
            (false, _) => Some("hostAddresses"),
            (_, false) => Some("serviceCIDRs"),
            _ => None,
        };
        let asked_for = (wanted == Some(true)).then_some("hostAccess: true").or(needs_it);
        if let (Some(key), Some(without)) = (asked_for, without) {
            return Err(CniError::config(format!("{key} {}; leave it out", without.needed())));
        }
        if let (Some(false), Some(key)) = (wanted, needs_it) {
            return Err(CniError::config(format!(
                "{key} and hostAccess: false exclude each other: leave one of them out"
            )));
        }
        let on = wanted != Some(false) && without.is_none();
        Ok(on.then_some(HostAccess { addresses, services, asked_for: asked_for.is_some() }))
    }
}

impl HostAccessUnavailable {
    fn needed(self) -> &'static str {
        match self {
            HostAccessUnavailable::Uplink => {
                "needs uplink: on a bridge without uplink, isGateway connects pods with the node"
            }
            HostAccessUnavailable::Ipam => "needs ipam: the node cannot reach a pod without addresses",
            HostAccessUnavailable::Vlan => {
                "needs vlan beside vlanTrunk: the node answers in the pod's untagged VLAN"
            }
        }
    }
}

fn parse_addresses(section: &Section<'_>) -> Result<Vec<HostAddress>, CniError> {
    let entries = section.strings("hostAddresses")?;
    entries
        .into_iter()
        .enumerate()
        .map(|(i, entry)| {
            let net =
                if entry.contains('/') { parse_cidr(&entry) } else { parse_ip(&entry).map(IpNet::from) };
            match net {
                Some(net) => Ok(HostAddress::Within(net.trunc())),
                None if is_interface(&entry) => Ok(HostAddress::Of(entry)),
                None => Err(section.wrong(
                    &format!("hostAddresses[{i}]"),
                    &Value::String(entry),
                    "an address, a subnet such as 10.52.0.0/24, or the name of an interface",
                )),
            }
        })
        .collect()
}

fn parse_services(section: &Section<'_>) -> Result<Vec<IpNet>, CniError> {
    let right = "a subnet such as 10.96.0.0/12, of a prefix length above 0";
    let entries = section.strings("serviceCIDRs")?.into_iter().enumerate();
    entries
        .map(|(i, entry)| match parse_cidr(&entry) {
            Some(net) if net.prefix_len() > 0 && net.trunc() == net => Ok(net),
            _ => Err(section.wrong(&format!("serviceCIDRs[{i}]"), &entry.into(), right)),
        })
        .collect()
}

/// A mistyped address is refused, although the kernel would accept it as an interface name.
fn is_interface(entry: &str) -> bool {
    ifname::check("", entry).is_ok() && !entry.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(keys: &str, without: Option<HostAccessUnavailable>) -> Result<Option<HostAccess>, String> {
        let config: Value = serde_json::from_str(keys).unwrap();
        let section = Section::new(config.as_object().unwrap(), "");
        HostAccess::parse(&section, without).map_err(|error| error.msg)
    }

    #[test]
    fn it_is_on_where_it_has_a_place() {
        assert_eq!(parse("{}", None), Ok(Some(HostAccess::default())));
        assert_eq!(parse(r#"{"hostAccess": false}"#, None), Ok(None));
        for without in
            [HostAccessUnavailable::Uplink, HostAccessUnavailable::Ipam, HostAccessUnavailable::Vlan]
        {
            assert_eq!(parse("{}", Some(without)), Ok(None));
            assert_eq!(parse(r#"{"hostAccess": false}"#, Some(without)), Ok(None));
            let error = parse(r#"{"hostAccess": true}"#, Some(without)).unwrap_err();
            assert!(error.starts_with("hostAccess: true needs "), "{error}");
            let error = parse(r#"{"hostAddresses": ["eth0"]}"#, Some(without)).unwrap_err();
            assert!(error.starts_with("hostAddresses needs "), "{error}");
        }
    }

    #[test]
    fn addresses_go_by_address_subnet_or_interface() {
        let keys = r#"{"hostAddresses": ["10.52.0.11", "10.51.0.9/24", "fd00::/64", "bond0.52"]}"#;
        let within = |net: &str| HostAddress::Within(net.parse().unwrap());
        let addresses = vec![
            within("10.52.0.11/32"),
            within("10.51.0.0/24"),
            within("fd00::/64"),
            HostAddress::Of("bond0.52".into()),
        ];
        let shown: Vec<String> = addresses.iter().map(HostAddress::to_string).collect();
        assert_eq!(shown, ["10.52.0.11/32", "10.51.0.0/24", "fd00::/64", "bond0.52"]);
        assert_eq!(
            parse(keys, None),
            Ok(Some(HostAccess { addresses, asked_for: true, ..HostAccess::default() }))
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        for entry in ["10.52.0.256", "10.52.0.0/33", "fd00:::1", "a name", ""] {
            let error = parse(&format!(r#"{{"hostAddresses": ["{entry}"]}}"#), None).unwrap_err();
            assert!(error.starts_with(&format!("hostAddresses[0]: {entry:?} is not an address")), "{error}");
        }
        for key in ["hostAddresses", "serviceCIDRs"] {
            let keys = format!(r#"{{"hostAccess": false, "{key}": ["10.96.0.0/12"]}}"#);
            let both = parse(&keys, None).unwrap_err();
            assert!(both.contains(&format!("{key} and hostAccess: false exclude each other")), "{both}");
        }
        for entry in ["10.96.0.1/12", "10.96.0.0", "0.0.0.0/0", "eth0"] {
            let error = parse(&format!(r#"{{"serviceCIDRs": ["{entry}"]}}"#), None).unwrap_err();
            assert!(error.starts_with(&format!("serviceCIDRs[0]: {entry:?} is not a subnet")), "{error}");
        }
    }
}

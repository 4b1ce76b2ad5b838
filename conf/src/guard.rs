//! `guard` and `allowedAddresses`: the frames that a pod may send.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use crate::cni::error::CniError;
use crate::ipam_plugin::IpamPlugin;
use crate::section::{Section, parse_cidr, parse_ip};

/// All link-local addresses (RFC 4291 section 2.5.6), the only subnet that `allowedAddresses` accepts.
const LINK_LOCAL: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 64));

/// The checks of a pod's frames, against its MAC and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The pod has only the addresses of ADD's result. Otherwise only the MAC is checked.
    pub addresses: bool,
    /// Further addresses that the pod may send from (`allowedAddresses`), for example virtual ones of
    /// keepalived.
    pub allowed: Vec<IpAddr>,
    /// `allowedAddresses` has `LINK_LOCAL`: a virtual machine in the pod derives its link-local address from
    /// a secret (RFC 7217), so it is unknown beforehand.
    pub any_link_local: bool,
}

impl Guard {
    /// Reads both keys. By default the guard is on if there is an uplink, to protect the network from forged
    /// frames.
    pub(crate) fn parse(
        section: &Section<'_>,
        has_uplink: bool,
        ipam: Option<&IpamPlugin>,
    ) -> Result<Option<Guard>, CniError> {
        let on = section.opt_bool("guard")?.unwrap_or(has_uplink);
        let (allowed, any_link_local) = parse_allowed(section)?;
        let addresses = ipam.is_some_and(IpamPlugin::keeps_addresses);
        let is_given = !allowed.is_empty() || any_link_local;
        if is_given && !on {
            return Err(CniError::config("allowedAddresses has no effect without guard: true; leave it out"));
        }
        if is_given && !addresses {
            return Err(CniError::config(format!(
                "allowedAddresses has no effect with {}: the guard has no addresses there and checks only the MAC; leave it out",
                ipam.map_or("a configuration without ipam".to_owned(), |name| format!("ipam {name}"))
            )));
        }
        Ok(on.then_some(Guard { addresses, allowed, any_link_local }))
    }

    /// A warning that the guard checks less than the operator may expect.
    pub(crate) fn warning(&self, ipam: Option<&IpamPlugin>) -> Option<String> {
        let known = match ipam {
            Some(name) => format!("ipam {name} may change the pod's addresses later"),
            None => "there is no ipam".into(),
        };
        (!self.addresses).then(|| format!("guard: {known}, so only the MAC of the pod's frames is checked"))
    }
}

/// The single addresses, and whether all link-local ones are allowed.
fn parse_allowed(section: &Section<'_>) -> Result<(Vec<IpAddr>, bool), CniError> {
    let right = "one address, such as 172.20.56.100, or fe80::/64 for all link-local ones";
    let (mut allowed, mut any_link_local) = (Vec::new(), false);
    for (i, entry) in section.strings("allowedAddresses")?.into_iter().enumerate() {
        let net = match entry.contains('/') {
            true => parse_cidr(&entry),
            false => parse_ip(&entry).map(IpNet::from),
        };
        match net {
            Some(LINK_LOCAL) => any_link_local = true,
            Some(net) if net.prefix_len() == net.max_prefix_len() => allowed.push(net.addr()),
            _ => return Err(section.wrong(&format!("allowedAddresses[{i}]"), &entry.into(), right)),
        }
    }
    Ok((allowed, any_link_local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parse(keys: &str, has_uplink: bool, ipam: Option<&str>) -> Result<Option<Guard>, String> {
        let config: Value = serde_json::from_str(keys).unwrap();
        let section = Section::new(config.as_object().unwrap(), "");
        Guard::parse(&section, has_uplink, ipam.map(IpamPlugin::named).as_ref()).map_err(|error| error.msg)
    }

    #[test]
    fn it_is_on_with_an_uplink_and_knows_lasting_addresses() {
        let guard = |addresses| Ok(Some(Guard { addresses, allowed: Vec::new(), any_link_local: false }));
        assert_eq!(parse("{}", true, Some(IpamPlugin::OURS)), guard(true));
        assert_eq!(parse("{}", true, Some("dhcp")), guard(false));
        assert_eq!(parse("{}", true, None), guard(false));
        assert_eq!(parse("{}", false, Some(IpamPlugin::OURS)), Ok(None));
        assert_eq!(parse(r#"{"guard": true}"#, false, Some(IpamPlugin::OURS)), guard(true));
        assert_eq!(parse(r#"{"guard": false}"#, true, Some(IpamPlugin::OURS)), Ok(None));
    }

    #[test]
    fn allowed_addresses_are_single_ones_that_are_looked_at() {
        let keys = r#"{"allowedAddresses": ["172.20.56.100", "fd00::64/128"]}"#;
        let allowed = vec!["172.20.56.100".parse().unwrap(), "fd00::64".parse().unwrap()];
        let mut expected = Guard { addresses: true, allowed, any_link_local: false };
        assert_eq!(parse(keys, true, Some("static")), Ok(Some(expected.clone())));
        let keys = r#"{"allowedAddresses": ["172.20.56.100", "fe80::/64", "fd00::64"]}"#;
        expected.any_link_local = true;
        assert_eq!(parse(keys, true, Some("static")), Ok(Some(expected)));
        let refused = |keys: &str, ipam, expected: &str| {
            let error = parse(keys, true, ipam).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        refused(keys, Some("dhcp"), "no effect with ipam dhcp");
        refused(keys, None, "without ipam");
        refused(
            r#"{"allowedAddresses": ["10.0.0.1"], "guard": false}"#,
            Some("static"),
            "without guard: true",
        );
        let link_local = r#"{"allowedAddresses": ["fe80::/64"]}"#;
        refused(link_local, Some("dhcp"), "no effect with ipam dhcp");
        refused(&link_local.replace("64", "10"), Some("static"), "\"fe80::/10\" is not one address");
        refused(&link_local.replace("::/", "::1/"), Some("static"), "or fe80::/64 for all");
        let subnet = r#"{"allowedAddresses": ["10.0.0.0/24"]}"#;
        refused(subnet, Some("static"), "allowedAddresses[0]: \"10.0.0.0/24\" is not one address");
    }
}

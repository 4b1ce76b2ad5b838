//! Reads the result of an ADD as a runtime does.

use crate::Outcome;
use ipnet::IpNet;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::path::PathBuf;

/// A result in any version of the specification. It displays as the JSON that the plugin printed and
/// serializes to the same, so it can be the `prevResult` of a later call.
#[derive(Debug, Clone)]
pub struct AddResult {
    /// The interfaces, in the plugin's order. Before 0.3.0 there are none.
    pub interfaces: Vec<Interface>,
    /// The addresses. Before 0.3.0: the IPv4 address, then the IPv6 address.
    pub ips: Vec<Ip>,
    /// The routes. Before 0.3.0: the IPv4 routes, then the IPv6 routes.
    pub routes: Vec<Route>,
    document: Value,
}

/// An interface of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: String,
    /// Its MTU, from version 1.1.0 on.
    pub mtu: Option<u32>,
    /// The namespace of the pod, for the interface in the pod.
    pub sandbox: Option<PathBuf>,
}

/// An address of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ip {
    /// The address with its prefix length.
    #[serde(alias = "ip", deserialize_with = "network")]
    pub address: IpNet,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
    /// The index of its interface.
    pub interface: Option<usize>,
}

/// A route of a result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// The destination.
    #[serde(deserialize_with = "network")]
    pub dst: IpNet,
    /// The gateway.
    pub gw: Option<IpAddr>,
}

/// The keys of all versions.
#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
    #[serde(default)]
    routes: Vec<Route>,
    ip4: Option<Family>,
    ip6: Option<Family>,
}

/// The address and the routes of one family, before 0.3.0.
#[derive(Deserialize)]
struct Family {
    #[serde(flatten)]
    ip: Ip,
    #[serde(default)]
    routes: Vec<Route>,
}

fn network<'de, D: Deserializer<'de>>(text: D) -> Result<IpNet, D::Error> {
    String::deserialize(text)?.parse().map_err(D::Error::custom)
}

impl AddResult {
    fn parse(text: &str) -> serde_json::Result<AddResult> {
        let document: Value = serde_json::from_str(text)?;
        let Keys { interfaces, mut ips, mut routes, ip4, ip6 } = Keys::deserialize(&document)?;
        for family in [ip4, ip6].into_iter().flatten() {
            ips.push(family.ip);
            routes.extend(family.routes);
        }
        Ok(AddResult { interfaces, ips, routes, document })
    }

    /// The first address, without its prefix length.
    #[track_caller]
    pub fn address(&self) -> String {
        self.first().addr().to_string()
    }

    /// The addresses, without their prefix lengths.
    pub fn addresses(&self) -> Vec<String> {
        self.ips.iter().map(|ip| ip.address.addr().to_string()).collect()
    }

    /// The first address, with its prefix length.
    #[track_caller]
    pub fn cidr(&self) -> String {
        self.first().to_string()
    }

    /// The MAC of the interface in the pod.
    #[track_caller]
    pub fn mac(&self) -> &str {
        let in_pod = self.interfaces.iter().find(|interface| interface.sandbox.is_some());
        &in_pod.unwrap_or_else(|| panic!("no interface in the pod: {self}")).mac
    }

    /// The name of the veth's end on the node.
    #[track_caller]
    pub fn host_interface(&self) -> &str {
        let mut on_node = self.interfaces.iter().filter(|interface| interface.sandbox.is_none());
        let veth = on_node.find(|interface| interface.name.starts_with("veth"));
        &veth.unwrap_or_else(|| panic!("no veth on the node: {self}")).name
    }

    #[track_caller]
    fn first(&self) -> &IpNet {
        &self.ips.first().unwrap_or_else(|| panic!("no address: {self}")).address
    }
}

impl Display for AddResult {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}

impl Serialize for AddResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document.serialize(serializer)
    }
}

impl Outcome {
    /// The result of an ADD. Panics with the plugin's output if it failed or printed no result.
    #[track_caller]
    pub fn result(&self) -> AddResult {
        assert!(self.ok(), "{self}");
        AddResult::parse(&self.stdout).unwrap_or_else(|error| panic!("no result: {error}\n{self}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_in_every_version() {
        for version in ["0.1.0", "0.2.0"] {
            let text = format!(
                r#"{{"cniVersion": "{version}", "dns": {{}}, "ip6": {{"ip": "2001:db8::2/64"}}, "ip4":
                   {{"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": [{{"dst": "0.0.0.0/0"}}]}}}}"#
            );
            let result = AddResult::parse(&text).unwrap();
            assert_eq!(result.addresses(), ["10.1.0.2", "2001:db8::2"]);
            assert_eq!((result.cidr(), result.routes.len()), ("10.1.0.2/24".into(), 1));
            assert_eq!(result.ips[0].gateway, Some("10.1.0.1".parse().unwrap()));
        }
        for (version, family, mtu) in [("0.3.1", r#""version": "4","#, ""), ("1.1.0", "", r#""mtu": 1500,"#)]
        {
            let text = format!(
                r#"{{"cniVersion": "{version}", "ips": [{{{family} "address": "10.1.0.2/24", "interface": 2}}],
                   "interfaces": [{{"name": "br0", "mac": "02:00:00:00:00:01"}},
                     {{"name": "veth1", {mtu} "mac": "02:00:00:00:00:02"}},
                     {{"name": "eth0", {mtu} "mac": "02:00:00:00:00:03", "sandbox": "/run/netns/p"}}],
                   "routes": [{{"dst": "10.9.0.0/16", "gw": "10.1.0.9"}}]}}"#
            );
            let result = AddResult::parse(&text).unwrap();
            assert_eq!((result.address(), result.ips[0].interface), ("10.1.0.2".into(), Some(2)));
            assert_eq!((result.host_interface(), result.mac()), ("veth1", "02:00:00:00:00:03"));
            assert_eq!(result.interfaces[2].mtu.is_some(), version == "1.1.0");
            assert_eq!(result.routes[0].gw, Some("10.1.0.9".parse().unwrap()));
            assert_eq!(serde_json::json!(result)["cniVersion"], version);
        }
    }

    #[test]
    fn what_is_no_address_is_no_result() {
        for address in ["10.1.0.300/24", "10.1.0.3", "10.1.0.3/33"] {
            let text = format!(r#"{{"ips": [{{"address": "{address}"}}]}}"#);
            assert!(AddResult::parse(&text).is_err(), "{address}");
        }
    }
}

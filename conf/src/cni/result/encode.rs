//! Converts [`AddResult`] to the JSON of the caller's version.

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{AddResult, Dns, Interface, IpConfig, Route, convertible};
use crate::cni::error::CniError;
use crate::cni::version::Version;

impl AddResult {
    /// The document for stdout. It leaves out empty lists, and values that the version has no key for.
    ///
    /// # Errors
    /// The errors of [`convertible`].
    pub fn to_json(&self, version: Version) -> Result<Value, CniError> {
        let mut map = Map::new();
        map.insert("cniVersion".into(), version.as_str().into());
        if version < Version::V0_3_0 {
            self.by_family(&mut map, version)?;
        } else {
            put_list(&mut map, "interfaces", self.interfaces.iter().map(|item| item.to_json(version)));
            put_list(&mut map, "ips", self.ips.iter().map(|item| item.to_json(version)));
            put_list(&mut map, "routes", self.routes.iter().map(|item| item.to_json(version)));
        }
        // libcni's types before 1.0.0 print an empty dictionary, and strict readers of that time may expect
        // it.
        if version < Version::V1_0_0 || !self.dns.is_empty() {
            map.insert("dns".into(), self.dns.to_json());
        }
        Ok(Value::Object(map))
    }

    /// 0.1.0 and 0.2.0. They cannot express a route whose family has no address, and no pod could use it.
    fn by_family(&self, map: &mut Map<String, Value>, version: Version) -> Result<(), CniError> {
        let is_v4 = |net: &IpNet| matches!(net, IpNet::V4(_));
        let v4 = self.ips.iter().filter(|ip| is_v4(&ip.address)).count();
        convertible(version, v4, self.ips.len() - v4)?;
        for ip in &self.ips {
            let family = is_v4(&ip.address);
            let mut config = Map::new();
            config.insert("ip".into(), ip.address.to_string().into());
            put(&mut config, "gateway", ip.gateway.map(|gateway| gateway.to_string()));
            let routes = self.routes.iter().filter(|route| is_v4(&route.dst) == family);
            put_list(&mut config, "routes", routes.map(|route| route.to_json(version)));
            map.insert(if family { "ip4" } else { "ip6" }.into(), Value::Object(config));
        }
        Ok(())
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut map = Map::new();
        map.insert("name".into(), self.name.clone().into());
        put(&mut map, "mac", self.mac.clone());
        put(&mut map, "sandbox", self.sandbox.clone());
        if version >= Version::V1_1_0 {
            put(&mut map, "mtu", self.mtu);
            put(&mut map, "socketPath", self.socket_path.clone());
            put(&mut map, "pciID", self.pci_id.clone());
        }
        Value::Object(map)
    }
}

impl IpConfig {
    fn to_json(&self, version: Version) -> Value {
        let mut map = Map::new();
        if version < Version::V1_0_0 {
            let family = if matches!(self.address, IpNet::V4(_)) { "4" } else { "6" };
            map.insert("version".into(), family.into());
        }
        map.insert("address".into(), self.address.to_string().into());
        put(&mut map, "gateway", self.gateway.map(|gateway| gateway.to_string()));
        put(&mut map, "interface", self.interface);
        Value::Object(map)
    }
}

impl Route {
    fn to_json(&self, version: Version) -> Value {
        let mut map = Map::new();
        map.insert("dst".into(), self.dst.to_string().into());
        put(&mut map, "gw", self.gw.map(|gw| gw.to_string()));
        if version >= Version::V1_1_0 {
            put(&mut map, "mtu", self.mtu);
            put(&mut map, "advmss", self.advmss);
            put(&mut map, "priority", self.priority);
            put(&mut map, "table", self.table);
            put(&mut map, "scope", self.scope);
        }
        Value::Object(map)
    }
}

impl Dns {
    fn to_json(&self) -> Value {
        let mut map = Map::new();
        put_list(&mut map, "nameservers", self.nameservers.iter().cloned().map(Value::from));
        put(&mut map, "domain", self.domain.clone());
        put_list(&mut map, "search", self.search.iter().cloned().map(Value::from));
        put_list(&mut map, "options", self.options.iter().cloned().map(Value::from));
        Value::Object(map)
    }
}

fn put<T: Into<Value>>(map: &mut Map<String, Value>, key: &str, value: Option<T>) {
    if let Some(value) = value {
        map.insert(key.into(), value.into());
    }
}

fn put_list(map: &mut Map<String, Value>, key: &str, items: impl Iterator<Item = Value>) {
    let list: Vec<Value> = items.collect();
    if !list.is_empty() {
        map.insert(key.into(), Value::Array(list));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cni::error::code;

    /// A result with every field set.
    fn full() -> AddResult {
        let interface = |name: &str, sandbox: Option<&str>| Interface {
            name: name.into(),
            mac: Some("02:00:00:00:00:01".into()),
            mtu: Some(1500),
            sandbox: sandbox.map(str::to_owned),
            socket_path: Some("/s".into()),
            pci_id: Some("0000:00:01.0".into()),
        };
        let ip = |address: &str, gateway: &str| IpConfig {
            address: address.parse().unwrap(),
            gateway: Some(gateway.parse().unwrap()),
            interface: Some(1),
        };
        let mut attributes = Route::to("0.0.0.0/0".parse().unwrap(), None);
        (attributes.mtu, attributes.advmss, attributes.priority) = (Some(1400), Some(1360), Some(10));
        (attributes.table, attributes.scope) = (Some(100), Some(0));
        AddResult {
            interfaces: vec![interface("br136", None), interface("eth0", Some("/run/netns/a"))],
            ips: vec![ip("172.20.56.17/24", "172.20.56.1"), ip("2001:db8::17/64", "2001:db8::1")],
            routes: vec![
                attributes,
                Route::to("::/0".parse().unwrap(), Some("2001:db8::1".parse().unwrap())),
            ],
            dns: Dns { nameservers: vec!["10.0.0.53".into()], domain: Some("d".into()), ..Dns::default() },
        }
    }

    #[test]
    fn v1_1_0_carries_everything() {
        let extra = json!({"mtu": 1500, "socketPath": "/s", "pciID": "0000:00:01.0"});
        let mut expected = v1_0_0();
        expected["cniVersion"] = "1.1.0".into();
        for interface in expected["interfaces"].as_array_mut().unwrap() {
            interface.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        }
        expected["routes"][0] = json!({"dst": "0.0.0.0/0", "mtu": 1400, "advmss": 1360, "priority": 10, "table": 100, "scope": 0});
        assert_eq!(full().to_json(Version::V1_1_0), Ok(expected));
    }

    fn v1_0_0() -> Value {
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br136", "mac": "02:00:00:00:00:01"},
                           {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/a"}],
            "ips": [{"address": "172.20.56.17/24", "gateway": "172.20.56.1", "interface": 1},
                    {"address": "2001:db8::17/64", "gateway": "2001:db8::1", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0", "gw": "2001:db8::1"}],
            "dns": {"nameservers": ["10.0.0.53"], "domain": "d"}})
    }

    #[test]
    fn v1_0_0_has_no_mtu_and_no_route_attributes() {
        assert_eq!(full().to_json(Version::V1_0_0), Ok(v1_0_0()));
    }

    #[test]
    fn v0_3_and_0_4_name_the_family_of_each_address() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            let mut expected = v1_0_0();
            expected["cniVersion"] = version.as_str().into();
            expected["ips"][0]["version"] = "4".into();
            expected["ips"][1]["version"] = "6".into();
            assert_eq!(full().to_json(version), Ok(expected));
        }
    }

    #[test]
    fn v0_1_and_0_2_group_routes_by_family() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            let expected = json!({
                "cniVersion": version.as_str(),
                "ip4": {"ip": "172.20.56.17/24", "gateway": "172.20.56.1", "routes": [{"dst": "0.0.0.0/0"}]},
                "ip6": {"ip": "2001:db8::17/64", "gateway": "2001:db8::1",
                        "routes": [{"dst": "::/0", "gw": "2001:db8::1"}]},
                "dns": {"nameservers": ["10.0.0.53"], "domain": "d"}});
            assert_eq!(full().to_json(version), Ok(expected));
        }
    }

    #[test]
    fn v0_2_refuses_what_it_cannot_say() {
        let mut result = full();
        result.ips.push(result.ips[0].clone());
        assert_eq!(result.to_json(Version::V0_2_0).unwrap_err().code, code::UNSUPPORTED_FIELD);
        assert_eq!(AddResult::default().to_json(Version::V0_1_0).unwrap_err().code, code::UNSUPPORTED_FIELD);
        let mut v4_only = full();
        v4_only.ips.truncate(1);
        assert_eq!(v4_only.to_json(Version::V0_2_0).unwrap().get("ip6"), None);
    }

    #[test]
    fn an_empty_result_is_short() {
        let check = |version, expected| assert_eq!(AddResult::default().to_json(version), Ok(expected));
        check(Version::V0_4_0, json!({"cniVersion": "0.4.0", "dns": {}}));
        check(Version::V1_0_0, json!({"cniVersion": "1.0.0"}));
        check(Version::V1_1_0, json!({"cniVersion": "1.1.0"}));
    }

    #[test]
    fn newest_reads_back_as_it_was() {
        let json = full().to_json(Version::V1_1_0).unwrap();
        assert_eq!(AddResult::from_json(&json, Version::V0_1_0), Ok(full()));
    }
}

//! Converts the JSON of any version to [`AddResult`].

use serde_json::Value;

use super::{AddResult, Dns, Interface, IpConfig, Route};
use crate::cni::error::{CniError, code};
use crate::cni::version::Version;
use crate::section::Section;

impl AddResult {
    /// Reads a delegate's answer in the version that it names. Without one, reads it as `fallback`, the
    /// version of the delegate's configuration. Unknown keys are ignored.
    ///
    /// # Errors
    /// [`code::INCOMPATIBLE_VERSION`] for an unknown version, else [`code::DECODING_FAILURE`] with the key's
    /// path.
    pub fn from_json(value: &Value, fallback: Version) -> Result<AddResult, CniError> {
        let recode = |error: CniError| match error.code {
            code::INVALID_CONFIG => error.with_code(code::DECODING_FAILURE),
            _ => error,
        };
        AddResult::from_json_at(value, fallback, "result").map_err(recode)
    }

    /// Reads a result that is part of the configuration, at `path`. Errors have [`code::INVALID_CONFIG`].
    pub(crate) fn from_json_at(value: &Value, fallback: Version, path: &str) -> Result<AddResult, CniError> {
        let Some(map) = value.as_object() else {
            return Err(CniError::config(format!("{path}: {} is not an object", kind(value))));
        };
        let root = Section::new(map, path);
        let version = match root.str("cniVersion")? {
            Some(text) if !text.is_empty() => Version::parse(text)?,
            _ => fallback,
        };
        let mut result = if version < Version::V0_3_0 { by_family(&root)? } else { by_list(&root)? };
        if let Some(dns) = root.section("dns")? {
            result.dns = Dns::from_section(&dns)?;
        }
        Ok(result)
    }
}

/// 0.3.0 and later. 0.3 and 0.4 carry `version` with each address, which repeats the address's family.
fn by_list(root: &Section<'_>) -> Result<AddResult, CniError> {
    let mut result = AddResult::default();
    for section in root.sections("interfaces")? {
        result.interfaces.push(Interface::from_section(&section)?);
    }
    for section in root.sections("ips")? {
        let address = section.cidr("address")?;
        result.ips.push(IpConfig {
            address: section.require("address", address, "an address with a prefix length")?,
            gateway: section.ip("gateway")?,
            interface: index(&section)?,
        });
    }
    for section in root.sections("routes")? {
        result.routes.push(Route::from_section(&section)?);
    }
    Ok(result)
}

/// 0.1.0 and 0.2.0: at most one address of each family, each with its routes.
fn by_family(root: &Section<'_>) -> Result<AddResult, CniError> {
    let mut result = AddResult::default();
    for key in ["ip4", "ip6"] {
        let Some(section) = root.section(key)? else { continue };
        let address = section.cidr("ip")?;
        let address = section.require("ip", address, "an address with a prefix length")?;
        result.ips.push(IpConfig { address, gateway: section.ip("gateway")?, interface: None });
        for route in section.sections("routes")? {
            result.routes.push(Route::from_section(&route)?);
        }
    }
    Ok(result)
}

impl Interface {
    fn from_section(section: &Section<'_>) -> Result<Interface, CniError> {
        let text =
            |key| Ok::<_, CniError>(section.str(key)?.filter(|text| !text.is_empty()).map(str::to_owned));
        Ok(Interface {
            name: section.str("name")?.unwrap_or_default().to_owned(),
            mac: text("mac")?,
            mtu: uint(section, "mtu")?,
            sandbox: text("sandbox")?,
            socket_path: text("socketPath")?,
            pci_id: text("pciID")?,
        })
    }
}

impl Route {
    /// Reads a route of a result or of the configuration. A zero `mtu`, `advmss` or `priority` is absent, as
    /// in Go.
    ///
    /// # Errors
    /// A missing `dst`, or a key out of range, with its path.
    pub fn from_section(section: &Section<'_>) -> Result<Route, CniError> {
        let dst = section.cidr("dst")?;
        Ok(Route {
            dst: section.require("dst", dst, "a destination such as 0.0.0.0/0")?,
            gw: section.ip("gw")?,
            mtu: uint(section, "mtu")?,
            advmss: uint(section, "advmss")?,
            priority: uint(section, "priority")?,
            table: section.uint("table", 0..=u32::MAX.into())?.and_then(|table| u32::try_from(table).ok()),
            scope: section.uint("scope", 0..=u8::MAX.into())?.and_then(|scope| u8::try_from(scope).ok()),
        })
    }
}

impl Dns {
    /// Reads a `dns` dictionary of a result or of the configuration.
    ///
    /// # Errors
    /// A key of the wrong type, with its path.
    pub fn from_section(section: &Section<'_>) -> Result<Dns, CniError> {
        Ok(Dns {
            nameservers: section.strings("nameservers")?,
            domain: section.str("domain")?.filter(|text| !text.is_empty()).map(str::to_owned),
            search: section.strings("search")?,
            options: section.strings("options")?,
        })
    }
}

/// The index of an interface. Some plugins write -1 if there is none.
fn index(section: &Section<'_>) -> Result<Option<usize>, CniError> {
    if section.value("interface").and_then(Value::as_i64).is_some_and(|index| index < 0) {
        return Ok(None);
    }
    let index = section.uint("interface", 0..=u32::MAX.into())?;
    Ok(index.and_then(|index| usize::try_from(index).ok()))
}

fn uint(section: &Section<'_>, key: &str) -> Result<Option<u32>, CniError> {
    let value = section.uint(key, 0..=u32::MAX.into())?.filter(|value| *value != 0);
    Ok(value.and_then(|value| u32::try_from(value).ok()))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn decode(value: &Value) -> AddResult {
        AddResult::from_json(value, Version::V1_0_0).unwrap()
    }

    #[test]
    fn reads_the_newest_shape() {
        let result = decode(&json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "mtu": 1500, "sandbox": "/run/netns/a",
                            "socketPath": "/s", "pciID": "0000:00:01.0"}],
            "ips": [{"address": "172.20.56.17/24", "gateway": "172.20.56.1", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "172.20.56.1", "mtu": 1400, "advmss": 1360, "priority": 10,
                        "table": 0, "scope": 0}],
            "dns": {"nameservers": ["10.0.0.53"], "domain": "d", "search": ["a", "b"], "options": ["ndots:2"]},
            "future": 1}));
        let interface = &result.interfaces[0];
        assert_eq!((interface.mtu, interface.pci_id.as_deref()), (Some(1500), Some("0000:00:01.0")));
        assert_eq!(result.ips[0].address.to_string(), "172.20.56.17/24");
        assert_eq!(result.ips[0].interface, Some(0));
        let route = &result.routes[0];
        assert_eq!((route.mtu, route.advmss, route.priority), (Some(1400), Some(1360), Some(10)));
        assert_eq!((route.table, route.scope), (Some(0), Some(0)));
        assert_eq!(result.dns.search, ["a", "b"]);
    }

    #[test]
    fn reads_the_middle_shape() {
        let result = decode(&json!({
            "cniVersion": "0.3.1",
            "ips": [{"version": "4", "address": "10.0.0.2/24", "interface": -1}], "dns": {}}));
        assert_eq!(result.ips[0].interface, None);
        assert!(result.dns.is_empty());
    }

    #[test]
    fn reads_the_oldest_shape_when_it_or_the_fallback_says_so() {
        let mut value = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "ip6": {"ip": "2001:db8::2/64", "routes": [{"dst": "::/0", "gw": "2001:db8::1"}]}});
        let result = decode(&value);
        assert_eq!(result.ips.len(), 2);
        assert_eq!(result.routes.len(), 2);
        assert_eq!(result.ips[0].gateway, Some("10.0.0.1".parse().unwrap()));
        value.as_object_mut().unwrap().remove("cniVersion");
        assert_eq!(AddResult::from_json(&value, Version::V0_1_0), Ok(result));
        assert_eq!(decode(&value), AddResult::default(), "1.0.0 has no ip4");
    }

    #[test]
    fn names_the_key_that_is_wrong() {
        let check = |value: Value, code: u32, msg: &str| {
            let error = AddResult::from_json(&value, Version::V1_1_0).unwrap_err();
            assert_eq!(error.code, code, "{}", error.msg);
            assert!(error.msg.starts_with(msg), "{}", error.msg);
        };
        check(json!([]), code::DECODING_FAILURE, "result: a list is not an object");
        check(json!({"cniVersion": "3.0.0"}), code::INCOMPATIBLE_VERSION, "cniVersion: \"3.0.0\"");
        check(json!({"ips": [{}]}), code::DECODING_FAILURE, "result.ips[0].address: missing");
        check(
            json!({"ips": [{"address": "10.0.0.1"}]}),
            code::DECODING_FAILURE,
            "result.ips[0].address: \"10.0.0.1\"",
        );
        check(
            json!({"routes": [{"gw": "10.0.0.1"}]}),
            code::DECODING_FAILURE,
            "result.routes[0].dst: missing",
        );
        check(
            json!({"routes": [{"dst": "::/0", "scope": 256}]}),
            code::DECODING_FAILURE,
            "result.routes[0].scope: 256",
        );
    }
}

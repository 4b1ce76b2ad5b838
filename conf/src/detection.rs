//! `ipam.conflictDetection`: whether and how an address is probed for on the network before it is assigned
//! (RFC 5227 section 2.1 for IPv4, RFC 4862 section 5.4 for IPv6).

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;

use crate::cni::error::CniError;
use crate::ifname;
use crate::section::Section;
use crate::vlans::NodeInterfaces;

const KEY: &str = "conflictDetection";
/// The default `count`: RFC 5227's PROBE_NUM.
const DEFAULT_COUNT: u64 = 3;
const COUNTS: RangeInclusive<u64> = 1..=10;
/// The default `intervalMs`. RFC 5227 waits for seconds, which is too long for the start of a pod.
const DEFAULT_INTERVAL: u64 = 33;
const INTERVALS: RangeInclusive<u64> = 5..=2000;
/// The default `quarantine` in seconds.
const DEFAULT_QUARANTINE: u64 = 300;
/// Up to a day.
const QUARANTINES: RangeInclusive<u64> = 1..=86_400;

/// How addresses are probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detection {
    /// The node's interface in the pods' network, which sends probes and receives answers.
    pub interface: String,
    /// The bridge's port towards the network. While it has no carrier, no machine can answer. None without an
    /// `uplink`.
    pub uplink: Option<String>,
    /// Whether the configuration asks for it. If not, it is on because there is an `uplink`.
    pub asked_for: bool,
    /// The number of probes for an address.
    pub count: u32,
    /// The time from one probe to the next, and from the last to the verdict.
    pub interval: Duration,
    /// How long an address that another machine uses is not offered, in seconds.
    pub quarantine: u32,
}

impl Detection {
    /// Reads the key. Detection is on if the key or `uplink` is set, unless the key is `"off"`.
    ///
    /// # Errors
    /// A value other than `"on"`, `"off"` or an object. Also if no interface can send probes.
    pub(crate) fn parse(
        root: &Section<'_>,
        ipam: &Section<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Detection>, CniError> {
        let value = ipam.value(KEY);
        let settings = match value {
            None => None,
            Some(Value::String(word)) if word == "off" => return Ok(None),
            Some(Value::String(word)) if word == "on" => None,
            Some(Value::Object(_)) => ipam.section(KEY)?,
            Some(other) => return Err(ipam.wrong(KEY, other, "\"on\", \"off\" or an object of settings")),
        };
        let node = NodeInterfaces::parse(root)?;
        if value.is_none() && node.uplink.is_none() {
            return Ok(None);
        }
        let number = |key: &str, bounds, default| match &settings {
            Some(settings) => Ok(settings.uint(key, bounds)?.unwrap_or(default)),
            None => Ok::<u64, CniError>(default),
        };
        let (count, interval) =
            (number("count", COUNTS, DEFAULT_COUNT)?, number("intervalMs", INTERVALS, DEFAULT_INTERVAL)?);
        let quarantine = number("quarantine", QUARANTINES, DEFAULT_QUARANTINE)?;
        let named = match &settings {
            Some(settings) => ifname::read(settings, "interface")?,
            None => None,
        };
        warnings.extend(settings.iter().flat_map(Section::unknown_in_words));
        let Some(interface) = named.or(node.interface) else {
            let why = "pods' ports have VLANs, and the node has no interface in them: set \"interface\", or conflictDetection to \"off\"";
            if value.is_some() {
                return Err(ipam.error(KEY, why));
            }
            warnings.push(format!("{}: off: {why}", ipam.path(KEY)));
            return Ok(None);
        };
        Ok(Some(Detection {
            interface,
            uplink: node.uplink,
            asked_for: value.is_some(),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            interval: Duration::from_millis(interval),
            quarantine: u32::try_from(quarantine).unwrap_or(u32::MAX),
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ipam::IpamConfig;

    fn parse(mut config: Value, detection: Value) -> Result<Option<Detection>, CniError> {
        config["ipam"] = json!({"subnet": "10.0.0.0/24", "conflictDetection": detection});
        IpamConfig::parse(config.as_object().unwrap()).map(|config| config.detection)
    }

    #[test]
    fn on_with_an_uplink_or_where_it_is_asked_for() {
        let uplink = json!({"bridge": "br136", "uplink": {"master": "bond0", "vlan": 136}});
        let found = parse(uplink.clone(), Value::Null).unwrap().unwrap();
        assert_eq!((found.interface.as_str(), found.uplink.as_deref()), ("br136", Some("bond0.136")));
        assert_eq!((found.count, found.interval.as_millis(), found.quarantine), (3, 33, 300));
        assert_eq!(parse(uplink, json!("off")), Ok(None));
        assert_eq!(parse(json!({}), Value::Null), Ok(None));
        assert_eq!(parse(json!({}), json!("on")).unwrap().unwrap().interface, "cni0");
    }

    #[test]
    fn on_a_trunk_the_nodes_side_is_that_of_the_pods_vlan() {
        let trunk = |keys: Value| {
            let mut config = json!({"bridge": "br0", "uplink": {"master": "bond0"}});
            config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            config
        };
        let found = parse(trunk(json!({"vlan": 136})), Value::Null).unwrap().unwrap();
        assert_eq!((found.interface.as_str(), found.uplink.as_deref()), ("br0.136", Some("bond0")));
        let tagged = trunk(json!({"vlanTrunk": [{"id": 136}]}));
        assert_eq!(parse(tagged.clone(), Value::Null), Ok(None));
        assert!(parse(tagged.clone(), json!("on")).unwrap_err().msg.contains("set \"interface\""));
        assert_eq!(parse(tagged, json!({"interface": "x"})).unwrap().unwrap().interface, "x");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |detection: Value, part: &str| {
            let error = parse(json!({}), detection).unwrap_err();
            assert!(error.msg.starts_with(part), "{}", error.msg);
        };
        refused(json!("maybe"), "ipam.conflictDetection: \"maybe\" is not \"on\", \"off\" or an object");
        refused(json!(true), "ipam.conflictDetection: true is not");
        refused(json!({"count": 0}), "ipam.conflictDetection.count: 0 is not a whole number from 1 to 10");
        refused(json!({"intervalMs": "33"}), "ipam.conflictDetection.intervalMs: \"33\" is not");
        refused(json!({"quarantine": 90_000}), "ipam.conflictDetection.quarantine: 90000 is not");
        refused(json!({"interface": "a/b"}), "ipam.conflictDetection.interface: \"a/b\" is not");
    }
}

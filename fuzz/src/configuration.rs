//! Fuzzes stdin and CNI_ARGS of both plugins.

use cni_conf::cni::env::Environment;
use cni_conf::ipam::IpamConfig;
use cni_conf::network::{Network, Teardown};
use cni_conf::range::RangeSet;
use cni_conf::request::Request;

/// A configuration, a zero byte, and CNI_ARGS. Both plugins read them for each verb. An accepted
/// configuration must be consistent, and any other must give an error.
pub fn configuration(input: &[u8]) {
    let (stdin, args) = match input.iter().position(|byte| *byte == 0) {
        Some(end) => (&input[..end], String::from_utf8_lossy(&input[end + 1..]).replace('\0', "")),
        None => (input, String::new()),
    };
    for verb in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
        let variable = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => verb,
                "CNI_CONTAINERID" => "c1",
                "CNI_NETNS" => "/run/netns/c1",
                "CNI_IFNAME" => "eth0",
                "CNI_PATH" => "/opt/cni/bin",
                "CNI_ARGS" => &args,
                _ => return None,
            };
            Some(value.into())
        };
        let Ok(environment) = Environment::parse(variable) else { continue };
        let Ok(request) = Request::parse(environment, stdin.to_vec()) else { continue };
        let _ = (request.prev_result(), request.valid_attachments(), request.log_settings());
        let _ = (request.requested_mac(), request.requested_ips());
        let _ = Network::parse(&request);
        let _ = Teardown::parse(&request);
        let data_dir = IpamConfig::data_dir(&request.config);
        assert!(data_dir.is_absolute(), "{}", data_dir.display());
        if let Ok(ipam) = IpamConfig::parse(&request.config) {
            let _ = ipam.check_version(request.version);
            ipam.ranges.iter().for_each(keeps_its_promises);
        }
    }
}

/// Every accepted range is in order. It never assigns its gateway, or more addresses than it has.
fn keeps_its_promises(set: &RangeSet) {
    for range in &set.0 {
        assert!(range.first <= range.last && range.contains(range.first) && range.contains(range.last));
        assert!(!range.gateway.is_some_and(|gateway| set.offers(gateway)), "{range:?}");
        assert_eq!(range.first.is_ipv4(), range.last.is_ipv4());
        let _ = (set.capacity_of(range), range.with_prefix(range.first));
    }
}

//! MACs of interfaces, and their entries in a bridge.

use crate::Namespace;

impl Namespace {
    /// The MAC of an interface.
    #[track_caller]
    pub fn mac(&self, interface: &str) -> String {
        let links = self.ip_json(&format!("link show dev {interface}"));
        links[0]["address"].as_str().expect("an interface has a MAC").to_owned()
    }

    /// The entries of a MAC in the forwarding database of a bridge: the VLAN, if there is one, and the port.
    #[track_caller]
    pub fn fdb(&self, bridge: &str, mac: &str) -> Vec<(Option<u64>, String)> {
        let entries = self.run(&format!("bridge -json fdb show br {bridge}")).expect_ok().json();
        let entries = entries.as_array().into_iter().flatten().filter(|entry| entry["mac"] == mac);
        entries
            .filter_map(|entry| Some((entry["vlan"].as_u64(), entry["ifname"].as_str()?.to_owned())))
            .collect()
    }
}

/// The bytes of a MAC.
pub fn mac_bytes(mac: &str) -> [u8; 6] {
    let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hexadecimal digits"));
    bytes.collect::<Vec<u8>>().try_into().expect("six bytes")
}

//! A top-of-rack switch.

use super::VLANS;
use crate::Namespace;

/// A VLAN-filtering bridge whose ports are trunks: tagged frames of the known VLANs pass, untagged ones do
/// not.
#[derive(Debug)]
pub(super) struct Switch {
    namespace: Namespace,
}

impl Switch {
    /// A switch without ports.
    pub(super) fn new(role: &str) -> Switch {
        let namespace = Namespace::new(role);
        // Snooping would hold back multicast that the tests look for.
        namespace.ip(
            "link add tor type bridge vlan_filtering 1 vlan_default_pvid 0 forward_delay 0 mcast_snooping 0\n\
             link set tor up",
        );
        Switch { namespace }
    }

    /// Where the switch is.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Makes an interface of the switch a trunk port.
    pub(super) fn plug(&self, port: &str) {
        self.namespace.ip(&format!("link set {port} master tor\nlink set {port} up"));
        let lines: Vec<String> =
            VLANS.iter().map(|(vlan, _)| format!("vlan add dev {port} vid {vlan}")).collect();
        self.namespace.bridge(&lines.join("\n"));
    }
}

//! Entry point of the CNI plugin `vlan-bridge`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_skel::plugin_main(vlan_bridge::ABOUT, vlan_bridge::run)
}

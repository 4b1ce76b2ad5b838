//! The binary `vlan-bridge-ipam`; all that it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    if !vlan_bridge_ipam::end_with_plugin() {
        return ExitCode::FAILURE;
    }
    let about = concat!("vlan-bridge-ipam ", env!("CARGO_PKG_VERSION"));
    cni_skel::plugin_main_with_tool(about, vlan_bridge_ipam::run, vlan_bridge_ipam::operator::run)
}

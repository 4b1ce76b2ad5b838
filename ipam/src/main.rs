//! The binary `vlan-bridge-ipam`; all that it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_skel::plugin_main(concat!("vlan-bridge-ipam ", env!("CARGO_PKG_VERSION")), vlan_bridge_ipam::run)
}

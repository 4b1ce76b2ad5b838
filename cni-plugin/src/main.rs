//! The program of both plugins: `vlan-bridge`, and, executed under that name, `vlan-bridge-ipam`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    if is_called(vlan_bridge_ipam::NAME) {
        vlan_bridge_ipam::main()
    } else {
        cni_skel::plugin_main(vlan_bridge::ABOUT, vlan_bridge::run)
    }
}

/// Whether the file that the caller executed has this name, or one that begins with it: a copy that is kept
/// beside is the same plugin.
fn is_called(name: &str) -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    let file = Path::new(&program).file_name().unwrap_or_default();
    file.to_string_lossy().starts_with(name)
}

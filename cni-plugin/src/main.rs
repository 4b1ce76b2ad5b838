//! The program of both plugins: `vlan-bridge`, and, executed under that name, `vlan-bridge-ipam`.

use std::path::Path;
use std::process::ExitCode;

use cni_conf::cni::error::CniError;
use cni_conf::request::Request;
use serde_json::Value;

fn main() -> ExitCode {
    if own_name().starts_with(vlan_bridge_ipam::NAME) {
        vlan_bridge_ipam::main()
    } else {
        cni_skel::plugin_main(vlan_bridge::ABOUT, run)
    }
}

/// Runs as the IPAM plugin also under any other name if `ipam.type` has that name. As the main plugin it
/// would execute itself again.
fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let root = request.root();
    let own = own_name();
    let is_ipam = root.value("ipam").and_then(|ipam| ipam["type"].as_str()) == Some(&own);
    let is_main = root.value("type").and_then(Value::as_str) == Some(&own);
    if is_ipam && !is_main { vlan_bridge_ipam::run(request) } else { vlan_bridge::run(request) }
}

/// The name of the file that the caller executed.
fn own_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

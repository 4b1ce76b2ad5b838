//! The program of both plugins: `vlan-bridge`, and, executed under that name or by `vlan-bridge`,
//! `vlan-bridge-ipam`.

use std::path::Path;
use std::process::ExitCode;

use cni_conf::cni::error::CniError;
use cni_conf::request::Request;
use serde_json::Value;

fn main() -> ExitCode {
    let is_ipam = own_name().contains(vlan_bridge_ipam::NAME)
        || std::env::var_os(vlan_bridge_ipam::STARTED_BY).is_some();
    if is_ipam {
        vlan_bridge_ipam::main()
    } else {
        cni_skel::plugin_main(vlan_bridge::ABOUT, run, vlan_bridge::calls::count)
    }
}

/// Runs as the IPAM plugin also if another main plugin executed it under a name of its own.
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

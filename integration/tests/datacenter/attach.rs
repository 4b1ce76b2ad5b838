//! What the tests of this suite do again and again: attach pods and read where they landed.

use integration::{BondedNode, Outcome, Pod};
use serde_json::Value;

/// A pod, and the address that the plugin gave it.
pub(crate) struct Attached {
    pub(crate) pod: Pod,
    pub(crate) address: String,
}

/// Attaches a new pod through libcni.
#[track_caller]
pub(crate) fn attach(node: &BondedNode, list: &Value) -> Attached {
    let pod = Pod::new();
    let address = address(&node.client(list).add(&pod.eth0()));
    Attached { pod, address }
}

/// The first address of an ADD's result, without its prefix length.
#[track_caller]
pub(crate) fn address(outcome: &Outcome) -> String {
    addresses(outcome).swap_remove(0)
}

/// The addresses of an ADD's result, without their prefix lengths.
#[track_caller]
pub(crate) fn addresses(outcome: &Outcome) -> Vec<String> {
    assert!(outcome.ok(), "{outcome}");
    let result = outcome.json();
    let ips = result["ips"].as_array().unwrap_or_else(|| panic!("no address in {result}"));
    ips.iter().map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap().to_owned()).collect()
}

//! What most tests of this suite need: attach pods and read their addresses.

use integration::{BondedNode, Pod};
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
    let address = node.client(list).add(&pod.eth0()).result().address();
    Attached { pod, address }
}

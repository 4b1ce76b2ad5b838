//! The inside of a running pod, long after its ADD: what there follows the node has to follow its changes.

use cni_conf::cni::error::{CniError, code};
use kernel::link::Link;
use kernel::{Conn, Namespace, link, netns};

/// A pod's network namespace, and the pod's end of a veth in it.
pub struct Inside {
    /// Netlink in the pod.
    pub conn: Conn,
    /// The pod's end.
    pub container: Link,
}

impl Inside {
    /// Enters the namespace at `netns`, the `CNI_NETNS` of the ADD, and leaves it again. Takes
    /// `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// The path leads to no namespace, or to another one than that of the other end of `host`: paths with
    /// the number of a process are used again.
    pub async fn open(node: &Conn, host: &Link, netns: &str) -> Result<Inside, CniError> {
        let other = || {
            let why = format!("{netns} is not the network namespace that {} leads to", host.name);
            CniError::new(code::INVALID_NETNS, why)
        };
        let namespace = Namespace::open(netns)?.ok_or_else(other)?;
        let id = netns::id_of(node, &namespace).await?.filter(|id| host.parent_namespace == Some(*id));
        let (Some(_), Some(index)) = (id, host.parent) else { return Err(other()) };
        let conn = namespace.enter(Conn::open)??;
        let container = link::by_index(&conn, index).await?.ok_or_else(other)?;
        Ok(Inside { conn, container })
    }
}

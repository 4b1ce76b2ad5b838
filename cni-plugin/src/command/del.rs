//! DEL: link down, then IPAM DEL and removal of the link. Works with the namespace, the link, the bridge or the uplink gone, and with a
//! configuration that ADD would refuse.

use cni_conf::cni::env::Command;
use cni_conf::cni::error::CniError;
use cni_conf::network::{OUR_IPAM, Teardown};
use cni_conf::request::Request;
use serde_json::Value;

use crate::delegate::Delegate;
use crate::link::{Kind, Link};
use crate::net::remove::Remover;
use crate::net::{Conn, Namespace, NetError, link};
use crate::ownership::{Attachment, Progress};
use crate::{pod, trunk};

/// The IPAM plugin that talks over the interface while it gives its lease back.
const NEEDS_A_LIVE_LINK: &str = "dhcp";

/// Detaches a pod. An attachment that is gone, in part or whole, is no error.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let (teardown, warnings) = Teardown::parse(request);
    for warning in warnings {
        log::warn!("{warning}");
    }
    let namespace = pod::namespace(&request.env)?;
    let node = Conn::open()?;
    let found = find(request, &node, namespace.as_ref()).await?;
    if let Some(found) = &found
        && teardown.ipam.as_deref() != Some(NEEDS_A_LIVE_LINK)
    {
        found.take_down().await?;
    }
    // A lease that cannot be given back now must not keep the link; the runtime repeats a DEL that failed.
    let released = release(&teardown, request);
    let remove = async { found.map_or(Ok(()), Found::remove) };
    let (released, removed) = match teardown.ipam.as_deref() {
        // Ours never looks at the link, which is silent by now, so neither waits for the other.
        Some(OUR_IPAM) => futures_util::join!(released, remove),
        _ => (released.await, remove.await),
    };
    removed?;
    if let Some(trunk) = &teardown.trunk {
        trunk::leave(&node, trunk).await?;
    }
    released.map(|()| None)
}

async fn release(teardown: &Teardown, request: &Request) -> Result<(), CniError> {
    match &teardown.ipam {
        Some(name) => Delegate::find(name, request)?.call(Command::Del).await.map(drop),
        None => Ok(()),
    }
}

/// The interface to remove, by whichever end could be found.
struct Found<'a> {
    link: Link,
    conn: Conn,
    /// None for the node's own namespace.
    namespace: Option<&'a Namespace>,
}

/// By the name that every attachment of ours has on the node; else, for one that the reference plugin made before we took its
/// place, by its name in the pod.
async fn find<'a>(
    request: &Request,
    node: &Conn,
    namespace: Option<&'a Namespace>,
) -> Result<Option<Found<'a>>, CniError> {
    let env = &request.env;
    let attachment =
        Attachment { network: &request.name, container_id: &env.container_id, ifname: &env.ifname };
    if let Some(link) = link::by_name(node, &attachment.host_interface()).await? {
        if attachment.progress(&link) != Progress::Foreign {
            return Ok(Some(Found { link, conn: node.clone(), namespace: None }));
        }
        log::warn!("{} on the node is a {} that is not ours: left alone", link.name, link.kind_name());
    }
    let Some(namespace) = namespace else { return Ok(None) };
    let conn = namespace.enter(Conn::open)??;
    match link::by_name(&conn, &env.ifname).await? {
        Some(link) if link.kind == Kind::Veth => Ok(Some(Found { link, conn, namespace: Some(namespace) })),
        Some(link) => {
            log::warn!("{} in the container is no veth but {}: left alone", link.name, link.kind_name());
            Ok(None)
        }
        None => Ok(None),
    }
}

impl Found<'_> {
    /// Before the address is given to another pod, this one must be silent.
    async fn take_down(&self) -> Result<(), NetError> {
        let down = link::Change { up: Some(false), ..Default::default() };
        match link::change(&self.conn, self.link.index, &down, || format!("take {} down", self.link.name))
            .await
        {
            Err(e) if e.not_found() => Ok(()),
            other => other,
        }
    }

    fn remove(self) -> Result<(), NetError> {
        let remover = match self.namespace {
            Some(namespace) => namespace.enter(Remover::open)??,
            None => Remover::open()?,
        };
        remover.remove(self.link.index, &self.link.name)
    }
}

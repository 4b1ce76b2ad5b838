//! DEL: link down, then IPAM DEL and removal of the link. Works with the namespace, the link, the bridge or
//! the uplink gone, and with a configuration that ADD would refuse.

use cni_conf::cni::env::Command;
use cni_conf::cni::error::CniError;
use cni_conf::cni::result::AddResult;
use cni_conf::ipam_plugin::IpamPlugin;
use cni_conf::network::Teardown;
use cni_conf::request::Request;
use kernel::link::{Kind, Link};
use kernel::remove::{DeferredClose, Remover};
use kernel::{Conn, Namespace, NetError, link, netns};
use serde_json::Value;

use super::set_down;
use crate::delegate::{Delegate, Running};
use crate::features::{self, MayHave};
use crate::ownership::{Attachment, Progress, is_attachment};
use crate::ports::AttachmentId;
use crate::record::Records;
use crate::{nat, pod, ports, refused, trunk};

/// Detaches a pod. An attachment that is gone, in part or whole, is no error. One that was made while the
/// network had another name is detached under that as well.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let node = Conn::open()?;
    let attachment = Attachment::of(request);
    let host = link::by_name(&node, &attachment.host_interface()).await?;
    if let Some(name) = former_name(&attachment, host.as_ref())? {
        log::warn!(
            "{} of container {} was attached to network {name}, and is detached from that",
            attachment.ifname,
            attachment.container_id
        );
        detach(&request.renamed(&name), &node, host).await?;
        detach(request, &node, None).await?;
    } else {
        detach(request, &node, host).await?;
    }
    Ok(None)
}

/// The name that the network had when the pod was attached, if that was another: the veth says so, or, where
/// it is gone, a record. An ADD that was refused because of another network's attachment is followed by a
/// DEL, too.
fn former_name(attachment: &Attachment<'_>, host: Option<&Link>) -> Result<Option<String>, CniError> {
    let veth = attachment.host_interface();
    if let Some(host) = host {
        return match attachment.other_network(host) {
            Some(name) if !refused::was(host.index, &veth, attachment.network)? => Ok(Some(name.to_owned())),
            _ => Ok(None),
        };
    }
    let is_its = |id: &AttachmentId| {
        (id.container_id.as_str(), id.ifname.as_str()) == (attachment.container_id, attachment.ifname)
    };
    let recorded = ports::of_veth(&veth)?.filter(is_its).map(|id| id.network);
    let records = [Records::of_this_node()?, Records::of_guards()?];
    let recorded = recorded.or_else(|| {
        let record = records.iter().find_map(|records| records.read(&veth))?;
        let of = record.attachment();
        let is_its = (of.container_id, of.ifname) == (attachment.container_id, attachment.ifname);
        is_its.then(|| record.network.clone())
    });
    Ok(recorded.filter(|network| network != attachment.network))
}

async fn detach(request: &Request, node: &Conn, host: Option<Link>) -> Result<(), CniError> {
    let (teardown, warnings) = Teardown::parse(request);
    for warning in warnings {
        log::warn!("{warning}");
    }
    let namespace = pod::namespace_if_usable(&request.env)?;
    let attachment = Attachment::of(request);
    // A result that cannot be read says nothing.
    let previous = request.prev_result().ok().flatten().unwrap_or_default();
    let host = NodeEnd::of(host, &attachment);
    let is_foreign = matches!(host, NodeEnd::Foreign);
    let found = match host {
        NodeEnd::Own(link) => Some(Found { link, conn: node.clone(), namespace: None }),
        NodeEnd::Foreign | NodeEnd::Gone => {
            find_in_pod(request, &teardown, node, namespace.as_ref(), &previous).await?
        }
    };
    // From here on nobody puts its port back.
    let forgotten = if is_foreign { Ok(()) } else { ports::delete_record(&attachment.host_interface()) };
    if let Some(found) = &found {
        set_down(&found.conn, &found.link, teardown.ipam.as_ref()).await?;
    }
    // Before the addresses can be another's. What fails here or below must not keep the rest; the runtime
    // repeats a DEL that failed.
    let (withdrawn, sockets) = if is_foreign {
        // Another network's attachment of the same container has the veth, and with it all that goes by its
        // name.
        (Ok(()), DeferredClose::default())
    } else {
        let device = teardown.has_uplink.then_some(teardown.device.as_str());
        let may_have = MayHave { host_routes: device, guard: teardown.has_guard, nat: teardown.has_nat };
        let detached = features::detach(node, &attachment, &may_have, &previous).await;
        let veth = attachment.host_interface();
        features::repair_and_log(node, detached.looked_after, Some(&veth)).await;
        (detached.outcome, detached.sockets)
    };
    let asked = ask_to_release(&teardown, request);
    let remove = || found.map_or(Ok(()), |found| found.remove(&sockets));
    let (released, removed) = if teardown.ipam.as_ref().is_some_and(IpamPlugin::is_ours) {
        // Ours never looks at the link, which is silent by now, so neither waits for the other.
        let removed = remove();
        (released(asked), removed)
    } else {
        (released(asked), remove())
    };
    removed?;
    nat::end_after_the_last(node).await;
    withdrawn?;
    forgotten?;
    if !is_foreign {
        refused::delete_record(&attachment.host_interface())?;
    }
    if let Some(trunk) = &teardown.trunk {
        trunk::leave(node, trunk).await?;
    }
    released
}

/// The veth's end on the node, as it was looked up by its name.
enum NodeEnd {
    /// This attachment's.
    Own(Link),
    /// Another network's of ours, or somebody else's. It is left alone.
    Foreign,
    Gone,
}

impl NodeEnd {
    fn of(link: Option<Link>, attachment: &Attachment<'_>) -> NodeEnd {
        match link {
            None => NodeEnd::Gone,
            Some(link) if attachment.progress(&link) != Progress::Foreign => NodeEnd::Own(link),
            Some(link) => {
                log::warn!(
                    "{} on the node is a {} with alias {:?}: left alone",
                    link.name,
                    link.kind_name(),
                    link.alias.as_deref().unwrap_or_default()
                );
                NodeEnd::Foreign
            }
        }
    }
}

/// Starts DEL of the IPAM plugin, where there is one.
fn ask_to_release(teardown: &Teardown, request: &Request) -> Result<Option<Running>, CniError> {
    let start = |ipam: &IpamPlugin| Delegate::find(ipam, request)?.start(Command::Del);
    teardown.ipam.as_ref().map(start).transpose()
}

fn released(asked: Result<Option<Running>, CniError>) -> Result<(), CniError> {
    asked?.map_or(Ok(()), Running::finish)
}

/// The interface to remove, by whichever end could be found.
struct Found<'a> {
    link: Link,
    conn: Conn,
    /// None for the node's own namespace.
    namespace: Option<&'a Namespace>,
}

/// The interface of an attachment that the reference plugin made before we took its place: by its name in the
/// pod.
async fn find_in_pod<'a>(
    request: &Request,
    teardown: &Teardown,
    node: &Conn,
    namespace: Option<&'a Namespace>,
    previous: &AddResult,
) -> Result<Option<Found<'a>>, CniError> {
    let Some(namespace) = namespace else { return Ok(None) };
    let conn = match namespace.enter(Conn::open) {
        Ok(conn) => conn?,
        Err(e) => {
            log::warn!("{e}");
            return Ok(None);
        }
    };
    let Some(link) = link::by_name(&conn, &request.env.ifname).await? else { return Ok(None) };
    if !is_the_references(teardown, node, namespace, &link, previous).await? {
        log::warn!("{} in the container is not this network's: left alone", link.name);
        return Ok(None);
    }
    Ok(Some(Found { link, conn, namespace: Some(namespace) }))
}

/// An ADD that was refused because the pod had such an interface is followed by a DEL as well, so the name
/// proves nothing: its other end must be a port of this network's bridge, or the one that the result of its
/// ADD named. And it must not be another network's of ours.
async fn is_the_references(
    teardown: &Teardown,
    node: &Conn,
    namespace: &Namespace,
    container: &Link,
    previous: &AddResult,
) -> Result<bool, CniError> {
    let (Kind::Veth, Some(parent)) = (&container.kind, container.parent) else { return Ok(false) };
    let Some(host) = link::by_index(node, parent).await? else { return Ok(false) };
    // Indexes of different namespaces coincide all the time.
    let pods_id = netns::id_of(node, namespace).await?;
    let is_other_end = host.parent == Some(container.index) && host.parent_namespace == pods_id;
    if !is_other_end || is_attachment(&host) {
        return Ok(false);
    }
    let bridge = link::by_name(node, &teardown.bridge).await?;
    if host.master.is_some() && host.master == bridge.map(|bridge| bridge.index) {
        return Ok(true);
    }
    Ok(previous.interfaces.iter().any(|interface| interface.name == host.name && interface.sandbox.is_none()))
}

impl Found<'_> {
    fn remove(self, sockets: &DeferredClose) -> Result<(), NetError> {
        let remover = match self.namespace {
            Some(namespace) => namespace.enter(Remover::open)??,
            None => Remover::open()?,
        };
        remover.remove(self.link.index, &self.link.name, sockets)
    }
}

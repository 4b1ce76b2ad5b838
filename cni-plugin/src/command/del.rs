//! DEL: sets the link down, calls IPAM's DEL and removes the link. It works if the namespace, the link, the
//! bridge or the uplink is gone, and with a configuration that ADD would refuse.

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
use crate::features::{self, PossibleFeatures};
use crate::ownership::{Attachment, Progress, is_attachment};
use crate::ports::AttachmentId;
use crate::record::{GuardRecord, NatRecord, Records};
use crate::{nat, pod, ports, refused, trunk};

/// Detaches a pod. An attachment that is gone in part or as a whole is no error. If the network was renamed
/// since ADD, the attachment is detached under the old name as well.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let node = Conn::open()?;
    let attachment = Attachment::of(request);
    let host = link::by_name(&node, &attachment.host_interface()).await?;
    if let Some(name) = former_name(&attachment, host.as_ref())? {
        log::warn!(
            "{} of container {} was attached to network {name}: detaching it from that network",
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

/// The network's name at ADD, if it was different. The veth's alias has it; if the veth is gone, a record
/// has it. After an ADD that was refused because of another network's attachment, the runtime also calls
/// DEL.
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
    let (nat, guards) = (Records::<NatRecord>::of_this_node()?, Records::<GuardRecord>::of_this_node()?);
    let recorded = recorded.or_else(|| {
        let with_nat = nat.read(&veth).map(|record| record.pod.clone());
        let pod = with_nat.or_else(|| guards.read(&veth).map(|record| record.pod.clone()))?;
        let is_its =
            (pod.container_id.as_str(), pod.ifname.as_str()) == (attachment.container_id, attachment.ifname);
        is_its.then_some(pod.network)
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
    // An unreadable result counts as none.
    let previous = request.prev_result().ok().flatten().unwrap_or_default();
    let host = NodeEnd::of(host, &attachment);
    let is_foreign = matches!(host, NodeEnd::Foreign);
    let found = match host {
        NodeEnd::Own(link) => Some(Found { link, conn: node.clone(), namespace: None }),
        NodeEnd::Foreign | NodeEnd::Gone => {
            find_in_pod(request, &teardown, node, namespace.as_ref(), &previous).await?
        }
    };
    // Without its record, the port is no longer repaired.
    let record_deleted = if is_foreign { Ok(()) } else { ports::delete_record(&attachment.host_interface()) };
    if let Some(found) = &found {
        set_down(&found.conn, &found.link, teardown.ipam.as_ref()).await?;
    }
    // Before the addresses can be allocated again. A failure here or below must not keep the rest from
    // being removed. The runtime repeats a failed DEL.
    let (detached, sockets) = if is_foreign {
        // Another network's attachment of the same container owns the veth and everything recorded by its
        // name.
        (Ok(()), DeferredClose::default())
    } else {
        let device = teardown.has_uplink.then_some(teardown.device.as_str());
        let possible =
            PossibleFeatures { host_routes: device, guard: teardown.has_guard, nat: teardown.has_nat };
        let features = features::detach(node, &attachment, &possible, &previous).await;
        let veth = attachment.host_interface();
        features::repair_and_log(node, features.already_repaired, Some(&veth)).await;
        (features.outcome, features.sockets)
    };
    let asked = ask_to_release(&teardown, request);
    let remove = || found.map_or(Ok(()), |found| found.remove(&sockets));
    let (released, removed) = if teardown.ipam.as_ref().is_some_and(IpamPlugin::is_ours) {
        // `vlan-bridge-ipam` never looks at the link, which is down by now. So neither waits for the other.
        let removed = remove();
        (released(asked), removed)
    } else {
        (released(asked), remove())
    };
    removed?;
    nat::remove_unused_table_and_log(node).await;
    detached?;
    record_deleted?;
    if !is_foreign {
        refused::delete_record(&attachment.host_interface())?;
    }
    if let Some(trunk) = &teardown.trunk {
        trunk::leave(node, trunk).await?;
    }
    released
}

/// The veth's node end, looked up by name.
enum NodeEnd {
    /// It belongs to this attachment.
    Own(Link),
    /// It belongs to another vlan-bridge network, or to another program. DEL does not touch it.
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
                    "{} on the node is a {} with alias {:?}: not removed",
                    link.name,
                    link.kind_name(),
                    link.alias.as_deref().unwrap_or_default()
                );
                NodeEnd::Foreign
            }
        }
    }
}

/// Starts the IPAM plugin's DEL, if there is an IPAM plugin.
fn ask_to_release(teardown: &Teardown, request: &Request) -> Result<Option<Running>, CniError> {
    let start = |ipam: &IpamPlugin| Delegate::find(ipam, request)?.start(Command::Del);
    teardown.ipam.as_ref().map(start).transpose()
}

fn released(asked: Result<Option<Running>, CniError>) -> Result<(), CniError> {
    asked?.map_or(Ok(()), Running::finish)
}

/// The interface to remove, found by either end.
struct Found<'a> {
    link: Link,
    conn: Conn,
    /// None for the node's own namespace.
    namespace: Option<&'a Namespace>,
}

/// Finds the interface of an attachment that the reference plugin made before vlan-bridge replaced it, by
/// its name in the pod.
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
    if !is_reference_plugins(teardown, node, namespace, &link, previous).await? {
        log::warn!("{} in the container does not belong to this network: not removed", link.name);
        return Ok(None);
    }
    Ok(Some(Found { link, conn, namespace: Some(namespace) }))
}

/// Whether the interface belongs to the reference plugin's attachment. The name alone proves nothing: the
/// runtime also calls DEL after an ADD that was refused because the pod had such an interface. The other
/// end must be a port of this network's bridge, or the result of ADD must name it. It must not belong to
/// another vlan-bridge network.
async fn is_reference_plugins(
    teardown: &Teardown,
    node: &Conn,
    namespace: &Namespace,
    container: &Link,
    previous: &AddResult,
) -> Result<bool, CniError> {
    let (Kind::Veth, Some(parent)) = (&container.kind, container.parent) else { return Ok(false) };
    let Some(host) = link::by_index(node, parent).await? else { return Ok(false) };
    // Interface indexes of different namespaces often coincide.
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

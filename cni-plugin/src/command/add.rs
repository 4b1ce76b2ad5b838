//! ADD: bridge and uplink, then veth and IPAM side by side, then addresses, routes and announcements.

use std::net::IpAddr;

use cni_conf::cni::env::Command;
use cni_conf::cni::error::{CniError, code};
use cni_conf::cni::result::{AddResult, Interface, convertible};
use cni_conf::ipam_plugin::IpamPlugin;
use cni_conf::network::Network;
use cni_conf::request::Request;
use kernel::link::Link;
use kernel::{Conn, Namespace, NetError, link, remove, route};
use serde_json::Value;

use super::set_down;
use crate::apply;
use crate::delegate::{Delegate, Running};
use crate::features::{self, LookedAfter, MayHave};
use crate::guard::{self, Guard};
use crate::host_access::{self, HostRoutes, VethPair};
use crate::nat::{self, Nat};
use crate::ownership::{Attachment, Progress};
use crate::plan::nat::check_ports;
use crate::plan::observed::BridgeAndUplink;
use crate::plan::pod::complete;
use crate::plan::uplink;
use crate::pod::{self, Pod};
use crate::record::Record;
use crate::undo::UndoLog;
use crate::{boundary, config, gateway, ports, refused, requested_mac, trunk};

mod veth;

/// How often an address that a killed ADD of the same attachment left behind is given back and asked for
/// anew.
const LEASE_ATTEMPTS: usize = 3;

/// Attaches a pod and returns the result for stdout.
pub async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let added = add(request).await;
    if added.is_err() {
        refused::note(request).await;
    }
    added
}

async fn add(request: &Request) -> Result<Option<Value>, CniError> {
    let network = config::checked(request)?;
    check_ports(&network.ports)?;
    if network.ipam.is_none() {
        convertible(request.version, 0, 0)?;
    }
    let delegate = network.ipam.as_ref().map(|ipam| Delegate::find(ipam, request)).transpose()?;
    let namespace = pod::required_namespace(&request.env, code::INVALID_ENVIRONMENT)?;
    let _lock = namespace.lock()?;
    let node = Conn::open()?;
    let pod = Pod::open(&namespace)?;
    let nat = Nat::needed_by(&network)?;
    let guard = network.guard.is_some().then(Guard::open).transpose()?;
    if let Some(guard) = &guard {
        guard.probe()?;
    }
    let add = Add { request, network, delegate, node, pod, namespace, nat, guard };
    requested_mac::check(&add.node, &add.network, request, &add.attachment()).await?;
    if let Some(nat) = &add.nat {
        // First of all: the kernel may lack what it takes.
        nat.prepare(&add.node, &add.attachment().host_interface()).await?;
    }
    let added = add.run().await;
    if let (Err(_), Some(nat)) = (&added, &add.nat)
        && let Err(also) = nat.end_with_the_last(&add.node, None, None).await
    {
        log::error!("{also}");
    }
    added.map(Some)
}

struct Add<'a> {
    request: &'a Request,
    network: Network,
    delegate: Option<Delegate>,
    node: Conn,
    pod: Pod,
    namespace: Namespace,
    /// None where the configuration asks for nothing of the kind.
    nat: Option<Nat>,
    /// None where a pod may send anything.
    guard: Option<Guard>,
}

impl Add<'_> {
    fn attachment(&self) -> Attachment<'_> {
        Attachment::of(self.request)
    }

    /// What fails half way is taken back.
    async fn run(&self) -> Result<Value, CniError> {
        self.clear_leftovers().await?;
        let seen = apply::ensure_uplink(&self.node, &self.network).await?;
        boundary::ensure(&self.node, &self.network).await?;
        let looked_after = LookedAfter { guard: self.guard.is_some(), nat: self.nat.is_some() };
        features::repair_and_log(&self.node, looked_after, None).await;
        let mut undo = UndoLog::default();
        let attached = self.attach(&seen, &mut undo).await;
        if attached.is_err() {
            if let Err(e) = ports::delete_record(&self.attachment().host_interface()) {
                log::error!("{e}");
            }
            self.set_down().await;
            undo.unwind().await;
            if let Err(e) = boundary::remove_absent(&self.node, &self.network).await {
                log::error!("{e}");
            }
            if let Some(trunk) = self.network.trunk()
                && let Err(also) = trunk::leave(&self.node, &trunk).await
            {
                log::error!("could not leave the VLANs of {}: {also}", trunk.master);
            }
        }
        attached
    }

    /// Refuses an interface that is there, and clears away what an ADD of this attachment left that was
    /// killed.
    async fn clear_leftovers(&self) -> Result<(), CniError> {
        let ifname = &self.request.env.ifname;
        let name = self.attachment().host_interface();
        let host = link::by_name(&self.node, &name).await?;
        if let Some(host) = &host {
            let refuse = |why: String| Err(CniError::new(code::INTERFACE_EXISTS, why));
            match self.attachment().progress(host) {
                Progress::Adding => {}
                Progress::Ready => {
                    let id = &self.request.env.container_id;
                    return refuse(format!(
                        "container {id} has interface {ifname} already: {name} on the node"
                    ));
                }
                Progress::Foreign => {
                    return refuse(format!(
                        "{name}, the name of the veth's end on the node, is taken by a {} with alias {:?}",
                        host.kind_name(),
                        host.alias.as_deref().unwrap_or_default()
                    ));
                }
            }
            log::warn!("{name} is left of an ADD that did not end: clearing it and its address away");
            ports::delete_record(&name)?;
            self.set_down().await;
        }
        // Also of one whose veth has gone since, with its namespace.
        let device = self.network.node_device();
        let may_have = MayHave {
            host_routes: host.as_ref().map(|_| device.as_str()),
            guard: self.guard.is_some(),
            nat: false,
        };
        let nothing = AddResult::default();
        features::detach(&self.node, &self.attachment(), &may_have, &nothing).await.outcome?;
        if let Some(host) = host {
            if let Some(delegate) = &self.delegate {
                delegate.call(Command::Del)?;
            }
            remove::link(&self.node, host.index, &name).await?;
        }
        if let Some(other) = link::by_name(&self.pod.conn, ifname).await? {
            return Err(CniError::new(
                code::INTERFACE_EXISTS,
                format!(
                    "CNI_IFNAME: the container has an interface {ifname} already, a {}",
                    other.kind_name()
                ),
            ));
        }
        Ok(())
    }

    /// Before its address is given back, a pod must be silent; a link that is gone is.
    async fn set_down(&self) {
        let name = self.attachment().host_interface();
        let silenced = match link::by_name(&self.node, &name).await {
            Ok(Some(host)) => set_down(&self.node, &host, self.network.ipam.as_ref()).await,
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = silenced {
            log::error!("{e}");
        }
    }

    async fn attach<'a>(&'a self, seen: &BridgeAndUplink, undo: &mut UndoLog<'a>) -> Result<Value, CniError> {
        let bridge = seen.bridge.as_ref().ok_or_else(|| NetError::gone(&self.network.bridge))?;
        let mtu = uplink::pod_mtu(&self.network, seen);
        let ((host, container), node_side, leased) = self.make_veth_and_lease(bridge, mtu, undo).await?;
        let mut result = leased.unwrap_or_default();
        result.interfaces = self.interfaces(bridge, &host, &container, node_side.as_ref());
        result = complete(&self.network, result, CONTAINER_INTERFACE);
        // What cannot be said in the caller's version must not be set up.
        let document = result.to_json(self.request.version)?;
        let device = node_side.as_ref().unwrap_or(bridge);
        let mut record = self.record(device, &container, &result);
        // First, for duplicate address detection speaks of them.
        if let Some(guard) = &self.guard {
            let limits = guard::limits(&self.network);
            let guarded = Record { guard: limits, masquerade: false, ports: Vec::new(), ..record.clone() };
            guard.allow_addresses(&self.node, &guarded).await?;
        }
        self.pod.configure(&self.network, &container, &result).await?;
        if self.network.is_gateway {
            gateway::install(&self.node, &self.network, &self.attachment(), bridge, device, &result).await?;
        }
        let pair =
            VethPair { device, host: &host, container: &container, metric: self.attachment().metric() };
        let routes = self.install_host_routes(&pair, &result, &record, undo).await?;
        let has_host_routes = routes.is_some();
        if let Some(routes) = routes.filter(|_| self.network.has_nat()) {
            record.sources = routes.sources();
        }
        if let Some(nat) = &self.nat {
            // Whatever it fails at, some of it may be there.
            let veth = host.name.clone();
            undo.push(format!("packet filter of {veth}"), async move {
                nat::detach(&self.node, &veth, true).await.map(drop)
            });
            nat.install(&self.node, record).await?;
        }
        self.pod.announce(&self.node, &host, &container, &result).await;
        ports::write_record(self.request, &self.network, container.mac, &result, has_host_routes)?;
        // The kernel refuses the master in it if the bridge has gone meanwhile.
        let ready = link::Change {
            alias: Some(self.attachment().alias_when_ready()),
            master: Some(bridge.index),
            ..Default::default()
        };
        self.set_host(&host, ready).await?;
        // A port that passes frames by now has been given it. Where the pod's end is brought up later it
        // stays, which costs time only.
        if let Err(e) = route::delete_multicast_route(&self.node, host.index).await {
            log::debug!("{e}");
        }
        Ok(document)
    }

    /// Both ends of the veth, the node's own device in the pod's VLAN, and what IPAM gave.
    async fn make_veth_and_lease<'a>(
        &'a self,
        bridge: &Link,
        mtu: Option<u32>,
        undo: &mut UndoLog<'a>,
    ) -> Result<((Link, Link), Option<Link>, Option<AddResult>), CniError> {
        let is_ours = self.network.ipam.as_ref().is_some_and(IpamPlugin::is_ours);
        if !is_ours || self.network.port_vlans.is_some() {
            // Any other may want a finished interface there, dhcp for one. Ours probes from the node's side
            // of the VLAN.
            let made = self.make_veth(bridge, mtu, undo).await?;
            let node_side = trunk::join(&self.node, &self.network, &made.0).await?;
            return Ok((made, node_side, self.lease(self.ask_for_lease()?, undo)?));
        }
        // Ours never looks into the pod.
        match self.ask_for_lease()? {
            Some(ended @ Running::Ended(_)) => {
                let leased = self.lease(Some(ended), undo)?;
                Ok((self.make_veth(bridge, mtu, undo).await?, None, leased))
            }
            // A process works while the kernel makes the veth.
            asked => {
                let made = self.make_veth(bridge, mtu, undo).await;
                let leased = self.lease(asked, undo);
                Ok((made?, None, leased?))
            }
        }
    }

    /// The routes between the pod and its node, if the attachment gets any.
    async fn install_host_routes<'a>(
        &'a self,
        pair: &VethPair<'_>,
        result: &AddResult,
        record: &Record,
        undo: &mut UndoLog<'a>,
    ) -> Result<Option<HostRoutes>, CniError> {
        let Some(wanted) = &self.network.host_access else { return Ok(None) };
        let is_asked_for = wanted.asked_for || !self.network.ports.is_empty();
        if !is_asked_for && host_access::has_foreign_network(&self.pod.conn, pair.container).await? {
            return Ok(None);
        }
        let pods: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.addr()).collect();
        let routes = host_access::host_routes(&self.node, wanted, pair.device, &pods).await?;
        host_access::check_free(&self.node, pair.device, &routes).await?;
        host_access::install(&self.node, &self.pod, pair, &routes, record, undo).await?;
        Ok(Some(routes))
    }

    /// Starts ADD of the IPAM plugin; none for a layer 2 attachment.
    fn ask_for_lease(&self) -> Result<Option<Running>, CniError> {
        self.delegate.as_ref().map(|delegate| delegate.start(Command::Add)).transpose()
    }

    /// The addresses that were asked for. A failed ADD of IPAM is followed by its DEL, as the specification
    /// asks.
    fn lease<'a>(
        &'a self,
        asked: Option<Running>,
        undo: &mut UndoLog<'a>,
    ) -> Result<Option<AddResult>, CniError> {
        let (Some(mut asked), Some(delegate)) = (asked, &self.delegate) else { return Ok(None) };
        for attempt in 1.. {
            match asked.added(self.request.version) {
                Ok(result) => {
                    undo.push(format!("lease of {delegate:?}"), async { delegate.call(Command::Del) });
                    if result.ips.is_empty() {
                        return Err(CniError::new(code::DELEGATE_FAILED, "the ipam plugin gave no address"));
                    }
                    return Ok(Some(result));
                }
                // It has given nothing, and its DEL would wait for the same lock as long again.
                Err(e) if e.code == code::TRY_AGAIN_LATER && delegate.is_ours() => return Err(e),
                Err(e) => {
                    if let Err(also) = delegate.call(Command::Del) {
                        log::error!("after a failed ADD, the ipam plugin's DEL failed as well: {also}");
                    }
                    // An ADD of this attachment was killed after its address was taken and before its veth
                    // was made.
                    if e.code != code::ALREADY_ALLOCATED || attempt == LEASE_ATTEMPTS {
                        return Err(e);
                    }
                    asked = delegate.start(Command::Add)?;
                }
            }
        }
        Ok(None)
    }

    fn record(&self, device: &Link, container: &Link, result: &AddResult) -> Record {
        Record {
            network: self.request.name.clone(),
            container_id: self.request.env.container_id.clone(),
            ifname: self.request.env.ifname.clone(),
            netns: self.namespace.path().to_owned(),
            device: device.name.clone(),
            bridge: (device.name != self.network.bridge).then(|| self.network.bridge.clone()),
            mac: container.mac,
            addresses: result.ips.iter().map(|ip| ip.address).collect(),
            masquerade: self.network.masquerade,
            direct: self.network.allow_direct_routing,
            gateway: self.network.is_gateway,
            ports: self.network.ports.clone(),
            sources: Vec::new(),
            localhost: None,
            services: self.network.services().to_vec(),
            followers: Vec::new(),
            guard: None,
        }
    }

    async fn set_host(&self, host: &Link, change: link::Change) -> Result<(), NetError> {
        link::change(&self.node, host.index, &change, || format!("change interface {}", host.name)).await
    }

    /// In the reference plugin's order: last the gateway's interface, where that is the node's side of a
    /// VLAN.
    fn interfaces(
        &self,
        bridge: &Link,
        host: &Link,
        container: &Link,
        node_side: Option<&Link>,
    ) -> Vec<Interface> {
        let report = |link: &Link, sandbox: Option<&str>| Interface {
            name: link.name.clone(),
            mac: link.mac.map(|mac| mac.to_string()),
            mtu: Some(link.mtu),
            sandbox: sandbox.map(str::to_owned),
            ..Interface::default()
        };
        let pod = report(container, Some(self.namespace.path()));
        let gateway = node_side.filter(|_| self.network.is_gateway).map(|side| report(side, None));
        [report(bridge, None), report(host, None), pod].into_iter().chain(gateway).collect()
    }
}

/// Index of the container's interface in the result.
const CONTAINER_INTERFACE: usize = 2;

//! ADD: bridge and uplink, then veth and IPAM in parallel, then addresses, routes and announcements.

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
use crate::deadline::Deadline;
use crate::delegate::{Delegate, Running};
use crate::features::{self, AlreadyRepaired, PossibleFeatures};
use crate::guard::{self, GuardTable};
use crate::host_access::{self, HostRoutes, VethPair};
use crate::nat::{self, Nat};
use crate::ownership::{Attachment, Progress};
use crate::plan::nat::check_ports;
use crate::plan::observed::BridgeAndUplink;
use crate::plan::pod::complete;
use crate::plan::uplink;
use crate::pod::{self, Pod};
use crate::record::{GuardRecord, NatRecord, PodInterface};
use crate::undo::UndoLog;
use crate::{boundary, config, gateway, ports, refused, requested_mac, trunk};

mod veth;

/// How often ADD releases an address that a killed ADD of the same attachment left behind, and requests a
/// new one.
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
    let deadline = Deadline::begin(&network);
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
    let guard = network.guard.is_some().then(GuardTable::open).transpose()?;
    if let Some(guard) = &guard {
        guard.probe()?;
    }
    let add = Add { request, network, deadline, delegate, node, pod, namespace, nat, guard };
    requested_mac::check(&add.node, &add.network, request, &add.attachment()).await?;
    if let Some(nat) = &add.nat {
        // First, because the kernel may lack a required module.
        nat.prepare(&add.node, &add.attachment().host_interface()).await?;
    }
    let already_repaired = AlreadyRepaired { guard: add.guard.is_some(), nat: add.nat.is_some() };
    features::repair_rules_and_log(&add.node, already_repaired, None).await;
    let added = add.run().await;
    if let (Err(_), Some(nat)) = (&added, &add.nat)
        && let Err(also) = nat.remove_table_if_unused(&add.node, None, None).await
    {
        log::error!("{also}");
    }
    added.map(Some)
}

struct Add<'a> {
    request: &'a Request,
    network: Network,
    deadline: Deadline,
    delegate: Option<Delegate>,
    node: Conn,
    pod: Pod,
    namespace: Namespace,
    /// None if the configuration needs no packet filter rules.
    nat: Option<Nat>,
    /// None if the pod's traffic is not restricted.
    guard: Option<GuardTable>,
}

impl Add<'_> {
    fn attachment(&self) -> Attachment<'_> {
        Attachment::of(self.request)
    }

    /// Attaches the pod. After a failure, everything done so far is undone.
    async fn run(&self) -> Result<Value, CniError> {
        self.clear_leftovers().await?;
        let seen = apply::ensure_uplink(&self.node, &self.network).await?;
        boundary::ensure(&self.node, &self.network).await?;
        features::repair_links_and_log(&self.node, seen.bridge.as_ref()).await;
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

    /// Returns an error if the interface exists already. Removes the leftovers of a killed ADD of this
    /// attachment.
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
                        "container {id} already has interface {ifname}: {name} on the node"
                    ));
                }
                Progress::Foreign => {
                    return refuse(format!(
                        "{name}, the name of the veth's node end, is already used by a {} with alias {:?}",
                        host.kind_name(),
                        host.alias.as_deref().unwrap_or_default()
                    ));
                }
            }
            log::warn!("{name} is left over from an interrupted ADD: removing it and releasing its address");
            ports::delete_record(&name)?;
            self.set_down().await;
        }
        // Also removes leftovers of an ADD whose veth has gone with its network namespace.
        let device = self.network.node_device();
        let possible = PossibleFeatures {
            host_routes: host.as_ref().map(|_| device.as_str()),
            guard: self.guard.is_some(),
            nat: false,
        };
        let nothing = AddResult::default();
        features::detach(&self.node, &self.attachment(), &possible, &nothing).await.outcome?;
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
                    "CNI_IFNAME: the container already has an interface {ifname}, a {}",
                    other.kind_name()
                ),
            ));
        }
        Ok(())
    }

    /// Sets the pod's link down before its address is released. A link that is gone needs nothing.
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
        // Fails before the pod is configured if the CNI version of the caller cannot express the result.
        let document = result.to_json(self.request.version)?;
        let device = node_side.as_ref().unwrap_or(bridge);
        let interface = self.pod_interface(device, &container, &result);
        // Before the pod is configured, because duplicate address detection sends from these addresses.
        if let (Some(guard), Some(limits)) = (&self.guard, guard::limits(&self.network)) {
            let record = GuardRecord { pod: interface.clone(), limits };
            guard.allow_addresses(&self.node, &record).await?;
        }
        self.deadline.check()?;
        self.pod.configure(&self.network, &container, &result).await?;
        if self.network.is_gateway {
            gateway::install(&self.node, &self.network, &self.attachment(), bridge, device, &result).await?;
        }
        let pair =
            VethPair { device, host: &host, container: &container, metric: self.attachment().metric() };
        let routes = self.install_host_routes(&pair, &result, &interface, undo).await?;
        let has_host_routes = routes.is_some();
        if let Some(nat) = &self.nat {
            // Registered first, because a failed `install` may leave some rules behind.
            let veth = host.name.clone();
            undo.push(format!("packet filter of {veth}"), async move {
                nat::detach(&self.node, &veth, true).await.map(drop)
            });
            nat.install(&self.node, self.nat_record(interface, routes.as_ref())).await?;
        }
        self.pod.announce(&self.node, &host, &container, &result).await;
        ports::write_record(self.request, &self.network, container.mac, &result, has_host_routes)?;
        // The kernel refuses the change if the bridge is gone by now.
        let ready = link::Change {
            alias: Some(self.attachment().alias_when_ready()),
            master: Some(bridge.index),
            ..Default::default()
        };
        self.set_host(&host, ready).await?;
        // If the port forwards already, the kernel has added its multicast route. If the pod's end comes up
        // later, the route stays. That only costs time.
        if let Err(e) = route::delete_multicast_route(&self.node, host.index).await {
            log::debug!("{e}");
        }
        self.deadline.check()?;
        Ok(document)
    }

    /// Makes both ends of the veth and the node's own device in the pod's VLAN, and requests the addresses
    /// from IPAM.
    async fn make_veth_and_lease<'a>(
        &'a self,
        bridge: &Link,
        mtu: Option<u32>,
        undo: &mut UndoLog<'a>,
    ) -> Result<((Link, Link), Option<Link>, Option<AddResult>), CniError> {
        let is_ours = self.network.ipam.as_ref().is_some_and(IpamPlugin::is_ours);
        if !is_ours || self.network.port_vlans.is_some() {
            // Other IPAM plugins may need a finished interface (dhcp, for example). `vlan-bridge-ipam`
            // probes from the node's side of the VLAN.
            let made = self.make_veth(bridge, mtu, undo).await?;
            let node_side = trunk::join(&self.node, &self.network, &made.0).await?;
            return Ok((made, node_side, self.lease(self.ask_for_lease()?, undo)?));
        }
        // `vlan-bridge-ipam` never enters the pod's network namespace.
        match self.ask_for_lease()? {
            Some(ended @ Running::Ended(_)) => {
                let leased = self.lease(Some(ended), undo)?;
                Ok((self.make_veth(bridge, mtu, undo).await?, None, leased))
            }
            // The IPAM process runs while the kernel makes the veth.
            asked => {
                let made = self.make_veth(bridge, mtu, undo).await;
                let leased = self.lease(asked, undo);
                Ok((made?, None, leased?))
            }
        }
    }

    /// Installs the routes between the pod and its node, if the attachment has any.
    async fn install_host_routes<'a>(
        &'a self,
        pair: &VethPair<'_>,
        result: &AddResult,
        interface: &PodInterface,
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
        host_access::install(&self.node, &self.pod, pair, &routes, interface, undo).await?;
        Ok(Some(routes))
    }

    /// Starts the IPAM plugin's ADD. A layer 2 attachment has none.
    fn ask_for_lease(&self) -> Result<Option<Running>, CniError> {
        self.delegate.as_ref().map(|delegate| delegate.start(Command::Add)).transpose()
    }

    /// Waits for the requested addresses. A failed ADD of the IPAM plugin is followed by its DEL, as the
    /// specification requires.
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
                        return Err(CniError::new(
                            code::DELEGATE_FAILED,
                            "the IPAM plugin returned no address",
                        ));
                    }
                    return Ok(Some(result));
                }
                // It has allocated nothing, and its DEL would wait as long for the same lock.
                Err(e) if e.code == code::TRY_AGAIN_LATER && delegate.is_ours() => return Err(e),
                Err(e) => {
                    if let Err(also) = delegate.call(Command::Del) {
                        log::error!("after a failed ADD, the IPAM plugin's DEL failed as well: {also}");
                    }
                    // An earlier ADD of this attachment was killed after it allocated an address and before
                    // it made the veth.
                    if e.code != code::ALREADY_ALLOCATED || attempt == LEASE_ATTEMPTS {
                        return Err(e);
                    }
                    asked = delegate.start(Command::Add)?;
                }
            }
        }
        Ok(None)
    }

    fn pod_interface(&self, device: &Link, container: &Link, result: &AddResult) -> PodInterface {
        PodInterface {
            network: self.request.name.clone(),
            container_id: self.request.env.container_id.clone(),
            ifname: self.request.env.ifname.clone(),
            netns: self.namespace.path().to_owned(),
            device: device.name.clone(),
            bridge: (device.name != self.network.bridge).then(|| self.network.bridge.clone()),
            mac: container.mac,
            addresses: result.ips.iter().map(|ip| ip.address).collect(),
        }
    }

    fn nat_record(&self, pod: PodInterface, routes: Option<&HostRoutes>) -> NatRecord {
        let sources = routes.filter(|_| self.network.has_nat()).map(HostRoutes::sources);
        NatRecord {
            pod,
            masquerade: self.network.masquerade,
            direct: self.network.allow_direct_routing,
            gateway: self.network.is_gateway,
            ports: self.network.ports.clone(),
            sources: sources.unwrap_or_default(),
            localhost: None,
            services: self.network.services().to_vec(),
            followers: Vec::new(),
        }
    }

    async fn set_host(&self, host: &Link, change: link::Change) -> Result<(), NetError> {
        link::change(&self.node, host.index, &change, || format!("change interface {}", host.name)).await
    }

    /// In the reference plugin's order. The gateway's interface comes last if it is the node's side of a
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

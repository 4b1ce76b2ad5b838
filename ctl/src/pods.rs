//! The pods of a node, as values: from their ports, their leases and their records.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use cni_conf::ports::PortMapping;
use serde_json::{Value, json};
use vlan_bridge::ownership::{Attachment, Progress, attachment_of};
use vlan_bridge_ipam::store::{Holder, Known};

use crate::facts::{Facts, state};
use crate::output::printable;

/// Every attached pod, and every lease without an attached pod.
pub(crate) fn pods(facts: &Facts) -> Vec<Value> {
    let mut by_veth: BTreeMap<String, Value> = BTreeMap::new();
    for link in facts.attachments() {
        let bridge = facts.links.iter().find(|other| Some(other.index) == link.master);
        let mut value = json!({"addresses": [], "interface": null, "port": link.name,
            "bridge": bridge.map(|bridge| &bridge.name), "state": state(link)});
        if let Some(attachment) = attachment_of(link) {
            value["network"] = attachment.network.into();
            value["interface"] = attachment.ifname.into();
            value["container"] = attachment.container_id.into();
            if attachment.progress(link) == Progress::Adding {
                value["state"] = "adding".into();
            }
        }
        if let Some(record) = facts.records.get(&link.name) {
            value["masquerade"] = record.masquerade.into();
            value["hostPorts"] = record.ports.iter().map(PortMapping::to_json).collect();
        }
        by_veth.insert(link.name.clone(), value);
    }
    let listed = facts.networks.iter().map(|seen| (&seen.config.name, &seen.leases));
    for (network, leases) in listed.chain(facts.unlisted.iter().map(|(name, leases)| (name, leases))) {
        for (addr, known) in &leases.held {
            let (veth, named) = holder(network, known);
            let value = by_veth.entry(veth).or_insert(named);
            if let Some(addresses) = value["addresses"].as_array_mut() {
                addresses.push(addr.to_string().into());
            }
            if let Some(pod) = known.record.as_ref().and_then(|record| record.pod.as_ref()) {
                value["pod"] = pod.to_string().into();
            }
        }
    }
    let mut pods: Vec<Value> = by_veth.into_values().collect();
    pods.sort_by_cached_key(|pod| {
        let network = pod["network"].as_str().unwrap_or_default().to_owned();
        (network, addresses(pod).first().and_then(|address| address.parse::<IpAddr>().ok()))
    });
    pods
}

/// The name of the holder's veth, and its line if the veth does not exist.
fn holder(network: &str, known: &Known) -> (String, Value) {
    let mut value =
        json!({"addresses": [], "network": network, "port": null, "bridge": null, "state": "detached"});
    if known.elsewhere.is_some() {
        value["state"] = "on another machine".into();
    }
    match &known.holder {
        Holder::Attachment(owner) => {
            value["interface"] = owner.ifname.as_str().into();
            value["container"] = owner.container_id.as_str().into();
            let attachment = Attachment::new(network, &owner.container_id, &owner.ifname);
            (attachment.host_interface(), value)
        }
        Holder::Container(id) => {
            value["container"] = id.as_str().into();
            (format!("container {id}"), value)
        }
        Holder::Empty | Holder::Unreadable => ("unreadable".into(), value),
    }
}

/// The pod's name, else the beginning of its container's id, which is enough to tell containers apart.
pub(crate) fn name(pod: &Value) -> Cow<'_, str> {
    let container = || {
        let id = pod["container"].as_str().unwrap_or("-");
        id.char_indices().nth(13).map_or(id, |(end, _)| &id[..end])
    };
    printable(pod["pod"].as_str().unwrap_or_else(container))
}

/// Its addresses.
pub(crate) fn addresses(pod: &Value) -> Vec<&str> {
    pod["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Its host ports, such as `8080->80/tcp, 53->53/udp`.
pub(crate) fn host_ports(pod: &Value) -> String {
    let ports: Vec<String> = pod["hostPorts"].as_array().into_iter().flatten().map(port).collect();
    ports.join(", ")
}

/// A host port such as `8080->80/tcp`, with the node's address if it is limited to one.
fn port(mapping: &Value) -> String {
    let ip = mapping["hostIP"].as_str().map_or(String::new(), |ip| format!("{ip}:"));
    let protocol = mapping["protocol"].as_str().unwrap_or("tcp");
    format!("{ip}{}->{}/{protocol}", mapping["hostPort"], mapping["containerPort"])
}

//! The record of an attachment with host routes.

use std::net::IpAddr;

use cni_conf::cni::error::CniError;
use cni_conf::section::{Section, parse_ip};
use serde_json::Value;

use super::pod::{PodInterface, parse_list, texts};
use super::{PerDevice, Record};
use crate::ownership::Attachment;

/// An attachment's host routes on one device of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoutesRecord {
    /// The pod's interface, with those of its addresses that have a route.
    pub pod: PodInterface,
    /// The node's source address of each family.
    pub sources: Vec<IpAddr>,
    /// The node's addresses that the pod has routes to. None in records of older versions.
    pub node_addresses: Option<Vec<IpAddr>>,
}

impl Record for HostRoutesRecord {
    /// The name of earlier releases.
    const FOLDER: &'static str = "ways";

    fn attachment(&self) -> Attachment<'_> {
        self.pod.attachment()
    }

    fn to_json(&self) -> Value {
        let mut keys = self.pod.to_json();
        keys["sources"] = texts(&self.sources);
        if let Some(addresses) = &self.node_addresses {
            keys["nodeAddresses"] = texts(addresses);
        }
        keys
    }

    fn from_section(keys: &Section<'_>) -> Result<HostRoutesRecord, CniError> {
        Ok(HostRoutesRecord {
            pod: PodInterface::from_section(keys)?,
            sources: parse_list(keys, "sources", parse_ip, "addresses")?,
            node_addresses: match keys.value("nodeAddresses") {
                Some(_) => Some(parse_list(keys, "nodeAddresses", parse_ip, "addresses")?),
                None => None,
            },
        })
    }
}

impl PerDevice for HostRoutesRecord {}

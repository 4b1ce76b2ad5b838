//! The network backend of podman: CNI, or netavark, which reads no network lists.

use std::path::Path;

use serde_json::Value;
use toml::Table;

use super::configuration::{Configuration, at};
use super::version::{ask, numbers};
use crate::files;

/// A network backend of podman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Cni,
    Netavark,
}

/// The file in which podman 4 records its choice at its first start.
const RECORD: &str = "/var/lib/containers/storage/defaultNetworkBackend";

impl Backend {
    fn parse(name: &str) -> Option<Backend> {
        match name.trim() {
            "cni" => Some(Backend::Cni),
            "netavark" => Some(Backend::Netavark),
            _ => None,
        }
    }
}

/// podman 3 has only CNI, podman 5 only netavark. podman 4 has both, and is asked if no file says which.
pub(super) fn backend(version: Option<&str>, configuration: &Configuration) -> Option<Backend> {
    let setting = |table: &Table| Backend::parse(at(table, &["network", "network_backend"])?.as_str()?);
    match numbers(version?)?.0 {
        ..4 => Some(Backend::Cni),
        4 => configuration.last(setting).or_else(recorded).or_else(ask_podman),
        5.. => Some(Backend::Netavark),
    }
}

fn recorded() -> Option<Backend> {
    let content = files::read(Path::new(RECORD)).ok()??;
    Backend::parse(&String::from_utf8_lossy(&content))
}

fn ask_podman() -> Option<Backend> {
    let answer: Value =
        serde_json::from_str(&ask(Path::new("podman"), &["info", "--format", "json"])?).ok()?;
    Backend::parse(answer["host"]["networkBackend"].as_str()?)
}

//! What makes podman's networks: CNI, or netavark, which reads no network lists.

use std::path::Path;

use serde_json::Value;
use toml::Table;

use super::configuration::{Configuration, at};
use super::version::{ask, numbers};
use crate::files;

/// What makes the networks of podman's containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Cni,
    Netavark,
}

/// Where podman 4 notes what it has chosen at its first start.
const CHOSEN: &str = "/var/lib/containers/storage/defaultNetworkBackend";

impl Backend {
    fn parse(name: &str) -> Option<Backend> {
        match name.trim() {
            "cni" => Some(Backend::Cni),
            "netavark" => Some(Backend::Netavark),
            _ => None,
        }
    }
}

/// podman 3 has CNI alone, podman 5 netavark; 4 has both, and is asked where nothing is written.
pub(super) fn backend(version: Option<&str>, configuration: &Configuration) -> Option<Backend> {
    let say = |table: &Table| Backend::parse(at(table, &["network", "network_backend"])?.as_str()?);
    match numbers(version?)?.0 {
        ..4 => Some(Backend::Cni),
        4 => configuration.last(say).or_else(chosen).or_else(asked),
        5.. => Some(Backend::Netavark),
    }
}

fn chosen() -> Option<Backend> {
    let content = files::read(Path::new(CHOSEN)).ok()??;
    Backend::parse(&String::from_utf8_lossy(&content))
}

fn asked() -> Option<Backend> {
    let answer: Value =
        serde_json::from_str(&ask(Path::new("podman"), &["info", "--format", "json"])?).ok()?;
    Backend::parse(answer["host"]["networkBackend"].as_str()?)
}

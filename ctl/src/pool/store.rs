//! The store that a verb of `pool` uses: from options, from a list, or that of the installed lists.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use cni_conf::pool::{EtcdConfig, PoolStore};
use serde_json::{Map, Value, json};
use vlan_bridge_agent::registers::Etcd;

use crate::args::StoreOptions;
use crate::lists;
use crate::observe::Places;

/// A client of the store.
pub(super) fn find(options: &StoreOptions) -> Result<Etcd> {
    let config = match &options.network {
        _ if !options.endpoints.is_empty() => from_options(options)?,
        Some(network) => of_network(network)?,
        None => installed()?,
    };
    Ok(Etcd::new(&config)?)
}

fn from_options(options: &StoreOptions) -> Result<EtcdConfig> {
    let StoreOptions { endpoints, prefix, ca, cert, key, user, password_file, network: _ } = options;
    let mut section = Map::from_iter([("endpoints".to_owned(), json!(endpoints))]);
    let files = [("ca", ca), ("cert", cert), ("key", key), ("passwordFile", password_file)];
    section.extend(files.into_iter().filter_map(|(key, path)| Some((key.to_owned(), json!(path.as_ref()?)))));
    let texts = [("prefix", prefix), ("user", user)];
    section.extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), json!(text.as_ref()?)))));
    let config = EtcdConfig::from_object(&section);
    config.map_err(|error| anyhow!("--{}", error.msg))
}

/// A file, or the name of an installed network.
fn of_network(network: &str) -> Result<EtcdConfig> {
    let is_path = network.contains('/') || Path::new(network).exists();
    let found = match is_path {
        true => in_list(&lists::read(Path::new(network))?).with_context(|| network.to_owned())?,
        false => {
            let named = |list: &lists::ListFile| list.name() == Some(network);
            let lists = Places::find(None, None).installed_lists()?;
            let list = lists.into_iter().find(named).ok_or_else(|| {
                anyhow!("no installed list is that of network {network}: --network takes a file too")
            })?;
            let content = list.content.map_err(|why| anyhow!("{}: {why}", list.path.display()))?;
            in_list(&content).with_context(|| list.path.display().to_string())?
        }
    };
    found.into_iter().next().ok_or_else(|| anyhow!("network list {network} has no ipam.pool"))
}

/// The one store of all installed lists.
fn installed() -> Result<EtcdConfig> {
    let mut found: Vec<(PathBuf, EtcdConfig)> = Vec::new();
    for list in Places::find(None, None).installed_lists()? {
        let Ok(content) = &list.content else { continue };
        if !list.names_vlan_bridge() {
            continue;
        }
        for config in in_list(content).with_context(|| list.path.display().to_string())? {
            if !found.iter().any(|(_, other)| *other == config) {
                found.push((list.path.clone(), config));
            }
        }
    }
    match found.as_slice() {
        [(_, config)] => Ok(config.clone()),
        [] => bail!("no installed network list has ipam.pool: name the store by --endpoints or --network"),
        several => {
            let paths = several.iter().map(|(path, _)| path.display().to_string()).collect::<Vec<_>>();
            bail!("the installed lists name different stores: choose one by --network: {}", paths.join(", "))
        }
    }
}

/// The stores of a list's pools.
fn in_list(list: &Value) -> Result<Vec<EtcdConfig>> {
    let entries = lists::check(list)?.into_iter();
    let pools = entries.filter_map(|entry| entry.network.addresses?.pool);
    Ok(pools
        .map(|pool| match pool.store {
            PoolStore::Etcd(config) => config,
        })
        .collect())
}

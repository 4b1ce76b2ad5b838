//! Inserts a node's slice into a list.

use std::net::IpAddr;

use anyhow::{Result, bail};
use cni_conf::family::Family;
use ipnet::IpNet;
use serde_json::{Map, Value};

use super::list::Template;
use super::slice::NodeSlices;
use crate::args::Install;
use crate::lists::{NetworkConfig, PLUGIN_TYPE};

/// The objects that can have a slice: those with a subnet, in every vlan-bridge entry with
/// vlan-bridge-ipam.
fn ranges(list: &mut Value) -> Vec<&mut Map<String, Value>> {
    let mut ranges = Vec::new();
    let plugins = list["plugins"].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
    for plugin in plugins.iter_mut().filter(|plugin| plugin["type"] == PLUGIN_TYPE) {
        let Some(ipam) = plugin["ipam"].as_object_mut() else { continue };
        if ipam.get("type").is_none_or(|kind| kind != cni_conf::ipam_plugin::IpamPlugin::OURS) {
            continue;
        }
        if ipam.contains_key("subnet") {
            ranges.push(ipam);
        } else if let Some(sets) = ipam.get_mut("ranges").and_then(Value::as_array_mut) {
            let sets = sets.iter_mut().filter_map(Value::as_array_mut);
            ranges.extend(sets.flatten().filter_map(Value::as_object_mut));
        }
    }
    ranges
}

/// The keys that limit a range to a part of its subnet.
const LIMIT_KEYS: [&str; 3] = ["slice", "rangeStart", "rangeEnd"];

/// Whether a list has an uplink, and a range whose whole subnet every node would lease.
pub(super) fn wants_slice(list: &Value) -> bool {
    has_uplink(list) && ranges(&mut list.clone()).iter().any(|range| lacks_slice(range))
}

/// Whether other nodes share the network.
fn has_uplink(list: &Value) -> bool {
    let plugins = list["plugins"].as_array().map(Vec::as_slice).unwrap_or_default();
    plugins.iter().any(|plugin| plugin["type"] == PLUGIN_TYPE && plugin["uplink"].is_object())
}

/// Whether a range is not yet limited to a part of its subnet.
fn lacks_slice(range: &Map<String, Value>) -> bool {
    !LIMIT_KEYS.iter().any(|part| range.contains_key(*part))
}

/// The subnet of a range. Checking the list reports a wrong one.
fn subnet(range: &Map<String, Value>) -> Option<IpNet> {
    range.get("subnet")?.as_str()?.parse().ok()
}

/// Checks that --slice or --mapping applies to some list.
///
/// # Errors
/// It would be ignored without notice.
pub(super) fn check_slices_apply(args: &Install, templates: &[Template]) -> Result<()> {
    let given = match (args.slice.first(), &args.mapping) {
        (Some(slice), _) => format!("--slice {slice}"),
        (None, Some(path)) => format!("--mapping {}", path.display()),
        (None, None) => return Ok(()),
    };
    let Some(first) = templates.first() else {
        bail!("{given} needs a network list: set --network FILE or --name")
    };
    let mut lists: Vec<Value> = templates.iter().map(|template| template.content.clone()).collect();
    let subnets: Vec<Option<IpNet>> = lists.iter_mut().flat_map(ranges).map(|range| subnet(range)).collect();
    // Without a vlan-bridge entry, checking the list reports a better error.
    let has_entry = lists.iter().any(|list| crate::lists::entries(list).next().is_some());
    if has_entry && subnets.is_empty() {
        bail!("{}: {given} needs a range of vlan-bridge-ipam, and the list has none", first.from);
    }
    let fits = |slice: &IpNet| subnets.iter().flatten().any(|subnet| subnet.contains(slice));
    if subnets.iter().all(Option::is_some)
        && !subnets.is_empty()
        && let Some(lost) = args.slice.first().filter(|_| !args.slice.iter().any(fits))
    {
        bail!("{}: slice {lost}, from --slice, is not within subnet {}", first.from, shown(&subnets));
    }
    Ok(())
}

fn shown(subnets: &[Option<IpNet>]) -> String {
    let subnets: Vec<String> = subnets.iter().flatten().map(IpNet::to_string).collect();
    subnets.join(" or ")
}

/// The keys of a range that limit it to a part of its subnet, and whether that agrees with the slice: an
/// equal slice, or limits within it.
fn own_limits(range: &Map<String, Value>, subnet: IpNet, slice: IpNet) -> (String, bool) {
    let place = if range.contains_key("type") { "ipam." } else { "ipam.ranges: " };
    let text = |key: &str| range.get(key).and_then(Value::as_str);
    if let Some(own) = text("slice") {
        return (format!("{place}slice {own}"), own.parse() == Ok(slice));
    }
    let end = |key: &str, default: IpAddr| text(key).map_or(Some(default), |text| text.parse().ok());
    let ends = [end("rangeStart", subnet.network()), end("rangeEnd", subnet.broadcast())];
    let named = LIMIT_KEYS.iter().filter_map(|key| Some(format!("{key} {}", text(key)?)));
    let is_within = ends.iter().all(|end| end.is_some_and(|end| slice.contains(&end)));
    (format!("{place}{}", named.collect::<Vec<_>>().join(", ")), is_within)
}

/// Inserts each slice into the range whose subnet contains it, and removes the slices from `chosen` that
/// fit no range. A node with two address families or several networks has slices for other lists. Returns a
/// warning for each slice that is not used.
///
/// # Errors
/// A range that gets no slice although there is one of its family: that slice is outside the range's
/// subnet. Also a range that is already limited otherwise than --slice or --mapping says. If the Node's
/// slice says otherwise, that is only a warning.
pub(super) fn insert_slices(list: &mut Value, from: &str, chosen: &mut NodeSlices) -> Result<Vec<String>> {
    let (is_shared, is_wanted) = (has_uplink(list), wants_slice(list));
    let all = ranges(list).into_iter().filter_map(|range| Some((subnet(range)?, range)));
    let (mut open, fixed): (Vec<_>, Vec<_>) = all.partition(|(_, range)| lacks_slice(range));
    if !is_shared && !chosen.is_by_caller {
        open.clear();
    }
    let (mut used, mut unused, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut filled: Vec<(IpNet, IpNet)> = Vec::new();
    for slice in std::mem::take(&mut chosen.slices) {
        if let Some(at) = open.iter().position(|(subnet, _)| subnet.contains(&slice)) {
            let (subnet, range) = open.remove(at);
            range.insert("slice".into(), slice.to_string().into());
            used.push(slice);
            filled.push((subnet, slice));
            continue;
        }
        if let Some((subnet, first)) = filled.iter().find(|(subnet, _)| subnet.contains(&slice)) {
            bail!(
                "slices {first} and {slice}, from {}, are both in subnet {subnet}: a range has one slice",
                chosen.source
            );
        }
        let near = fixed.iter().filter(|(subnet, _)| subnet.contains(&slice));
        let own: Vec<(String, bool)> =
            near.map(|(subnet, range)| own_limits(range, *subnet, slice)).collect();
        match own.first() {
            None => unused.push(slice),
            Some(_) if own.iter().any(|(_, agrees)| *agrees) => used.push(slice),
            Some((own, _)) => {
                let what = format!("{from}: the list has {own}, and {} has {slice}", chosen.source);
                if chosen.is_by_caller {
                    bail!("{what}: remove it from the list");
                }
                warnings.push(format!("{what}: using the list's"));
            }
        }
    }
    chosen.slices = used;
    for (subnet, _) in open.iter().filter(|_| is_shared) {
        if let Some(slice) = unused.iter().find(|slice| Family::of_net(slice) == Family::of_net(subnet)) {
            bail!("slice {slice}, from {}, is not within subnet {subnet}", chosen.source);
        }
    }
    // The Node may have slices for other networks.
    if is_wanted || chosen.is_by_caller {
        let lost = unused.iter();
        warnings.extend(lost.map(|slice| {
            format!("slice {slice}, from {}, is in no subnet of the list: not used", chosen.source)
        }));
    }
    Ok(warnings)
}

/// Refuses a network with an uplink whose whole subnet every node would lease. With a pool, none does.
pub(super) fn check_shared(config: &NetworkConfig) -> Result<()> {
    let (Some(_), Some(ipam)) = (&config.network.uplink, &config.network.addresses) else { return Ok(()) };
    if ipam.pool.is_some() {
        return Ok(());
    }
    for range in ipam.ranges.iter().flat_map(|set| &set.0) {
        let whole = range.slice.is_none() && range.to_string() == range.subnet.to_string();
        if whole {
            bail!(
                "network {}: this node has no slice of {}, and every node would lease the whole subnet: set --slice \
                 to a part of {}, annotate the Node with {}, or name a file with --mapping",
                config.name,
                range.subnet,
                range.subnet,
                super::slice::ANNOTATION
            );
        }
    }
    Ok(())
}

//! What is printed of a store.

use std::io::Write;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Call, DEFAULT_COOLDOWN, Failure};
use crate::store::{Cooling, Holder, Inspector, Known, Usage, clock};

/// Every address, network by network, in order. Each is looked at as it is printed, without the lock.
pub(super) fn list(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    let mut lines = Lines::begin(call, out)?;
    lines.heading(&format!(
        "{:15} {:39} {:8} {:13} {:10} {:>12} {:9} POD",
        "NETWORK", "ADDRESS", "STATE", "CONTAINER", "INTERFACE", "SINCE", "NAMESPACE"
    ))?;
    for network in call.networks()? {
        let seen = call.with(&network, |store| {
            Ok((store.addresses()?, store.cooling(DEFAULT_COOLDOWN)?, store.inspector()))
        })?;
        let Some((mut held, cooling, inspector)) = seen else { continue };
        held.sort_unstable();
        let mut cooling = cooling.into_iter().peekable();
        for addr in held {
            while let Some(cooling) = cooling.next_if(|cooling| cooling.addr < addr) {
                lines.cooling(&network, cooling)?;
            }
            lines.held(&network, addr, &inspector)?;
        }
        for cooling in cooling {
            lines.cooling(&network, cooling)?;
        }
    }
    lines.end()
}

/// All that is known of one address.
pub(super) fn one(call: &Call, addr: IpAddr, out: &mut dyn Write) -> Result<(), Failure> {
    let (network, known) = find(call, addr)?;
    let value = describe(&network, addr, &known);
    if call.json {
        writeln!(out, "{value}")?;
        return Ok(());
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "{key:14} {text}")?;
    }
    Ok(())
}

/// How each range is used.
pub(super) fn usage(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    let mut lines = Lines::begin(call, out)?;
    for network in call.networks()? {
        for usage in call.with(&network, |store| store.usage_of_all(DEFAULT_COOLDOWN))?.unwrap_or_default() {
            let Usage { range, used, cooling, quarantined, total } = &usage;
            // More than the table counts to.
            let total = u32::try_from(*total).ok().filter(|total| *total != u32::MAX);
            let shown = total.map_or("many".to_owned(), |total| total.to_string());
            let value = json!({"network": network, "range": range, "used": *used as u64,
                "cooling": *cooling as u64, "quarantined": *quarantined as u64, "total": total});
            let text = format!(
                "{network}: {range}: {used} used, {cooling} cooling, {quarantined} quarantined of {shown}"
            );
            lines.line(&text, &value)?;
        }
    }
    lines.end()
}

/// The network of an address that is held, and what is known of it.
pub(super) fn find(call: &Call, addr: IpAddr) -> Result<(String, Known), Failure> {
    let mut found = Vec::new();
    for network in call.networks()? {
        let known = call.with(&network, |store| store.inspector().look(addr))?.flatten();
        found.extend(known.map(|known| (network, known)));
    }
    match found.len() {
        0 => Err(Failure::Said(format!("nobody holds {addr}"))),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<&str> = found.iter().map(|(network, _)| network.as_str()).collect();
            let names = names.join(", ");
            Err(Failure::Said(format!("{addr} is held in several networks, {names}: --network says which")))
        }
    }
}

/// A holder, for people.
pub(super) fn named(holder: &Holder) -> String {
    match holder {
        Holder::Attachment(owner) => owner.to_string(),
        Holder::Container(id) => format!("container {id}"),
        Holder::Nobody | Holder::Unreadable => "somebody who cannot be read".to_owned(),
    }
}

fn describe(network: &str, addr: IpAddr, known: &Known) -> Value {
    let mut value = json!({"network": network, "address": addr.to_string(), "state": "held"});
    match &known.holder {
        Holder::Attachment(owner) => {
            value["container"] = owner.container_id.as_str().into();
            value["interface"] = owner.ifname.as_str().into();
        }
        Holder::Container(id) => value["container"] = id.as_str().into(),
        Holder::Nobody | Holder::Unreadable => value["state"] = "unreadable".into(),
    }
    value["namespace"] = namespace(known).into();
    let Some(record) = &known.record else { return value };
    value["since"] = record.since.into();
    if record.adopted {
        // Not when it was given, but when it was seen first.
        value["adopted"] = true.into();
    }
    if let Some(netns) = &record.netns {
        value["namespacePath"] = netns.path.as_str().into();
    }
    if let Some((namespace, name)) = &record.pod {
        value["pod"] = format!("{namespace}/{name}").into();
    }
    value
}

fn namespace(known: &Known) -> &'static str {
    match known.is_alive() {
        Some(true) => "alive",
        Some(false) => "gone",
        None => "unknown",
    }
}

/// Lines for people, or one JSON list with an item a line.
struct Lines<'a> {
    out: &'a mut dyn Write,
    json: bool,
    is_first: bool,
    now: u64,
}

impl<'a> Lines<'a> {
    fn begin(call: &Call, out: &'a mut dyn Write) -> Result<Lines<'a>, Failure> {
        if call.json {
            write!(out, "[")?;
        }
        Ok(Lines { out, json: call.json, is_first: true, now: clock() })
    }

    fn heading(&mut self, text: &str) -> Result<(), Failure> {
        if !self.json {
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str, value: &Value) -> Result<(), Failure> {
        match (self.json, std::mem::replace(&mut self.is_first, false)) {
            (false, _) => writeln!(self.out, "{}", text.trim_end())?,
            (true, true) => write!(self.out, "{value}")?,
            (true, false) => write!(self.out, ",\n{value}")?,
        }
        Ok(())
    }

    fn held(&mut self, network: &str, addr: IpAddr, inspector: &Inspector) -> Result<(), Failure> {
        // Released since.
        let Some(known) = inspector.look(addr)? else { return Ok(()) };
        let value = describe(network, addr, &known);
        let text = |key: &str| value[key].as_str().unwrap_or("-");
        let since = known.record.as_ref().map_or("-".to_owned(), |record| {
            let about = if record.adopted { ">" } else { "" };
            format!("{about}{} ago", ago(self.now.saturating_sub(record.since)))
        });
        let id: String = text("container").chars().take(13).collect();
        let line = format!(
            "{network:15} {:39} {:8} {id:13} {:10} {since:>12} {:9} {}",
            addr.to_string(),
            text("state"),
            text("interface"),
            text("namespace"),
            text("pod")
        );
        self.line(&line, &value)
    }

    fn cooling(&mut self, network: &str, cooling: Cooling) -> Result<(), Failure> {
        let Cooling { addr, free_for } = cooling;
        let value = json!({"network": network, "address": addr.to_string(), "state": "cooling",
            "freeFor": free_for});
        let since = format!("{} ago", ago(free_for.into()));
        let line =
            format!("{network:15} {:39} {:8} {:13} {:10} {since:>12}", addr.to_string(), "cooling", "-", "-");
        self.line(&line, &value)
    }

    fn end(self) -> Result<(), Failure> {
        if self.json {
            writeln!(self.out, "]")?;
        }
        Ok(())
    }
}

/// A duration in its largest unit.
fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

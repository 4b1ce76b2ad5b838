//! Prints the contents of a store.

use std::io::Write;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Call, DEFAULT_COOLDOWN, Failure};
use crate::store::{
    Cooling, Holder, Inspector, Known, Quarantined, SharedUsage, Store, StoreError, Usage, clock,
};

/// Every address, by network and in order. Each is read when it is printed, without the lock.
pub(super) fn list(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    let mut lines = Lines::begin(call, out)?;
    lines.heading(&format!(
        "{:15} {:39} {:11} {:13} {:10} {:>12} {:9} POD",
        "NETWORK", "ADDRESS", "STATE", "CONTAINER", "INTERFACE", "SINCE", "NAMESPACE"
    ))?;
    for network in call.networks()? {
        let seen = call.with(&network, |store| Ok((store.addresses()?, free(store)?, store.inspector())))?;
        let Some((mut held, free, inspector)) = seen else { continue };
        held.sort_unstable();
        let mut free = free.into_iter().peekable();
        for addr in held {
            while let Some(free) = free.next_if(|free| free.addr() < addr) {
                lines.free(&network, free)?;
            }
            lines.held(&network, addr, &inspector)?;
        }
        for free in free {
            lines.free(&network, free)?;
        }
    }
    lines.end()
}

/// A free address in a special state.
#[derive(Clone, Copy)]
enum Free {
    Cooling(Cooling),
    /// With the remaining seconds.
    Quarantined(IpAddr, Quarantined, u32),
}

impl Free {
    fn addr(&self) -> IpAddr {
        match self {
            Free::Cooling(cooling) => cooling.addr,
            Free::Quarantined(addr, ..) => *addr,
        }
    }
}

/// The cooling and quarantined addresses of a network, in order.
fn free(store: &mut Store) -> Result<Vec<Free>, StoreError> {
    let mut free: Vec<Free> = store.cooling(DEFAULT_COOLDOWN)?.into_iter().map(Free::Cooling).collect();
    free.extend(
        store.all_quarantined().into_iter().map(|(addr, seen, left)| Free::Quarantined(addr, seen, left)),
    );
    free.sort_by_key(Free::addr);
    Ok(free)
}

/// Prints everything about one address.
pub(super) fn one(call: &Call, addr: IpAddr, out: &mut dyn Write) -> Result<(), Failure> {
    let value = match find_quarantined(call, addr)? {
        Some((network, free)) => describe_free(&network, free),
        None => {
            let (network, known) = find(call, addr)?;
            describe(&network, addr, &known)
        }
    };
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

/// Prints the usage of each range.
pub(super) fn usage(call: &Call, out: &mut dyn Write) -> Result<(), Failure> {
    let mut lines = Lines::begin(call, out)?;
    for network in call.networks()? {
        for usage in call.with(&network, |store| store.usage_of_all(DEFAULT_COOLDOWN))?.unwrap_or_default() {
            let Usage { range, used, cooling, quarantined, total, shared } = &usage;
            // The table's counter has reached its maximum.
            let total = u32::try_from(*total).ok().filter(|total| *total != u32::MAX);
            let shown = total.map_or("many".to_owned(), |total| total.to_string());
            let mut value = json!({"network": network, "range": range, "used": *used as u64,
                "cooling": *cooling as u64, "quarantined": *quarantined as u64, "total": total});
            let mut text = format!(
                "{network}: {range}: {used} used, {cooling} cooling, {quarantined} quarantined of {shown}"
            );
            if let Some(shared) = shared {
                let SharedUsage { home, leased, unconfirmed, withdrawn, is_granted, .. } = shared;
                value["shared"] = json!({"granted": is_granted, "home": *home as u64, "leased": *leased as u64,
                    "unconfirmed": *unconfirmed as u64, "withdrawn": *withdrawn as u64});
                text = format!("{text} {shared}");
            }
            lines.line(&text, &value)?;
        }
    }
    lines.end()
}

/// The network and the lease of a held address.
pub(super) fn find(call: &Call, addr: IpAddr) -> Result<(String, Known), Failure> {
    let mut found = Vec::new();
    for network in call.networks()? {
        let known = call.with(&network, |store| store.inspector().look(addr))?.flatten();
        found.extend(known.map(|known| (network, known)));
    }
    match found.len() {
        0 => Err(Failure::Message(format!("no lease for {addr}"))),
        1 => Ok(found.remove(0)),
        _ => {
            let names: Vec<&str> = found.iter().map(|(network, _)| network.as_str()).collect();
            let names = names.join(", ");
            Err(Failure::Message(format!(
                "{addr} is held in several networks, {names}: choose one with --network"
            )))
        }
    }
}

/// The network in which an address is quarantined, if no attachment holds it.
fn find_quarantined(call: &Call, addr: IpAddr) -> Result<Option<(String, Free)>, Failure> {
    for network in call.networks()? {
        let all = call.with(&network, |store| Ok(store.all_quarantined()))?.unwrap_or_default();
        if let Some((addr, seen, left)) = all.into_iter().find(|(other, ..)| *other == addr) {
            return Ok(Some((network, Free::Quarantined(addr, seen, left))));
        }
    }
    Ok(None)
}

/// A readable name of a holder.
pub(super) fn named(holder: &Holder) -> String {
    match holder {
        Holder::Attachment(owner) => owner.to_string(),
        Holder::Container(id) => format!("container {id}"),
        Holder::Empty | Holder::Unreadable => "an unreadable holder".to_owned(),
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
        Holder::Empty | Holder::Unreadable => value["state"] = "unreadable".into(),
    }
    value["namespace"] = namespace(known).into();
    let Some(record) = &known.record else { return value };
    value["since"] = record.since.into();
    if let Some(machine) = &known.elsewhere {
        value["machine"] = machine.as_str().into();
    }
    if record.adopted {
        // `since` is then when the lease was seen first, not when it was assigned.
        value["adopted"] = true.into();
    }
    if let Some(netns) = &record.netns {
        value["namespacePath"] = netns.path.as_str().into();
    }
    if let Some(pod) = &record.pod {
        value["pod"] = pod.to_string().into();
    }
    value
}

fn describe_free(network: &str, free: Free) -> Value {
    let addr = free.addr().to_string();
    match free {
        Free::Cooling(Cooling { free_for, .. }) => {
            json!({"network": network, "address": addr, "state": "cooling", "freeFor": free_for})
        }
        Free::Quarantined(_, seen, left) => json!({"network": network, "address": addr,
            "state": "quarantined", "mac": seen.mac.to_string(), "secondsLeft": left}),
    }
}

fn namespace(known: &Known) -> &'static str {
    if known.elsewhere.is_some() {
        return "elsewhere";
    }
    match known.is_alive() {
        Some(true) => "alive",
        Some(false) => "gone",
        None => "unknown",
    }
}

/// Lines of text, or one JSON list with one item for each line.
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
        // The lease was released meanwhile.
        let Some(known) = inspector.look(addr)? else { return Ok(()) };
        let value = describe(network, addr, &known);
        let text = |key: &str| value[key].as_str().unwrap_or("-");
        let since = known.record.as_ref().map_or("-".to_owned(), |record| {
            let about = if record.adopted { ">" } else { "" };
            format!("{about}{} ago", ago(self.now.saturating_sub(record.since)))
        });
        let id: String = text("container").chars().take(13).collect();
        let line = format!(
            "{network:15} {:39} {:11} {id:13} {:10} {since:>12} {:9} {}",
            addr.to_string(),
            text("state"),
            text("interface"),
            text("namespace"),
            text("pod")
        );
        self.line(&line, &value)
    }

    fn free(&mut self, network: &str, free: Free) -> Result<(), Failure> {
        let (state, since, note) = match free {
            Free::Cooling(Cooling { free_for, .. }) => {
                ("cooling", format!("{} ago", ago(free_for.into())), String::new())
            }
            Free::Quarantined(_, seen, left) => {
                ("quarantined", "-".to_owned(), format!("used by {}, for {left} s more", seen.mac))
            }
        };
        let addr = free.addr().to_string();
        let line =
            format!("{network:15} {addr:39} {state:11} {:13} {:10} {since:>12} {:9} {note}", "-", "-", "-");
        self.line(&line, &describe_free(network, free))
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

//! Other machines that use addresses of pods: what is told of them, and when the pod's address is defended.
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::attempts::Time;
use crate::ear::Conflict;
use crate::report::Report;

/// RFC 5227 section 1.1, DEFEND_INTERVAL: an address is defended at most once in this time, or two machines
/// would defend it against each other at full speed.
const DEFEND: Duration = Duration::from_secs(10);
/// A conflict ends if the other machine was not heard for this long.
const OVER: Duration = Duration::from_secs(60);
/// The most conflicts that are remembered. A machine that answers for all addresses makes as many as there
/// are pods.
const MOST: usize = 256;

/// The conflicts that last.
#[derive(Debug, Default)]
pub(crate) struct Conflicts {
    lasting: BTreeMap<(String, IpAddr), Lasting>,
    /// Whether it was told that there are too many.
    is_full: bool,
}

#[derive(Debug)]
struct Lasting {
    conflict: Conflict,
    heard: Time,
    defended: Time,
}

/// A conflict that lasts, as others read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownConflict {
    /// The pod's address.
    pub address: IpAddr,
    /// The pod's MAC.
    pub mac: String,
    /// `NAMESPACE/NAME` of the pod, if it is known.
    pub pod: Option<String>,
    /// The other machine's MAC.
    pub other: String,
    /// The bridge's port on which the other machine was heard.
    pub uplink: String,
}

impl KnownConflict {
    fn of(conflict: &Conflict) -> KnownConflict {
        KnownConflict {
            address: conflict.address,
            mac: conflict.pod.to_string(),
            pod: conflict.name.as_ref().map(ToString::to_string),
            other: conflict.other.to_string(),
            uplink: conflict.uplink.clone(),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let KnownConflict { address, mac, pod, other, uplink } = self;
        json!({"address": address.to_string(), "mac": mac, "pod": pod, "other": other, "uplink": uplink})
    }

    pub(crate) fn from_json(value: &Value) -> Option<KnownConflict> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        Some(KnownConflict {
            address: value["address"].as_str()?.parse().ok()?,
            mac: text("mac")?,
            pod: text("pod"),
            other: text("other")?,
            uplink: text("uplink")?,
        })
    }
}

impl Conflicts {
    /// Those that last.
    pub(crate) fn lasting(&self) -> Vec<KnownConflict> {
        self.lasting.values().map(|lasting| KnownConflict::of(&lasting.conflict)).collect()
    }

    /// Takes a conflict in. Returns what to tell, and whether to defend the address.
    pub(crate) fn heard(&mut self, conflict: Conflict, now: Time) -> (Option<Report>, bool) {
        let key = (conflict.uplink.clone(), conflict.address);
        if let Some(known) = self.lasting.get_mut(&key) {
            known.heard = now;
            let defends = now >= known.defended + DEFEND;
            if !defends {
                return (None, false);
            }
            known.defended = now;
            // Anybody can send each frame from another MAC, so this is told no more often than it is
            // defended.
            let is_new = known.conflict.other != conflict.other;
            let report = is_new.then(|| Report::conflict(&conflict));
            known.conflict = conflict;
            return (report, true);
        }
        if self.lasting.len() >= MOST {
            let report = (!self.is_full).then(|| Report::many_conflicts(MOST));
            self.is_full = true;
            return (report, false);
        }
        let report = Report::conflict(&conflict);
        self.lasting.insert(key, Lasting { conflict, heard: now, defended: now });
        (Some(report), true)
    }

    /// Forgets the conflicts that are over, and returns what to tell.
    pub(crate) fn over(&mut self, now: Time) -> Vec<Report> {
        let mut reports = Vec::new();
        self.lasting.retain(|_, lasting| {
            let lasts = lasting.heard + OVER > now;
            if !lasts {
                reports.push(Report::conflict_over(&lasting.conflict));
            }
            lasts
        });
        self.is_full &= self.lasting.len() >= MOST;
        reports
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::cni::mac::MacAddr;

    use super::*;

    fn conflict(address: [u8; 4], other: u8) -> Conflict {
        Conflict {
            uplink: "bond0.136".into(),
            vlan: None,
            address: address.into(),
            pod: MacAddr([2, 0, 0, 0, 0, 1]),
            other: MacAddr([2, 0, 0, 0, 0, other]),
            name: None,
        }
    }

    #[test]
    fn a_conflict_is_told_once_and_defended_at_intervals_until_it_is_over() {
        let (at, mut conflicts) = (Duration::from_secs, Conflicts::default());
        let mut heard = |other, now| {
            let (report, defends) = conflicts.heard(conflict([10, 0, 0, 5], other), at(now));
            (report.is_some(), defends)
        };
        assert_eq!(heard(9, 100), (true, true));
        assert_eq!(heard(9, 101), (false, false));
        assert_eq!(heard(9, 110), (false, true));
        assert_eq!(heard(8, 112), (false, false));
        assert_eq!(heard(8, 120), (true, true));
        assert!(conflicts.over(at(179)).is_empty());
        assert_eq!(conflicts.over(at(180)).len(), 1);
        assert!(conflicts.lasting.is_empty());
    }

    #[test]
    fn memory_and_log_are_bounded() {
        let mut conflicts = Conflicts::default();
        let told = (0..2000_u16).filter(|number| {
            let [a, b] = number.to_be_bytes();
            conflicts.heard(conflict([10, 0, a, b], 9), Duration::from_secs(1)).0.is_some()
        });
        assert_eq!(told.count(), MOST + 1);
        assert_eq!(conflicts.lasting.len(), MOST);
    }
}

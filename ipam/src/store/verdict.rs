//! The verdicts of probing: addresses that no machine on the network uses, valid for a short time, and
//! addresses that another machine uses.
//!
//! They are in one small file beside the records. Times count from the boot, so a boot starts without
//! verdicts. ADD reads the file, DEL does not.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;

use cni_conf::cni::mac::MacAddr;
use kernel::open;
use serde_json::{Map, Value, json};

use super::Store;
use super::boot_time::BootTime;
use super::error::StoreError;
use super::files;
use super::holder::Owner;

/// How long an address counts as unused, in tenths of a second: the time that a burst of pods needs to start.
const CLEAR_FOR: u32 = 100;
/// The largest number of unused addresses: the results of four windows.
const MAX_CLEAR: usize = 64;
/// The largest number of quarantined addresses. The next probe finds further ones again.
const MAX_QUARANTINED: usize = 256;
/// Longest file read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// An address that another machine was seen to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantined {
    /// The MAC that answered for it, or probed for it.
    pub mac: MacAddr,
    /// When it was seen, in tenths of a second since the boot.
    pub(super) at: u32,
    /// When the quarantine ends.
    pub(super) until: u32,
}

/// All verdicts that are still valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// When each address was found to be unused.
    clear: BTreeMap<IpAddr, u32>,
    quarantined: BTreeMap<IpAddr, Quarantined>,
}

impl Verdicts {
    /// Reads the valid verdicts. A file that cannot be parsed is ignored, and the next probe replaces it.
    fn read(path: &Path, boot_time: &BootTime) -> Verdicts {
        let bytes = match open::read(path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Verdicts::default(),
            Err(error) => {
                log::warn!("cannot read {}: {error}", path.display());
                return Verdicts::default();
            }
        };
        let Some((boot, mut verdicts)) = Verdicts::parse(&bytes) else {
            log::warn!("{}: not a file of verdicts, it will be rewritten", path.display());
            return Verdicts::default();
        };
        if boot != boot_time.boot {
            return Verdicts::default();
        }
        let now = boot_time.uptime;
        verdicts.clear.retain(|_, at| (*at..at.saturating_add(CLEAR_FOR)).contains(&now));
        verdicts.quarantined.retain(|_, seen| (seen.at..seen.until).contains(&now));
        verdicts
    }

    /// Parses the content of the file: its boot, and the verdicts.
    pub(super) fn parse(bytes: &[u8]) -> Option<(String, Verdicts)> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let number = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let mut verdicts = Verdicts::default();
        for (addr, at) in value.get("clear")?.as_object()? {
            verdicts.clear.insert(addr.parse().ok()?, number(at)?);
        }
        for (addr, seen) in value.get("quarantined")?.as_object()? {
            let mac = seen.get("mac")?.as_str()?.parse().ok()?;
            let (at, until) = (number(seen.get("at")?)?, number(seen.get("until")?)?);
            verdicts.quarantined.insert(addr.parse().ok()?, Quarantined { mac, at, until });
        }
        Some((value.get("boot")?.as_str()?.to_owned(), verdicts))
    }

    fn write(&self, path: &Path, boot: &str) -> Result<(), StoreError> {
        files::replace(path, &self.block(boot))
    }

    /// The content of the file, filled up to a block.
    fn block(&self, boot: &str) -> Vec<u8> {
        let clear: Map<String, Value> =
            self.clear.iter().map(|(addr, at)| (addr.to_string(), (*at).into())).collect();
        let quarantined: Map<String, Value> = self
            .quarantined
            .iter()
            .map(|(addr, seen)| {
                let seen = json!({"mac": seen.mac.to_string(), "at": seen.at, "until": seen.until});
                (addr.to_string(), seen)
            })
            .collect();
        let mut text =
            json!({"boot": boot, "clear": clear, "quarantined": quarantined}).to_string().into_bytes();
        text.resize(files::BLOCK.max(text.len()), b' ');
        text
    }

    /// Extends the verdicts on addresses that nobody was heard to use since, and drops the others: the next
    /// probe decides. They are not quarantined, because anybody can send a forged frame. A verdict from
    /// before the listening began ends by itself. Returns whether something changed.
    fn extend(&mut self, listened: &Listened, now: u32) -> bool {
        let before = self.clone();
        self.clear.retain(|addr, at| listened.uses.get(addr).is_none_or(|heard| *heard < *at));
        // Within the same tenth of a second, nobody may have listened yet.
        for at in self.clear.values_mut().filter(|at| **at > listened.since) {
            *at = (*at).max(listened.until.min(now));
        }
        *self != before
    }

    /// Records the results of a window.
    fn note(&mut self, seen: &Window<'_>, now: u32) {
        for addr in seen.probed {
            match seen.conflicts.get(addr) {
                Some(mac) => {
                    self.clear.remove(addr);
                    let until = now.saturating_add(seen.quarantine.saturating_mul(10));
                    self.quarantined.insert(*addr, Quarantined { mac: *mac, at: now, until });
                }
                None => {
                    self.quarantined.remove(addr);
                    self.clear.insert(*addr, now);
                }
            }
        }
        let surplus = |len: usize, most: usize| len.saturating_sub(most);
        for _ in 0..surplus(self.clear.len(), MAX_CLEAR) {
            let oldest = self.clear.iter().min_by_key(|(_, at)| **at).map(|(addr, _)| *addr);
            oldest.and_then(|addr| self.clear.remove(&addr));
        }
        for _ in 0..surplus(self.quarantined.len(), MAX_QUARANTINED) {
            let first = self.quarantined.iter().min_by_key(|(_, seen)| seen.until).map(|(addr, _)| *addr);
            first.and_then(|addr| self.quarantined.remove(&addr));
        }
    }
}

/// What was heard on a network without a gap.
#[derive(Clone, Debug, Default)]
pub struct Listened {
    /// Since when, in tenths of a second since the boot.
    pub since: u32,
    /// Until when.
    pub until: u32,
    /// When each address was last heard to be used by another machine.
    pub uses: BTreeMap<IpAddr, u32>,
}

/// The results of one window.
#[derive(Debug)]
pub struct Window<'a> {
    /// The probed addresses.
    pub probed: &'a [IpAddr],
    /// The probed addresses that another machine uses, and its MAC.
    pub conflicts: &'a BTreeMap<IpAddr, MacAddr>,
    /// The length of their quarantine in seconds.
    pub quarantine: u32,
}

impl Store {
    /// Whether an address was found to be unused a short time ago.
    pub fn is_clear(&mut self, addr: IpAddr) -> bool {
        self.verdicts().clear.contains_key(&addr)
    }

    /// The verdict on a quarantined address.
    pub fn quarantined(&mut self, addr: IpAddr) -> Option<Quarantined> {
        self.verdicts().quarantined.get(&addr).copied()
    }

    /// Every quarantined address, with the remaining seconds.
    pub fn all_quarantined(&mut self) -> Vec<(IpAddr, Quarantined, u32)> {
        let now = self.boot_time.uptime;
        let all: Vec<_> = self.verdicts().quarantined.iter().map(|(addr, seen)| (*addr, *seen)).collect();
        all.into_iter()
            // A requested address that was not probed may be held in spite of its quarantine.
            .filter(|(addr, _)| !self.lease(*addr).exists())
            .map(|(addr, seen)| (addr, seen, seen.until.saturating_sub(now).div_ceil(10)))
            .collect()
    }

    /// Records the results of a window for an attachment. Skips an address that another attachment has taken
    /// meanwhile, because the answer may come from that attachment.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_window(&mut self, owner: &Owner, window: &Window<'_>) -> Result<(), StoreError> {
        let mut probed = Vec::new();
        for addr in window.probed {
            if !self.is_held_by_another(*addr, owner)? {
                probed.push(*addr);
            }
        }
        for (addr, mac) in window.conflicts {
            log::warn!("{addr} is used by another machine, {mac}: quarantined for {} s", window.quarantine);
        }
        let (now, path, boot) =
            (self.boot_time.uptime, self.side.verdicts.clone(), self.boot_time.boot.clone());
        let verdicts = self.verdicts();
        verdicts.note(&Window { probed: &probed, ..*window }, now);
        verdicts.write(&path, &boot)
    }

    /// Extends the verdicts by what was heard on the network.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn extend_verdicts(&mut self, listened: &Listened) -> Result<(), StoreError> {
        let (now, path, boot) =
            (self.boot_time.uptime, self.side.verdicts.clone(), self.boot_time.boot.clone());
        let clear: Vec<IpAddr> = self.verdicts().clear.keys().copied().collect();
        // A held address needs no verdict, and would keep others out.
        let held: Vec<IpAddr> = clear.into_iter().filter(|addr| self.lease(*addr).exists()).collect();
        let verdicts = self.verdicts();
        verdicts.clear.retain(|addr, _| !held.contains(addr));
        if verdicts.extend(listened, now) || !held.is_empty() {
            // Each few seconds, so it must cost the file system little.
            files::overwrite(&path, &verdicts.block(&boot))
        } else {
            Ok(())
        }
    }

    /// Drops the verdict that an address is unused if somebody may use it since.
    pub(super) fn drop_clear(&mut self, may_be_used: impl Fn(IpAddr) -> bool) -> Result<(), StoreError> {
        let (path, boot) = (self.side.verdicts.clone(), self.boot_time.boot.clone());
        let verdicts = self.verdicts();
        let before = verdicts.clear.len();
        verdicts.clear.retain(|addr, _| !may_be_used(*addr));
        if verdicts.clear.len() < before { verdicts.write(&path, &boot) } else { Ok(()) }
    }

    fn verdicts(&mut self) -> &mut Verdicts {
        let (path, boot_time) = (&self.side.verdicts, &self.boot_time);
        self.verdicts.get_or_insert_with(|| Verdicts::read(path, boot_time))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn noted(probed: &[IpAddr], conflicts: &[(IpAddr, MacAddr)], now: u32) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let conflicts: BTreeMap<IpAddr, MacAddr> = conflicts.iter().copied().collect();
        verdicts.note(&Window { probed, conflicts: &conflicts, quarantine: 60 }, now);
        verdicts
    }

    #[test]
    fn a_verdict_counts_for_its_time_and_in_its_boot() {
        let dir = std::env::temp_dir().join(format!("ipam-verdicts-{}", std::process::id()));
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let (free, used) = (addr("10.0.0.5"), addr("2001:db8::6"));
        noted(&[free, used], &[(used, mac)], 1000).write(&dir, "b1").unwrap();
        let read = |boot: &str, uptime: u32| {
            let read = Verdicts::read(&dir, &BootTime { boot: boot.into(), uptime });
            (read.clear.contains_key(&free), read.quarantined.get(&used).map(|seen| seen.mac))
        };
        assert_eq!(read("b1", 1000), (true, Some(mac)));
        assert_eq!(read("b1", 1099), (true, Some(mac)));
        assert_eq!(read("b1", 1100), (false, Some(mac)));
        assert_eq!(read("b1", 1599), (false, Some(mac)));
        assert_eq!(read("b1", 1600), (false, None));
        assert_eq!(read("b2", 1000), (false, None));
        // Written in the future of this boot, which happens without a boot id.
        assert_eq!(read("b1", 999), (false, None));
        fs::write(&dir, "{").unwrap();
        assert_eq!(read("b1", 1000), (false, None));
        fs::remove_file(&dir).unwrap();
    }

    #[test]
    fn a_verdict_is_extended_while_nobody_is_heard_and_only_from_before_no_gap() {
        let [free, taken, old, probed_again] = ["10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8"].map(addr);
        let mut verdicts = noted(&[free, taken], &[], 1000);
        for (address, at) in [(old, 900), (probed_again, 1030)] {
            verdicts.note(&Window { probed: &[address], conflicts: &BTreeMap::new(), quarantine: 60 }, at);
        }
        let uses = BTreeMap::from([(taken, 1020), (probed_again, 1020)]);
        let listened = Listened { since: 950, until: 1050, uses };
        assert!(verdicts.extend(&listened, 1060));
        assert_eq!(verdicts.clear, BTreeMap::from([(free, 1050), (probed_again, 1050), (old, 900)]));
        assert!(verdicts.quarantined.is_empty());
        assert!(!verdicts.extend(&listened, 1060));
    }

    #[test]
    fn a_later_window_has_the_last_word_and_the_oldest_are_forgotten() {
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let many: Vec<IpAddr> = (0..=MAX_CLEAR as u8).map(|i| addr(&format!("10.0.0.{i}"))).collect();
        let mut verdicts = noted(&many[..1], &[(many[0], mac)], 1);
        assert!(verdicts.quarantined.contains_key(&many[0]));
        verdicts.note(&Window { probed: &many[..1], conflicts: &BTreeMap::new(), quarantine: 1 }, 2);
        assert!(verdicts.quarantined.is_empty() && verdicts.clear.contains_key(&many[0]));
        verdicts.note(&Window { probed: &many[1..], conflicts: &BTreeMap::new(), quarantine: 1 }, 3);
        assert_eq!(verdicts.clear.len(), MAX_CLEAR);
        assert!(!verdicts.clear.contains_key(&many[0]));
    }
}

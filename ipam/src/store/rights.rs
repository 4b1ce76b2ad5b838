//! What a shared pool lets this node give: the files that the agent writes for each range set of a network.
//!
//! If there are grants, they decide, whatever the configuration says. A slice of which the agent has lent an
//! address must not give it, even after somebody has removed the pool from the configuration.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni_conf::range::{Range, RangeSet};
use kernel::{open, since_boot};
use vlan_bridge_pool::document::LONGEST_ADD;
use vlan_bridge_pool::grants::{Confirmation, Grants, Moment, Verdict};
use vlan_bridge_pool::runs::Runs;

use super::Store;
use super::boot_time::BootTime;
use super::error::StoreError;
use super::index::Shown;
use super::pool::Pool;
use super::table::AddressRange;
use super::usage::SharedUsage;

/// Longest file read, in bytes: grants that have no two neighbours.
const MAX_FILE: u64 = 4 << 20;
/// The stamp of a table that may show anything.
pub(super) const UNKNOWN: u64 = 0;

/// The rights to the addresses of one range set.
#[derive(Debug, Clone)]
pub struct Rights {
    /// Every address that this node may give now, or when the grants are confirmed.
    pub(super) granted: Runs,
    /// Differs if other addresses are granted.
    pub(super) stamp: u64,
    /// None if the agent has granted nothing yet. Then only home addresses are given.
    grants: Option<Grants>,
    confirmation: Option<Confirmation>,
    /// When the files were read.
    pub(super) read_at: Moment,
}

impl Rights {
    /// Reads the files of a set. Without grants, the rights are those to `home`, and `None` if that is none.
    pub(super) fn read(
        dir: &Path,
        network: &str,
        set: usize,
        home: Option<Runs>,
    ) -> Result<Option<Rights>, StoreError> {
        // Before the files: a confirmation must not last longer because they are read late.
        let read_at = moment();
        let grants = read_grants(dir, network, set)?;
        let Some(granted) = grants.as_ref().map(granted).or(home) else { return Ok(None) };
        let confirmation = if grants.is_some() { read_confirmation(dir, set) } else { None };
        let stamp = stamp(&granted);
        Ok(Some(Rights { granted, stamp, grants, confirmation, read_at }))
    }

    /// Whether a pod may get an address.
    pub(crate) fn verdict(&self, addr: IpAddr) -> Verdict {
        match &self.grants {
            Some(grants) => grants.may_give(addr, self.confirmation.as_ref(), &self.read_at),
            None if self.granted.contains(addr) => Verdict::Give,
            None => Verdict::NotGranted,
        }
    }

    /// Whether an address may be chosen. `probes`: whether the ADD can probe for it.
    pub(crate) fn offers(&self, addr: IpAddr, probes: bool) -> bool {
        match self.verdict(addr) {
            Verdict::Give => true,
            Verdict::GiveIfSilent => probes,
            Verdict::NotGranted | Verdict::Unconfirmed => false,
        }
    }

    /// Whether an address is granted, or a home address while nothing is granted yet.
    pub(crate) fn contains(&self, addr: IpAddr) -> bool {
        self.granted.contains(addr)
    }

    /// Whether an address is granted, and no pod of a lost node may use it.
    pub(super) fn is_certain(&self, addr: IpAddr) -> bool {
        let is_unproven = self.grants.as_ref().is_some_and(|grants| grants.unproven.contains(addr));
        self.granted.contains(addr) && !is_unproven
    }

    /// The usage of a range: `used` are its held addresses.
    pub(super) fn usage<'a>(
        &self,
        pool: &Pool<'_>,
        range: &Range,
        used: impl Iterator<Item = &'a IpAddr>,
    ) -> SharedUsage {
        self.counts(pool.probes, used, |runs| count(pool.set, range, runs))
    }

    fn counts<'a>(
        &self,
        probes: bool,
        used: impl Iterator<Item = &'a IpAddr>,
        count: impl Fn(&Runs) -> u128,
    ) -> SharedUsage {
        let withdrawn = used.filter(|addr| !self.granted.contains(**addr)).count() as u128;
        let Some(grants) = &self.grants else {
            return SharedUsage { home: count(&self.granted), withdrawn, ..SharedUsage::default() };
        };
        let (leased, confirmed) = (count(&grants.leased), self.is_confirmed());
        SharedUsage {
            home: count(&grants.home),
            leased,
            unconfirmed: if confirmed { 0 } else { leased },
            unproven: if confirmed && !probes { count(&grants.unproven) } else { 0 },
            withdrawn,
            is_granted: true,
        }
    }

    /// The grants, if the agent has granted anything.
    pub(crate) fn grants(&self) -> Option<&Grants> {
        self.grants.as_ref()
    }

    /// Whether leased addresses may be given now.
    pub(crate) fn is_confirmed(&self) -> bool {
        let confirmed = self.confirmation.as_ref().zip(self.grants.as_ref());
        confirmed.is_some_and(|(confirmation, grants)| confirmation.holds(grants.epoch, &self.read_at))
    }
}

/// The present moment.
pub(crate) fn moment() -> Moment {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Moment { boot: BootTime::now().boot, uptime: since_boot(), clock }
}

/// The name by which the pool knows a range set of a network.
pub(crate) fn holder_name(network: &str, set: usize) -> String {
    if set == 0 { network.to_owned() } else { format!("{network}.{set}") }
}

/// The path of one of the agent's files for a set.
pub(crate) fn path_of(dir: &Path, file: &str, set: usize) -> PathBuf {
    dir.join(if set == 0 { file.to_owned() } else { format!("{file}.{set}") })
}

/// The file of grants, and the confirmation.
pub(crate) const GRANTS: &str = "grants";
pub(crate) const CONFIRMATION: &str = "confirmation";

/// The grants of a set. `None` if there is no file.
pub(crate) fn read_grants(dir: &Path, network: &str, set: usize) -> Result<Option<Grants>, StoreError> {
    let path = path_of(dir, GRANTS, set);
    let unreadable = |why: String| StoreError::Grants { path: path.clone(), why };
    let bytes = match open::read(&path, MAX_FILE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let grants = Grants::parse(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if grants.network.as_str() != holder_name(network, set) {
        return Err(unreadable(format!("it is of network {}", grants.network)));
    }
    Ok(Some(grants))
}

/// One that cannot be read confirms nothing.
fn read_confirmation(dir: &Path, set: usize) -> Option<Confirmation> {
    let path = path_of(dir, CONFIRMATION, set);
    let unreadable = |why: String| log::warn!("{}: {why}: leased addresses are not given", path.display());
    match open::read(&path, MAX_FILE) {
        Ok(bytes) => Confirmation::parse(&bytes).map_err(|error| unreadable(error.to_string())).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            unreadable(error.to_string());
            None
        }
    }
}

/// Every granted address, confirmed or not.
pub(crate) fn granted(grants: &Grants) -> Runs {
    let mut granted = grants.home.clone();
    grants.leased.iter_runs().for_each(|(first, last)| granted.insert_run(first, last));
    granted
}

fn stamp(granted: &Runs) -> u64 {
    let mut hasher = DefaultHasher::new();
    granted.hash(&mut hasher);
    hasher.finish().max(UNKNOWN + 1)
}

/// How many addresses of a range are in the runs and may be assigned.
pub(super) fn count(set: &RangeSet, range: &Range, runs: &Runs) -> u128 {
    let clipped = clip(runs, (range.first, range.last));
    clipped.map(|(first, last)| set.capacity_of(&Range { first, last, ..range.clone() })).sum()
}

/// The parts of the runs between two addresses.
fn clip(runs: &Runs, bounds: (IpAddr, IpAddr)) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let of_family = runs.iter_runs().filter(move |(first, _)| first.is_ipv4() == bounds.0.is_ipv4());
    let clipped = of_family.map(move |(first, last)| (first.max(bounds.0), last.min(bounds.1)));
    clipped.filter(|(first, last)| first <= last)
}

impl Store {
    /// What a shared pool lets this node give of a set. `None` if the set is of no pool. The files are read
    /// once: while this call has the lock, the agent offers no address and takes none back.
    ///
    /// # Errors
    /// If there are grants that cannot be read.
    pub(crate) fn rights(&mut self, pool: &Pool<'_>) -> Result<Option<Arc<Rights>>, StoreError> {
        if let Some(known) = self.rights.get(&pool.index) {
            return Ok(known.clone());
        }
        // A node that lost its grants may have lent its slice. Only the store knows.
        let home = pool.is_shared.then(|| if pool.lends_home { Runs::EMPTY } else { pool.home() });
        let rights = Rights::read(&self.side.dir, &self.network(), pool.index, home)?.map(Arc::new);
        self.rights.insert(pool.index, rights.clone());
        Ok(rights)
    }

    /// Whether an address that becomes free returns to the stock. It does not if grants are there that do not
    /// name it.
    pub(super) fn is_granted(&self, addr: IpAddr) -> bool {
        let of_addr =
            |(name, _): &(&String, &Shown)| AddressRange::parse(name).is_some_and(|span| span.covers(addr));
        let Some((_, Shown { set, .. })) = self.index.shared.iter().find(of_addr) else { return true };
        match self.rights.get(set) {
            Some(known) => known.as_ref().is_none_or(|rights| rights.granted.contains(addr)),
            None => match read_grants(&self.side.dir, &self.network(), *set) {
                Ok(grants) => grants.is_none_or(|grants| grants.contains(addr)),
                Err(error) => {
                    log::warn!("{error}");
                    false
                }
            },
        }
    }

    /// What is granted of the range of a table.
    pub(super) fn shared_usage<'a>(
        &self,
        span: AddressRange,
        used: impl Iterator<Item = &'a IpAddr>,
    ) -> Result<Option<SharedUsage>, StoreError> {
        let Some(Shown { set, .. }) = self.index.shared.get(&span.name()) else { return Ok(None) };
        let Some(rights) = Rights::read(&self.side.dir, &self.network(), *set, None)? else {
            return Ok(Some(SharedUsage::default()));
        };
        let len = |(first, last)| AddressRange { first, last }.len();
        let count = |runs: &Runs| clip(runs, (span.first, span.last)).map(len).sum();
        Ok(Some(rights.counts(true, used, count)))
    }

    /// Refuses to take an address if the rights were read too long ago, because this process was stopped or
    /// the machine slept: another node may have the address by now.
    pub(super) fn check_time(&self) -> Result<(), StoreError> {
        let now = since_boot();
        let is_late = |rights: &Rights| now.saturating_sub(rights.read_at.uptime) > LONGEST_ADD;
        match self.rights.values().flatten().any(|rights| is_late(rights)) {
            true => Err(StoreError::Late(LONGEST_ADD)),
            false => Ok(()),
        }
    }

    fn network(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ClaimOutcome, HolderRecord, Owner};

    #[test]
    fn nothing_is_claimed_long_after_the_grants_were_read() {
        let dir = std::env::temp_dir().join(format!("ipam-rights-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut store = Store::create(&dir, "n").unwrap();
        let addr = IpAddr::from([10, 0, 0, 2]);
        let mut claim = |passed: Duration| {
            let now = moment();
            let read_at = Moment { uptime: now.uptime.saturating_sub(passed), ..now };
            let (granted, grants) = ([addr].into_iter().collect(), None);
            let rights = Rights { granted, stamp: 1, grants, confirmation: None, read_at };
            store.rights.insert(0, Some(Arc::new(rights)));
            let owner = Owner { container_id: "c1".into(), ifname: "eth0".into() };
            store.claim(addr, &owner, &mut HolderRecord::default())
        };
        let late = claim(LONGEST_ADD + Duration::from_secs(1));
        assert!(matches!(late, Err(StoreError::Late(_))), "{late:?}");
        assert!(!dir.join("n/10.0.0.2").exists() && !dir.join("n/.claim").exists());
        assert_eq!(claim(LONGEST_ADD - Duration::from_secs(60)).unwrap(), ClaimOutcome::Won);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

//! What the agent has done since it began, in numbers. Those who do it count it, and the metrics read it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vlan_bridge::repairs::Subject;

use crate::keeper::Looked;
use crate::pool::PoolShown;
use crate::report::{Reason, Report};

/// The numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    /// How many passes have ended.
    pub(crate) passes: u64,
    /// When the last one ended, since 1970, and how long it took.
    pub(crate) last_pass: Option<(Duration, Duration)>,
    /// What was restored, by kind.
    pub(crate) restored: BTreeMap<&'static str, u64>,
    /// What the last pass has left, by kind.
    pub(crate) left: BTreeMap<&'static str, u64>,
    /// What the last pass could not restore, by kind.
    pub(crate) failed: BTreeMap<&'static str, u64>,
    /// The conflicts that last.
    pub(crate) conflicts: usize,
    /// Frames that announced an address of a pod.
    pub(crate) announcements: u64,
    /// Addresses that were probed for.
    pub(crate) probes: u64,
    /// The reports by reason.
    pub(crate) reports: BTreeMap<Reason, u64>,
    /// The pools of the networks.
    pub(crate) pools: Vec<PoolShown>,
    /// Requests to the store of pools: with an answer, without one, and writes that may have been done.
    pub(crate) store_requests: [u64; 3],
    /// ADDs that waited for an address of a pool.
    pub(crate) dry_adds: u64,
}

/// The numbers, shared by those who count and those who read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Arc<Mutex<Numbers>>);

impl Figures {
    /// The numbers of now.
    pub(crate) fn read(&self) -> Numbers {
        self.numbers().clone()
    }

    /// A pass has ended.
    pub(crate) fn looked(&self, looked: &Looked) {
        let mut numbers = self.numbers();
        numbers.passes += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        numbers.last_pass = Some((now, looked.took));
        for (kind, count) in by_kind(&looked.restored) {
            *numbers.restored.entry(kind).or_default() += count;
        }
        numbers.left = by_kind(&looked.left);
        numbers.failed = by_kind(&looked.failed);
    }

    /// A report was told.
    pub(crate) fn told(&self, report: &Report) {
        *self.numbers().reports.entry(report.reason).or_default() += 1;
    }

    /// So many conflicts last.
    pub(crate) fn conflicts(&self, lasting: usize) {
        self.numbers().conflicts = lasting;
    }

    /// An address was announced.
    pub(crate) fn announced(&self) {
        self.numbers().announcements += 1;
    }

    /// So many addresses were probed for.
    pub(crate) fn probed(&self, count: usize) {
        self.numbers().probes += u64::try_from(count).unwrap_or(u64::MAX);
    }

    /// The pools are like this.
    pub(crate) fn pools(&self, pools: &[PoolShown]) {
        self.numbers().pools = pools.to_vec();
    }

    /// A request to the store of pools has ended: answered or not, or a write of which nobody knows whether
    /// it was done.
    pub(crate) fn store_asked(&self, answered: bool, unknown: bool) {
        let outcome = if unknown { 2 } else { usize::from(!answered) };
        self.numbers().store_requests[outcome] += 1;
    }

    /// An ADD waits for an address of a pool.
    pub(crate) fn waits(&self) {
        self.numbers().dry_adds += 1;
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // A thread that panicked has counted, or has not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every kind is there: a counter that appears with its first increase would hide it.
fn by_kind(noted: &[(Subject, String)]) -> BTreeMap<&'static str, u64> {
    let mut kinds: BTreeMap<&'static str, u64> = Subject::KINDS.into_iter().map(|kind| (kind, 0)).collect();
    for (subject, _) in noted {
        *kinds.entry(subject.kind()).or_default() += 1;
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_from_the_first_pass_on() {
        let figures = Figures::default();
        let port = (Subject::Port("veth0".into()), "it was in no bridge".into());
        let nat = (Subject::Nat, "chain dnat was gone".into());
        figures.looked(&Looked { restored: vec![port.clone(), nat], ..Looked::default() });
        figures.looked(&Looked { restored: vec![port.clone()], left: vec![port], ..Looked::default() });
        let numbers = figures.read();
        assert_eq!(numbers.passes, 2);
        assert_eq!([numbers.restored["port"], numbers.restored["nat"], numbers.restored["guard"]], [2, 1, 0]);
        assert_eq!([numbers.left["port"], numbers.left["nat"], numbers.failed["port"]], [1, 0, 0]);
        assert_eq!(numbers.restored.len(), Subject::KINDS.len());
    }
}

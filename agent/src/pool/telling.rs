//! What a life tells and shows.

use vlan_bridge_pool::grants::Grants;
use vlan_bridge_pool::runs::Runs;

use super::life::Life;
use super::plan::PooledShare;
use super::{PoolNews, PoolShown};
use crate::registers::StoreError;
use crate::report::Report;

impl Life<'_> {
    pub(super) fn tell(&self, report: Report) {
        // If nobody hears it, the process ends.
        let _ = self.news.send(report.into());
    }

    /// The store has answered, or has not.
    pub(super) fn answered<T>(&mut self, outcome: &Result<T, StoreError>) {
        if matches!(outcome, Err(StoreError::DocumentChanged)) {
            self.seek(self.plan.pools());
        }
        if let Some(report) = self.outage.note(outcome) {
            self.tell(report);
            self.show();
        }
    }

    /// Something was done on the node. An error is told once until something succeeds.
    pub(super) fn did(&mut self, outcome: Result<(), String>) {
        let error = outcome.err();
        if self.trouble != error {
            error.iter().for_each(|error| self.tell(Report::pool_not_used(error)));
            self.trouble = error;
        }
    }

    /// Shows how the pools are, if that has changed.
    pub(super) fn show(&mut self) {
        let shown: Vec<PoolShown> = self.plan.shares.iter().map(|share| self.shown_of(share)).collect();
        if self.shown != shown {
            self.shown.clone_from(&shown);
            self.figures.pools(&shown);
            let _ = self.news.send(PoolNews::Shown(shown));
        }
    }

    fn shown_of(&self, share: &PooledShare) -> PoolShown {
        let network = self.agent.as_ref().and_then(|agent| agent.network(&share.holder));
        let count = |of: fn(&Grants) -> &Runs| {
            let count = network.map_or(0, |network| of(network.stock().grants()).len());
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        PoolShown {
            network: share.holder.to_string(),
            pool: share.pool.to_string(),
            home: count(|grants| &grants.home),
            leased: count(|grants| &grants.leased),
            idle: self.usages.get(&share.holder).map(|usage| usage.idle),
            waiting: self.waiting.count(&share.holder),
            problem: self.problems.get(&share.holder).cloned(),
            away: self.outage.shown(),
        }
    }
}

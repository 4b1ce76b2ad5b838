//! What ADDs and other nodes ask of a life, and what it knows of the stock.

use std::time::{Duration, Instant};

use vlan_bridge_ipam::poke::{Question, Reply};
use vlan_bridge_ipam::shares::PoolShare;
use vlan_bridge_ipam::store::StoreError as LeaseError;
use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::{self, Dry, Recall};

use super::life::{Done, Life};
use super::socket::Call;
use super::store_work;
use crate::report::Report;

/// How often a dry pool is reported.
const TELL_AGAIN: Duration = Duration::from_secs(600);

impl Life<'_> {
    pub(super) fn called(&mut self, call: Call) {
        match call {
            Call::Asks(number, question, answers) => {
                self.figures.waits();
                let shares = self.shares_of(&question);
                if let Some(why) = self.outage.words() {
                    let _ = answers.send(Reply::Dry(why));
                }
                self.waiting.add(number, shares.clone(), question.addresses, answers);
                shares.iter().for_each(|share| self.look(share));
            }
            Call::Notes(question) => {
                for share in self.shares_of(&question) {
                    self.waiting.tell(&share, &Reply::Look);
                    self.look(&share);
                }
            }
            Call::Ends(number) => {
                for share in self.waiting.remove(number) {
                    self.look(&share);
                }
            }
        }
    }

    /// The shares of a network that a question is about.
    fn shares_of(&self, question: &Question) -> Vec<Name> {
        let shares = self.plan.shares.iter().filter(|share| share.network == question.network);
        let asked = shares.filter(|share| question.sets.is_empty() || question.sets.contains(&share.set));
        asked.map(|share| share.holder.clone()).collect()
    }

    /// Looks at the stock of a share, in a thread that may wait for the lock.
    pub(super) fn look(&mut self, share: &Name) {
        let Some(member) = self.members.get(share).cloned() else { return };
        if let Some(again) = self.looking.get_mut(share) {
            *again = true;
            return;
        }
        self.looking.insert(share.clone(), false);
        let share = share.clone();
        self.work.spawn_blocking(move || {
            let report = member.share.files().map(|files| files.report(0)).transpose();
            let report = report.map_err(|error| format!("network {share}: {error}"));
            Done::Looked(share, report.map(Option::unwrap_or_default))
        });
    }

    /// The stock was looked at. ADDs began or ended to wait meanwhile.
    pub(super) fn looked(&mut self, share: &Name, report: Result<network::Report, String>) {
        let again = self.looking.remove(share).unwrap_or_default();
        let (report, did) = report.map_or_else(|error| (None, Err(error)), |report| (Some(report), Ok(())));
        self.did(did);
        if let Some(mut report) = report {
            report.usage.waiting = self.waiting.count(share);
            self.usages.insert(share.clone(), report.usage);
            self.step(Event::Requested(share.clone(), self.waiting.requested(share)));
            self.step(Event::Usage(share.clone(), report));
            for recall in self.recalls.remove(share).unwrap_or_default() {
                self.step(Event::Recalled(share.clone(), recall));
            }
        }
        if again {
            self.look(share);
        }
        self.show();
    }

    /// Another node needs addresses of a pool.
    pub(super) fn recalled(&mut self, pool: &Name, recall: Recall) {
        self.recall(pool, None, recall);
    }

    /// Asks the shares of this node that use a pool, but for one.
    fn recall(&mut self, pool: &Name, but: Option<&Name>, recall: Recall) {
        let of_pool = self.members.values().map(|member| &member.share).filter(|share| share.pool == *pool);
        let shares = of_pool.map(|share| share.holder.clone()).filter(|share| Some(share) != but);
        for share in shares.collect::<Vec<_>>() {
            self.recalls.entry(share.clone()).or_default().push(recall);
            self.look(&share);
        }
    }

    /// Asks other nodes for addresses, and the other networks of this one.
    pub(super) fn ask(&mut self, share: &Name, mut nodes: Vec<Name>, recall: Recall) {
        let Some(pool) = self.pool_of(share) else { return };
        let all = nodes.len();
        nodes.retain(|node| *node != self.plan.node);
        if nodes.len() < all {
            self.recall(&pool, Some(share), recall);
        }
        self.there(store_work::ask(self.store.clone(), pool, nodes, recall));
    }

    /// Nothing can be had now. ADDs that wait learn why, and go on waiting.
    pub(super) fn dry(&mut self, share: &Name, dry: &Dry) {
        let Some(member) = self.members.get(share) else { return };
        let why = match self.outage.words().filter(|_| *dry == Dry::NoAnswer) {
            Some(outage) => format!("pool {}: {outage}", member.share.pool),
            None => format!("pool {}: {dry}", member.share.pool),
        };
        if self.waiting.count(share) == 0 {
            return;
        }
        let is_news = self.told_dry.get(share).is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if is_news {
            self.tell(Report::pool_dry(share, &why));
            self.told_dry.insert(share.clone(), Instant::now());
        }
        self.waiting.tell(share, &Reply::Dry(why));
    }

    /// Changes the confirmation of a share. It is a small file without a sync.
    pub(super) fn confirm(
        &mut self,
        share: &Name,
        change: impl FnOnce(&PoolShare<'_>) -> Result<(), LeaseError>,
    ) {
        let Some(member) = self.members.get(share).cloned() else { return };
        let Some(files) = member.share.files() else { return };
        match change(&files) {
            Ok(()) => self.waiting.tell(share, &Reply::Look),
            Err(error) => self.did(Err(format!("network {share}: {error}"))),
        }
    }
}

//! Drives the protocol for as long as the lists and the pools' documents stay as they are. After a change
//! another life begins, as with a restarted agent.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::since_boot;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use vlan_bridge_ipam::poke::Reply;
use vlan_bridge_ipam::shares;
use vlan_bridge_ipam::store::StoreError as LeaseError;
use vlan_bridge_pool::agent::{Action, Agent, Event};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::membership;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::{self, Recall};
use vlan_bridge_pool::stock;
use vlan_bridge_pool::version::{Swap, Version};
use vlan_bridge_pool::water::Usage;

use super::beginning::{self, Beginning, Member};
use super::outage::Outage;
use super::plan::NodePlan;
use super::socket::{Call, Socket};
use super::store_work::{self, Answered};
use super::waiting::Waiting;
use super::watches::{Heard, Watches};
use super::{InstalledNetwork, PoolNews, PoolShown, local_work};
use crate::figures::Figures;
use crate::registers::{Etcd, StoreError};
use crate::report::Report;

/// How often the stock is looked at although nothing was announced.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often a pool is looked for that does not exist yet, or whose store does not answer.
const SEEK_EVERY: Duration = Duration::from_secs(10);

/// Why a life ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The lists name other networks, or name them otherwise.
    Lists(Vec<InstalledNetwork>),
    /// A document has changed.
    Again,
    /// The agent ends.
    Gone,
}

/// What was done.
#[derive(Debug)]
pub(super) enum Done {
    /// On the node. The error has text for the report.
    Here(Event, Result<(), String>),
    /// In the store.
    There(Answered),
    /// The stock of a share was looked at.
    Looked(Name, Result<network::Report, String>),
    /// A document was read again.
    Read(Name, Result<Found, StoreError>),
}

/// A pool's document and its version. None if there is no such pool.
type Found = Option<(Version, Document)>;

/// What outlasts a life.
pub(super) struct Surroundings<'a> {
    pub(super) waiting: &'a mut Waiting,
    pub(super) news: &'a UnboundedSender<PoolNews>,
    pub(super) figures: &'a Figures,
}

/// The life.
pub(super) struct Life<'a> {
    pub(super) plan: NodePlan,
    pub(super) store: Etcd,
    /// None if no pool can be used.
    pub(super) agent: Option<Agent>,
    pub(super) members: BTreeMap<Name, Arc<Member>>,
    pub(super) waiting: &'a mut Waiting,
    pub(super) news: &'a UnboundedSender<PoolNews>,
    pub(super) figures: &'a Figures,
    pub(super) work: JoinSet<Done>,
    pub(super) outage: Outage,
    /// When [`Event::Time`] is due, since the boot.
    wakes: BTreeSet<Duration>,
    /// The shares whose stock is being looked at, and whether it has to be looked at again after that.
    pub(super) looking: BTreeMap<Name, bool>,
    /// What other nodes ask of a share. The protocol hears it after a look at the stock.
    pub(super) recalls: BTreeMap<Name, Vec<Recall>>,
    /// When it was last told that a share's pool has no free address.
    pub(super) told_dry: BTreeMap<Name, Instant>,
    /// What the last look at each share found.
    pub(super) usages: BTreeMap<Name, Usage>,
    /// The last error on the node.
    pub(super) trouble: Option<String>,
    /// Why shares do not take part.
    pub(super) problems: BTreeMap<Name, String>,
    /// What was shown last.
    pub(super) shown: Vec<PoolShown>,
    /// Pools whose document was not found.
    absent: Vec<Name>,
    /// Pools whose documents are to be read, each with the number of a restore that it has to know.
    sought: BTreeMap<Name, u32>,
    seeking: bool,
    again: bool,
}

impl<'a> Life<'a> {
    /// Reads what is on the disk and in the store. Without a pool that can be used, the life only looks for
    /// one.
    pub(super) async fn begin(plan: NodePlan, store: Etcd, surroundings: Surroundings<'a>) -> Life<'a> {
        let Surroundings { waiting, news, figures } = surroundings;
        let mut life = Life {
            plan,
            store,
            agent: None,
            members: BTreeMap::new(),
            waiting,
            news,
            figures,
            work: JoinSet::new(),
            outage: Outage::default(),
            wakes: BTreeSet::new(),
            looking: BTreeMap::new(),
            recalls: BTreeMap::new(),
            told_dry: BTreeMap::new(),
            usages: BTreeMap::new(),
            trouble: None,
            problems: BTreeMap::new(),
            shown: Vec::new(),
            absent: Vec::new(),
            sought: BTreeMap::new(),
            seeking: false,
            again: false,
        };
        let documents = beginning::documents(&life.plan, &life.store).await;
        life.answered(&documents);
        let found =
            |pool: &Name| documents.as_ref().is_ok_and(|found| beginning::of_pool(found, pool).is_some());
        life.absent = life.plan.pools().into_iter().filter(|pool| !found(pool)).collect();
        if let Ok(documents) = documents {
            let Beginning { agent, members, problems } = Beginning::of(&life.plan, &documents);
            (life.agent, life.members) = (agent, members);
            for (share, problem) in &problems {
                life.tell(Report::pool_not_used(&format!("network {share}: {problem}")));
            }
            life.problems = problems;
        }
        life.show();
        life
    }

    /// Lives until something ends it, and then waits for what is under way.
    pub(super) async fn run(
        mut self,
        changes: &mut UnboundedReceiver<Vec<InstalledNetwork>>,
        mut socket: Option<&mut Socket>,
    ) -> Ended {
        let mut watches = Watches::begin(&self.store, &self.plan.node, self.plan.pools());
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut seeks = tokio::time::interval(SEEK_EVERY);
        self.step(Event::Time);
        let ended = loop {
            if self.again {
                break Ended::Again;
            }
            let wake = self.wakes.first().map(|at| at.saturating_sub(since_boot()));
            tokio::select! {
                lists = changes.recv() => break lists.map_or(Ended::Gone, Ended::Lists),
                _ = seeks.tick(), if !self.absent.is_empty() => self.seek(self.absent.clone()),
                call = next_call(&mut socket) => self.called(call),
                Some(heard) = watches.next() => self.heard(heard),
                Some(done) = self.work.join_next() => self.done(done.ok()),
                () = tokio::time::sleep(wake.unwrap_or(LOOK_EVERY)), if wake.is_some() => {
                    self.wakes.retain(|at| *at > since_boot());
                    self.step(Event::Time);
                }
                _ = looks.tick() => self.look_at_all(),
            }
        };
        // What is being written may still change what the next life reads.
        while self.work.join_next().await.is_some() {}
        ended
    }

    fn look_at_all(&mut self) {
        let shares: Vec<Name> = self.members.keys().cloned().collect();
        shares.iter().for_each(|share| self.look(share));
    }

    /// Reads documents again, one question after another: an old answer that comes late would look like a
    /// store that went back.
    pub(super) fn seek(&mut self, pools: Vec<Name>) {
        for pool in pools {
            self.sought.entry(pool).or_insert(0);
        }
        self.seek_next();
    }

    /// The store went back to an older state: the pool's document has to say so.
    fn recover(&mut self, share: &Name, restored: u32) {
        let Some(pool) = self.pool_of(share) else { return };
        self.tell(Report::recovers(&pool));
        self.sought.insert(pool, restored);
        self.seek_next();
    }

    fn seek_next(&mut self) {
        if self.seeking {
            return;
        }
        let Some((pool, restored)) = self.sought.pop_first() else { return };
        self.seeking = true;
        let store = self.store.clone();
        self.work.spawn(async move {
            let found = store_work::document(&store, &pool, restored).await;
            Done::Read(pool, found)
        });
    }

    /// A pool that is frozen, opened, or recovers changes a life. After another change, another life begins.
    fn read(&mut self, pool: &Name, found: Option<&(Version, Document)>) {
        let of_pool = self.members.values_mut().filter(|member| member.share.pool == *pool);
        let (mut is_known, mut changed) = (false, Vec::new());
        for member in of_pool {
            is_known = true;
            let Some((version, document)) =
                found.filter(|(_, now)| now.has_the_same_addresses(&member.document))
            else {
                self.again = true;
                continue;
            };
            let member = Arc::make_mut(member);
            (member.version, member.document) = (version.clone(), document.clone());
            changed.push(member.clone());
        }
        self.again |= !is_known && found.is_some();
        for Member { share, document, .. } in changed {
            let settings = beginning::settings(&share, &document);
            self.agent.iter_mut().for_each(|agent| agent.configure(&share.holder, settings.clone()));
            self.step(Event::Time);
        }
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Recall(pool, recall) => self.recalled(&pool, recall),
            Heard::Document(pool) => self.seek(vec![pool]),
            Heard::Failed(error) => self.answered(&Err::<(), _>(error)),
        }
    }

    fn done(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Here(event, outcome)) => {
                self.did(outcome);
                self.happened(event);
            }
            Some(Done::There((event, outcome))) => {
                self.figures.store_asked(outcome.is_ok(), event.as_ref().is_some_and(is_unknown));
                self.answered(&outcome);
                event.into_iter().for_each(|event| self.happened(event));
            }
            Some(Done::Looked(share, report)) => self.looked(&share, report),
            Some(Done::Read(pool, found)) => {
                self.seeking = false;
                self.figures.store_asked(found.is_ok(), false);
                self.answered(&found);
                if let Ok(found) = found {
                    self.read(&pool, found.as_ref());
                }
                self.seek_next();
            }
            // A task ended by a panic, and what it did is unknown: begin again.
            None => self.again = true,
        }
    }

    /// Passes an event on. ADDs that wait hear of what they can get now.
    fn happened(&mut self, event: Event) {
        let offered = match &event {
            Event::Stock(share, stock::Outcome::Offered) => Some(share.clone()),
            _ => None,
        };
        self.step(event);
        if let Some(share) = offered {
            self.waiting.tell(&share, &Reply::Look);
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        let Some(agent) = &mut self.agent else { return };
        for action in agent.step(&shares::moment(), event) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let store = self.store.clone();
        match action {
            Action::Register(membership::Action::Save(identity)) => {
                let data_dir = self.plan.data_dir.clone();
                self.work.spawn_blocking(move || {
                    let (outcome, did) = local_work::save(&data_dir, &identity);
                    Done::Here(Event::Register(outcome), did.map_err(|error| error.to_string()))
                });
            }
            Action::Register(action) => {
                self.there(store_work::on_register(store, self.plan.node.clone(), action));
            }
            Action::Stock(share, action) => self.on_stock(share, action),
            Action::Confirm(share, confirmation) => {
                self.confirm(&share, |files| files.confirm(&confirmation))
            }
            Action::Withdraw(share) => self.confirm(&share, |files| files.withdraw()),
            Action::List(share) => {
                let Some(pool) = self.pool_of(&share) else { return };
                self.there(store_work::list(store, share, pool));
            }
            Action::Look(node) => self.there(store_work::look(store, node)),
            Action::Ask(share, nodes, recall) => self.ask(&share, nodes, recall),
            Action::Dry(share, why) => self.dry(&share, &why),
            Action::Recover(share, restored) => self.recover(&share, restored),
            Action::Fenced(share, addresses) => self.tell(Report::fenced(&share, &addresses)),
            Action::Refused(register) => self.tell(Report::two_machines(&self.plan.node, &register)),
            Action::Wake(at) => _ = self.wakes.insert(at),
        }
    }

    /// Asks the store.
    pub(super) fn there(&mut self, work: impl Future<Output = Answered> + Send + 'static) {
        self.work.spawn(async move { Done::There(work.await) });
    }

    pub(super) fn pool_of(&self, share: &Name) -> Option<Name> {
        self.members.get(share).map(|member| member.share.pool.clone())
    }

    fn on_stock(&mut self, share: Name, action: stock::Action) {
        let Some(member) = self.members.get(&share).cloned() else { return };
        match action {
            stock::Action::Read(_) | stock::Action::Swap(..) => {
                let of = (share, member.share.pool.clone());
                self.there(store_work::on_block(self.store.clone(), of, member.version.clone(), action));
            }
            stock::Action::Store(_) | stock::Action::Inspect(_) | stock::Action::Offer(_) => {
                let news = self.news.clone();
                self.work.spawn_blocking(move || {
                    let tell = |error: &LeaseError| {
                        let text = format!("network {share}: {error}");
                        let _ = news.send(Report::pool_not_used(&text).into());
                    };
                    let (outcome, did) = local_work::on_share(&member.share, &action, tell);
                    let did = did.map_err(|error| format!("network {share}: {error}"));
                    Done::Here(Event::Stock(share, outcome), did)
                });
            }
        }
    }
}

/// The next call by the socket. Without one there is none.
async fn next_call(socket: &mut Option<&mut Socket>) -> Call {
    let next = match socket {
        Some(socket) => socket.calls().recv().await,
        None => None,
    };
    match next {
        Some(call) => call,
        None => pending().await,
    }
}

/// Whether nobody knows if a write was done.
fn is_unknown(event: &Event) -> bool {
    matches!(
        event,
        Event::Register(membership::Outcome::Swapped(Swap::Unknown))
            | Event::Stock(_, stock::Outcome::Swapped(Swap::Unknown))
    )
}

//! One network's share of the agent: it decides what its stock does next.

mod behind;
mod dry;
mod refill;
mod release;
mod request;
mod settings;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::block::BlockKey;
use crate::hunt::Hunt;
use crate::name::Name;
use crate::plan::{Aim, Claim, Lost};
use crate::runs::Runs;
use crate::stock::{self, Ended, Stock, Stopped};
use crate::water::Usage;
pub use dry::Dry;
use request::Requests;
pub use settings::Settings;

/// How many addresses one write claims or gives back.
const BATCH: u32 = 64;
/// How long a network counts as scarce after somebody found the pool without a free address.
const SCARCE_FOR: Duration = Duration::from_secs(300);
/// The pause after a hunt that found nothing, or a store that did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the grants are compared with the store.
const VERIFY_EVERY: Duration = Duration::from_secs(1800);
/// The same while the store grants to somebody else what a pod uses. It may come back.
const VERIFY_FENCED_EVERY: Duration = Duration::from_secs(60);
/// How long a question for addresses holds. A node that still needs them asks again, and within this time
/// every idle address has rested.
const OWED_FOR: Duration = Duration::from_secs(90);
/// Nobody asked for anything.
const NOTHING: Recall = Recall { count: 0, floor: 0, address: None };
/// How many holders are asked first. Twice as many are asked the next time.
const ASKED_FIRST: usize = 8;
/// How many holders are asked at most, and how many registers are looked at in one hunt.
const ASKED_MOST: usize = 64;
const LOOKED_AT: usize = 8;

/// What the plugin's store says of the network.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The counts.
    pub usage: Usage,
    /// Idle addresses that have rested long enough to go to another node, the one freed longest ago first.
    pub rested: Vec<std::net::IpAddr>,
    /// Unproven addresses that a pod got after a silent probe.
    pub proven: Runs,
}

/// What a network asks for, besides its stock's actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Do this for the stock.
    Stock(stock::Action),
    /// A list of blocks with free addresses. A hint.
    List,
    /// The register of this node, because it holds addresses and this network is dry.
    Look(Name),
    /// Ask these nodes to give back addresses. Its own may be among them: then other networks of this node
    /// hold some.
    Ask(Vec<Name>, Recall),
    /// Tell ADDs that wait: nothing is there for them now, and why.
    Dry(Dry),
    /// Addresses that pods use and that the store grants to somebody else.
    Fenced(Runs),
    /// Write into the pool's document that its store went back, for the time with this number.
    Recover(u32),
    /// Call again at this time since boot.
    Wake(Duration),
}

/// What one node asks of others when the pool has no free address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// How many addresses it needs.
    pub count: u32,
    /// How many idle ones each of them keeps.
    pub floor: u32,
    /// The one address that it needs, if an ADD asks for it by name. The numbers mean nothing then.
    pub address: Option<std::net::IpAddr>,
}

/// One network.
#[derive(Debug)]
pub struct Network {
    stock: Stock,
    settings: Settings,
    hunt: Hunt,
    report: Report,
    hunting: bool,
    /// Whether the store was asked for a list that has not come yet.
    listing: bool,
    /// The block of the round under way.
    at: Option<BlockKey>,
    scarce_until: Duration,
    paused_until: Duration,
    pause: Duration,
    asked: usize,
    floor: u32,
    /// What another node asked for, and until when.
    owed: Recall,
    owed_until: Duration,
    /// The same for addresses asked for by name.
    owed_these: Runs,
    owed_these_until: Duration,
    /// What ADDs of this network ask for by name.
    requests: Requests,
    /// Whether an ADD waits that has not heard why.
    tell: bool,
    /// When the pool's document is written, because the store went back and the document does not say so.
    recover_at: Duration,
    /// Nodes that were found lost, and the last block in which what they held was made suspect.
    lost: Vec<(Lost, Option<BlockKey>)>,
    verify_at: Duration,
    /// Blocks in which the store grants to others what pods use.
    fenced: BTreeSet<BlockKey>,
    verify_fenced_at: Duration,
    /// The part of the slice that was not yet compared with the store.
    slice_left: Runs,
    /// The part of it that is being claimed.
    slice_claimed: Runs,
    /// Another slice that was configured since.
    new_slice: Option<Runs>,
    /// The block that was settled last, and when settling goes on if that failed.
    settled: Option<BlockKey>,
    settle_at: Duration,
    settle_pause: Duration,
    /// Whether the round under way settles a block.
    settling: bool,
}

impl Network {
    /// A network with the stock that was found.
    pub fn new(stock: Stock, settings: Settings) -> Network {
        let mut network = Network {
            slice_left: stock.slice().clone(),
            slice_claimed: Runs::EMPTY,
            new_slice: None,
            hunt: Hunt::new(settings.range.clone()),
            stock,
            report: Report::default(),
            hunting: false,
            listing: false,
            at: None,
            scarce_until: Duration::ZERO,
            paused_until: Duration::ZERO,
            pause: PAUSE,
            asked: ASKED_FIRST,
            owed: NOTHING,
            owed_until: Duration::ZERO,
            owed_these: Runs::EMPTY,
            owed_these_until: Duration::ZERO,
            requests: Requests::NONE,
            tell: false,
            recover_at: Duration::ZERO,
            floor: settings.marks.high,
            lost: Vec::new(),
            verify_at: VERIFY_EVERY,
            fenced: BTreeSet::new(),
            verify_fenced_at: Duration::ZERO,
            settled: None,
            settle_at: Duration::ZERO,
            settle_pause: PAUSE,
            settling: false,
            settings,
        };
        network.follow();
        network
    }

    /// The stock.
    pub fn stock(&self) -> &Stock {
        &self.stock
    }

    /// Takes note of the node's epoch, and of the first one of this machine.
    pub fn lives_under(&mut self, epoch: u32, since: u32) {
        self.stock.lives_under(epoch, since);
    }

    /// Changes the node's own slice, as soon as nothing is under way.
    pub fn set_slice(&mut self, slice: Runs) {
        self.new_slice = Some(slice).filter(|slice| slice != self.stock.slice());
    }

    /// Whether an ADD waits.
    fn waits(&self) -> bool {
        self.report.usage.waiting > 0 || !self.requests.is_empty()
    }

    /// Whether an ADD waits that has not heard why. It has, after that.
    pub(crate) fn tells(&mut self) -> bool {
        std::mem::take(&mut self.tell) && self.waits()
    }

    /// Takes note of what the plugin's store says. An ADD that begins to wait shortens a pause.
    pub fn reported(&mut self, report: Report, now: Duration) {
        if report.usage.waiting > self.report.usage.waiting {
            let first = self.report.usage.waiting == 0;
            self.paused_until = self.paused_until.min(if first { now } else { now + PAUSE });
            self.tell = true;
        }
        self.report = report;
    }

    /// The store's list of blocks with free addresses. Empty if there is none, or no answer.
    pub fn listed(&mut self, blocks: impl IntoIterator<Item = BlockKey>) {
        self.listing = false;
        self.hunt.listed(blocks);
    }

    /// A node was found lost, and what it holds may be made suspect.
    pub fn found_lost(&mut self, lost: Lost) {
        self.lost.retain(|(known, _)| known.node != lost.node);
        self.lost.push((lost, None));
    }

    /// The earliest epoch under which a node was seen to hold an address.
    pub fn epoch_seen(&self, node: &Name) -> Option<u32> {
        self.hunt.earliest(node)
    }

    /// Goes on after the outcome of the stock's action.
    pub fn outcome(&mut self, outcome: stock::Outcome, now: Duration) -> Vec<Want> {
        match self.stock.outcome(outcome) {
            stock::Step::Do(action) => vec![Want::Stock(action)],
            stock::Step::End(ended) => self.ended(ended, now),
        }
    }

    fn ended(&mut self, ended: Ended, now: Duration) -> Vec<Want> {
        if let Some((block, value)) = self.at.take().zip(ended.block.as_ref()) {
            self.hunt.saw(block, value, self.stock.me());
            match &ended.fenced {
                Some(fenced) if fenced.is_empty() => _ = self.fenced.remove(&block),
                Some(_) => _ = self.fenced.insert(block),
                None => {}
            }
        }
        // What is settled after the store went back is not new.
        let gained = if self.stock.is_behind() { 0 } else { ended.gained.len() };
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        self.report.usage.idle = self.report.usage.idle.saturating_add(gained);
        self.report.usage.waiting = self.report.usage.waiting.saturating_sub(gained);
        if gained > 0 {
            (self.pause, self.asked, self.floor) = (PAUSE, ASKED_FIRST, self.settings.marks.high);
        }
        let slice_claimed = std::mem::take(&mut self.slice_claimed);
        if ended.whole {
            self.settle_pause = PAUSE;
        } else if std::mem::take(&mut self.settling) {
            self.settle_at = now + self.settle_pause;
            self.settle_pause = (self.settle_pause * 2).min(LONGEST_PAUSE);
        } else {
            // Other blocks can be read, but the slice would be tried at once again.
            let goes_on = ended.stopped == Some(Stopped::Unreadable) && slice_claimed.is_empty();
            self.slice_left.extend(slice_claimed.iter());
            if !goes_on {
                self.rest(now);
            }
        }
        self.settling = false;
        let mut wants = self.request_ended(&ended);
        let stopped = ended.stopped.filter(|_| self.waits()).map(|stopped| Want::Dry(Dry::of(stopped)));
        let fenced = ended.fenced.filter(|fenced| !fenced.is_empty());
        wants.extend(stopped.into_iter().chain(fenced.map(Want::Fenced)));
        wants
    }

    fn rest(&mut self, now: Duration) {
        self.paused_until = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// What to do next. Nothing if something is under way, or if there is nothing to do. `random` is a random
    /// number.
    pub fn next(&mut self, now: Duration, random: u64) -> Vec<Want> {
        if let Some(wants) = self.next_recovery(now) {
            return wants;
        }
        if !self.stock.idle() {
            return self.recovery_wake().into_iter().collect();
        }
        if let Some(slice) = self.new_slice.take() {
            self.slice_left = slice.clone();
            self.stock.set_slice(slice);
        }
        if now < self.paused_until {
            return vec![Want::Wake(self.paused_until)];
        }
        if let Some(step) = self.adopt() {
            return wants(Some(step));
        }
        if now >= self.verify_at {
            self.verify_at = now + VERIFY_EVERY;
            // What was lent comes home when others have given it back, unless somebody waits for it.
            if now >= self.scarce_until {
                self.slice_left = self.stock.slice().clone();
            }
            self.stock.doubt();
        }
        if now >= self.verify_fenced_at {
            self.verify_fenced_at = now + VERIFY_FENCED_EVERY;
            self.fenced.iter().for_each(|block| self.stock.doubt_block(*block));
        }
        if let Some((block, aim)) = self.due(now) {
            return self.begin(block, aim);
        }
        let mut wants = self.next_request(now).unwrap_or_else(|| self.refill(now, random));
        wants.extend(self.request_wake(now));
        wants.extend(self.recovery_wake());
        if now < self.settle_at {
            wants.push(Want::Wake(self.settle_at));
        }
        wants
    }

    fn begin(&mut self, block: BlockKey, aim: Aim) -> Vec<Want> {
        self.at = Some(block);
        wants(self.stock.begin(block, aim))
    }

    /// What comes before a claim.
    fn due(&mut self, now: Duration) -> Option<(BlockKey, Aim)> {
        let unsettled = self.stock.unsettled(self.settled).filter(|_| now >= self.settle_at);
        if let Some(block) = unsettled {
            self.settled = Some(block);
            self.settling = true;
            return Some((block, Aim::default()));
        }
        if self.stock.is_behind() {
            return None;
        }
        let slice = if self.closed().is_none() { self.next_of_slice() } else { None };
        if slice.is_some() {
            return slice;
        }
        let proven = self.report.proven.iter().next();
        if let Some(first) = proven {
            let block = BlockKey::of(first);
            let proven: Runs =
                self.report.proven.iter().filter(|addr| block.offset(*addr).is_some()).collect();
            proven.iter().for_each(|addr| self.report.proven.remove(addr));
            return Some((block, Aim { proven, ..Aim::default() }));
        }
        if let Some((block, release)) = self.next_release(now) {
            return Some((block, Aim { release, ..Aim::default() }));
        }
        let (lost, behind) = self.lost.last_mut()?;
        let Some(block) = self.hunt.block_of(lost, *behind) else {
            self.lost.pop();
            return None;
        };
        // Each block once: an address that a pod here uses stays as it is.
        *behind = Some(block);
        Some((block, Aim { lost: Some(lost.clone()), ..Aim::default() }))
    }

    /// The part of the slice in one block, as far as it is not granted: it is claimed once. What others hold
    /// of it comes back when they give it back.
    fn next_of_slice(&mut self) -> Option<(BlockKey, Aim)> {
        let grants = self.stock.grants();
        let first = self.slice_left.first()?;
        let block = BlockKey::of(first);
        let here: Runs = block.addresses().filter(|addr| self.slice_left.contains(*addr)).collect();
        self.slice_left = self.slice_left.without(&here);
        let missing: Runs = here.iter().filter(|addr| !grants.contains(*addr)).collect();
        if missing.is_empty() {
            return None;
        }
        self.slice_claimed = missing.clone();
        Some((block, Aim { claim: Claim::These(missing), suspects: true, ..Aim::default() }))
    }
}

fn wants(step: Option<stock::Step>) -> Vec<Want> {
    match step {
        Some(stock::Step::Do(action)) => vec![Want::Stock(action)],
        Some(stock::Step::End(_)) | None => Vec::new(),
    }
}

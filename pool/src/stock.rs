//! The stock of one network: how it changes, one write to one block at a time.
//!
//! A round does this, and leaves out what it does not need:
//! 1. store the grants without what is to go, and with the block's name;
//! 2. look at the leases under the network's lock: what a pod uses stays, and the rest is offered no more;
//! 3. read the block;
//! 4. write the block, if nobody else has written it since;
//! 5. store the grants with what was gained;
//! 6. offer to pods what was gained.
//!
//! The grants therefore never hold what the store does not, whenever the agent or the machine stops. What
//! the store holds and the grants do not is found again: the block is named in the grants.

mod behind;
mod files;
mod step;
mod unreadable;

use std::collections::BTreeSet;

use crate::block::{Block, BlockKey};
use crate::grants::Grants;
use crate::plan::{Aim, Claim, Local, Me, Plan, held, plan};
use crate::rules::{Rule, Rules};
use crate::runs::Runs;
use crate::version::{Swap, Version};
pub use step::{Action, Ended, Outcome, Step, Stopped};

/// The stock of one network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stock {
    me: Me,
    slice: Runs,
    grants: Grants,
    /// The pool's identity of now, and how often its store went back.
    pool_id: String,
    restored: u32,
    /// Whether the grants are known to be synced. The file that an agent finds may not be.
    synced: bool,
    /// Blocks in which a write may arrive late, or that have entries of an earlier epoch. They are written.
    unsettled: BTreeSet<BlockKey>,
    /// Blocks to compare with the grants. They are written only if they differ.
    doubted: BTreeSet<BlockKey>,
    /// Blocks in which the store names this holder no longer. The next file of grants does not name them.
    left: BTreeSet<BlockKey>,
    /// Blocks whose values this release cannot read. No leased address of them is granted.
    unreadable: BTreeSet<BlockKey>,
    round: Option<Round>,
    rules: Rules,
}

/// What is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Round {
    block: BlockKey,
    aim: Aim,
    stage: Stage,
    in_use: Option<Runs>,
    value: Option<(Version, Block)>,
    plan: Plan,
    /// The grants that are being stored. The epoch may change before they are on the disk.
    storing: Option<Grants>,
    tries: u8,
    /// Whether the grants have to name the block, because something is claimed in it.
    naming: bool,
    /// Whether everything was unsettled after the plan was made.
    overtaken: bool,
    /// Whether the round takes note of the pool's identity and of how often its store went back.
    adopts: bool,
    /// Whether the block cannot be read, so that the grants only drop what is leased in it.
    sets_aside: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Prepare,
    Inspect,
    Read,
    Swap,
    Grant,
    Offer,
}

/// How often a round reads the block again because somebody else wrote it.
const TRIES: u8 = 8;

impl Stock {
    /// The stock that an agent finds when it starts.
    pub fn new(me: Me, slice: Runs, grants: Grants) -> Stock {
        Stock::under(Rules::default(), me, slice, grants)
    }

    pub(crate) fn under(rules: Rules, me: Me, slice: Runs, grants: Grants) -> Stock {
        let unsettled = grants.all_blocks();
        Stock {
            me,
            slice,
            pool_id: grants.pool_id.clone(),
            restored: grants.restored,
            grants,
            synced: false,
            unsettled,
            doubted: BTreeSet::new(),
            left: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            round: None,
            rules,
        }
    }

    /// The network that it is for.
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// The node's own slice.
    pub fn slice(&self) -> &Runs {
        &self.slice
    }

    /// The grants as they are on the disk.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Whether nothing is under way.
    pub fn idle(&self) -> bool {
        self.round.is_none()
    }

    /// Whether the store grants what the grants say, under the node's epoch of now. Only then may they be
    /// confirmed. A block in which nothing is granted holds up nothing.
    pub fn verified(&self) -> bool {
        let granted = |block: &BlockKey| self.holds_up(*block);
        let is_now = self.grants.epoch == self.me.epoch && !self.is_behind();
        self.idle() && is_now && !self.unsettled.iter().any(granted)
    }

    /// Takes note of the epoch of the node's register, and of the first epoch of this machine. Another one
    /// unsettles everything.
    pub fn lives_under(&mut self, epoch: u32, since: u32) {
        if self.me.epoch != epoch {
            (self.me.epoch, self.me.since) = (epoch, since);
            self.unsettle();
        }
    }

    /// Changes the node's own slice. Nothing may be under way. The next round changes the grants, and all
    /// blocks are compared with the store.
    pub(crate) fn set_slice(&mut self, slice: Runs) {
        self.slice = slice;
        self.doubt();
    }

    fn unsettle(&mut self) {
        self.unsettled.extend(self.grants.all_blocks());
        if let Some(round) = &mut self.round {
            self.unsettled.insert(round.block);
            round.overtaken = true;
        }
    }

    /// Has all blocks compared with the store.
    pub fn doubt(&mut self) {
        self.doubted.extend(self.grants.all_blocks());
    }

    /// Has one block compared with the store.
    pub fn doubt_block(&mut self, block: BlockKey) {
        self.doubted.insert(block);
    }

    /// A block that has to be settled, by a round without an aim: the first behind this one, so that one that
    /// cannot be settled does not hold up others.
    pub fn unsettled(&self, behind: Option<BlockKey>) -> Option<BlockKey> {
        let after = |block: &&BlockKey| behind.is_none_or(|behind| **block > behind);
        let first = self.unsettled.union(&self.doubted).find(after);
        first.or_else(|| self.unsettled.union(&self.doubted).next()).copied()
    }

    /// Begins a round. None if one is under way.
    pub fn begin(&mut self, block: BlockKey, aim: Aim) -> Option<Step> {
        if !self.idle() {
            return None;
        }
        let aim = self.aim_of_now(block, aim);
        self.prepare(block, aim);
        Some(self.proceed())
    }

    fn prepare(&mut self, block: BlockKey, aim: Aim) {
        self.round = Some(Round {
            block,
            aim,
            stage: Stage::Prepare,
            in_use: None,
            value: None,
            plan: Plan::default(),
            storing: None,
            tries: 0,
            naming: false,
            overtaken: false,
            adopts: false,
            sets_aside: false,
        });
    }

    /// Goes on after the outcome of the action that the last step asked for.
    pub fn outcome(&mut self, outcome: Outcome) -> Step {
        let Some(mut round) = self.round.take() else { return Step::End(Ended::default()) };
        let stored = round.storing.take().filter(|_| outcome == Outcome::Stored);
        if let Some(stored) = stored {
            self.left.retain(|block| stored.blocks.contains(block));
            self.grants = stored;
            self.synced = true;
        }
        match (round.stage, outcome) {
            (Stage::Prepare, Outcome::Stored) => {}
            (Stage::Inspect, Outcome::Inspected(in_use)) => {
                let looked = self.rules.hold(Rule::LookAtLeases);
                round.in_use = Some(if looked { in_use } else { Runs::EMPTY });
            }
            (Stage::Read, Outcome::Read(version, block)) => round.value = Some((version, block)),
            (Stage::Swap, Outcome::Swapped(Swap::Done(version))) => {
                round.value = Some((version, round.plan.block.clone()));
                return self.grant(round);
            }
            (Stage::Swap, Outcome::Swapped(Swap::Lost(version, block))) if round.tries < TRIES => {
                round.tries += 1;
                round.value = Some((version, block));
            }
            (Stage::Grant, Outcome::Stored) => return self.offer(round),
            (Stage::Offer, Outcome::Offered) => return self.end(round),
            (Stage::Read | Stage::Swap, Outcome::Unreadable) => return self.set_aside(round),
            (stage, outcome) => return self.fail(round, stage, outcome),
        }
        self.round = Some(round);
        self.proceed()
    }

    /// A round that stops half-way leaves its block unsettled wherever it may have changed something.
    fn fail(&mut self, round: Round, stage: Stage, outcome: Outcome) -> Step {
        if let Outcome::NotStored(found) = outcome {
            self.grants = found;
            self.synced = false;
        }
        let changed = !matches!(stage, Stage::Prepare | Stage::Inspect | Stage::Read);
        if changed || !round.aim.release.is_empty() {
            self.unsettled.insert(round.block);
        }
        let stopped = Some(match stage {
            Stage::Swap if round.tries == TRIES => Stopped::Overtaken,
            Stage::Read | Stage::Swap => Stopped::NoAnswer,
            Stage::Prepare | Stage::Inspect | Stage::Grant | Stage::Offer => Stopped::NotStored,
        });
        Step::End(Ended { block: round.value.map(|(_, block)| block), stopped, ..Ended::default() })
    }

    /// The next step before the write.
    fn proceed(&mut self) -> Step {
        let Some(mut round) = self.round.take() else { return Step::End(Ended::default()) };
        let key = round.block;
        if self.is_behind() {
            round.aim.claim = Claim::Nothing;
        }
        loop {
            let without = self.without(&round);
            if !self.synced || !without.grant_the_same(&self.grants) {
                round.stage = Stage::Prepare;
                return self.store(round, without);
            }
            if round.sets_aside {
                return Self::unread();
            }
            let unsettled = self.unsettled.contains(&key);
            let doubted = unsettled || self.doubted.contains(&key);
            if round.in_use.is_none() && (doubted || !round.aim.release.is_empty()) {
                // What was read before is old by the time that somebody has looked.
                round.value = None;
                round.stage = Stage::Inspect;
                return self.wait(round, Action::Inspect(key));
            }
            let Some((version, block)) = &round.value else {
                if !doubted && round.aim == Aim::default() {
                    return self.end(round);
                }
                round.stage = Stage::Read;
                return self.wait(round, Action::Read(key));
            };
            let held = held(block, key, &self.me, &self.slice);
            let granted: Runs = self.grants.of_block(key).collect();
            let gone: Vec<_> = self.gone(block, key, &held);
            let unknown = held.iter().any(|addr| !granted.contains(addr));
            let going = !self.rules.hold(Rule::DurableFirst) && !round.aim.release.is_empty();
            if !gone.is_empty() || (unknown && round.in_use.is_none()) {
                // The store says something else, for whatever reason: begin again and settle it.
                round.aim.release.extend(gone);
                round.in_use = None;
                self.unsettled.insert(key);
                continue;
            }
            let (version, before) = (version.clone(), block.clone());
            round.plan = self.planned(&round, &before);
            round.overtaken = false;
            if !round.plan.gained.is_empty() && !round.naming {
                round.naming = true;
                self.left.remove(&key);
                continue;
            }
            let must_write = unsettled && self.rules.hold(Rule::Settle);
            if round.plan.block == before && !must_write && !going {
                return self.grant(round);
            }
            round.stage = Stage::Swap;
            let value = round.plan.block.clone();
            return self.wait(round, Action::Swap(key, version, value));
        }
    }

    fn planned(&self, round: &Round, block: &Block) -> Plan {
        let staying = |addr: &std::net::IpAddr| !round.aim.release.contains(*addr);
        let granted: Runs = self.grants.of_block(round.block).filter(staying).collect();
        let local = Local {
            me: &self.me,
            slice: &self.slice,
            granted: &granted,
            unproven: &self.grants.unproven,
            in_use: round.in_use.as_ref(),
            behind: self.is_behind(),
            rules: self.rules,
        };
        plan(block, round.block, &local, &round.aim)
    }

    /// The block says what it should: the grants take over what was gained.
    fn grant(&mut self, mut round: Round) -> Step {
        if self.with(&round).grant_the_same(&self.grants) {
            return self.offer(round);
        }
        round.stage = Stage::Grant;
        let with = self.with(&round);
        self.store(round, with)
    }

    fn store(&mut self, mut round: Round, grants: Grants) -> Step {
        round.storing = Some(grants.clone());
        self.wait(round, Action::Store(grants))
    }

    fn offer(&mut self, mut round: Round) -> Step {
        if round.plan.gained.is_empty() {
            return self.end(round);
        }
        round.stage = Stage::Offer;
        let gained = round.plan.gained.clone();
        self.wait(round, Action::Offer(gained))
    }

    fn end(&mut self, round: Round) -> Step {
        if !round.overtaken {
            self.unsettled.remove(&round.block);
            self.doubted.remove(&round.block);
            self.unreadable.remove(&round.block);
            self.leave(&round);
        }
        let block = round.value.map(|(_, block)| block);
        let fenced = round.in_use.map(|_| round.plan.fenced);
        Step::End(Ended { whole: true, gained: round.plan.gained, fenced, block, stopped: None })
    }

    /// Takes note of a block in which the store names this holder no longer.
    fn leave(&mut self, round: &Round) {
        // A pod may use what the store grants to others. Without a look at the leases nobody knows.
        let Some((_, block)) = round.value.as_ref().filter(|_| round.in_use.is_some()) else { return };
        let empty =
            held(block, round.block, &self.me, &self.slice).is_empty() && round.plan.fenced.is_empty();
        if empty && self.grants.of_block(round.block).next().is_none() {
            self.left.insert(round.block);
        } else {
            self.left.remove(&round.block);
        }
    }

    fn wait(&mut self, round: Round, action: Action) -> Step {
        self.round = Some(round);
        Step::Do(action)
    }
}

#[cfg(test)]
impl Stock {
    /// Forgets what tells states apart that behave alike: the files' numbers and the number of tries.
    pub(crate) fn forget_counts(&mut self) {
        self.grants.generation = 0;
        if let Some(round) = &mut self.round {
            round.tries = 0;
        }
    }
}

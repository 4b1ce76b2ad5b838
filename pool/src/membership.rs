//! A node's membership of the pool: its register, and whether the store still says that it lives.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::grants::Moment;
use crate::name::Name;
use crate::register::{Identity, Register, State};
use crate::version::{Swap, Version};

/// What to do next. Each is answered by one [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the node's register. The documents of its pools are read before it, and what they changed is
    /// [configured](crate::agent::Agent::configure). A node that was away has to hear first that a pool's
    /// store went back, and then that it lives.
    Read,
    /// Write the register if it still has this version.
    Swap(Version, Register),
    /// Write the identity to the disk, and sync file and folder.
    Save(Identity),
}

/// What became of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The register's version and value.
    Read(Version, Option<Register>),
    /// The answer to a write.
    Swapped(Swap<Option<Register>>),
    /// The identity is on the disk.
    Saved,
    /// The action could not be done.
    Failed,
}

/// What a step asks for or says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Do this and tell the outcome.
    Do(Action),
    /// The store says that the node lives under this epoch. It is true for the moment at which the question
    /// was sent.
    Confirmed(Confirmed),
    /// The node lives under another epoch than before. Ask again to have it confirmed.
    Lives(u32),
    /// Another machine has this node's name. If it is the same machine by its identity, this is a copy of
    /// it, or that is a copy of this.
    Refused(Box<Register>),
    /// The store or the disk did not answer. Ask again later.
    Failed,
}

/// The store's answer that the node lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Confirmed {
    /// The register's epoch.
    pub epoch: u32,
    /// When the question was sent.
    pub sent_at: Moment,
}

/// The membership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    boot: String,
    identity: Identity,
    /// See [`Register::give_for`].
    give_for: Option<Duration>,
    /// See [`Register::pools`].
    pools: BTreeMap<Name, u32>,
    /// A write that had no answer.
    unanswered: Option<Register>,
    /// Whether the register was this boot's since the agent started. Another boot can then only be another
    /// machine's.
    was_own: bool,
    /// What another machine with this one's identity wrote.
    twin: Option<Box<Register>>,
    /// Whether the register was found older than this machine wrote it.
    went_back: bool,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Idle,
    Ask { sent_at: Moment },
    Register { sent_at: Moment, value: Register },
    Save { identity: Identity },
}

impl Membership {
    /// The membership that an agent finds when it starts.
    pub fn new(boot: String, identity: Identity, give_for: Option<Duration>) -> Membership {
        Membership {
            boot,
            identity,
            give_for,
            pools: BTreeMap::new(),
            unanswered: None,
            was_own: false,
            twin: None,
            went_back: false,
            stage: Stage::Idle,
        }
    }

    /// Changes how long the node gives leased addresses after a confirmation. Before one says so, the
    /// register promises it.
    pub fn set_give_for(&mut self, give_for: Option<Duration>) {
        self.give_for = give_for;
    }

    /// The pools of the node's networks, and what they have caught up with. The register says it before the
    /// next confirmation. Whether it is new is returned.
    pub(crate) fn set_pools(&mut self, pools: BTreeMap<Name, u32>) -> bool {
        let new = self.pools != pools;
        self.pools = pools;
        new
    }

    /// Whether the register was found older than this machine wrote it, since somebody asked last.
    pub(crate) fn went_back(&mut self) -> bool {
        std::mem::take(&mut self.went_back)
    }

    /// Whether nothing is under way.
    pub fn idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// The epoch that the register had last. 0 before the first.
    pub fn epoch(&self) -> u32 {
        self.identity.epoch
    }

    /// The first epoch of this machine.
    pub fn since(&self) -> u32 {
        self.identity.since
    }

    /// Asks the store whether the node lives. `now` is before the question is sent. None if a question is
    /// under way.
    pub fn ask(&mut self, now: Moment) -> Option<Step> {
        if !self.idle() {
            return None;
        }
        self.stage = Stage::Ask { sent_at: now };
        Some(Step::Do(Action::Read))
    }

    /// Goes on after the outcome of the action that the last step asked for.
    pub fn outcome(&mut self, outcome: Outcome) -> Step {
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        if let (Stage::Register { .. }, Some(twin)) = (&stage, &self.twin) {
            return Step::Refused(twin.clone());
        }
        match (stage, outcome) {
            (Stage::Ask { sent_at }, Outcome::Read(version, register)) => {
                self.judge(sent_at, version, register)
            }
            (Stage::Register { value, .. }, Outcome::Swapped(Swap::Done(_))) => self.save(&value),
            (Stage::Register { value, .. }, Outcome::Swapped(Swap::Lost(_, Some(found))))
                if found == value =>
            {
                self.save(&value)
            }
            (Stage::Register { sent_at, .. }, Outcome::Swapped(Swap::Lost(version, found))) => {
                self.judge(sent_at, version, found)
            }
            (Stage::Save { identity }, Outcome::Saved) => {
                self.identity = identity;
                self.was_own = true;
                self.unanswered = None;
                Step::Lives(self.identity.epoch)
            }
            // The next question finds this value, or the register as it was, which leads to another write.
            // After a kill nobody knows the value, and a sequence number that is not on the disk leads to
            // another write as well.
            (Stage::Register { value, .. }, Outcome::Swapped(Swap::Unknown)) => {
                self.unanswered = Some(value);
                Step::Failed
            }
            _ => Step::Failed,
        }
    }

    fn judge(&mut self, sent_at: Moment, version: Version, register: Option<Register>) -> Step {
        let (epoch, seq) = (self.identity.epoch + 1, self.identity.seq + 1);
        if let Some(twin) = &self.twin {
            return Step::Refused(twin.clone());
        }
        let Some(found) = register else {
            // No register of a machine is ever deleted.
            self.went_back |= self.identity.epoch > 0;
            return self.register(sent_at, version, None, (epoch, seq));
        };
        // A value that was written cannot be written a second time: its version is gone.
        if self.unanswered.as_ref() == Some(&found) {
            return self.save(&found);
        }
        // A machine that was lost or is off has no claim to the name.
        let is_other = found.instance != self.identity.instance;
        if is_other && (found.state == State::Live || self.identity.epoch > 0) {
            return Step::Refused(Box::new(found));
        }
        self.went_back |= !is_other && found.seq < self.identity.seq;
        if !is_other && self.was_own && found.boot != self.boot && found.seq > self.identity.seq {
            self.twin = Some(Box::new(found.clone()));
            // The other one has to find another boot as well.
            let next = (epoch.max(found.epoch + 1), found.seq + 1);
            return self.register(sent_at, version, Some(&found), next);
        }
        let known = !is_other && found.lives(self.identity.epoch) && found.seq == self.identity.seq;
        let promised = found.give_for == longer(found.give_for, self.give_for);
        if known && promised && found.boot == self.boot && found.pools == self.pools {
            self.was_own = true;
            return Step::Confirmed(Confirmed { epoch: self.identity.epoch, sent_at });
        }
        // A boot, a longer promise or another pool changes nothing about what the node holds.
        let epoch = if known { found.epoch } else { epoch.max(found.epoch + 1) };
        let seq = seq.max(found.seq + 1);
        self.register(sent_at, version, Some(&found), (epoch, seq))
    }

    fn register(
        &mut self,
        sent_at: Moment,
        version: Version,
        found: Option<&Register>,
        (epoch, seq): (u32, u64),
    ) -> Step {
        let value = Register {
            instance: self.identity.instance.clone(),
            boot: self.boot.clone(),
            epoch,
            seq,
            state: State::Live,
            lost: found.map_or(0, Register::last_lost),
            gone: found.map_or(0, Register::last_gone),
            give_for: found.map_or(self.give_for, |found| longer(found.give_for, self.give_for)),
            pools: self.pools.clone(),
        };
        self.stage = Stage::Register { sent_at, value: value.clone() };
        Step::Do(Action::Swap(version, value))
    }

    fn save(&mut self, value: &Register) -> Step {
        let Register { instance, epoch, seq, .. } = value.clone();
        let since = if self.identity.epoch == 0 { epoch } else { self.identity.since };
        let identity = Identity { instance, epoch, since, seq };
        self.stage = Stage::Save { identity: identity.clone() };
        Step::Do(Action::Save(identity))
    }
}

/// The longer of two times, of which None has no end.
fn longer(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    Some(one?.max(other?))
}

#[cfg(test)]
impl Membership {
    /// Forgets what tells states apart that behave alike in the search, whose machines have no copies.
    pub(crate) fn forget_copies(&mut self) {
        (self.was_own, self.went_back) = (false, false);
    }

    /// Shows the times to the search, which counts them from now.
    pub(crate) fn times(&mut self) -> Option<&mut Moment> {
        match &mut self.stage {
            Stage::Ask { sent_at } | Stage::Register { sent_at, .. } => Some(sent_at),
            Stage::Idle | Stage::Save { .. } => None,
        }
    }
}

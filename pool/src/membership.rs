//! A node's membership of the pool: its register, and whether the store still says that it lives.

use std::time::Duration;

use crate::grants::Moment;
use crate::register::{Identity, Register, State};
use crate::version::{Swap, Version};

/// What to do next. Each is answered by one [`Outcome`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read the node's register.
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
    /// Another machine has this node's name.
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
    /// A write that had no answer.
    unanswered: Option<Register>,
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
    pub fn new(boot: String, identity: Identity) -> Membership {
        Membership { boot, identity, unanswered: None, stage: Stage::Idle }
    }

    /// Whether nothing is under way.
    pub fn idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// The epoch that the register had last. 0 before the first.
    pub fn epoch(&self) -> u32 {
        self.identity.epoch
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
        match (std::mem::replace(&mut self.stage, Stage::Idle), outcome) {
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
        let Some(found) = register else {
            return self.register(sent_at, version, self.identity.epoch + 1, self.identity.seq + 1);
        };
        // A value that was written cannot be written a second time: its version is gone.
        if self.unanswered.as_ref() == Some(&found) {
            return self.save(&found);
        }
        if found.instance != self.identity.instance {
            // A machine that was lost or is off has no claim to the name.
            if found.state == State::Live || self.identity.epoch > 0 {
                return Step::Refused(Box::new(found));
            }
            return self.register(sent_at, version, found.epoch + 1, found.seq + 1);
        }
        let known = found.lives(self.identity.epoch) && found.seq == self.identity.seq;
        match known {
            true if found.boot == self.boot => {
                Step::Confirmed(Confirmed { epoch: self.identity.epoch, sent_at })
            }
            // A boot changes nothing about what the node holds.
            true => self.register(sent_at, version, found.epoch, found.seq + 1),
            false => {
                let (epoch, seq) = (found.epoch.max(self.identity.epoch), found.seq.max(self.identity.seq));
                self.register(sent_at, version, epoch + 1, seq + 1)
            }
        }
    }

    fn register(&mut self, sent_at: Moment, version: Version, epoch: u32, seq: u64) -> Step {
        let (instance, boot) = (self.identity.instance.clone(), self.boot.clone());
        let value = Register { instance, boot, epoch, seq, state: State::Live };
        self.stage = Stage::Register { sent_at, value: value.clone() };
        Step::Do(Action::Swap(version, value))
    }

    fn save(&mut self, value: &Register) -> Step {
        let Register { instance, epoch, seq, .. } = value.clone();
        let identity = Identity { instance, epoch, seq };
        self.stage = Stage::Save { identity: identity.clone() };
        Step::Do(Action::Save(identity))
    }
}

#[cfg(test)]
impl Membership {
    /// Shows the times to the search, which counts them from now.
    pub(crate) fn times(&mut self) -> Option<&mut Moment> {
        match &mut self.stage {
            Stage::Ask { sent_at } | Stage::Register { sent_at, .. } => Some(sent_at),
            Stage::Idle | Stage::Save { .. } => None,
        }
    }
}

/// How long after a node's epoch was found lost its addresses become suspect: as long as the node may have
/// gone on giving, and an ADD may have taken. A thirty-second more, because the clocks
/// of two machines may run 1 % fast and slow. None: the pool's nodes give without end, and only a node that
/// an operator called off can be lost.
pub fn wait(give_for: Option<Duration>, margin: Duration) -> Duration {
    give_for.map_or(Duration::ZERO, |give_for| (give_for + margin) + (give_for + margin) / 32)
}

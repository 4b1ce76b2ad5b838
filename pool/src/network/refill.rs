//! How a network gets more addresses.

use std::time::Duration;

use super::{ASKED_FIRST, ASKED_MOST, BATCH, Dry, LOOKED_AT, Network, Recall, SCARCE_FOR, Want};
use crate::hunt::Next;
use crate::name::Name;
use crate::plan::{Aim, Claim};

impl Network {
    pub(super) fn refill(&mut self, now: Duration, random: u64) -> Vec<Want> {
        let marks = self.settings.marks.of_now(now < self.scarce_until);
        let wanted = marks.wanted(self.report.usage).min(BATCH);
        if self.listing {
            return Vec::new();
        }
        if let Some(why) = self.closed().or_else(|| self.most()) {
            self.hunting = false;
            return if self.tells() { vec![Want::Dry(why)] } else { Vec::new() };
        }
        // While another node's pods wait for addresses, this one's stock does not.
        let yields = self.report.usage.waiting == 0 && now < self.owed_until;
        if wanted == 0 || yields {
            self.hunting = false;
            return Vec::new();
        }
        if !self.hunting {
            self.hunt.begin();
            self.hunting = true;
        }
        match self.hunt.next(random) {
            Next::Try { block, suspects } => {
                let claim = Claim::Any(wanted as u8, self.hunt.addresses(block));
                self.begin(block, Aim { claim, suspects, ..Aim::default() })
            }
            Next::List => {
                self.listing = true;
                vec![Want::List]
            }
            Next::Nothing => self.dry(wanted, now, random),
        }
    }

    /// Whether an ADD waits though the network has as many addresses as it may.
    fn most(&self) -> Option<Dry> {
        let (usage, most) = (self.report.usage, self.settings.marks.max);
        let is_full = usage.waiting > 0 && usage.idle.saturating_add(usage.used) >= most;
        is_full.then_some(Dry::Most(most))
    }

    /// Nothing is free: nodes with addresses are asked for idle ones, and looked at in case they are lost.
    fn dry(&mut self, wanted: u32, now: Duration, random: u64) -> Vec<Want> {
        self.hunting = false;
        self.scarce_until = now + SCARCE_FOR;
        self.rest(now);
        let mut holders = self.hunt.holders();
        // Only for ADDs that wait do others give up what they may soon need themselves.
        let waiting = self.report.usage.waiting;
        let (asked, floor) =
            if waiting > 0 { (self.asked, self.floor) } else { (ASKED_FIRST, self.settings.marks.high) };
        if waiting > 0 {
            (self.asked, self.floor) = ((asked * 2).min(ASKED_MOST), floor / 2);
        }
        // Where there are more, others are asked each time.
        let all = holders.len();
        if all > asked {
            holders.rotate_left(random as usize % all);
        }
        holders.truncate(asked);
        let nodes: Vec<Name> = holders.into_iter().map(|(node, ..)| node).collect();
        // Each time others are looked at, so that each has its turn.
        let looked_at =
            nodes.iter().cycle().skip(random as usize % all.max(1)).take(LOOKED_AT.min(nodes.len()));
        let mut wants: Vec<Want> = looked_at.cloned().map(Want::Look).collect();
        let wanted = wanted.min(waiting.max(1));
        let asked = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let (seen, taken) = self.hunt.sums();
        wants.extend([
            Want::Ask(nodes, Recall { count: wanted, floor, address: None }),
            Want::Dry(Dry::NoneFree { seen, taken, asked }),
            Want::Wake(self.paused_until),
        ]);
        wants
    }
}

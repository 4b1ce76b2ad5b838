//! What must hold when nothing is under way any more.

use super::*;

/// The events that lead to calm, those that come first in front.
const CALM: [&str; 10] = [
    "the ADD ends",
    "the block is written",
    "the block is written, without an answer",
    "the block is not written",
    "the leases are looked at",
    "the address is offered",
    "the agent settles the block",
    "the agent adopts its epoch",
    "the agent is answered",
    "the agent asks whether its node lives",
];
/// More events than any state needs to calm down.
const MOST_TO_CALM: usize = 60;

impl World {
    /// Leads to a state in which every write has arrived and both agents are content and have compared their
    /// grants with the store, by events that need no luck. Then these are the same.
    pub(in crate::search) fn calm(&self) -> Result<(), String> {
        let mut world = self.calmed()?;
        (0..2).for_each(|at| world.node(at).agent.stock.doubt());
        world.calmed()?.check_calm()
    }

    fn calmed(&self) -> Result<World, String> {
        let mut world = self.clone();
        for _ in 0..MOST_TO_CALM {
            let mut next = world.events();
            let Some((_, found)) = CALM.iter().find_map(|event| {
                let at = next.iter().position(|((what, _), _)| what == event)?;
                Some(next.swap_remove(at))
            }) else {
                return Ok(world);
            };
            world = found;
        }
        Err(format!(
            "there is no end of {:?}",
            world.events().iter().map(|(event, _)| event).collect::<Vec<_>>()
        ))
    }

    fn check_calm(&self) -> Result<(), String> {
        for (at, node) in self.nodes.iter().enumerate() {
            let holder = self.block.entry(7).and_then(Entry::holder).filter(|holder| holder.node == name(at));
            let granted = node.disk.contains(addr());
            let epoch = node.register.as_ref().map_or(0, |register| register.epoch);
            if granted != holder.is_some() || holder.is_some_and(|holder| holder.epoch != epoch) {
                return Err(format!("{} is granted {granted}, and the store says {holder:?}", name(at)));
            }
            if !node.agent.stock.verified() || node.confirmation.is_none() {
                return Err(format!("{} is not confirmed", name(at)));
            }
            // A node that was wrongly called lost may find that another has claimed what its pod uses. That
            // one has not given it to a pod: the probe is not silent.
            let fenced =
                matches!(self.block.entry(7), Some(Entry::Unproven { by, .. }) if by.node != name(at));
            if node.pod == Pod::Runs && !granted && !fenced {
                return Err(format!("a pod on {} has what is not granted", name(at)));
            }
        }
        Ok(())
    }
}

//! The ADDs that wait for an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::sync::mpsc::UnboundedSender;
use vlan_bridge_ipam::poke::Reply;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::runs::Runs;

/// An ADD that waits.
#[derive(Debug)]
struct Waiter {
    /// The shares that found nothing.
    shares: Vec<Name>,
    /// Addresses that it asks for by name.
    requested: Vec<IpAddr>,
    answers: UnboundedSender<Reply>,
}

/// All of them, by the number of their connection.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<u64, Waiter>);

impl Waiting {
    /// An ADD begins to wait.
    pub(super) fn add(
        &mut self,
        call: u64,
        shares: Vec<Name>,
        requested: Vec<IpAddr>,
        answers: UnboundedSender<Reply>,
    ) {
        self.0.insert(call, Waiter { shares, requested, answers });
    }

    /// An ADD waits no longer. Returns for which shares it did.
    pub(super) fn remove(&mut self, call: u64) -> Vec<Name> {
        self.0.remove(&call).map(|waiter| waiter.shares).unwrap_or_default()
    }

    /// How many wait for an address of a share.
    pub(super) fn count(&self, share: &Name) -> u32 {
        u32::try_from(self.of(share).count()).unwrap_or(u32::MAX)
    }

    /// The addresses that are asked for by name, of a share among others.
    pub(super) fn requested(&self, share: &Name) -> Runs {
        self.of(share).flat_map(|waiter| waiter.requested.iter().copied()).collect()
    }

    /// Tells those that wait for a share.
    pub(super) fn tell(&self, share: &Name, answer: &Reply) {
        for waiter in self.of(share) {
            // One that has ended hears nothing, and its end is on its way.
            let _ = waiter.answers.send(answer.clone());
        }
    }

    fn of(&self, share: &Name) -> impl Iterator<Item = &Waiter> {
        self.0.values().filter(move |waiter| waiter.shares.contains(share))
    }
}

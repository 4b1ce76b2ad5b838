//! What a seed chooses for its world.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use vlan_bridge_pool::agent::Policy;
use vlan_bridge_pool::document::{Document, PoolState, Reclaim};
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::water::Marks;

use crate::random::Random;

/// The world's sizes, and how much goes wrong in it. Shares are in parts per thousand.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) policy: Policy,
    pub(crate) nodes: usize,
    pub(crate) networks: usize,
    /// Whether the networks of a node use one pool.
    pub(crate) one_pool: bool,
    /// The addresses of each pool.
    pub(crate) pools: Vec<Runs>,
    /// The number of home addresses that each node has of the first pool.
    pub(crate) home: usize,
    pub(crate) lends: bool,
    pub(crate) marks: Marks,
    /// How long a message of an agent or of the store takes.
    pub(crate) delay: (Duration, Duration),
    pub(crate) lost: usize,
    pub(crate) late: usize,
    pub(crate) twice: usize,
    pub(crate) recalls_lost: usize,
    /// Whether ADDs probe every address, as `conflictDetection` has it, and not only unproven ones.
    pub(crate) probes: bool,
    pub(crate) adds_stopped: usize,
    pub(crate) adds_killed: usize,
    /// Whether the store goes back to a backup.
    pub(crate) restores: bool,
    /// Whether another machine has the first node's name.
    pub(crate) namesake: bool,
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    pub(crate) between_misfortunes: Duration,
    pub(crate) between_pods: Duration,
    pub(crate) pod_lives: Duration,
    /// Whether every event is checked. It takes time with each.
    pub(crate) strict: bool,
}

const MINUTE: Duration = Duration::from_secs(60);

fn pool(number: usize, first: usize, size: usize) -> Runs {
    let at = |index: usize| -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + ((number as u32) << 24) + index as u32).into()
    };
    let mut runs = Runs::EMPTY;
    runs.insert_run(at(first), at(first + size - 1));
    runs
}

impl Setup {
    /// A small world.
    pub(crate) fn small(random: &mut Random) -> Setup {
        let nodes = random.between(3, 10);
        let networks = random.between(1, 2);
        let one_pool = random.below(4) == 0;
        let pools = if one_pool { 1 } else { networks };
        let pools: Vec<Runs> = (0..pools)
            .map(|number| {
                let (first, size) = (random.below(64), random.between(20, 300));
                pool(number, first, size)
            })
            .collect();
        let home = random.between(1, pools[0].len() as usize / nodes);
        let home = random.one_of(&[0, 0, home]);
        let endless = random.below(3) == 0;
        let restores = random.below(4) == 0;
        let high = random.one_of(&[2, 4, 8, 16]);
        let between_pods = random.millis(5_000, 60_000);
        // How much of the pools is in use after a while, in percent.
        let load = random.one_of(&[10, 30, 50, 70, 90, 110]);
        let capacity = pools.iter().map(|pool| pool.len() as usize).sum::<usize>();
        Setup {
            policy: Policy {
                give_for: (!endless).then_some(30 * MINUTE),
                margin: 5 * MINUTE,
                confirm_every: 10 * MINUTE,
            },
            delay: random.one_of(
                &[(1, 4), (5, 40)]
                    .map(|(least, most)| (Duration::from_millis(least), Duration::from_millis(most))),
            ),
            lost: random.one_of(&[0, 5, 50]),
            late: random.one_of(&[0, 5, 50]),
            twice: random.one_of(&[0, 5, 50]),
            recalls_lost: random.one_of(&[0, 100, 500]),
            probes: random.below(2) == 0,
            adds_stopped: random.one_of(&[0, 5, 30]),
            adds_killed: random.one_of(&[0, 20]),
            restores,
            namesake: !restores && home == 0 && !endless && random.below(2) == 0,
            trouble: random.seconds(600, 6_000),
            between_misfortunes: random.seconds(30, 600),
            pod_lives: between_pods * (capacity * load / 100) as u32,
            between_pods,
            marks: Marks { low: high / 4, high, max: 1000 },
            lends: random.below(2) == 0,
            strict: true,
            nodes,
            networks,
            one_pool,
            pools,
            home,
        }
    }

    /// A large world, in which nothing goes wrong. Most addresses are home.
    pub(crate) fn large(nodes: usize, addresses: usize) -> Setup {
        Setup {
            policy: Policy { give_for: None, margin: 5 * MINUTE, confirm_every: 10 * MINUTE },
            nodes,
            networks: 1,
            one_pool: false,
            pools: vec![pool(0, 0, addresses)],
            home: addresses / nodes * 9 / 10,
            lends: true,
            marks: Marks { low: 4, high: 16, max: 256 },
            delay: (Duration::from_millis(5), Duration::from_millis(40)),
            lost: 0,
            late: 0,
            twice: 0,
            recalls_lost: 0,
            probes: false,
            adds_stopped: 0,
            adds_killed: 0,
            restores: false,
            namesake: false,
            trouble: Duration::ZERO,
            between_misfortunes: MINUTE,
            between_pods: MINUTE,
            pod_lives: MINUTE,
            strict: false,
        }
    }

    /// A pool's document when it was made.
    pub(crate) fn document(&self, pool: usize, id: &str) -> Document {
        let reclaim = self.policy.give_for.map_or(Reclaim::Operator, |give_for| Reclaim::Silent { give_for });
        Document {
            id: id.into(),
            ranges: self.pools[pool].clone(),
            exclude: Runs::EMPTY,
            reclaim,
            lost_after: self.policy.confirm_every,
            margin: self.policy.margin,
            state: PoolState::Open,
            restored: 0,
        }
    }

    pub(crate) fn networks_of(&self, pool: usize) -> Vec<usize> {
        (0..self.networks).filter(|network| self.pool_of(*network) == pool).collect()
    }

    pub(crate) fn pool_of(&self, network: usize) -> usize {
        if self.one_pool { 0 } else { network }
    }
}

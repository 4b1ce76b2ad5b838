//! The world: the store, the nodes, the pods, and what happens next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;

use vlan_bridge_pool::history::{self, What};
use vlan_bridge_pool::name::Name;

use crate::happening::{At, Happening};
use crate::machine::Machine;
use crate::random::Random;
use crate::setup::Setup;
use crate::store::Store;

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) node: usize,
    pub(crate) network: usize,
    /// The one address that it wants.
    pub(crate) wants: Option<IpAddr>,
    /// The address, and the node's uptime when it was chosen.
    pub(crate) chosen: Option<(IpAddr, Duration)>,
    /// Whether nobody answered a probe of it.
    pub(crate) silent: bool,
    pub(crate) asked_at: Duration,
    pub(crate) was_dry: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) adds: u64,
    pub(crate) dry: u64,
    pub(crate) refused: u64,
    pub(crate) dry_times: Vec<Duration>,
    pub(crate) fenced: u64,
    pub(crate) answered: u64,
    /// ADDs that asked for an address by name, and those of them that got it.
    pub(crate) named: u64,
    pub(crate) named_given: u64,
    /// How often the store went back.
    pub(crate) restored: u64,
    /// How often a machine was refused, because another has its name.
    pub(crate) namesakes: u64,
    /// Pods that began since one node needs every address.
    pub(crate) drained: usize,
}

impl Counts {
    /// Adds those of another world.
    pub(crate) fn add(&mut self, other: &Counts) {
        let Counts { events, adds, named, named_given, answered, fenced, restored, namesakes, .. } = other;
        for (sum, one) in [
            (&mut self.events, events),
            (&mut self.adds, adds),
            (&mut self.named, named),
            (&mut self.named_given, named_given),
            (&mut self.answered, answered),
            (&mut self.fenced, fenced),
            (&mut self.restored, restored),
            (&mut self.namesakes, namesakes),
        ] {
            *sum += one;
        }
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Box<Next>)>>,
    pushed: u64,
    pub(crate) random: Random,
    pub(crate) setup: Setup,
    pub(crate) store: Store,
    pub(crate) machines: Vec<Machine>,
    pub(crate) pods: BTreeMap<u64, Pod>,
    pub(crate) last_pod: u64,
    /// The pod that answers for an address of a pool.
    pub(crate) running: BTreeMap<(usize, IpAddr), u64>,
    /// Whether nothing goes wrong any more.
    pub(crate) quiet: bool,
    /// How many pods begin at once on this node's network when one has its address.
    pub(crate) drains: Option<(usize, usize)>,
    pub(crate) counts: Counts,
    /// What happened on the VLAN of each pool, for the checker of histories.
    pub(crate) histories: Vec<Vec<history::Event>>,
    pub(crate) failure: Option<String>,
    pub(crate) verbose: bool,
    /// Earlier states of the store.
    pub(crate) backups: Vec<Store>,
    /// Whether one of them took its place and not all pools are open again.
    pub(crate) went_back: bool,
    /// The pools whose documents do not say so yet.
    pub(crate) unnoticed: Vec<usize>,
    /// Since when every node has caught up, by pool.
    pub(crate) back_since: BTreeMap<usize, Duration>,
}

struct Next(Happening);

impl PartialEq for Next {
    fn eq(&self, _: &Next) -> bool {
        true
    }
}
impl Eq for Next {}
impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Next) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Next {
    fn cmp(&self, _: &Next) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl World {
    pub(crate) fn new(setup: Setup, random: Random, store: Store, machines: Vec<Machine>) -> World {
        World {
            now: Duration::ZERO,
            histories: vec![Vec::new(); setup.pools.len()],
            queue: BinaryHeap::new(),
            pushed: 0,
            random,
            setup,
            store,
            machines,
            pods: BTreeMap::new(),
            last_pod: 0,
            running: BTreeMap::new(),
            quiet: false,
            drains: None,
            counts: Counts::default(),
            failure: None,
            verbose: false,
            backups: Vec::new(),
            went_back: false,
            unnoticed: Vec::new(),
            back_since: BTreeMap::new(),
        }
    }

    pub(crate) fn at(&mut self, time: Duration, what: Happening) {
        self.pushed += 1;
        self.queue.push(Reverse((time.max(self.now), self.pushed, Box::new(Next(what)))));
    }

    pub(crate) fn after(&mut self, pause: Duration, what: Happening) {
        self.at(self.now + pause, what);
    }

    /// What happens next, unless it is later than `end`.
    pub(crate) fn next(&mut self, end: Duration) -> Option<Happening> {
        if self.queue.peek().is_none_or(|Reverse((time, ..))| *time > end) {
            self.now = end;
            return None;
        }
        let Reverse((time, _, next)) = self.queue.pop()?;
        self.now = time;
        self.counts.events += 1;
        Some(next.0)
    }

    /// The first failure counts.
    pub(crate) fn fail(&mut self, what: String) {
        self.failure.get_or_insert(format!("at {:?}: {what}", self.now));
    }

    pub(crate) fn log(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>14.6} {}", self.now.as_secs_f64(), what());
        }
    }

    /// Writes down what happened on the VLAN of a pool.
    pub(crate) fn record(&mut self, pool: usize, what: What) {
        if self.setup.strict {
            self.histories[pool].push(history::Event { at: self.now, what });
        }
    }

    /// A pod as histories name it.
    pub(crate) fn named(&self, node: usize, number: u64) -> history::Pod {
        let id = Name::new(&format!("p{number}")).unwrap();
        history::Pod { node: self.label(node), id }
    }

    /// A machine as histories name it, which tell namesakes apart.
    pub(crate) fn label(&self, node: usize) -> Name {
        Name::new(&format!("m{node}")).unwrap()
    }

    /// Whether two machines have this one's name.
    pub(crate) fn has_namesake(&self, node: usize) -> bool {
        self.setup.namesake && self.machines[node].name == self.machines[0].name
    }

    /// The machine whose register has this name.
    pub(crate) fn machine_of(&self, name: &Name) -> Option<usize> {
        let instance = self.store.registers.get(name).map(|(_, register)| &register.instance);
        let is_it = |machine: &Machine| machine.name == *name && instance == Some(&machine.identity.instance);
        let any = self.machines.iter().position(|machine| machine.name == *name);
        self.machines.iter().position(is_it).or(any)
    }

    pub(crate) fn here(&self, node: usize) -> At {
        At { node, life: self.machines[node].life }
    }

    /// A network's lock is given back.
    pub(crate) fn unlock(&mut self, node: usize, network: usize) {
        let local = &mut self.machines[node].networks[network];
        local.lock = None;
        for behind in std::mem::take(&mut local.behind) {
            self.after(Duration::ZERO, behind);
        }
    }

    pub(crate) fn network_number(&self, node: usize, name: &Name) -> usize {
        self.machines[node].networks.iter().position(|local| local.name == *name).unwrap()
    }

    /// Whether things that happen by chance happen now.
    pub(crate) fn bad_luck(&mut self, per_mille: usize) -> bool {
        !self.quiet && self.random.per_mille(per_mille)
    }
}

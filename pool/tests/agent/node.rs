//! A node whose store and files answer at once.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use vlan_bridge_pool::agent::{Action, Agent, Event, Policy};
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::grants::{Confirmation, Grants, Moment};
use vlan_bridge_pool::membership::{self, Membership};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::{Dry, Network, Recall, Report, Settings};
use vlan_bridge_pool::plan::Me;
use vlan_bridge_pool::register::{Identity, Register};
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::stock::{self, Stock};
use vlan_bridge_pool::version::{Swap, Version};
use vlan_bridge_pool::water::{Marks, Usage};

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn runs(text: &str) -> Runs {
    let mut runs = Runs::EMPTY;
    text.split_whitespace().for_each(|text| runs.insert_text(text).unwrap());
    runs
}

pub(crate) fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// The pool: eight addresses of one block.
pub(crate) fn settings(state: PoolState) -> Settings {
    let marks = Marks { low: 1, high: 2, max: 4 };
    Settings {
        range: runs("10.0.0.0-10.0.0.7"),
        marks,
        lends_home: false,
        state,
        id: "id".into(),
        restored: 0,
    }
}

#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) revision: u64,
    pub(crate) blocks: BTreeMap<BlockKey, (u64, Block)>,
    pub(crate) registers: BTreeMap<Name, (u64, Register)>,
    pub(crate) away: bool,
    pub(crate) unreadable: Option<BlockKey>,
    pub(crate) asked: Vec<(Vec<Name>, Recall)>,
}

pub(crate) fn version(revision: Option<u64>) -> Version {
    revision.map_or(Version::ABSENT, |revision| Version::new(&revision.to_string()))
}

impl Store {
    pub(crate) fn block(&self, block: BlockKey) -> (Version, Block) {
        let found = self.blocks.get(&block);
        (version(found.map(|(at, _)| *at)), found.map(|(_, block)| block.clone()).unwrap_or_default())
    }

    pub(crate) fn register(&self, node: &Name) -> (Version, Option<Register>) {
        let found = self.registers.get(node);
        (version(found.map(|(at, _)| *at)), found.map(|(_, register)| register.clone()))
    }
}

/// A node, its files, and what its ADDs heard.
pub(crate) struct Node {
    pub(crate) name: Name,
    pub(crate) agent: Agent,
    pub(crate) uptime: Duration,
    pub(crate) identity: Identity,
    pub(crate) disk: Grants,
    pub(crate) used: Runs,
    pub(crate) waiting: u32,
    pub(crate) heard: Vec<Dry>,
    pub(crate) boot: String,
    confirmation: Option<Confirmation>,
    pub(crate) recovers: Vec<u32>,
    pub(crate) refused: usize,
    wakes: bool,
    /// Whether the grants that the agent found are synced. Before that no block may be written.
    synced: bool,
}

impl Node {
    pub(crate) fn new(node: &str, state: PoolState) -> Node {
        let identity = Identity { instance: node.into(), epoch: 0, since: 0, seq: 0 };
        let disk = Grants {
            pool: name("p"),
            pool_id: "id".into(),
            node: name(node),
            network: name("n"),
            epoch: 0,
            restored: 0,
            generation: 0,
            home: Runs::EMPTY,
            leased: Runs::EMPTY,
            unproven: Runs::EMPTY,
            blocks: [].into(),
        };
        Node {
            name: name(node),
            agent: agent(node, "boot", &identity, &disk, state),
            uptime: Duration::from_secs(1),
            identity,
            disk,
            used: Runs::EMPTY,
            waiting: 0,
            heard: Vec::new(),
            boot: "boot".into(),
            confirmation: None,
            recovers: Vec::new(),
            refused: 0,
            wakes: false,
            synced: false,
        }
    }

    /// An agent starts with these files in another boot.
    pub(crate) fn restart(&mut self, identity: Identity, disk: Grants, boot: &str) {
        self.agent = agent(self.name.as_str(), boot, &identity, &disk, PoolState::Open);
        (self.identity, self.disk, self.boot, self.confirmation) = (identity, disk, boot.into(), None);
        self.synced = false;
    }

    fn moment(&self) -> Moment {
        Moment { boot: self.boot.clone(), uptime: self.uptime, clock: self.uptime }
    }

    /// Whether pods get leased addresses.
    pub(crate) fn is_confirmed(&self) -> bool {
        let holds = |confirmation: &Confirmation| confirmation.holds(self.disk.epoch, &self.moment());
        self.confirmation.as_ref().is_some_and(holds)
    }

    /// Lets the agent do all that it wants to do now, and a minute passes. What is idle then has rested.
    pub(crate) fn run(&mut self, store: &mut Store, event: Event) {
        let granted: Vec<IpAddr> = self.disk.home.iter().chain(self.disk.leased.iter()).collect();
        let rested: Vec<IpAddr> = granted.into_iter().filter(|addr| !self.used.contains(*addr)).collect();
        let (idle, used) = (rested.len() as u32, self.used.len() as u32);
        let usage = Usage { idle, used, waiting: self.waiting };
        let report = Event::Usage(name("n"), Report { usage, rested, proven: Runs::EMPTY });
        let mut events = VecDeque::from([report, event]);
        while let Some(event) = events.pop_front() {
            for action in self.agent.step(&self.moment(), event) {
                events.extend(self.act(store, action));
            }
            if events.is_empty() && std::mem::take(&mut self.wakes) {
                events.push_back(Event::Time);
            }
        }
        self.uptime += Duration::from_secs(60);
    }

    fn act(&mut self, store: &mut Store, action: Action) -> Option<Event> {
        Some(match action {
            Action::Register(action) => Event::Register(self.of_register(store, action)),
            Action::Stock(name, action) => Event::Stock(name, self.of_stock(store, action)),
            Action::List(name) => Event::Listed(name, Vec::new()),
            Action::Look(node) => Event::Looked(node.clone(), store.register(&node).1),
            Action::Ask(_, nodes, recall) => {
                store.asked.push((nodes, recall));
                return None;
            }
            Action::Dry(_, why) => {
                self.heard.push(why);
                return None;
            }
            other => {
                self.hears_of(other);
                return None;
            }
        })
    }

    fn hears_of(&mut self, action: Action) {
        match action {
            Action::Confirm(_, confirmation) => self.confirmation = Some(confirmation),
            Action::Withdraw(_) => self.confirmation = None,
            Action::Recover(_, restored) => self.recovers.push(restored),
            Action::Refused(_) => self.refused += 1,
            Action::Wake(at) => self.wakes |= at <= self.uptime,
            _ => {}
        }
    }

    fn of_register(&mut self, store: &mut Store, action: membership::Action) -> membership::Outcome {
        use membership::{Action, Outcome};
        match action {
            Action::Read | Action::Swap(..) if store.away => Outcome::Failed,
            Action::Read => {
                let (version, register) = store.register(&self.name);
                Outcome::Read(version, register)
            }
            Action::Swap(_, value) => {
                store.revision += 1;
                store.registers.insert(self.name.clone(), (store.revision, value));
                Outcome::Swapped(Swap::Done(version(Some(store.revision))))
            }
            Action::Save(identity) => {
                self.identity = identity;
                Outcome::Saved
            }
        }
    }

    fn of_stock(&mut self, store: &mut Store, action: stock::Action) -> stock::Outcome {
        use stock::{Action, Outcome};
        match action {
            Action::Store(grants) => {
                (self.disk, self.synced) = (grants, true);
                Outcome::Stored
            }
            Action::Inspect(_) => Outcome::Inspected(self.used.without(&granted(&self.disk))),
            Action::Read(_) | Action::Swap(..) if store.away => Outcome::Failed,
            Action::Read(block) | Action::Swap(block, ..) if store.unreadable == Some(block) => {
                Outcome::Unreadable
            }
            Action::Read(block) => {
                let (version, block) = store.block(block);
                Outcome::Read(version, block)
            }
            Action::Swap(block, at, value) => {
                assert_eq!(store.block(block).0, at);
                assert!(self.synced);
                store.revision += 1;
                store.blocks.insert(block, (store.revision, value));
                Outcome::Swapped(Swap::Done(version(Some(store.revision))))
            }
            Action::Offer(_) => Outcome::Offered,
        }
    }

    pub(crate) fn asks_for(&mut self, store: &mut Store, addr: IpAddr) {
        self.run(store, Event::Requested(name("n"), [addr].into_iter().collect()));
    }

    pub(crate) fn has(&self, addr: IpAddr) -> bool {
        self.disk.contains(addr)
    }

    pub(crate) fn count(&self) -> u128 {
        granted(&self.disk).len()
    }

    /// What ADDs heard since they were asked last.
    pub(crate) fn hears(&mut self) -> Vec<Dry> {
        std::mem::take(&mut self.heard)
    }
}

pub(crate) fn granted(grants: &Grants) -> Runs {
    grants.home.iter().chain(grants.leased.iter()).collect()
}

fn agent(node: &str, boot: &str, identity: &Identity, disk: &Grants, state: PoolState) -> Agent {
    let policy =
        Policy { give_for: None, margin: Duration::from_secs(300), confirm_every: Duration::from_secs(600) };
    let membership = Membership::new(boot.into(), identity.clone(), policy.give_for);
    let networks = BTreeMap::from([(name("n"), network(node, identity, disk, state))]);
    Agent::new(policy, membership, networks, 1)
}

pub(crate) fn network(node: &str, identity: &Identity, disk: &Grants, state: PoolState) -> Network {
    let me = Me { node: name(node), network: name("n"), epoch: identity.epoch, since: identity.since };
    Network::new(Stock::new(me, Runs::EMPTY, disk.clone()), settings(state))
}

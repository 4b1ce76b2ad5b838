//! Whole agents with a store that answers at once: what they claim, what they leave, and what they tell ADDs
//! that wait. What goes wrong in between is the simulator's matter.

#![allow(clippy::unwrap_used, reason = "this is all of a test")]

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use vlan_bridge_pool::agent::{Action, Agent, Event, Policy};
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::grants::{Grants, Moment};
use vlan_bridge_pool::membership::{self, Membership};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::{Dry, Network, Recall, Report, Settings};
use vlan_bridge_pool::plan::Me;
use vlan_bridge_pool::register::{Identity, Register};
use vlan_bridge_pool::runs::Runs;
use vlan_bridge_pool::stock::{self, Stock};
use vlan_bridge_pool::version::{Swap, Version};
use vlan_bridge_pool::water::{Marks, Usage};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn runs(text: &str) -> Runs {
    let mut runs = Runs::EMPTY;
    text.split_whitespace().for_each(|text| runs.insert_text(text).unwrap());
    runs
}

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// The pool: eight addresses of one block.
fn settings(state: PoolState) -> Settings {
    let marks = Marks { low: 1, high: 2, max: 4 };
    Settings { range: runs("10.0.0.0-10.0.0.7"), marks, lends_home: false, state }
}

#[derive(Default)]
struct Store {
    revision: u64,
    blocks: BTreeMap<BlockKey, (u64, Block)>,
    registers: BTreeMap<Name, (u64, Register)>,
    away: bool,
    asked: Vec<(Vec<Name>, Recall)>,
}

fn version(revision: Option<u64>) -> Version {
    revision.map_or(Version::ABSENT, |revision| Version::new(&revision.to_string()))
}

impl Store {
    fn block(&self, block: BlockKey) -> (Version, Block) {
        let found = self.blocks.get(&block);
        (version(found.map(|(at, _)| *at)), found.map(|(_, block)| block.clone()).unwrap_or_default())
    }

    fn register(&self, node: &Name) -> (Version, Option<Register>) {
        let found = self.registers.get(node);
        (version(found.map(|(at, _)| *at)), found.map(|(_, register)| register.clone()))
    }
}

/// A node, its files, and what its ADDs heard.
struct Node {
    name: Name,
    agent: Agent,
    uptime: Duration,
    identity: Identity,
    disk: Grants,
    used: Runs,
    waiting: u32,
    heard: Vec<Dry>,
}

impl Node {
    fn new(node: &str, state: PoolState) -> Node {
        let identity = Identity { instance: node.into(), epoch: 0, since: 0, seq: 0 };
        let disk = Grants {
            pool: name("p"),
            pool_id: "id".into(),
            node: name(node),
            network: name("n"),
            epoch: 0,
            generation: 0,
            home: Runs::EMPTY,
            leased: Runs::EMPTY,
            unproven: Runs::EMPTY,
            blocks: [].into(),
        };
        let policy = Policy {
            give_for: None,
            margin: Duration::from_secs(300),
            confirm_every: Duration::from_secs(600),
        };
        let membership = Membership::new("boot".into(), identity.clone(), policy.give_for);
        let networks = BTreeMap::from([(name("n"), network(node, &identity, &disk, state))]);
        let agent = Agent::new(policy, membership, networks, 1);
        let (used, uptime) = (Runs::EMPTY, Duration::from_secs(1));
        Node { name: name(node), agent, uptime, identity, disk, used, waiting: 0, heard: Vec::new() }
    }

    /// Lets the agent do all that it wants to do now, and a minute passes. What is idle then has rested.
    fn run(&mut self, store: &mut Store, event: Event) {
        let granted: Vec<IpAddr> = self.disk.home.iter().chain(self.disk.leased.iter()).collect();
        let rested: Vec<IpAddr> = granted.into_iter().filter(|addr| !self.used.contains(*addr)).collect();
        let (idle, used) = (rested.len() as u32, self.used.len() as u32);
        let usage = Usage { idle, used, waiting: self.waiting };
        let report = Event::Usage(name("n"), Report { usage, rested, proven: Runs::EMPTY });
        let mut events = VecDeque::from([report, event]);
        while let Some(event) = events.pop_front() {
            let moment = Moment { boot: "boot".into(), uptime: self.uptime, clock: self.uptime };
            for action in self.agent.step(&moment, event) {
                events.extend(self.act(store, action));
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
            Action::Refused(_) | Action::Confirm(..) | Action::Withdraw(_) => return None,
            Action::Fenced(..) | Action::Wake(_) => return None,
        })
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
                self.disk = grants;
                Outcome::Stored
            }
            Action::Inspect(_) => Outcome::Inspected(self.used.without(&granted(&self.disk))),
            Action::Read(_) | Action::Swap(..) if store.away => Outcome::Failed,
            Action::Read(block) => {
                let (version, block) = store.block(block);
                Outcome::Read(version, block)
            }
            Action::Swap(block, at, value) => {
                assert_eq!(store.block(block).0, at);
                store.revision += 1;
                store.blocks.insert(block, (store.revision, value));
                Outcome::Swapped(Swap::Done(version(Some(store.revision))))
            }
            Action::Offer(_) => Outcome::Offered,
        }
    }

    fn asks_for(&mut self, store: &mut Store, addr: IpAddr) {
        self.run(store, Event::Requested(name("n"), [addr].into_iter().collect()));
    }

    fn has(&self, addr: IpAddr) -> bool {
        self.disk.contains(addr)
    }

    fn count(&self) -> u128 {
        granted(&self.disk).len()
    }

    /// What ADDs heard since they were asked last.
    fn hears(&mut self) -> Vec<Dry> {
        std::mem::take(&mut self.heard)
    }
}

fn granted(grants: &Grants) -> Runs {
    grants.home.iter().chain(grants.leased.iter()).collect()
}

fn network(node: &str, identity: &Identity, disk: &Grants, state: PoolState) -> Network {
    let me = Me { node: name(node), network: name("n"), epoch: identity.epoch, since: identity.since };
    Network::new(Stock::new(me, Runs::EMPTY, disk.clone()), settings(state))
}

#[test]
fn in_a_frozen_pool_nothing_is_claimed_and_what_is_there_is_given_back() {
    let mut store = Store::default();
    let mut a = Node::new("a", PoolState::Frozen);
    a.waiting = 1;
    a.run(&mut store, Event::Time);
    assert_eq!((a.count(), a.hears()), (0, vec![Dry::Frozen]));
    a.run(&mut store, Event::Time);
    assert_eq!((a.count(), a.hears()), (0, vec![]), "an ADD hears it once");
    a.agent.configure(&name("n"), settings(PoolState::Open));
    a.run(&mut store, Event::Time);
    assert_eq!((a.count(), a.hears()), (3, vec![]));
    a.waiting = 0;
    a.agent.configure(&name("n"), settings(PoolState::Frozen));
    a.run(&mut store, Event::Recalled(name("n"), Recall { count: 2, floor: 0, address: None }));
    assert_eq!((a.count(), a.hears()), (1, vec![]), "the frozen pool gets back what others asked for");
    a.agent.configure(&name("n"), settings(PoolState::Recovering));
    a.asks_for(&mut store, ip(7));
    assert_eq!((a.has(ip(7)), a.hears()), (false, vec![Dry::Recovering]));
}

#[test]
fn an_address_is_claimed_by_name_wherever_it_is_idle() {
    let mut store = Store::default();
    let (mut a, mut b) = (Node::new("a", PoolState::Open), Node::new("b", PoolState::Open));
    a.run(&mut store, Event::Time);
    a.asks_for(&mut store, ip(7));
    assert!(a.has(ip(7)) && a.hears().is_empty());
    b.run(&mut store, Event::Time);
    b.asks_for(&mut store, ip(7));
    let recall = Recall { count: 1, floor: 0, address: Some(ip(7)) };
    assert_eq!((b.has(ip(7)), b.hears()), (false, vec![Dry::Held(ip(7), name("a"))]));
    assert_eq!(store.asked.pop().unwrap(), (vec![name("a")], recall));
    // A pod has it.
    a.used.insert(ip(7));
    a.run(&mut store, Event::Recalled(name("n"), recall));
    b.run(&mut store, Event::Time);
    assert!(a.has(ip(7)) && !b.has(ip(7)) && b.hears() == [Dry::Held(ip(7), name("a"))]);
    a.used.remove(ip(7));
    a.run(&mut store, Event::Recalled(name("n"), recall));
    assert!(!a.has(ip(7)) && a.count() > 0, "no other address goes with it");
    b.run(&mut store, Event::Time);
    assert!(b.has(ip(7)) && b.hears().is_empty());
    b.asks_for(&mut store, ip(8));
    assert_eq!(b.hears(), [Dry::NotInPool(ip(8))]);
    // Nobody asks any more.
    b.asks_for(&mut store, ip(0));
    b.run(&mut store, Event::Requested(name("n"), Runs::EMPTY));
    assert!(b.hears().contains(&Dry::Held(ip(0), name("a"))));
    store.asked.clear();
    b.run(&mut store, Event::Time);
    assert_eq!((&store.asked, b.hears()), (&vec![], vec![]));
}

#[test]
fn an_add_hears_what_it_waits_for() {
    let mut store = Store { away: true, ..Store::default() };
    let mut a = Node::new("a", PoolState::Open);
    a.waiting = 1;
    a.run(&mut store, Event::Time);
    assert_eq!(a.hears(), [Dry::NoAnswer], "the store never answered");
    store.away = false;
    a.waiting = 5;
    a.run(&mut store, Event::Time);
    assert_eq!((a.count(), a.hears()), (4, vec![Dry::NoAnswer]), "another that waits hears it too");
    a.used = granted(&a.disk);
    a.run(&mut store, Event::Time);
    a.waiting = 6;
    a.run(&mut store, Event::Time);
    assert_eq!(a.hears(), [Dry::Most(4), Dry::Most(4)]);
    let mut b = Node::new("b", PoolState::Open);
    (b.waiting, b.used) = (4, Runs::EMPTY);
    b.run(&mut store, Event::Time);
    b.used = granted(&b.disk);
    let mut c = Node::new("c", PoolState::Open);
    c.waiting = 1;
    c.run(&mut store, Event::Time);
    assert_eq!(c.hears(), [Dry::NoneFree { seen: 8, taken: 8, asked: 2 }]);
    store.away = true;
    c.waiting = 2;
    c.run(&mut store, Event::Time);
    assert_eq!(c.hears(), [Dry::NoAnswer]);
}

#[test]
fn a_network_comes_and_goes_while_the_agent_runs() {
    let mut store = Store::default();
    let mut a = Node::new("a", PoolState::Open);
    a.run(&mut store, Event::Time);
    assert_eq!(a.count(), 2);
    let new = |a: &Node| network("a", &a.identity, &a.disk, PoolState::Open);
    assert!(!a.agent.add(&name("n"), new(&a)), "there is one");
    a.agent.remove(&name("n"));
    a.run(&mut store, Event::Time);
    a.waiting = 1;
    a.run(&mut store, Event::Time);
    assert!(a.agent.network(&name("n")).is_none() && a.count() == 2);
    assert!(a.agent.add(&name("n"), new(&a)));
    a.waiting = 2;
    a.run(&mut store, Event::Time);
    assert_eq!(a.count(), 4);
    // A slice is made of what the network has, and of what is free.
    a.agent.set_slice(&name("n"), runs("10.0.0.0-10.0.0.7"));
    a.waiting = 0;
    a.run(&mut store, Event::Time);
    assert_eq!((a.disk.home.len(), a.disk.leased.len()), (8, 0));
    a.agent.set_slice(&name("n"), runs("10.0.0.1"));
    a.run(&mut store, Event::Time);
    assert!(a.disk.home == runs("10.0.0.1"), "the rest is leased, or given back: {:?}", a.disk);
    let kind = |last: u8| store.block(BlockKey::of(ip(last))).1.entry(last).map(ToString::to_string);
    assert_eq!(kind(1), Some("h a/n#1".into()));
    assert!((0..8).filter(|last| *last != 1).all(|last| kind(last).is_none_or(|text| text == "g a/n#1")));
}

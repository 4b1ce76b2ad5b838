//! The world of the search: the store, two nodes, and what the agents do in it.

mod calm;
mod events;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::time::Duration;

use crate::block::{Block, BlockKey};
use crate::entry::Entry;
use crate::grants::{Confirmation, Grants, Moment, Verdict};
use crate::membership::{self, Membership};
use crate::name::Name;
use crate::plan::{Aim, Claim, Me};
use crate::register::{Identity, Register, State};
use crate::rules::{Rule, Rules};
use crate::runs::Runs;
use crate::stock::{self, Stock};
use crate::suspicion::Suspicion;
use crate::version::{Swap, Version};

/// Time is counted in these. Every age stops where it makes no difference any more.
const TICK: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::from_secs(1000);
const GIVE_FOR: Duration = TICK;
const MARGIN: Duration = TICK;
/// States with a later epoch are not looked at: they repeat what the earlier ones show.
const LAST_EPOCH: u32 = 3;

fn addr() -> IpAddr {
    [10, 0, 0, 7].into()
}

fn just_it() -> Runs {
    [addr()].into_iter().collect()
}

fn block() -> BlockKey {
    BlockKey::of(addr())
}

fn now() -> Moment {
    Moment { boot: "boot".into(), uptime: NOW, clock: NOW }
}

/// The versions that the search tells apart: that of now, and all before.
fn version(fresh: bool) -> Version {
    Version::new(if fresh { "now" } else { "before" })
}

/// What happened, and on which node if it happened on one.
pub(super) type Event = (&'static str, Option<usize>);

/// Everything there is.
#[derive(Clone, Debug)]
pub(super) struct World {
    block: Block,
    nodes: [Rc<Kept>; 2],
    /// Writes to the block that may still arrive. Any write makes all others fail, so no version is needed.
    on_the_way: Vec<Letter>,
    rules: Rules,
    luck: [Luck; 2],
}

/// What can happen to a node. Its agent can be killed, and its writes can be late or unanswered, on any.
#[derive(Clone, Copy, Debug)]
pub(super) struct Luck {
    /// The machine reboots.
    pub(super) reboots: bool,
    /// Others say that it is lost, up to this epoch.
    pub(super) lost_until: u32,
}

impl Luck {
    pub(super) const GOOD: Luck = Luck { reboots: false, lost_until: 0 };
    pub(super) const BAD: Luck = Luck { reboots: true, lost_until: 1 };
}

/// A node that states share until one changes it, with a number that stands for it.
#[derive(Clone, Debug)]
struct Kept {
    node: Node,
    print: u64,
}

impl Deref for Kept {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

/// A number that stands for a value. Of ten million values two have the same with a probability below 1 in
/// 300,000.
fn print_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A write on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Letter {
    from: usize,
    value: Block,
    /// Whether the agent that sent it waits for the answer.
    awaited: bool,
}

#[derive(Clone, Debug, Hash)]
struct Node {
    register: Option<Register>,
    disk: Grants,
    identity: Identity,
    confirmation: Option<Confirmation>,
    /// Whether the plugin would offer the address.
    queued: bool,
    pod: Pod,
    agent: Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pod {
    No,
    /// An ADD holds the network's lock, and chose the address this long ago.
    Chosen(Duration),
    Runs,
}

/// What a kill of the agent ends.
#[derive(Clone, Debug, Hash)]
struct Agent {
    membership: Membership,
    stock: Stock,
    suspicion: Suspicion,
    asks: Option<Question>,
    does: Option<Doing>,
}

/// The agent has asked whether its node lives. The store's answer is on its way.
#[derive(Clone, Debug, Hash)]
struct Question {
    register: Option<Register>,
    /// Whether nobody has written the register since.
    fresh: bool,
}

/// What the stock waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doing {
    Inspect,
    Swap,
    Offer,
}

fn name(node: usize) -> Name {
    Name::new(["a", "b"][node]).unwrap()
}

impl Agent {
    fn start(rules: Rules, node: usize, identity: &Identity, disk: &Grants) -> Agent {
        let (network, Identity { epoch, since, .. }) = (Name::new("n").unwrap(), identity.clone());
        let me = Me { node: name(node), network, epoch, since };
        Agent {
            membership: Membership::new("boot".into(), identity.clone(), Some(GIVE_FOR)),
            stock: Stock::under(rules, me, Runs::EMPTY, disk.clone()),
            suspicion: Suspicion::under(rules),
            asks: None,
            does: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.asks.is_none() && self.does.is_none() && self.stock.verified()
    }
}

impl World {
    /// The first node holds the address and gives it to pods. The store has confirmed the grants of both.
    pub(super) fn new(rules: Rules, luck: [Luck; 2]) -> World {
        let node = |node: usize| {
            let grants = Grants {
                pool: Name::new("p").unwrap(),
                pool_id: "p".into(),
                node: name(node),
                network: Name::new("n").unwrap(),
                epoch: 1,
                restored: 0,
                generation: 0,
                home: Runs::EMPTY,
                leased: if node == 0 { just_it() } else { Runs::EMPTY },
                unproven: Runs::EMPTY,
                blocks: [block()].into(),
            };
            let identity = Identity { instance: node.to_string(), epoch: 1, since: 1, seq: 1 };
            let register = Register {
                instance: node.to_string(),
                boot: "boot".into(),
                epoch: 1,
                seq: 1,
                state: State::Live,
                lost: 0,
                gone: 0,
                give_for: Some(GIVE_FOR),
                pools: [].into(),
            };
            let Moment { boot, uptime: sent_at, clock: sent_at_clock } = now();
            let give_for = Some(GIVE_FOR);
            Node {
                register: Some(register),
                agent: Agent::start(rules, node, &identity, &grants),
                disk: grants,
                identity,
                confirmation: Some(Confirmation { epoch: 1, boot, sent_at, sent_at_clock, give_for }),
                queued: node == 0,
                pod: Pod::No,
            }
        };
        let mut value = Block::default();
        value.set(7, Some(Entry::parse("g a/n#1").unwrap()));
        let nodes = [0, 1].map(|at| Rc::new(Kept { node: node(at), print: 0 }));
        let mut world = World { block: value, nodes, on_the_way: Vec::new(), rules, luck };
        world.settle();
        world
    }

    /// A state that is reached from there: the first node was called lost, its pod still runs, and the second
    /// has made the address suspect.
    pub(super) fn suspected(rules: Rules, luck: [Luck; 2]) -> World {
        let mut world = World::new(rules, luck);
        world.block.set(7, Some(Entry::parse("s a/n#1").unwrap()));
        let node = world.node(0);
        (node.pod, node.queued, node.confirmation) = (Pod::Runs, false, None);
        let lost = State::Lost { by: name(1) };
        node.register = node.register.take().map(|register| Register { state: lost, ..register });
        world.settle();
        world
    }

    /// A number that stands for the state.
    pub(super) fn print(&self) -> u64 {
        print_of(&(self.nodes[0].print, self.nodes[1].print, &self.block, &self.on_the_way))
    }

    fn node(&mut self, at: usize) -> &mut Node {
        &mut Rc::make_mut(&mut self.nodes[at]).node
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    pub(super) fn is_double(&self) -> bool {
        self.nodes.iter().all(|node| node.pod == Pod::Runs)
    }

    /// Every event that can happen, and what comes of it, but for late epochs.
    pub(super) fn successors(&self) -> Vec<(Event, World)> {
        let mut events = self.events();
        events.retain(|(_, world)| {
            world.nodes.iter().all(|node| {
                node.identity.epoch <= LAST_EPOCH
                    && node.register.as_ref().is_none_or(|register| register.epoch <= LAST_EPOCH)
            })
        });
        events
    }

    /// A time passes, and what is older than anybody asks for grows no older.
    fn tick(&mut self) {
        let older = |time: &mut Duration, most: Duration| *time = (*time - TICK).max(NOW - most);
        for at in 0..2 {
            let node = self.node(at);
            if let Some(confirmation) = &mut node.confirmation {
                older(&mut confirmation.sent_at, GIVE_FOR);
                older(&mut confirmation.sent_at_clock, GIVE_FOR);
            }
            if let Pod::Chosen(at) = &mut node.pod {
                older(at, MARGIN);
            }
            if let Some(moment) = node.agent.membership.times() {
                older(&mut moment.uptime, GIVE_FOR);
                older(&mut moment.clock, GIVE_FOR);
            }
            node.agent.suspicion.times().for_each(|time| older(time, 3 * TICK));
        }
    }

    /// Makes alike what behaves alike.
    fn settle(&mut self) {
        for kept in &mut self.nodes {
            // Others share what was not changed.
            let Some(Kept { node, print }) = Rc::get_mut(kept) else { continue };
            let epoch = node.disk.epoch;
            if node.confirmation.as_ref().is_some_and(|confirmation| !confirmation.holds(epoch, &now())) {
                node.confirmation = None;
            }
            node.disk.generation = 0;
            node.agent.stock.forget_counts();
            node.agent.membership.forget_copies();
            *print = print_of(node);
        }
        self.on_the_way.sort();
        self.on_the_way.dedup();
    }

    /// The block is written: every other write on its way is refused when it arrives.
    fn write(&mut self, value: Block) {
        self.block = value;
        self.on_the_way.clear();
    }

    fn write_register(&mut self, node: usize, value: Register) {
        self.node(node).register = Some(value);
        if let Some(question) = &mut self.node(node).agent.asks {
            question.fresh = false;
        }
    }

    /// Tells an agent what became of its action on the stock.
    fn tell(&mut self, node: usize, outcome: stock::Outcome) {
        let agent = &mut self.node(node).agent;
        let step = agent.stock.outcome(outcome);
        self.begin(node, step);
    }

    /// Does what an agent asks for. Where others could not tell whether it was asked for earlier, it is done
    /// at once. A kill before it is done looks like a kill before it was asked for, or like a write without
    /// an answer.
    fn begin(&mut self, node: usize, step: stock::Step) {
        use stock::{Action, Outcome, Step};
        let unlocked = !matches!(self.nodes[node].pod, Pod::Chosen(_));
        match step {
            Step::Do(Action::Store(grants)) => {
                self.node(node).disk = grants;
                self.tell(node, Outcome::Stored);
            }
            Step::Do(Action::Read(_)) => {
                let block = self.block.clone();
                self.tell(node, Outcome::Read(version(true), block));
            }
            Step::Do(Action::Offer(_)) if unlocked => self.offer(node),
            Step::Do(Action::Swap(_, _, value)) => {
                self.on_the_way.push(Letter { from: node, value, awaited: true });
                self.node(node).agent.does = Some(Doing::Swap);
            }
            Step::Do(Action::Inspect(_)) => self.node(node).agent.does = Some(Doing::Inspect),
            Step::Do(Action::Offer(_)) => self.node(node).agent.does = Some(Doing::Offer),
            Step::End(_) => self.node(node).agent.does = None,
        }
    }

    fn offer(&mut self, at: usize) {
        let Node { queued, pod, disk, .. } = self.node(at);
        *queued = *pod == Pod::No && disk.contains(addr());
        self.tell(at, stock::Outcome::Offered);
    }

    /// Tells an agent what became of its question about its register, and does what it asks for.
    fn answer(&mut self, node: usize, outcome: membership::Outcome, answered: bool) {
        use membership::{Action, Outcome, Step};
        match self.node(node).agent.membership.outcome(outcome) {
            Step::Do(Action::Swap(at, value)) if at == version(true) => {
                self.write_register(node, value);
                let swap = if answered { Swap::Done(version(true)) } else { Swap::Unknown };
                self.answer(node, Outcome::Swapped(swap), answered);
            }
            Step::Do(Action::Swap(..)) => {
                let found = self.nodes[node].register.clone();
                self.answer(node, Outcome::Swapped(Swap::Lost(version(true), found)), answered);
            }
            Step::Do(Action::Save(identity)) => {
                self.node(node).identity = identity;
                self.answer(node, Outcome::Saved, answered);
            }
            Step::Confirmed(confirmed) => {
                let Node { agent, confirmation, .. } = self.node(node);
                if let Some(new) = agent.stock.confirmation(&confirmed, Some(GIVE_FOR)) {
                    *confirmation = Some(new);
                }
            }
            Step::Lives(epoch) => self.node(node).agent.stock.lives_under(epoch, 1),
            Step::Do(Action::Read) | Step::Refused(_) | Step::Failed => {}
        }
    }
}

impl World {
    /// What an agent wrote and no longer waits for may arrive all the same.
    fn abandon(&mut self, at: usize) {
        let own = self.on_the_way.iter_mut().filter(|letter| letter.from == at);
        own.for_each(|letter| letter.awaited = false);
    }

    fn restart(&mut self, at: usize) {
        self.abandon(at);
        let rules = self.rules;
        let node = self.node(at);
        node.agent = Agent::start(rules, at, &node.identity, &node.disk);
    }
}

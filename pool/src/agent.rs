//! The agent of one node: its membership and its networks. Time and events go in, actions come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::block::BlockKey;
use crate::grants::{Confirmation, Moment};
use crate::membership::{self, Confirmed, Membership};
use crate::name::Name;
use crate::network::{Dry, Network, Recall, Report, Settings, Want};
use crate::register::Register;
use crate::runs::Runs;
use crate::stock;
use crate::suspicion::Suspicion;

/// What all nodes of the pool agree on.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long leased addresses are given without a new confirmation. None: without end.
    pub give_for: Option<Duration>,
    /// How long an ADD may take.
    pub margin: Duration,
    /// The time between two questions whether the node lives.
    pub confirm_every: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed. It is also the first event.
    Time,
    /// An action on the node's own register is done.
    Register(membership::Outcome),
    /// An action on a network's stock is done.
    Stock(Name, stock::Outcome),
    /// What the plugin's store says of a network.
    Usage(Name, Report),
    /// Blocks with free addresses, perhaps old.
    Listed(Name, Vec<BlockKey>),
    /// Another node's register. None if there is none, or no answer.
    Looked(Name, Option<Register>),
    /// Another node asks for addresses of a network.
    Recalled(Name, Recall),
    /// The store went back: etcd's revision is lower than a revision that was seen, or its cluster has
    /// another identity. This comes before any answer of that store.
    WentBack,
    /// All addresses that ADDs of a network ask for by name now, because they are not granted. Empty when
    /// none waits any more.
    Requested(Name, Runs),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// An action on the node's own register. Answered by [`Event::Register`].
    Register(membership::Action),
    /// An action on a network's stock. Answered by [`Event::Stock`].
    Stock(Name, stock::Action),
    /// Write the confirmation of a network.
    Confirm(Name, Confirmation),
    /// Remove the confirmation of a network: another machine has this node's name.
    Withdraw(Name),
    /// Find blocks with free addresses. Answered by [`Event::Listed`].
    List(Name),
    /// Read another node's register. Answered by [`Event::Looked`].
    Look(Name),
    /// Ask all networks of these nodes that use this network's pool, but not this network itself, for
    /// addresses. They hear of it by [`Event::Recalled`], after an [`Event::Usage`]. No answer is awaited.
    Ask(Name, Vec<Name>, Recall),
    /// Tell the ADDs of a network that wait: nothing is there for them now, and why.
    Dry(Name, Dry),
    /// The store of a network's pool went back. Read the pool's document, and write by compare-and-swap what
    /// [`Document::recovering`] makes of it for this number, if it makes something. Then
    /// [configure](Agent::configure) the network.
    ///
    /// [`Document::recovering`]: crate::document::Document::recovering
    Recover(Name, u32),
    /// Pods of a network use addresses that the store grants to others.
    Fenced(Name, Runs),
    /// Another machine has this node's name, or this machine's identity: this is its register.
    Refused(Box<Register>),
    /// Send [`Event::Time`] at this time since boot.
    Wake(Duration),
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    policy: Policy,
    membership: Membership,
    /// Whether the store has said since the start that the node lives. Nothing is written before that.
    admitted: bool,
    /// Why not, if that is known.
    barred: Option<Dry>,
    networks: BTreeMap<Name, Network>,
    /// Those that are removed when the round under way has ended.
    leaving: BTreeSet<Name>,
    suspicion: Suspicion,
    /// When the store is asked again whether the node lives.
    ask_at: Duration,
    /// The pause before that if the store does not answer.
    pause: Duration,
    /// The store's last word that the node lives, and the networks whose grants it does not confirm yet,
    /// because they are not settled.
    confirmed: Option<Confirmed>,
    unconfirmed: BTreeSet<Name>,
    /// A state of a generator of random numbers, which choose blocks. Their quality decides nothing else.
    random: u64,
}

impl Agent {
    /// An agent that starts. It has seen nothing of the store yet. `seed` differs from node to node.
    pub fn new(
        policy: Policy,
        membership: Membership,
        networks: BTreeMap<Name, Network>,
        seed: u64,
    ) -> Agent {
        Agent {
            policy,
            membership,
            admitted: false,
            barred: None,
            leaving: BTreeSet::new(),
            networks,
            suspicion: Suspicion::default(),
            ask_at: Duration::ZERO,
            pause: SOON,
            confirmed: None,
            unconfirmed: BTreeSet::new(),
            random: seed,
        }
    }

    /// One network.
    pub fn network(&self, name: &Name) -> Option<&Network> {
        self.networks.get(name)
    }

    /// Changes what all nodes agree on. Like the other changes it takes effect with the next event.
    pub fn set_policy(&mut self, policy: Policy) {
        // What the store confirmed was promised for another time.
        self.confirmed = None;
        self.ask_at = Duration::ZERO;
        self.membership.set_give_for(policy.give_for);
        self.policy = policy;
    }

    /// Changes what a network is configured to do. Documents come in the order in which the store had them:
    /// an older document looks like a store that went back.
    pub fn configure(&mut self, name: &Name, settings: Settings) {
        let behind = self.networks.get_mut(name).is_some_and(|network| network.configure(settings));
        if behind {
            self.forget();
        }
    }

    /// Changes the node's own slice in a network.
    pub fn set_slice(&mut self, name: &Name, slice: Runs) {
        self.on(name, |network| network.set_slice(slice));
    }

    /// Begins with a network, whose stock has the membership's epochs. False, and nothing is changed, if
    /// there is one of this name, which may still be [leaving](Agent::remove): its files change until it is
    /// gone.
    pub fn add(&mut self, name: &Name, network: Network) -> bool {
        if self.networks.contains_key(name) {
            return false;
        }
        self.networks.insert(name.clone(), network);
        self.ask_at = Duration::ZERO;
        true
    }

    /// Ends with a network. What is under way is ended first, and [`Agent::network`] finds it until then. Its
    /// grants and its confirmation stay.
    pub fn remove(&mut self, name: &Name) {
        self.leaving.extend(self.networks.contains_key(name).then(|| name.clone()));
    }

    /// The store went back: what it said of other nodes, and of this one, means nothing any more.
    fn forget(&mut self) {
        self.suspicion = Suspicion::default();
        self.confirmed = None;
        self.ask_at = Duration::ZERO;
    }

    fn went_back(&mut self) {
        self.networks.values_mut().for_each(|network| _ = network.went_back());
        self.forget();
    }

    /// The membership.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Takes an event and says what to do now.
    pub fn step(&mut self, now: &Moment, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        let uptime = now.uptime;
        match event {
            Event::Time => {}
            Event::Register(outcome) => {
                let step = self.membership.outcome(outcome);
                self.membership_step(step, uptime, &mut actions);
                if self.membership.went_back() {
                    self.went_back();
                }
            }
            Event::Stock(name, outcome) => {
                let wants = self.networks.get_mut(&name).map(|network| network.outcome(outcome, uptime));
                extend(&mut actions, &name, wants.unwrap_or_default());
            }
            Event::Usage(name, report) => self.on(&name, |network| network.reported(report, uptime)),
            Event::Listed(name, blocks) => self.on(&name, |network| network.listed(blocks)),
            Event::Recalled(name, recall) => self.on(&name, |network| network.recalled(recall, uptime)),
            Event::WentBack => self.went_back(),
            Event::Requested(name, addrs) => self.on(&name, |network| network.requested(addrs, uptime)),
            Event::Looked(node, register) => self.looked(&node, register.as_ref(), uptime),
        }
        self.go_on(now, &mut actions);
        actions
    }

    fn on(&mut self, name: &Name, change: impl FnOnce(&mut Network)) {
        if let Some(network) = self.networks.get_mut(name) {
            change(network);
        }
    }

    fn membership_step(&mut self, step: membership::Step, now: Duration, actions: &mut Vec<Action>) {
        use membership::Step;
        self.ask_at = now + self.policy.confirm_every;
        match step {
            Step::Do(action) => actions.push(Action::Register(action)),
            Step::Confirmed(confirmed) => {
                self.admitted = true;
                self.confirmed = Some(confirmed);
                self.unconfirmed = self.networks.keys().cloned().collect();
                self.pause = SOON;
            }
            Step::Lives(epoch) => {
                let since = self.membership.since();
                self.admitted = true;
                self.networks.values_mut().for_each(|network| network.lives_under(epoch, since));
                self.confirmed = None;
                self.ask_at = now;
            }
            Step::Refused(register) => {
                self.admitted = false;
                self.barred = Some(Dry::Refused);
                self.confirmed = None;
                actions.extend(self.networks.keys().cloned().map(Action::Withdraw));
                actions.push(Action::Refused(register));
            }
            Step::Failed => {
                self.barred.get_or_insert(Dry::NoAnswer);
                self.ask_at = now + self.pause;
                self.pause = (self.pause * 2).min(LATER);
            }
        }
    }

    /// Confirms the grants of the networks that are settled. The store's word is true for the moment at which
    /// the question was sent, however long a network took to settle since.
    fn confirm(&mut self, actions: &mut Vec<Action>) {
        let (Some(confirmed), networks, give_for) = (&self.confirmed, &self.networks, self.policy.give_for)
        else {
            return;
        };
        self.unconfirmed.retain(|name| {
            let stock = networks.get(name).map(Network::stock);
            let confirmation = stock.and_then(|stock| stock.confirmation(confirmed, give_for));
            let settled = confirmation.is_some();
            actions.extend(confirmation.map(|confirmation| Action::Confirm(name.clone(), confirmation)));
            !settled
        });
    }

    /// What another node's register says of what this node's networks saw of it.
    fn looked(&mut self, node: &Name, register: Option<&Register>, now: Duration) {
        let margin = self.policy.margin;
        let Some(register) = register else { return };
        for network in self.networks.values_mut() {
            let Some(epoch) = network.epoch_seen(node) else { continue };
            if let Some(lost) = self.suspicion.judge(node, register, epoch, now, margin) {
                network.found_lost(lost);
            }
        }
    }

    /// The pools of the networks, and what all networks of each have caught up with.
    fn pools(&self) -> BTreeMap<Name, u32> {
        let mut pools = BTreeMap::new();
        for grants in self.networks.values().map(|network| network.stock().grants()) {
            let restored = pools.entry(grants.pool.clone()).or_insert(grants.restored);
            *restored = grants.restored.min(*restored);
        }
        pools
    }

    /// Begins whatever can begin.
    fn go_on(&mut self, now: &Moment, actions: &mut Vec<Action>) {
        if self.membership.set_pools(self.pools()) {
            self.ask_at = Duration::ZERO;
        }
        let step = if now.uptime >= self.ask_at { self.membership.ask(now.clone()) } else { None };
        if let Some(step) = step {
            self.membership_step(step, now.uptime, actions);
        }
        if self.membership.idle() {
            actions.push(Action::Wake(self.ask_at));
        }
        self.confirm(actions);
        self.leaving.retain(|name| {
            let busy = self.networks.get(name).is_some_and(|network| !network.stock().idle());
            if !busy {
                self.networks.remove(name);
            }
            busy
        });
        if !self.admitted {
            if let Some(dry) = &self.barred {
                let told =
                    self.networks.iter_mut().filter_map(|(name, network)| network.tells().then_some(name));
                actions.extend(told.map(|name| Action::Dry(name.clone(), dry.clone())));
            }
            return;
        }
        for (name, network) in self.networks.iter_mut().filter(|(name, _)| !self.leaving.contains(*name)) {
            self.random = next_random(self.random);
            extend(actions, name, network.next(now.uptime, self.random));
        }
    }
}

/// The first pause before the store is asked again when it did not answer.
const SOON: Duration = Duration::from_millis(500);
/// The longest.
const LATER: Duration = Duration::from_secs(16);

fn extend(actions: &mut Vec<Action>, name: &Name, wants: Vec<Want>) {
    actions.extend(wants.into_iter().map(|want| match want {
        Want::Stock(action) => Action::Stock(name.clone(), action),
        Want::List => Action::List(name.clone()),
        Want::Look(node) => Action::Look(node),
        Want::Ask(nodes, recall) => Action::Ask(name.clone(), nodes, recall),
        Want::Dry(dry) => Action::Dry(name.clone(), dry),
        Want::Fenced(addrs) => Action::Fenced(name.clone(), addrs),
        Want::Recover(restored) => Action::Recover(name.clone(), restored),
        Want::Wake(at) => Action::Wake(at),
    }));
}

/// `splitmix64` by Sebastiano Vigna, which is in the public domain.
fn next_random(state: u64) -> u64 {
    let mixed = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

//! The events that can happen next in the world of the search.

use super::*;

/// The events that were found so far.
struct Events<'a> {
    from: &'a World,
    found: Vec<(Event, World)>,
}

impl World {
    /// Every event that can happen, and what comes of it.
    pub(super) fn events(&self) -> Vec<(Event, World)> {
        let mut events = Events { from: self, found: Vec::new() };
        for node in 0..2 {
            events.of_pods(node);
            events.of_membership(node);
            events.of_stock(node);
            events.of_wishes(node);
            events.of_misfortune(node);
        }
        events.of_letters();
        events.when(("time passes", None), true, World::tick);
        events.found
    }
}

impl Events<'_> {
    fn when(&mut self, event: Event, possible: bool, change: impl FnOnce(&mut World)) {
        if possible {
            let mut world = self.from.clone();
            change(&mut world);
            world.settle();
            self.found.push((event, world));
        }
    }

    fn on(&mut self, node: usize, what: &'static str, possible: bool, change: impl FnOnce(&mut World)) {
        self.when((what, Some(node)), possible, change);
    }

    /// ADD and DEL.
    fn of_pods(&mut self, at: usize) {
        let (node, rules) = (&self.from.nodes[at], self.from.rules);
        let verdict = node.disk.may_give_under(rules, addr(), node.confirmation.as_ref(), &now());
        let silent = self.from.nodes[1 - at].pod != Pod::Runs;
        let given = verdict == Verdict::Give || (verdict == Verdict::GiveIfSilent && silent);
        self.on(at, "an ADD chooses", node.queued && node.pod == Pod::No && given, |world| {
            world.node(at).pod = Pod::Chosen(NOW);
        });
        if let Pod::Chosen(since) = node.pod {
            let in_time = NOW - since < MARGIN || !rules.hold(Rule::Margin);
            self.on(at, "the ADD ends", true, |world| {
                let node = world.node(at);
                node.pod = if in_time { Pod::Runs } else { Pod::No };
                node.queued &= !in_time;
            });
        }
        self.on(at, "DEL", node.pod == Pod::Runs, |world| {
            let node = world.node(at);
            node.pod = Pod::No;
            node.queued = node.disk.contains(addr());
        });
    }

    fn of_membership(&mut self, at: usize) {
        let node = &self.from.nodes[at];
        let Some(Question { register, fresh }) = node.agent.asks.clone() else {
            let fresh = node.confirmation.as_ref().is_some_and(|confirmation| confirmation.sent_at == NOW);
            let lives = node.register.as_ref().is_some_and(|register| register.lives(node.identity.epoch));
            self.on(at, "the agent asks whether its node lives", !(fresh && lives), |world| {
                let node = world.node(at);
                node.agent.membership.ask(now());
                node.agent.asks = Some(Question { register: node.register.clone(), fresh: true });
            });
            return;
        };
        let lives = register.as_ref().is_some_and(|register| register.lives(node.identity.epoch));
        for answered in [true, false] {
            let register = register.clone();
            let what =
                if answered { "the agent is answered" } else { "the agent writes its register unanswered" };
            self.on(at, what, answered || !lives, |world| {
                world.node(at).agent.asks = None;
                world.answer(at, membership::Outcome::Read(version(fresh), register), answered);
            });
        }
    }

    fn of_stock(&mut self, at: usize) {
        let node = &self.from.nodes[at];
        let unlocked = !matches!(node.pod, Pod::Chosen(_));
        match node.agent.does {
            None => {}
            Some(Doing::Inspect) => self.on(at, "the leases are looked at", unlocked, |world| {
                let granted = world.nodes[at].disk.contains(addr());
                world.node(at).queued &= granted;
                let used = world.nodes[at].pod == Pod::Runs && !granted;
                let used = if used { just_it() } else { Runs::EMPTY };
                world.tell(at, stock::Outcome::Inspected(used));
            }),
            Some(Doing::Swap) => self.of_a_swap(at),
            Some(Doing::Offer) => self.on(at, "the address is offered", unlocked, |world| world.offer(at)),
        }
    }

    fn of_a_swap(&mut self, at: usize) {
        let alive = self.from.on_the_way.iter().any(|letter| letter.from == at && letter.awaited);
        self.on(at, "the block is not written", !alive, |world| {
            let block = world.block.clone();
            world.tell(at, stock::Outcome::Swapped(Swap::Lost(version(true), block)));
        });
        self.on(at, "no answer comes", true, |world| {
            world.abandon(at);
            world.tell(at, stock::Outcome::Swapped(Swap::Unknown));
        });
    }

    /// Writes to the block that arrive.
    fn of_letters(&mut self) {
        for (index, letter) in self.from.on_the_way.iter().enumerate() {
            let at = letter.from;
            self.on(at, "the block is written, without an answer", true, |world| {
                let letter = world.on_the_way.swap_remove(index);
                world.write(letter.value);
            });
            self.on(at, "the block is written", letter.awaited, |world| {
                let letter = world.on_the_way.swap_remove(index);
                world.write(letter.value);
                world.tell(at, stock::Outcome::Swapped(Swap::Done(version(true))));
            });
        }
    }

    /// What an agent may want to do when nothing is under way.
    fn of_wishes(&mut self, at: usize) {
        let node = &self.from.nodes[at];
        let begin = |aim: Aim| {
            move |world: &mut World| {
                let step = world.node(at).agent.stock.begin(block(), aim);
                step.into_iter().for_each(|step| world.begin(at, step));
            }
        };
        if node.agent.does.is_some() {
            return;
        }
        let (stock, entry) = (&node.agent.stock, self.from.block.entry(7));
        let settled = stock.unsettled(None).is_none();
        self.on(at, "the agent settles the block", !settled, begin(Aim::default()));
        self.on(at, "the agent adopts its epoch", !stock.verified() && settled, |world| {
            let step = world.node(at).agent.stock.adopt_epoch();
            step.into_iter().for_each(|step| world.begin(at, step));
        });
        let granted = stock.grants().contains(addr());
        let takable = matches!(entry, None | Some(Entry::Suspect { .. }));
        let claim = Aim { claim: Claim::These(just_it()), suspects: true, ..Aim::default() };
        self.on(at, "the agent claims", settled && !granted && takable, begin(claim));
        let release = Aim { release: just_it(), ..Aim::default() };
        let unused = granted && node.queued && node.pod != Pod::Runs;
        self.on(at, "the agent releases", settled && unused, begin(release));
        let proven = Aim { proven: just_it(), ..Aim::default() };
        let is_proven = stock.grants().unproven.contains(addr()) && node.pod == Pod::Runs;
        self.on(at, "the agent notes the silent probe", settled && is_proven, begin(proven));
        let other = entry.and_then(Entry::holder).filter(|holder| holder.node == name(1 - at));
        let register = self.from.nodes[1 - at].register.as_ref();
        if let Some((holder, register)) =
            other.zip(register).filter(|(holder, register)| !register.lives(holder.epoch))
        {
            let mut suspicion = node.agent.suspicion.clone();
            let lost = suspicion.judge(&holder.node, register, holder.epoch, NOW, MARGIN);
            self.on(at, "the agent finds the other lost", settled, |world| {
                world.node(at).agent.suspicion = suspicion;
                if lost.is_some() {
                    begin(Aim { lost, ..Aim::default() })(world);
                }
            });
        }
    }

    /// Kills, reboots and marks.
    fn of_misfortune(&mut self, at: usize) {
        let node = &self.from.nodes[at];
        self.on(at, "the agent is killed", !node.agent.is_idle(), |world| world.restart(at));
        let luck = self.from.luck[at];
        self.on(at, "a reboot", luck.reboots, |world| {
            let node = world.node(at);
            node.pod = Pod::No;
            node.queued = node.disk.contains(addr());
            node.confirmation = None;
            world.restart(at);
        });
        let live = node.register.clone().filter(|register| register.state == State::Live);
        if let Some(register) = live.filter(|register| register.epoch <= luck.lost_until) {
            self.on(at, "a mark of loss", true, |world| {
                let state = State::Lost { by: name(1 - at) };
                world.write_register(at, Register { state, ..register });
            });
        }
    }
}

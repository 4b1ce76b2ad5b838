//! A search through every order of events: two nodes that want one address, with kills, reboots, wrong loss
//! marks, and writes that arrive late or without an answer. It drives the code that ships.
//!
//! The store is linearizable, and a pod that runs answers probes. What is not in it: a store that was
//! restored, a VLAN that is cut, clocks that run at different speeds. The simulator has these.

mod world;

use std::collections::{HashMap, VecDeque};

use crate::rules::{Rule, Rules};
use world::{Event, World};

/// More states than the whole protocol has. A search that comes here is an error.
const MOST: usize = 20_000_000;

/// One of so many states is led to calm.
const SAMPLE: usize = 97;

/// How a search ended.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// No state has two pods with one address. The number of states.
    Nothing(usize),
    /// A shortest way to two pods with one address.
    Double(Vec<String>),
}

/// Searches breadth first. Every state of a sample is also led to calm, where nothing may be lost or left over.
fn search(rules: Rules, unlucky: [bool; 2]) -> Found {
    let start = World::new(rules, unlucky);
    let mut seen = HashMap::from([(start.print(), 0_usize)]);
    // The way to each state: the state before it, and the event.
    let mut ways: Vec<(usize, Event)> = vec![(0, ("", None))];
    let mut queue = VecDeque::from([(0, start)]);
    while let Some((at, world)) = queue.pop_front() {
        if rules == Rules::default() && at % SAMPLE == 0 {
            world.calm().unwrap_or_else(|why| panic!("{why} when all is calm after {:#?}", way(&ways, at)));
        }
        for (event, next) in world.successors() {
            let index = ways.len();
            if *seen.entry(next.print()).or_insert(index) != index {
                continue;
            }
            ways.push((at, event));
            if next.is_double() {
                return Found::Double(way(&ways, index));
            }
            queue.push_back((index, next));
        }
        assert!(ways.len() < MOST, "the search does not end");
    }
    Found::Nothing(ways.len())
}

/// The events that lead to a state.
fn way(ways: &[(usize, Event)], mut at: usize) -> Vec<String> {
    let mut events = Vec::new();
    while at != 0 {
        let (before, (what, node)) = ways[at];
        events.push(node.map_or(what.to_owned(), |node| format!("{what} on {}", ["a", "b"][node])));
        at = before;
    }
    events.reverse();
    events
}

fn find_nothing(unlucky: [bool; 2]) {
    match search(Rules::default(), unlucky) {
        Found::Nothing(states) => {
            eprintln!("no double in {states} states");
            assert!(states > 50_000, "only {states} states: something is not tried");
        }
        Found::Double(way) => panic!("a double after {} events: {way:#?}", way.len()),
    }
}

/// One node is rebooted and marked as lost at any moment. The agents and the writes of both fail.
#[test]
fn no_order_of_events_gives_an_address_to_two_pods() {
    find_nothing([true, false]);
}

/// Both nodes are rebooted and marked as lost. `cargo xtask sim` runs it.
#[test]
#[ignore = "takes minutes"]
fn nor_does_one_in_which_both_nodes_are_lost() {
    find_nothing([true, true]);
}

/// A rule is worth its cost only if there is a double without it.
#[test]
fn without_any_one_rule_there_is_a_double() {
    use Rule::*;
    for rule in
        [DurableFirst, LookAtLeases, Settle, Wait, LookAtGrants, Probe, MarkUnproven, BackAsSuspect, Margin]
    {
        match search(Rules::without(rule), [true, false]) {
            Found::Double(way) => eprintln!("without {rule:?}: {}", way.join(", ")),
            Found::Nothing(states) => panic!("no double without {rule:?} in {states} states"),
        }
    }
}

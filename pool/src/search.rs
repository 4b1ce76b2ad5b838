//! A search through every order of events: two nodes that want one address, with kills, reboots, wrong loss
//! marks, and writes that arrive late or without an answer. It drives the code that ships.
//!
//! The store is linearizable, and a pod that runs answers probes. What is not in it: a store that was
//! restored, a VLAN that is cut, home addresses, and clocks that run at different speeds. The simulator has
//! the last two.

mod world;

use std::collections::{HashMap, VecDeque};

use crate::rules::{Rule, Rules};
use world::{Event, Luck, World};

/// As many states as there is time for in the suite. Without any one rule a double is found in fewer.
const IN_THE_SUITE: usize = 400_000;
/// More states than there are.
const ALL: usize = 20_000_000;

/// One of so many states is led to calm.
const SAMPLE: usize = 499;

/// How a search ended.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// No state has two pods with one address. The number of states, and whether these are all.
    Nothing(usize, bool),
    /// A shortest way to two pods with one address.
    Double(Vec<String>),
}

/// Searches breadth first, up to a number of states. Every state of a sample is also led to calm, where the
/// grants and the store must agree.
fn search(start: World, most: usize) -> Found {
    let rules = start.rules();
    let mut seen = HashMap::from([(start.print(), 0_usize)]);
    // The state before each state, and the event between them.
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
        if ways.len() >= most {
            return Found::Nothing(ways.len(), false);
        }
    }
    Found::Nothing(ways.len(), true)
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

/// Whether the search came to its end.
fn finds_nothing(luck: [Luck; 2], most: usize) -> bool {
    match search(World::new(Rules::default(), luck), most) {
        Found::Nothing(states, whole) => {
            eprintln!(
                "no double in {states} states, {}",
                if whole { "and there are no others" } else { "the nearest" }
            );
            whole
        }
        Found::Double(way) => panic!("a double after {} events: {way:#?}", way.len()),
    }
}

/// The agents and the writes of both nodes fail at any moment, and one node reboots.
#[test]
fn no_order_of_events_in_which_a_node_reboots_makes_a_double() {
    assert!(finds_nothing([Luck { reboots: true, ..Luck::GOOD }, Luck::GOOD], ALL));
}

/// The same, and one node is also marked as lost. `cargo xtask sim` looks at more states.
#[test]
fn no_order_of_events_in_which_a_node_is_called_lost_makes_a_double() {
    finds_nothing([Luck::BAD, Luck::GOOD], most());
}

/// Both nodes reboot and are marked as lost.
#[test]
fn no_order_of_events_in_which_both_nodes_are_called_lost_makes_a_double() {
    finds_nothing([Luck::BAD, Luck::BAD], IN_THE_SUITE);
}

/// How many states to look at: a variable at the build, because this crate reads no variables.
fn most() -> usize {
    option_env!("VLAN_BRIDGE_SEARCH_STATES").map_or(IN_THE_SUITE, |number| number.parse().unwrap())
}

/// A rule is worth its cost only if there is a double without it.
#[test]
fn without_any_one_rule_there_is_a_double() {
    use Rule::*;
    let luck = [Luck::BAD, Luck::GOOD];
    let from_the_start = [DurableFirst, LookAtLeases, Settle, Wait, LookAtGrants, Margin].into_iter();
    let from_the_start = from_the_start.map(|rule| (rule, World::new(Rules::without(rule), luck)));
    // Those about suspects need events that are long past by then.
    let from_a_suspect = [Probe, MarkUnproven, BackAsSuspect].into_iter();
    let from_a_suspect = from_a_suspect.map(|rule| (rule, World::suspected(Rules::without(rule), luck)));
    for (rule, start) in from_the_start.chain(from_a_suspect) {
        match search(start, IN_THE_SUITE) {
            Found::Double(way) => eprintln!("without {rule:?}: {}", way.join(", ")),
            Found::Nothing(states, _) => panic!("no double without {rule:?} in {states} states"),
        }
    }
    assert!(matches!(search(World::suspected(Rules::default(), luck), IN_THE_SUITE), Found::Nothing(..)));
}

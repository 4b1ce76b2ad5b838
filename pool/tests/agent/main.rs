//! Whole agents with a store that answers at once: what they claim, what they leave, and what they tell ADDs
//! that wait. What goes wrong in between is the simulator's matter.

#![allow(clippy::unwrap_used, reason = "this is all of a test")]

mod node;
mod restored;

use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::block::BlockKey;
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::network::{Dry, Recall, Settings};
use vlan_bridge_pool::runs::Runs;

use node::{Node, Store, granted, ip, name, network, runs, settings};

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

#[test]
fn a_block_that_cannot_be_read_holds_up_no_other() {
    let mut store = Store::default();
    let mut a = Node::new("a", PoolState::Open);
    let wide = Settings { range: runs("10.0.0.0 10.0.0.64-10.0.0.66"), ..settings(PoolState::Open) };
    a.agent.configure(&name("n"), wide.clone());
    a.waiting = 2;
    (0..3).for_each(|_| a.run(&mut store, Event::Time));
    a.used.extend([ip(64), ip(65)]);
    let (bad, all) = (BlockKey::of(ip(64)), granted(&a.disk));
    assert_eq!(all.len(), 4);
    store.unreadable = Some(bad);
    let before = store.block(bad);
    a.waiting = 0;
    a.restart(a.identity.clone(), a.disk.clone(), "later");
    a.agent.configure(&name("n"), wide);
    (0..3).for_each(|_| a.run(&mut store, Event::Time));
    assert!(a.is_confirmed() && a.has(ip(0)), "{:?}", a.disk);
    assert!(a.count() == 1 && a.disk.blocks.contains(&bad), "what nobody can confirm no pod gets");
    assert_eq!(store.block(bad), before);
    a.waiting = 1;
    a.hears();
    a.asks_for(&mut store, ip(66));
    assert!(a.hears().contains(&Dry::Unreadable));
    store.unreadable = None;
    a.waiting = 0;
    a.run(&mut store, Event::Requested(name("n"), Runs::EMPTY));
    assert!(a.used.iter().all(|addr| a.has(addr)), "{:?}", a.disk);
}

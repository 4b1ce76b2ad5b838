//! A store that went back to an older state, and machines that are copies of one another.

use vlan_bridge_pool::agent::Event;
use vlan_bridge_pool::block::BlockKey;
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::network::{Dry, Settings};
use vlan_bridge_pool::runs::Runs;

use crate::node::{Node, Store, granted, ip, name, settings};

fn restored(state: PoolState, restored: u32) -> Settings {
    Settings { restored, ..settings(state) }
}

fn entry(store: &Store, last: u8) -> Option<String> {
    store.block(BlockKey::of(ip(last))).1.entry(last).map(ToString::to_string)
}

/// A node that uses one address and has another in stock.
fn node(store: &mut Store, name: &str) -> Node {
    let mut node = Node::new(name, PoolState::Open);
    node.run(store, Event::Time);
    node.used.extend(granted(&node.disk).first());
    node
}

#[test]
fn after_its_store_went_back_a_node_writes_down_what_it_has_and_claims_nothing() {
    let mut store = Store::default();
    let mut a = node(&mut store, "a");
    let before = store.clone();
    a.waiting = 3;
    a.run(&mut store, Event::Time);
    let (used, all) = (a.used.clone(), granted(&a.disk));
    assert_eq!(all.len(), 4);
    store = before;
    a.waiting = 2;
    a.run(&mut store, Event::WentBack);
    assert_eq!((a.hears().last(), a.recovers.as_slice()), (Some(&Dry::Recovering), [1].as_slice()));
    assert_eq!((granted(&a.disk), a.disk.restored), (all.clone(), 0), "the document does not say so yet");
    assert!(a.agent.network(&name("n")).unwrap().stock().is_behind());
    a.agent.configure(&name("n"), restored(PoolState::Recovering, 1));
    a.run(&mut store, Event::Time);
    assert_eq!((a.disk.restored, granted(&a.disk), a.count()), (1, all.clone(), 4));
    assert_eq!(a.disk.unproven, all.without(&used), "what no pod uses may be another's");
    assert!(a.is_confirmed() && a.hears().contains(&Dry::Recovering));
    let (_, register) = store.register(&name("a"));
    let register = register.unwrap();
    assert!(!register.is_behind(&name("p"), 1) && register.is_behind(&name("p"), 2));
    a.agent.configure(&name("n"), restored(PoolState::Open, 1));
    a.used.extend(all.iter());
    a.run(&mut store, Event::Time);
    assert_eq!(a.hears().last(), Some(&Dry::Most(4)), "the pool is open again");
    a.recovers.clear();
    a.agent.configure(&name("n"), restored(PoolState::Open, 0));
    a.run(&mut store, Event::Time);
    assert_eq!(a.recovers, [2], "a document older than the grants");
}

#[test]
fn a_node_sees_by_its_own_register_that_the_store_went_back() {
    for empty in [true, false] {
        let mut store = Store::default();
        let mut a = node(&mut store, "a");
        let before = if empty { Store::default() } else { store.clone() };
        a.agent.configure(&name("n"), restored(PoolState::Open, 1));
        a.run(&mut store, Event::Time);
        a.recovers.clear();
        let (has, seq) = (granted(&a.disk), a.identity.seq);
        store = before;
        (0..12).for_each(|_| a.run(&mut store, Event::Time));
        assert_eq!(a.recovers.first(), Some(&2), "empty: {empty}");
        assert_eq!((granted(&a.disk), a.identity.epoch), (has.clone(), 2));
        assert!(a.identity.seq > seq);
        assert!(has.iter().all(|addr| entry(&store, addr.to_string()[7..].parse().unwrap()).is_some()));
    }
}

#[test]
fn an_address_that_the_node_gave_back_is_suspect_when_the_store_grants_it_again() {
    let mut store = Store::default();
    let (mut a, mut b) = (node(&mut store, "a"), node(&mut store, "b"));
    let before = store.clone();
    let moved = granted(&a.disk).without(&a.used).first().unwrap();
    let recall = vlan_bridge_pool::network::Recall { count: 1, floor: 0, address: Some(moved) };
    a.run(&mut store, Event::Recalled(name("n"), recall));
    b.asks_for(&mut store, moved);
    assert!(!a.has(moved) && b.has(moved));
    b.used.insert(moved);
    store = before;
    for node in [&mut b, &mut a] {
        node.run(&mut store, Event::WentBack);
        node.agent.configure(&name("n"), restored(PoolState::Recovering, 1));
        node.run(&mut store, Event::Time);
    }
    assert!(!a.has(moved), "its pod is on b");
    (0..2).for_each(|_| b.run(&mut store, Event::Time));
    assert!(b.has(moved) && b.disk.unproven.contains(moved), "{:?}", entry(&store, 0));
}

#[test]
fn copies_of_a_machine_stop_when_they_hear_of_each_other() {
    let mut store = Store::default();
    let mut a = node(&mut store, "a");
    let mut copy = Node::new("a", PoolState::Open);
    copy.restart(a.identity.clone(), a.disk.clone(), "copy");
    copy.run(&mut store, Event::Time);
    assert!(copy.is_confirmed() && copy.refused == 0, "it looks like a boot");
    for node in [&mut a, &mut copy] {
        (0..11).for_each(|_| node.run(&mut store, Event::Time));
        assert!(node.refused > 0 && !node.is_confirmed(), "{}", node.boot);
    }
    a.waiting = 2;
    (a.used, a.heard) = (Runs::EMPTY, Vec::new());
    let count = a.count();
    a.run(&mut store, Event::Time);
    assert_eq!((a.count(), a.hears()), (count, vec![Dry::Refused]));
}

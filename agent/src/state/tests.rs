use kernel::monitor::{NftObject, Subsystem};

use super::*;

fn at(milliseconds: u64) -> Time {
    Duration::from_millis(milliseconds)
}

/// A state whose first pass has found everything as it should be.
fn settled() -> State {
    let mut state = State::new(false);
    assert_eq!(state.step(at(0), Event::Time), [Action::Look(BTreeSet::new())]);
    assert_eq!(texts(&state.step(at(10), looked(&[], &[]))).len(), 1);
    state
}

fn looked(restored: &[Subject], left: &[Subject]) -> Event {
    let note = |subjects: &[Subject]| subjects.iter().map(|subject| (subject.clone(), "x".into())).collect();
    let took = Duration::from_millis(2);
    Event::Looked(Looked { restored: note(restored), left: note(left), took, ..Looked::default() })
}

fn flushed(state: &mut State, now: Time, process: &str) -> Vec<Action> {
    let table =
        |object| Announcement::Nft { family: 7, table: "vlan-bridge".into(), object, gone: true, port: 9 };
    let generation =
        Announcement::NftGeneration { generation: 1, pid: Some(42), process: process.into(), port: 9 };
    let announced = [table(NftObject::Rule), table(NftObject::Table), generation];
    announced.into_iter().flat_map(|announced| state.step(now, Event::Announced(announced))).collect()
}

fn texts(actions: &[Action]) -> Vec<String> {
    let text = |action: &Action| match action {
        Action::Report(report) => Some(report.text.clone()),
        Action::Look(_) | Action::Announce(_) => None,
    };
    actions.iter().filter_map(text).collect()
}

#[test]
fn a_flush_leads_to_one_pass_after_it_has_settled() {
    let mut state = settled();
    assert!(flushed(&mut state, at(5000), "nft").is_empty());
    assert_eq!(state.wakes_at(), at(5050));
    assert!(flushed(&mut state, at(5020), "nft").is_empty());
    assert_eq!(state.wakes_at(), at(5050));
    assert_eq!(state.step(at(5050), Event::Time), [Action::Look(BTreeSet::new())]);
    let told = texts(&state.step(at(5060), looked(&[Subject::Guards], &[])));
    assert_eq!(told, ["restored the pods' guards: x (by nft, process 42)"]);
}

#[test]
fn changes_of_the_plugin_and_of_the_agent_lead_to_none() {
    let mut state = settled();
    flushed(&mut state, at(5000), "vlan-bridge");
    assert_eq!(state.wakes_at(), at(60_000));
    flushed(&mut state, at(5000), keeper::THREAD);
    assert_eq!(state.wakes_at(), at(60_000));
}

#[test]
fn what_happens_during_a_pass_leads_to_another_at_once_and_many_passes_to_a_rest() {
    let mut state = settled();
    let lost = || Event::Announced(Announcement::Lost(Subsystem::Route));
    let slow = || Event::Looked(Looked { took: at(1000), ..Looked::default() });
    state.step(at(50_000), lost());
    assert_eq!(state.step(at(50_050), Event::Time), [Action::Look(BTreeSet::new())]);
    state.step(at(50_060), lost());
    assert!(state.step(at(50_110), Event::Time).is_empty());
    // The second pass begins as soon as the first has ended. It must be paid before the third.
    assert_eq!(state.step(at(51_050), slow()), [Action::Look(BTreeSet::new())]);
    state.step(at(51_060), lost());
    assert!(state.step(at(52_050), slow()).is_empty());
    assert_eq!(state.wakes_at(), at(60_050));
    assert_eq!(state.step(at(60_050), Event::Time), [Action::Look(BTreeSet::new())]);
}

#[test]
fn a_quiet_node_is_looked_at_once_a_minute() {
    let mut state = settled();
    assert_eq!(state.wakes_at(), at(60_000));
    assert_eq!(state.step(at(60_000), Event::Time), [Action::Look(BTreeSet::new())]);
}

#[test]
fn of_two_managers_that_fight_ours_gives_way() {
    let mut state = settled();
    for round in 1..=3 {
        let now = at(round * 2000);
        flushed(&mut state, now, "nft");
        assert_eq!(state.step(now + SETTLE, Event::Time), [Action::Look(BTreeSet::new())]);
        state.step(now + SETTLE, looked(&[Subject::Guards], &[]));
    }
    flushed(&mut state, at(8000), "nft");
    let blocked = BTreeSet::from([Subject::Guards]);
    assert_eq!(state.step(at(8050), Event::Time), [Action::Look(blocked)]);
    let told = texts(&state.step(at(8060), looked(&[], &[Subject::Guards])));
    let text = "the pods' guards: changed again (by nft, process 42) three times within a minute: left alone for 60 s: x";
    assert_eq!(told, [text]);
    // Told once.
    flushed(&mut state, at(9000), "nft");
    state.step(at(9050), Event::Time);
    assert!(state.step(at(9060), looked(&[], &[Subject::Guards])).is_empty());
    // The end of the pause begins a pass that may restore it again.
    assert_eq!(state.wakes_at(), at(66_050));
    assert_eq!(state.step(at(66_050), Event::Time), [Action::Look(BTreeSet::new())]);
}

#[test]
fn a_dry_run_tells_once_what_differs() {
    let mut state = State::new(true);
    state.step(at(0), Event::Time);
    let told = texts(&state.step(at(10), looked(&[], &[Subject::Nat])));
    assert_eq!(told[..1], ["the rules of pods with NAT, host ports or services: differs: x"]);
    state.step(at(60_000), Event::Time);
    assert!(state.step(at(60_010), looked(&[], &[Subject::Nat])).is_empty());
    state.step(at(120_000), Event::Time);
    assert!(state.step(at(120_010), looked(&[], &[])).is_empty());
    state.step(at(180_000), Event::Time);
    assert_eq!(texts(&state.step(at(180_010), looked(&[], &[Subject::Nat]))).len(), 1);
}

#[test]
fn every_error_of_a_thing_is_told_once() {
    let mut state = settled();
    state.step(at(60_000), Event::Time);
    let failed = || {
        let of_mtu = |why: &str| (Subject::Mtu("br136".into()), why.to_owned());
        Event::Looked(Looked { failed: vec![of_mtu("pods"), of_mtu("the bridge")], ..Looked::default() })
    };
    let told = texts(&state.step(at(60_010), failed()));
    assert_eq!(told, ["the MTU of br136 and its pods: not restored: pods; the bridge"]);
    state.step(at(120_000), Event::Time);
    assert!(state.step(at(120_010), failed()).is_empty());
}

//! The checker finds what was planted, and the same as a checker that looks at every moment.

use super::*;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

fn addr(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

fn node(node: u8) -> Name {
    Name::new(&format!("node-{node}")).unwrap()
}

fn pod(on: u8, id: u8) -> Pod {
    Pod { node: node(on), id: Name::new(&id.to_string()).unwrap() }
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

fn nanos(at: u64) -> Duration {
    Duration::from_nanos(at)
}

fn history(events: impl IntoIterator<Item = (u64, What)>) -> Vec<Event> {
    events.into_iter().map(|(at, what)| Event { at: nanos(at), what }).collect()
}

/// A pod's life: its ADD returns at `from`, and its DEL is called at `until`.
fn life(pod: Pod, has: u8, from: u64, until: u64) -> [(u64, What); 4] {
    [
        (from - 1, What::AddBegin(pod.clone())),
        (from, What::AddOk(pod.clone(), addr(has))),
        (until, What::DelBegin(pod.clone())),
        (until + 1, What::DelOk(pod)),
    ]
}

#[test]
fn an_overlap_of_one_tick_is_found_and_neighbours_are_none() {
    let two = |from| check(&history([life(pod(1, 1), 1, 10, 20), life(pod(2, 1), 1, from, 40)].concat()));
    assert_eq!(two(20), []);
    let users = [User::Pod(pod(1, 1)), User::Pod(pod(2, 1))];
    assert_eq!(two(19), [Double { from: nanos(19), until: nanos(20), addr: addr(1), users }]);
    let others = [life(pod(1, 1), 1, 10, 20), life(pod(2, 1), 2, 10, 20)].concat();
    assert_eq!(check(&history(others)), []);
}

#[test]
fn each_pair_of_three_is_named_and_who_stays_has_it_for_ever() {
    let mut events = life(pod(1, 1), 1, 10, 20).to_vec();
    events.extend(life(pod(2, 1), 1, 12, 30));
    events.extend(life(pod(3, 1), 1, 14, 40).into_iter().take(2));
    let found = check(&history(events.clone()));
    let times = |double: &Double| (double.from, double.until);
    assert_eq!(
        found.iter().map(times).collect::<Vec<_>>(),
        [(12, 20), (14, 20), (14, 30)].map(|(a, b)| (nanos(a), nanos(b)))
    );
    events.retain(|(_, what)| !matches!(what, What::DelBegin(_)));
    assert!(check(&history(events)).iter().all(|double| double.until == Duration::MAX));
}

#[test]
fn a_machine_that_is_off_or_booted_uses_nothing() {
    for end in [What::Off(node(1)), What::Boot(node(1))] {
        let mut events = life(pod(1, 1), 1, 10, 40).to_vec();
        events.extend(life(pod(2, 1), 1, 20, 30));
        assert_eq!(check(&history(events.clone())).len(), 1);
        // The order in which a history lists its events does not matter, only their times.
        events.push((20, end));
        assert_eq!(check(&history(events)), []);
    }
    let mut events = life(pod(1, 1), 1, 10, 40).to_vec();
    events.extend(life(pod(2, 1), 1, 20, 30));
    events.push((15, What::Boot(node(3))));
    assert_eq!(check(&history(events)).len(), 1);
}

#[test]
fn a_call_that_was_killed_is_certain_of_nothing() {
    let a = || pod(1, 1);
    let mut events = vec![(1, What::AddBegin(a())), (2, What::Kill(a()))];
    events.extend(life(pod(2, 1), 1, 10, 20));
    assert_eq!(check(&history(events)), []);
    let mut events = life(a(), 1, 10, 20).to_vec();
    events[3] = (21, What::Kill(a()));
    events.extend(life(pod(2, 1), 1, 22, 30));
    assert_eq!(check(&history(events)), []);
    // An ADD that returns after its pod's DEL was called.
    let late = [What::AddBegin(a()), What::DelBegin(a()), What::AddOk(a(), addr(1)), What::DelOk(a())];
    let mut events: Vec<_> = (1..).zip(late).collect();
    events.extend(life(pod(2, 1), 1, 10, 20));
    assert_eq!(check(&history(events)), []);
}

#[test]
fn a_double_that_only_arp_shows_is_found() {
    let killed = [(1, What::AddBegin(pod(1, 1))), (2, What::Kill(pod(1, 1)))];
    let heard = |other: [u64; 2]| {
        let mut events = killed.to_vec();
        events.extend(life(pod(2, 1), 1, 10, 20));
        events.extend([11, 15, 19].map(|at| (at, What::Arp(addr(1), mac(2)))));
        events.extend(other.map(|at| (at, What::Arp(addr(1), mac(1)))));
        check(&history(events))
    };
    assert_eq!((heard([3, 10]), heard([20, 21])), (vec![], vec![]));
    let users = [User::Mac(mac(1)), User::Mac(mac(2))];
    assert_eq!(heard([11, 3]), [Double { from: nanos(11), until: nanos(12), addr: addr(1), users }]);
    assert_eq!(heard([12, 12]).len(), 1);
}

#[test]
fn what_is_held_for_a_pod_that_is_gone_is_a_leak() {
    let held = |mut events: Vec<(u64, What)>| {
        events.push((99, What::Held(pod(1, 1), addr(1))));
        leaks(&history(events)).len()
    };
    let whole = life(pod(1, 1), 1, 10, 20);
    let with = |what| whole[..2].iter().cloned().chain([(30, what)]).collect::<Vec<_>>();
    assert_eq!((held(vec![]), held(whole.to_vec())), (1, 1), "no pod, and one after its DEL");
    assert_eq!((held(whole[..2].to_vec()), held(whole[..3].to_vec())), (0, 0), "before and in its DEL");
    assert_eq!(held(with(What::Boot(node(1)))), 1);
    assert_eq!(held(with(What::Off(node(1)))), 0, "nobody can give it back before the machine boots");
    let killed = [(20, What::DelBegin(pod(1, 1))), (21, What::Kill(pod(1, 1)))];
    assert_eq!(held([&whole[..2], &killed].concat()), 0);
    assert_eq!(held([&whole[..2], &killed, &life(pod(1, 1), 1, 30, 40)[2..]].concat()), 1);
    let again = life(pod(1, 1), 1, 30, 40);
    assert_eq!(held([&whole[..], &again[..2]].concat()), 0, "the pod was added again");
}

const TICKS: u64 = 60;

/// What two have at a moment, by looking at every moment and every event.
type Moments = BTreeSet<(u64, IpAddr, User, User)>;

fn pairs(at: u64, addr: IpAddr, users: &BTreeSet<User>) -> impl Iterator<Item = (u64, IpAddr, User, User)> {
    let all = users.iter().flat_map(|a| users.iter().map(move |b| (a.clone(), b.clone())));
    all.filter(|(a, b)| a < b).map(move |(a, b)| (at, addr, a, b))
}

fn naive(events: &[Event]) -> Moments {
    let of = |pod: &Pod, what: &What| match what {
        What::AddBegin(other) | What::DelBegin(other) | What::Kill(other) => pod == other,
        What::Off(node) | What::Boot(node) => pod.node == *node,
        _ => false,
    };
    let ends = |pod: &Pod, what: &What| of(pod, what) && !matches!(what, What::AddBegin(_) | What::Kill(_));
    let mut found = Moments::new();
    for (at, addr) in (0..TICKS).flat_map(|at| (1..=3).map(move |last| (at, addr(last)))) {
        let (mut pods, mut macs) = (BTreeSet::new(), BTreeSet::new());
        for (index, Event { what, .. }) in
            events.iter().enumerate().filter(|(_, event)| event.at <= nanos(at))
        {
            match what {
                What::AddOk(pod, has) if *has == addr => {
                    let call = events[..index].iter().rfind(|event| of(pod, &event.what));
                    let returned = call.is_some_and(|event| matches!(event.what, What::AddBegin(_)));
                    let mut after = events[index..].iter().filter(|event| event.at <= nanos(at));
                    if returned && !after.any(|event| ends(pod, &event.what)) {
                        pods.insert(User::Pod(pod.clone()));
                    }
                }
                What::Arp(heard, mac) if *heard == addr => {
                    let again = |event: &Event| event.at >= nanos(at) && event.what == *what;
                    if events.iter().any(again) {
                        macs.insert(User::Mac(*mac));
                    }
                }
                _ => {}
            }
        }
        found.extend(pairs(at, addr, &pods));
        found.extend(pairs(at, addr, &macs));
    }
    found
}

#[test]
fn a_checker_that_looks_at_every_moment_finds_the_same() {
    let mut seed = 1_u32;
    let mut next = |below: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((seed >> 16) % below) as u8
    };
    let (mut clean, mut doubled) = (0, 0);
    for _ in 0..2_000 {
        let (mut at, mut events) = (0, Vec::new());
        let busy = 10 + next(20);
        for _ in 0..busy {
            at += u64::from(next(3));
            let (pod, on, addr) = (pod(1 + next(2), next(2)), node(1 + next(2)), addr(1 + next(3)));
            let what = match next(16) {
                0..4 => vec![What::AddBegin(pod.clone()), What::AddOk(pod, addr)],
                4 => vec![What::AddOk(pod, addr)],
                5 => vec![What::AddBegin(pod)],
                6..11 => vec![What::DelBegin(pod)],
                11 => vec![What::DelOk(pod)],
                12 => vec![What::Kill(pod)],
                13 => vec![What::Off(on)],
                14 => vec![What::Boot(on)],
                _ => vec![What::Arp(addr, mac(next(3)))],
            };
            events.extend(what.into_iter().map(|what| Event { at: nanos(at), what }));
        }
        let found: Moments = check(&events)
            .into_iter()
            .flat_map(|Double { from, until, addr, users }| {
                let last = until.as_nanos().min(TICKS.into()) as u64;
                let moments = from.as_nanos() as u64..last;
                moments.flat_map(move |at| pairs(at, addr, &users.clone().into()).collect::<Vec<_>>())
            })
            .collect();
        let expected = naive(&events);
        assert_eq!(found, expected, "{events:#?}");
        if found.is_empty() { clean += 1 } else { doubled += 1 }
    }
    assert!(clean > 100 && doubled > 100, "{clean} without a double, {doubled} with one");
}

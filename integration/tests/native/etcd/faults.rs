//! Members that die or hang while many write.

use integration::{Etcd, note, poll};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vlan_bridge_agent::registers::Etcd as Store;
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::entry::Entry;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::version::{Swap, Version};

use super::{block_of, document, make, name, runtime, store, there, there_with};

const TASKS: usize = 10;
const SWAPS: usize = 20;

/// What became of one task's writes, each of which adds one address or takes one away.
#[derive(Debug, Default)]
struct Tally {
    done: usize,
    unknown: usize,
    refused: usize,
}

/// A task claims its offsets in the block, one after the other, and never those of another task. A write of
/// which nobody knows anything is settled by the next one.
async fn claim(store: &Store, pool: &Name, block: BlockKey, task: usize, progress: &AtomicUsize) -> Tally {
    let (mut tally, document) = (Tally::default(), document(&["10.0.0.0/24"]));
    assert_eq!(store.document(pool).await.unwrap().unwrap().1, document);
    let version = store.document(pool).await.unwrap().unwrap().0;
    for number in 1..=SWAPS {
        let entry = Entry::parse(&format!("g t{task}/n#{number}")).unwrap();
        let mut known: Option<(Version, Block)> = None;
        loop {
            let (at, mut value) = match known.take() {
                Some(known) => known,
                None => match store.block(pool, block).await {
                    Ok(read) => read,
                    Err(_) => continue,
                },
            };
            let offset = u8::try_from(task).unwrap();
            // Its own entry is as this task left it, or as a write left it that nobody knew of.
            let before = value.entry(offset).map(ToString::to_string);
            let own = |number| Some(format!("g t{task}/n#{number}"));
            assert!(before == own(number) || number == 1 && before.is_none() || before == own(number - 1));
            value.set(offset, Some(entry.clone()));
            match store.swap_block(pool, block, &at, &value, &version).await {
                Ok(Swap::Done(_)) => break,
                Ok(Swap::Lost(at, value)) => known = Some((at, value)),
                Ok(Swap::Unknown) => tally.unknown += 1,
                Err(_) => tally.refused += 1,
            }
        }
        tally.done += 1;
        progress.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// Runs the tasks, and `fault` when a quarter of the writes is done.
fn with_fault(etcd: &Etcd, fault: impl FnOnce() + Send) -> Vec<Tally> {
    let (pool, block, progress) = (name("vlan136"), block_of("10.0.0.0"), AtomicUsize::new(0));
    let store = store(etcd, "root");
    there(etcd, async {
        make(&store, &pool, &document(&["10.0.0.0/24"])).await;
    });
    let tallies = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (pool, progress) = (&pool, &progress);
                // As different nodes are: each has a connection of its own.
                let store = self::store(etcd, "root");
                scope.spawn(move || {
                    there(etcd, async move { claim(&store, pool, block, task, progress).await })
                })
            })
            .collect();
        poll(Duration::from_secs(60), "a quarter of the writes", || {
            progress.load(Ordering::Relaxed) >= TASKS * SWAPS / 4
        });
        fault();
        tasks.into_iter().map(|task| task.join().unwrap()).collect::<Vec<_>>()
    });
    let (_, value) = there(etcd, async {
        loop {
            if let Ok(read) = store.block(&pool, block).await {
                break read;
            }
        }
    });
    for task in 0..TASKS {
        let entry = value.entry(u8::try_from(task).unwrap()).map(ToString::to_string);
        assert_eq!(entry, Some(format!("g t{task}/n#{SWAPS}")));
    }
    tallies
}

fn tell(what: &str, started: Instant, tallies: &[Tally]) {
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (done, unknown, refused) = (sum(|t| t.done), sum(|t| t.unknown), sum(|t| t.refused));
    assert_eq!(done, TASKS * SWAPS);
    note(&format!(
        "{what}: {done} writes in {:.1} s, {unknown} without an answer, {refused} surely not done",
        started.elapsed().as_secs_f64()
    ));
}

#[test]
fn no_write_is_lost_when_the_leader_is_killed() {
    let etcd = Etcd::with_members(3);
    let started = Instant::now();
    let tallies = with_fault(&etcd, || etcd.kill(etcd.leader().unwrap()));
    tell("the leader killed", started, &tallies);
}

#[test]
fn no_write_is_lost_when_the_leader_hangs() {
    let etcd = Etcd::with_members(3);
    let started = Instant::now();
    let tallies = with_fault(&etcd, || etcd.set_stopped(etcd.leader().unwrap(), true));
    tell("the leader stopped", started, &tallies);
}

#[test]
fn a_write_to_a_member_that_hangs_is_unknown_and_a_read_goes_to_another() {
    let etcd = Etcd::with_members(3);
    let store = store(&etcd, "root");
    let (pool, range, block) = (name("vlan136"), document(&["10.0.0.0/24"]), block_of("10.0.0.0"));
    let runtime = runtime();
    there_with(&runtime, &etcd, async {
        let version = make(&store, &pool, &range).await;
        assert_eq!(store.document(&pool).await, Ok(Some((version.clone(), range))));
        (0..3).for_each(|member| etcd.set_stopped(member, true));
        let started = Instant::now();
        let swap = store.swap_block(&pool, block, &Version::ABSENT, &Block::default(), &version).await;
        assert_eq!(swap, Ok(Swap::Unknown));
        let error = store.block(&pool, block).await.unwrap_err().to_string();
        assert!(error.contains("https://10.79.0."), "{error}");
        assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
        (0..3).for_each(|member| etcd.set_stopped(member, false));
    });
    etcd.await_health();
    there_with(&runtime, &etcd, async {
        let (_, read) = store.block(&pool, block).await.unwrap();
        assert_eq!(read, Block::default());
    });
}

//! The agent's client of etcd, on etcd itself.

mod access;
mod faults;
mod watch;

use cni_conf::pool::EtcdConfig;
use integration::Etcd;
use serde_json::{Value, json};
use std::path::PathBuf;
use tokio::runtime::Runtime;
use vlan_bridge_agent::registers::{Etcd as Store, StoreError};
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::{Document, PoolState};
use vlan_bridge_pool::entry::Entry;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::register::Register;
use vlan_bridge_pool::version::{Swap, Version};

/// What the agent reads from `ipam.pool.etcd`.
fn config(section: &Value) -> EtcdConfig {
    let path = |key: &str| section[key].as_str().map(PathBuf::from);
    let endpoints = section["endpoints"].as_array().unwrap().iter();
    EtcdConfig {
        endpoints: endpoints.map(|endpoint| endpoint.as_str().unwrap().to_owned()).collect(),
        prefix: "/vlan-bridge/v1".into(),
        ca: path("ca"),
        cert: path("cert"),
        key: path("key"),
        user: section["user"].as_str().map(str::to_owned),
        password_file: path("passwordFile"),
    }
}

fn store(etcd: &Etcd, client: &str) -> Store {
    Store::new(&config(&etcd.section(client))).unwrap()
}

/// Runs a future where etcd can be reached.
fn there<T: Send>(etcd: &Etcd, future: impl Future<Output = T> + Send) -> T {
    there_with(&runtime(), etcd, future)
}

/// The same with a runtime whose tasks and connections stay for the next time.
fn there_with<T: Send>(runtime: &Runtime, etcd: &Etcd, future: impl Future<Output = T> + Send) -> T {
    etcd.namespace().enter(|| runtime.block_on(future))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

fn block_of(addr: &str) -> BlockKey {
    BlockKey::of(addr.parse().unwrap())
}

fn document(ranges: &[&str]) -> Document {
    Document::from_json(&json!({
        "v": 1, "id": "00112233445566778899aabbccddeeff", "ranges": ranges, "exclude": [],
        "reclaim": "operator", "lostAfter": 1800, "margin": 300, "state": "open",
    }))
    .unwrap()
}

fn register(seq: u64) -> Register {
    Register::from_json(&json!({
        "v": 1, "instance": "00112233445566778899aabbccddeeff", "epoch": 1, "seq": seq, "state": "live",
        "boot": "00112233-4455-6677-8899-aabbccddeeff",
    }))
    .unwrap()
}

/// Makes a pool and returns the version of its document.
async fn make(store: &Store, pool: &Name, document: &Document) -> Version {
    match store.create(pool, document).await.unwrap() {
        Swap::Done(version) => version,
        other => panic!("{other:?}"),
    }
}

fn done<T: std::fmt::Debug>(swap: Result<Swap<T>, StoreError>) -> Version {
    match swap {
        Ok(Swap::Done(version)) => version,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_register_is_written_over_the_version_that_was_read() {
    let etcd = Etcd::start();
    let (store, node) = (store(&etcd, "root"), name("node-07"));
    there(&etcd, async {
        assert_eq!(store.register(&node).await, Ok((Version::ABSENT, None)));
        let first = done(store.swap_register(&node, &Version::ABSENT, &register(1)).await);
        let lost = store.swap_register(&node, &Version::ABSENT, &register(9)).await;
        assert_eq!(lost, Ok(Swap::Lost(first.clone(), Some(register(1)))));
        let second = done(store.swap_register(&node, &first, &register(2)).await);
        let lost = store.swap_register(&node, &first, &register(9)).await;
        assert_eq!(lost, Ok(Swap::Lost(second.clone(), Some(register(2)))));
        assert_eq!(store.register(&node).await, Ok((second, Some(register(2)))));
        // Somebody deletes it.
        let gone = store.swap_register(&name("node-08"), &first, &register(1)).await;
        assert_eq!(gone, Ok(Swap::Lost(Version::ABSENT, None)));
    });
}

#[test]
fn a_block_is_written_only_with_the_document_that_was_read() {
    let etcd = Etcd::start();
    let (store, pool, block) = (store(&etcd, "root"), name("vlan136"), block_of("172.20.56.64"));
    let mut value = Block::default();
    value.set(3, Some(Entry::parse("g node-07/vlan136#1").unwrap()));
    there(&etcd, async {
        let absent = store.swap_block(&pool, block, &Version::ABSENT, &value, &Version::ABSENT).await;
        assert_eq!(absent, Err(StoreError::DocumentChanged));
        let open = make(&store, &pool, &document(&["172.20.56.0/24"])).await;
        assert_eq!(store.block(&pool, block).await, Ok((Version::ABSENT, Block::default())));
        let first = done(store.swap_block(&pool, block, &Version::ABSENT, &value, &open).await);
        let lost = store.swap_block(&pool, block, &Version::ABSENT, &Block::default(), &open).await;
        assert_eq!(lost, Ok(Swap::Lost(first.clone(), value.clone())));

        // Another client freezes the pool.
        let other = self::store(&etcd, "root");
        let mut frozen = document(&["172.20.56.0/24"]);
        frozen.state = PoolState::Frozen;
        let changed = done(other.change(&pool, &open, &frozen).await);
        let refused = store.swap_block(&pool, block, &first, &Block::default(), &open).await;
        assert_eq!(refused, Err(StoreError::DocumentChanged));
        assert_eq!(store.document(&pool).await, Ok(Some((changed.clone(), frozen))));
        let second = done(store.swap_block(&pool, block, &first, &Block::default(), &changed).await);
        assert_eq!(store.block(&pool, block).await, Ok((second, Block::default())));
    });
}

#[test]
fn blocks_with_a_free_address_are_listed_from_a_place_at_random_on() {
    let etcd = Etcd::start();
    let (store, pool) = (store(&etcd, "root"), name("vlan136"));
    let mut full = Block::default();
    (0..64).for_each(|offset| full.set(offset, Some(Entry::parse("h node-07").unwrap())));
    there(&etcd, async {
        assert_eq!(store.free_blocks(&pool).await, Ok(Vec::new()));
        let version = make(&store, &pool, &document(&["10.0.0.0/16"])).await;
        // Another pool whose keys lie beside these.
        make(&store, &name("vlan136.1"), &document(&["10.9.0.0/24"])).await;
        let (mut firsts, all) = (std::collections::BTreeSet::new(), document(&["10.0.0.0/16"]));
        for _ in 0..20 {
            let listed = store.free_blocks(&pool).await.unwrap();
            assert_eq!(listed.len(), 50);
            assert!(listed.iter().all(|block| all.contains(block.first())));
            firsts.insert(listed[0]);
        }
        assert!(firsts.len() > 10, "{firsts:?}");

        make(&store, &name("small"), &document(&["10.1.0.0/24"])).await;
        let small = name("small");
        let version = match store.document(&small).await.unwrap() {
            Some((small, _)) if small != version => small,
            other => panic!("{other:?}"),
        };
        let block = block_of("10.1.0.64");
        let first = done(store.swap_block(&small, block, &Version::ABSENT, &full, &version).await);
        let mut listed = store.free_blocks(&small).await.unwrap();
        listed.sort();
        assert_eq!(listed, ["10.1.0.0", "10.1.0.128", "10.1.0.192"].map(block_of));
        full.set(9, None);
        done(store.swap_block(&small, block, &first, &full, &version).await);
        assert_eq!(store.free_blocks(&small).await.unwrap().len(), 4);
    });
}

#[test]
fn all_blocks_come_page_by_page() {
    let etcd = Etcd::start();
    let (store, pool) = (store(&etcd, "root"), name("vlan136"));
    there(&etcd, async {
        let document = document(&["10.0.0.0/17"]);
        let version = make(&store, &pool, &document).await;
        for block in document.blocks() {
            done(store.swap_block(&pool, block, &Version::ABSENT, &Block::default(), &version).await);
        }
        let (mut blocks, mut pages) = (store.blocks(&pool), Vec::new());
        while let Some(page) = blocks.next().await.unwrap() {
            // What is written now is not in the pages that follow.
            let last = block_of("10.0.127.192");
            let (at, _) = store.block(&pool, last).await.unwrap();
            let mut value = Block::default();
            value.set(0, Some(Entry::parse("h node-07").unwrap()));
            done(store.swap_block(&pool, last, &at, &value, &version).await);
            pages.push(page);
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256]);
        assert!(pages.iter().flatten().map(|(block, _)| *block).eq(document.blocks()));
        assert!(pages.iter().flatten().all(|(_, value)| *value == Ok(Block::default())));
    });
}

#[test]
fn a_pool_is_made_once() {
    let etcd = Etcd::start();
    let (store, pool) = (store(&etcd, "root"), name("vlan136"));
    let runtime = runtime();
    there_with(&runtime, &etcd, async {
        let (first, second) = (document(&["10.0.0.0/24"]), document(&["10.0.1.0/24"]));
        let version = make(&store, &pool, &first).await;
        assert_eq!(store.create(&pool, &second).await, Ok(Swap::Lost(version.clone(), Some(first.clone()))));
        assert_eq!(store.pools().await, Ok(vec![(pool.clone(), Ok((version, first)))]));
    });
    for key in ["p/other", "b/vlan136/0a000000"] {
        etcd.ctl(&["put", &format!("/vlan-bridge/v1/{key}"), "{}"]).expect_ok();
    }
    there_with(&runtime, &etcd, async {
        let pools = store.pools().await.unwrap();
        let error = pools[0].1.clone().unwrap_err().to_string();
        assert_eq!(
            error,
            "/vlan-bridge/v1/p/other: v is missing: must be a number from 0 to 18446744073709551615"
        );
        assert!(store.document(&name("other")).await.is_err() && pools[1].1.is_ok());
        let block = store.block(&pool, block_of("10.0.0.0")).await.unwrap_err().to_string();
        assert!(block.starts_with("/vlan-bridge/v1/b/vlan136/0a000000: a block is a JSON object"), "{block}");
    });
}

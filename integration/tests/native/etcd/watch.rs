//! Watches.

use integration::Etcd;
use std::time::Duration;
use tokio::time::timeout;
use vlan_bridge_pool::document::PoolState;
use vlan_bridge_pool::network::Recall;

use super::{document, done, make, name, runtime, store, there, there_with};

const LIMIT: Duration = Duration::from_secs(30);

fn recall(count: u32) -> Recall {
    Recall { count, floor: 2, address: None }
}

#[test]
fn a_question_is_heard_though_etcd_restarted() {
    let etcd = Etcd::start();
    let (store, node, pool) = (store(&etcd, "root"), name("node-07"), name("vlan136"));
    let put = |value: &str| {
        etcd.ctl(&["put", "/vlan-bridge/v1/w/node-07/vlan136", value]).expect_ok();
    };
    let runtime = runtime();
    let mut recalls = there_with(&runtime, &etcd, async {
        // What was asked before is not for this agent.
        store.ask(&pool, &node, &recall(1)).await.unwrap();
        let mut recalls = store.recalls(&node).await;
        store.ask(&pool, &node, &recall(2)).await.unwrap();
        store.ask(&name("other"), &node, &recall(3)).await.unwrap();
        store.ask(&pool, &name("node-070"), &recall(4)).await.unwrap();
        store.ask(&pool, &node, &recall(2)).await.unwrap();
        let expected = [(pool.clone(), recall(2)), (name("other"), recall(3)), (pool.clone(), recall(2))];
        for expected in expected {
            assert_eq!(timeout(LIMIT, recalls.next()).await, Ok(Ok(expected)));
        }
        recalls
    });
    let mut next = || there_with(&runtime, &etcd, async { timeout(LIMIT, recalls.next()).await.unwrap() });
    etcd.kill(0);
    let error = next().unwrap_err().to_string();
    assert!(error.contains("https://10.79.0.1:2379"), "{error}");
    // The runtime stands still meanwhile, so the watch begins again after what it must hear.
    etcd.restart(0);
    put(r#"{"v":1,"count":5,"floor":2}"#);
    assert_eq!(next(), Ok((pool.clone(), recall(5))));
    put("{}");
    assert_eq!(
        next().unwrap_err().to_string(),
        "/vlan-bridge/v1/w/node-07/vlan136: v is not a number below 2^32"
    );
}

#[test]
fn a_change_of_the_document_is_heard() {
    let etcd = Etcd::start();
    let (store, pool) = (store(&etcd, "root"), name("vlan136"));
    there(&etcd, async {
        let version = make(&store, &pool, &document(&["10.0.0.0/24"])).await;
        let mut changes = store.watch_document(&pool).await;
        make(&store, &name("vlan1360"), &document(&["10.0.1.0/24"])).await;
        assert!(timeout(Duration::from_millis(200), changes.next()).await.is_err());
        let mut frozen = document(&["10.0.0.0/24"]);
        frozen.state = PoolState::Frozen;
        done(store.change(&pool, &version, &frozen).await);
        assert_eq!(timeout(LIMIT, changes.next()).await, Ok(Ok(())));
    });
}

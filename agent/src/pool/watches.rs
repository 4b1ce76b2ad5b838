//! What is heard from the store: questions of other nodes, and changes of pools' documents. Both are hints.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;

use crate::registers::{Etcd, StoreError};

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// Another node needs addresses of a pool.
    Recall(Name, Recall),
    /// A pool's document may have changed.
    Document(Name),
    /// The store does not answer.
    Failed(StoreError),
}

/// The watches. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Watches {
    heard: UnboundedReceiver<Heard>,
    _tasks: JoinSet<()>,
}

impl Watches {
    /// Watches these pools and the questions to a node. It does not wait for the store.
    pub(super) fn begin(store: &Etcd, node: &Name, pools: Vec<Name>) -> Watches {
        let (sender, heard) = unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(hear_recalls(store.clone(), node.clone(), sender.clone()));
        for pool in pools {
            tasks.spawn(hear_changes(store.clone(), pool, sender.clone()));
        }
        Watches { heard, _tasks: tasks }
    }

    /// The next. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }
}

async fn hear_recalls(store: Etcd, node: Name, heard: UnboundedSender<Heard>) {
    let mut recalls = store.recalls(&node).await;
    loop {
        let next = recalls.next().await;
        let next = next.map_or_else(Heard::Failed, |(pool, recall)| Heard::Recall(pool, recall));
        if heard.send(next).is_err() {
            return;
        }
    }
}

async fn hear_changes(store: Etcd, pool: Name, heard: UnboundedSender<Heard>) {
    let mut changes = store.watch_document(&pool).await;
    loop {
        let next = changes.next().await;
        if heard.send(next.map_or_else(Heard::Failed, |()| Heard::Document(pool.clone()))).is_err() {
            return;
        }
    }
}

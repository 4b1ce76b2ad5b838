//! What changes in etcd. A watch reconnects by itself, and then hears what came in the meantime. Each is a
//! task of its own, so that nothing is lost if its owner stops waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;

use super::client::{Client, DEADLINE, Watching};
use super::error::StoreError;
use super::keys;
use super::messages::{Event, PUT_EVENT, WatchCreateRequest, WatchRequest, WatchResponse};

/// How many events may wait for the owner.
const WAITING: usize = 64;
/// The first pause before etcd is tried again, and the longest.
const SOON: Duration = Duration::from_millis(200);
const LATER: Duration = Duration::from_secs(10);

/// What a watch hears.
#[derive(Debug)]
enum Heard {
    Event(Event),
    /// Events were missed.
    Gap,
    /// The watch failed. It is said once until it works again.
    Failed(StoreError),
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Watch {
    heard: mpsc::Receiver<Heard>,
    task: JoinHandle<()>,
}

/// What other nodes ask of a node.
#[derive(Debug)]
pub struct Recalls {
    watch: Watch,
    beginning: String,
}

/// Changes of a pool's document.
#[derive(Debug)]
pub struct DocumentChanges {
    watch: Watch,
}

impl Recalls {
    pub(super) async fn begin(client: Arc<Client>, beginning: String) -> Recalls {
        let watch = Watch::begin(client, beginning.clone(), keys::behind(&beginning)).await;
        Recalls { watch, beginning }
    }

    /// The next question, and the pool that it is about. It can be waited for together with other things.
    ///
    /// # Errors
    /// The watch does not work now, or somebody wrote what cannot be read. The next call goes on.
    pub async fn next(&mut self) -> Result<(Name, Recall), StoreError> {
        loop {
            let kv = match self.watch.next().await {
                Heard::Event(Event { r#type: PUT_EVENT, kv: Some(kv) }) => kv,
                // A question that was missed is asked again.
                Heard::Event(_) | Heard::Gap => continue,
                Heard::Failed(error) => return Err(error),
            };
            let pool = keys::name_of(&kv.key, &self.beginning);
            let pool = pool.ok_or_else(|| keys::unreadable(&kv.key, "the key does not end in a name"))?;
            return Ok((pool, keys::read(&kv, keys::parse_recall)?.1));
        }
    }
}

impl DocumentChanges {
    pub(super) async fn begin(client: Arc<Client>, key: String) -> DocumentChanges {
        DocumentChanges { watch: Watch::begin(client, key, Vec::new()).await }
    }

    /// Waits for a change. The document may have been read with it already. It can be waited for together
    /// with other things.
    ///
    /// # Errors
    /// The watch does not work now. The next call goes on.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        match self.watch.next().await {
            Heard::Event(_) | Heard::Gap => Ok(()),
            Heard::Failed(error) => Err(error),
        }
    }
}

impl Watch {
    /// Returns when the watch has begun, or has failed to for the first time.
    async fn begin(client: Arc<Client>, key: String, range_end: Vec<u8>) -> Watch {
        let (sender, heard) = mpsc::channel(WAITING);
        let (begun, begins) = oneshot::channel();
        let listener = Listener { client, key, range_end, next: 0, sender, begun: Some(begun) };
        let task = tokio::spawn(listener.run());
        let _ = begins.await;
        Watch { heard, task }
    }

    async fn next(&mut self) -> Heard {
        match self.heard.recv().await {
            Some(heard) => heard,
            // The task ends with the receiver alone, or with the runtime.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task.
struct Listener {
    client: Arc<Client>,
    key: String,
    range_end: Vec<u8>,
    /// The revision from which on events are not known yet. 0: from now on.
    next: i64,
    sender: mpsc::Sender<Heard>,
    begun: Option<oneshot::Sender<()>>,
}

impl Listener {
    async fn run(mut self) {
        let (mut pause, mut told) = (SOON, false);
        loop {
            let was = self.next;
            let Some(error) = self.listen(&mut told).await else { return };
            if !std::mem::replace(&mut told, true) && self.tell(Heard::Failed(error)).await.is_none() {
                return;
            }
            self.begins();
            pause = if self.next == was { (pause * 2).min(LATER) } else { SOON };
            tokio::time::sleep(pause).await;
        }
    }

    /// Listens until that fails. None: nobody waits for it any longer.
    async fn listen(&mut self, told: &mut bool) -> Option<StoreError> {
        let create = WatchCreateRequest {
            key: self.key.clone().into_bytes(),
            range_end: self.range_end.clone(),
            start_revision: self.next,
        };
        let request = WatchRequest { create_request: Some(create) };
        let mut watching = match self.client.watch(&self.key, request).await {
            Ok(watching) => watching,
            Err(error) => return Some(error),
        };
        let mut first = timeout(DEADLINE, watching.stream.message()).await.unwrap_or_else(|_| Err(late()));
        loop {
            let response = match first {
                Ok(Some(response)) => response,
                Ok(None) => return Some(self.failed(&watching, &Status::unavailable("the watch has ended"))),
                Err(status) => return Some(self.failed(&watching, &status)),
            };
            if response.canceled {
                return self.canceled(&watching, &response).await;
            }
            *told = false;
            self.took(response).await?;
            first = watching.stream.message().await;
        }
    }

    /// Passes on what came.
    async fn took(&mut self, response: WatchResponse) -> Option<()> {
        self.begins();
        let revision = response.header.map_or(0, |header| header.revision);
        for event in response.events {
            self.tell(Heard::Event(event)).await?;
        }
        self.next = self.next.max(revision + 1);
        Some(())
    }

    async fn canceled(&mut self, watching: &Watching, response: &WatchResponse) -> Option<StoreError> {
        if response.compact_revision > 0 {
            self.next = 0;
            self.tell(Heard::Gap).await?;
        }
        let reason = response.cancel_reason.as_str();
        let code =
            if reason.contains("permission denied") { Code::PermissionDenied } else { Code::Unavailable };
        Some(self.failed(watching, &Status::new(code, reason)))
    }

    fn failed(&self, watching: &Watching, status: &Status) -> StoreError {
        self.client.watch_failure(watching, &self.key, status)
    }

    fn begins(&mut self) {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(());
        }
    }

    async fn tell(&self, heard: Heard) -> Option<()> {
        self.sender.send(heard).await.ok()
    }
}

fn late() -> Status {
    Status::deadline_exceeded("its time is over")
}

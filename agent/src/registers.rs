//! The pools in etcd: documents, blocks, registers of nodes, and what nodes ask of each other. Each value is
//! changed by compare-and-swap, and each read sees the last write (etcd calls it linearizable).
//!
//! - `messages` are etcd's, `keys` are ours.
//! - `access` reads certificates and the password.
//! - `connection` connects, `client` sends requests, and `failure` says what became of one that failed.
//! - `transaction` is the compare-and-swap, `place` where a list of free blocks begins.
//! - `watch` hears of changes.
//! - `operator` is what only an operator does.
//!
//! No write is repeated unless the first surely did not arrive. [`Swap::Unknown`] is all that can be said of
//! the others, and the protocol goes on from there.

mod access;
mod client;
mod connection;
mod error;
mod failure;
mod keys;
mod messages;
mod operator;
mod place;
mod transaction;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cni_conf::pool::EtcdConfig;
use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::network::Recall;
use vlan_bridge_pool::register::Register;
use vlan_bridge_pool::version::{Swap, Version};

use client::{Client, Kind};
pub use error::StoreError;
use keys::Keys;
use messages::{PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse};
pub use operator::{Blocks, Page};
use transaction::Transaction;
pub use watch::{DocumentChanges, Recalls};

/// How many blocks with free addresses are listed at most.
const LISTED: usize = 50;

/// A client of etcd. Clones share their connection.
#[derive(Clone, Debug)]
pub struct Etcd {
    client: Arc<Client>,
    keys: Keys,
    /// The documents that were read last. A block's free addresses depend on them.
    known: Arc<Mutex<BTreeMap<Name, Known>>>,
}

/// A document and its version.
type Known = (Version, Arc<Document>);

impl Etcd {
    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// A certificate, key or password that cannot be read.
    pub fn new(config: &EtcdConfig) -> Result<Etcd, StoreError> {
        let (client, known) = (Arc::new(Client::new(config)?), Arc::default());
        Ok(Etcd { client, keys: Keys::below(&config.prefix), known })
    }

    /// A pool's document. None if there is no such pool.
    ///
    /// # Errors
    /// No answer, or a value that cannot be read.
    pub async fn document(&self, pool: &Name) -> Result<Option<(Version, Document)>, StoreError> {
        let key = self.keys.document(pool);
        let read = self.read(&key, Document::parse).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &read {
            Some((version, document)) => {
                known.insert(pool.clone(), (version.clone(), Arc::new(document.clone())))
            }
            None => known.remove(pool),
        };
        Ok(read)
    }

    /// A node's register.
    ///
    /// # Errors
    /// No answer, or a value that cannot be read.
    pub async fn register(&self, node: &Name) -> Result<(Version, Option<Register>), StoreError> {
        let read = self.read(&self.keys.register(node), Register::parse).await?;
        Ok(read.map_or((Version::ABSENT, None), |(version, register)| (version, Some(register))))
    }

    /// Writes a node's register, if it still has this version.
    ///
    /// # Errors
    /// It is surely not written.
    pub async fn swap_register(
        &self,
        node: &Name,
        at: &Version,
        value: &Register,
    ) -> Result<Swap<Option<Register>>, StoreError> {
        let key = self.keys.register(node);
        let transaction = Transaction::new(&key, at, value.to_json().to_string())?;
        let swap = transaction.commit(&self.client, Register::parse).await?;
        Ok(swap)
    }

    /// A block. One that does not exist has no entries.
    ///
    /// # Errors
    /// No answer, or a value that cannot be read.
    pub async fn block(&self, pool: &Name, block: BlockKey) -> Result<(Version, Block), StoreError> {
        let read = self.read(&self.keys.block(pool, block), Block::parse).await?;
        Ok(read.unwrap_or((Version::ABSENT, Block::default())))
    }

    /// Writes a block, if it and the pool's document still have these versions.
    ///
    /// # Errors
    /// It is surely not written. [`StoreError::DocumentChanged`]: the document has another version.
    pub async fn swap_block(
        &self,
        pool: &Name,
        block: BlockKey,
        at: &Version,
        value: &Block,
        document: &Version,
    ) -> Result<Swap<Block>, StoreError> {
        let known = self.known_document(pool).await?.ok_or(StoreError::DocumentChanged)?;
        if known.0 != *document {
            return Err(StoreError::DocumentChanged);
        }
        let key = self.keys.block(pool, block);
        let has_free = place::has_free(&known.1, block, value);
        let transaction = Transaction::new(&key, at, value.to_json().to_string())?
            .only_with(self.keys.document(pool), document)?
            .mark(self.keys.mark(pool, block), has_free);
        let outcome = transaction.commit(&self.client, Block::parse).await;
        if outcome == Err(StoreError::DocumentChanged) {
            // The next one looks again.
            self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
        }
        Ok(match outcome? {
            Swap::Done(version) => Swap::Done(version),
            Swap::Lost(version, block) => Swap::Lost(version, block.unwrap_or_default()),
            Swap::Unknown => Swap::Unknown,
        })
    }

    /// Blocks that may have a free address: at most 50, from a place at random on.
    ///
    /// # Errors
    /// No answer, or no such pool.
    pub async fn free_blocks(&self, pool: &Name) -> Result<Vec<BlockKey>, StoreError> {
        let Some((_, document)) = self.known_document(pool).await? else { return Ok(Vec::new()) };
        let Some(from) = place::nth(&document, place::random()) else { return Ok(Vec::new()) };
        let marks = self.keys.marks(pool);
        let (middle, end) = (self.keys.mark(pool, from).into_bytes(), keys::behind(&marks));
        let mut listed = self.listed(&marks, middle.clone(), end, LISTED).await?;
        if listed.len() < LISTED {
            let more = LISTED - listed.len();
            listed.extend(self.listed(&marks, marks.clone().into_bytes(), middle, more).await?);
        }
        let blocks = listed.iter().filter_map(|key| keys::block_of(key, &marks));
        Ok(blocks.filter(|block| place::is_in(&document, *block)).collect())
    }

    /// Asks a node for addresses of a pool. No answer comes.
    ///
    /// # Errors
    /// The node may not hear of it.
    pub async fn ask(&self, pool: &Name, node: &Name, recall: &Recall) -> Result<(), StoreError> {
        let key = self.keys.recall(node, pool);
        let value = keys::recall_to_json(recall).to_string().into_bytes();
        let put = PutRequest { key: key.clone().into_bytes(), value };
        let answer: Result<PutResponse, _> = self.client.call(Kind::Write, PUT, &key, &put).await;
        answer.map(|_| ()).map_err(|failure| failure.error)
    }

    /// What other nodes ask of a node from now on.
    pub async fn recalls(&self, node: &Name) -> Recalls {
        Recalls::begin(self.client.clone(), self.keys.recalls(node)).await
    }

    /// Changes of a pool's document from now on.
    pub async fn watch_document(&self, pool: &Name) -> DocumentChanges {
        DocumentChanges::begin(self.client.clone(), self.keys.document(pool)).await
    }

    /// The document as it was read last, or now if it never was.
    async fn known_document(&self, pool: &Name) -> Result<Option<Known>, StoreError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(pool).cloned();
        match known {
            Some(known) => Ok(Some(known)),
            None => Ok(self.document(pool).await?.map(|(version, document)| (version, Arc::new(document)))),
        }
    }

    async fn read<T, E: std::fmt::Display>(
        &self,
        key: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Option<(Version, T)>, StoreError> {
        let range = RangeRequest { key: key.as_bytes().to_vec(), ..RangeRequest::default() };
        let answer = self.range(key, &range).await?;
        answer.kvs.first().map(|kv| keys::read(kv, parse)).transpose()
    }

    async fn range(&self, key: &str, range: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.client.call(Kind::Read, RANGE, key, range).await.map_err(|failure| failure.error)
    }

    /// Keys from one to before another.
    async fn listed(
        &self,
        about: &str,
        key: Vec<u8>,
        range_end: Vec<u8>,
        most: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let limit = i64::try_from(most).unwrap_or_default();
        let range = RangeRequest { key, range_end, limit, keys_only: true, ..RangeRequest::default() };
        Ok(self.range(about, &range).await?.kvs.into_iter().map(|kv| kv.key).collect())
    }
}

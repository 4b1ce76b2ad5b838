//! What only an operator does: make pools, change their documents, and look at all of their blocks.

use vlan_bridge_pool::block::{Block, BlockKey};
use vlan_bridge_pool::document::Document;
use vlan_bridge_pool::name::Name;
use vlan_bridge_pool::version::{Swap, Version};

use super::Etcd;
use super::client::Kind;
use super::error::StoreError;
use super::keys;
use super::messages::{PutRequest, RangeRequest, Request, RequestOp, TXN, TxnRequest, TxnResponse};
use super::place;
use super::transaction::Transaction;

/// Pools with more addresses have no list of free blocks before these are used.
const MARKED: u128 = 1 << 20;
/// The most operations that etcd takes in one transaction.
const OPERATIONS: usize = 128;
/// How many blocks come at a time. One has some kilobytes at most.
const PAGE: usize = 256;

impl Etcd {
    /// All pools: their names, and what stands in their documents.
    ///
    /// # Errors
    /// No answer. A document that cannot be read is an error of its own.
    pub async fn pools(&self) -> Result<Vec<(Name, Result<(Version, Document), StoreError>)>, StoreError> {
        let beginning = self.keys.documents();
        let range = RangeRequest {
            key: beginning.clone().into_bytes(),
            range_end: keys::behind(&beginning),
            ..RangeRequest::default()
        };
        let kvs = self.range(&beginning, &range).await?.kvs;
        let named = kvs.iter().filter_map(|kv| Some((keys::name_of(&kv.key, &beginning)?, kv)));
        Ok(named.map(|(name, kv)| (name, keys::read(kv, Document::parse))).collect())
    }

    /// Makes a pool. [`Swap::Lost`]: there is one already.
    ///
    /// # Errors
    /// There is no such pool now. Its blocks may be marked as free, which does no harm.
    pub async fn create(&self, pool: &Name, value: &Document) -> Result<Swap<Option<Document>>, StoreError> {
        if let Some((version, document)) = self.document(pool).await? {
            return Ok(Swap::Lost(version, Some(document)));
        }
        // Before the document: a pool without marks would look used up.
        if value.ranges.len() <= MARKED {
            self.mark_all(pool, value).await?;
        }
        self.change(pool, &Version::ABSENT, value).await
    }

    /// Writes a pool's document, if it still has this version.
    ///
    /// # Errors
    /// It is surely not written.
    pub async fn change(
        &self,
        pool: &Name,
        at: &Version,
        value: &Document,
    ) -> Result<Swap<Option<Document>>, StoreError> {
        let transaction = Transaction::new(&self.keys.document(pool), at, value.to_json().to_string())?;
        transaction.commit(&self.client, Document::parse).await
    }

    /// All blocks of a pool that were ever written, as they are at one moment.
    pub fn blocks(&self, pool: &Name) -> Blocks {
        let beginning = self.keys.blocks(pool);
        Blocks { etcd: self.clone(), next: Some(beginning.clone().into_bytes()), beginning, revision: 0 }
    }

    async fn mark_all(&self, pool: &Name, document: &Document) -> Result<(), StoreError> {
        let mut blocks = document.blocks().filter(|block| place::is_in(document, *block)).peekable();
        while blocks.peek().is_some() {
            let put = |block: BlockKey| {
                let key = self.keys.mark(pool, block).into_bytes();
                RequestOp { request: Some(Request::Put(PutRequest { key, value: Vec::new() })) }
            };
            let success = blocks.by_ref().take(OPERATIONS).map(put).collect();
            let request = TxnRequest { success, ..TxnRequest::default() };
            let answer: Result<TxnResponse, _> =
                self.client.call(Kind::Write, TXN, &self.keys.marks(pool), &request).await;
            answer.map_err(|failure| failure.error)?;
        }
        Ok(())
    }
}

/// Some blocks, in the order of their addresses.
pub type Page = Vec<(BlockKey, Result<Block, StoreError>)>;

/// The blocks of a pool, a page at a time.
#[derive(Clone, Debug)]
pub struct Blocks {
    etcd: Etcd,
    beginning: String,
    /// The first key of the next page. None behind the last.
    next: Option<Vec<u8>>,
    /// The moment of the first page, which is that of all.
    revision: i64,
}

impl Blocks {
    /// The next blocks in the order of their addresses. None behind the last. A block that cannot be read
    /// is an error of its own.
    ///
    /// # Errors
    /// No answer, or etcd has forgotten the moment of the first blocks.
    pub async fn next(&mut self) -> Result<Option<Page>, StoreError> {
        let Some(key) = self.next.take() else { return Ok(None) };
        let range = RangeRequest {
            key,
            range_end: keys::behind(&self.beginning),
            limit: i64::try_from(PAGE).unwrap_or_default(),
            revision: self.revision,
            ..RangeRequest::default()
        };
        let answer = self.etcd.range(&self.beginning, &range).await?;
        if self.revision == 0 {
            self.revision = answer.header.map_or(0, |header| header.revision);
        }
        if let Some(last) = answer.kvs.last().filter(|_| answer.more) {
            // The first key behind it.
            self.next = Some([last.key.as_slice(), &[0]].concat());
        }
        let named = answer.kvs.iter().filter_map(|kv| Some((keys::block_of(&kv.key, &self.beginning)?, kv)));
        Ok(Some(named.map(|(key, kv)| (key, keys::read(kv, Block::parse).map(|(_, block)| block))).collect()))
    }
}

//! The compare-and-swap of one value, in one transaction of etcd.

use std::fmt::Display;

use vlan_bridge_pool::version::{Swap, Version};

use super::client::{Client, Kind};
use super::error::StoreError;
use super::failure::{Done, Failure};
use super::keys;
use super::messages::{
    Compare, DeleteRangeRequest, MOD, PutRequest, RangeRequest, Request, RequestOp, TXN, TxnRequest,
    TxnResponse,
};

/// A write that names the version that it replaces.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    key: String,
    compare: Vec<Compare>,
    write: Vec<RequestOp>,
    /// If it is lost: the value, and then the document that it depends on.
    read: Vec<RequestOp>,
    document: i64,
}

impl Transaction {
    pub(super) fn new(key: &str, at: &Version, value: String) -> Result<Transaction, StoreError> {
        Ok(Transaction {
            compare: vec![unchanged(key, revision(key, at)?)],
            write: vec![op(Request::Put(put(key, value)))],
            read: vec![op(Request::Range(the_value(key)))],
            document: 0,
            key: key.to_owned(),
        })
    }

    /// Writes only if the pool's document has this version too.
    pub(super) fn only_with(mut self, document: String, at: &Version) -> Result<Transaction, StoreError> {
        self.document = revision(&document, at)?;
        self.compare.push(unchanged(&document, self.document));
        self.read.push(op(Request::Range(RangeRequest { keys_only: true, ..the_value(&document) })));
        Ok(self)
    }

    /// Writes or removes the mark of a block with free addresses.
    pub(super) fn mark(mut self, mark: String, is_there: bool) -> Transaction {
        self.write.push(op(if is_there {
            Request::Put(put(&mark, String::new()))
        } else {
            Request::DeleteRange(DeleteRangeRequest { key: mark.into_bytes() })
        }));
        self
    }

    /// Writes. If another was faster, the answer has the value instead, or none if there is none.
    pub(super) async fn commit<T, E: Display>(
        self,
        client: &Client,
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Swap<Option<T>>, StoreError> {
        let Transaction { key, compare, write, read, document } = self;
        let depends = compare.len() > 1;
        let request = TxnRequest { compare, success: write, failure: read };
        let answer: TxnResponse = match client.call(Kind::Write, TXN, &key, &request).await {
            Ok(answer) => answer,
            Err(Failure { done: Done::Perhaps, .. }) => return Ok(Swap::Unknown),
            Err(failure) => return Err(failure.error),
        };
        if answer.succeeded {
            let Some(header) = answer.header else { return Ok(Swap::Unknown) };
            return Ok(Swap::Done(Version::new(&header.revision.to_string())));
        }
        let mut read = answer.responses.into_iter().map(|op| op.response_range.unwrap_or_default());
        let value = read.next().unwrap_or_default();
        let newest = read.next().and_then(|document| document.kvs.first().map(|kv| kv.mod_revision));
        if depends && newest.unwrap_or_default() != document {
            return Err(StoreError::DocumentChanged);
        }
        match value.kvs.first() {
            None => Ok(Swap::Lost(Version::ABSENT, None)),
            Some(kv) => keys::read(kv, parse).map(|(version, value)| Swap::Lost(version, Some(value))),
        }
    }
}

fn revision(key: &str, at: &Version) -> Result<i64, StoreError> {
    keys::revision_of(at)
        .ok_or_else(|| keys::unreadable(key.as_bytes(), format!("{at:?} is no version of etcd")))
}

fn unchanged(key: &str, revision: i64) -> Compare {
    Compare { target: MOD, key: key.as_bytes().to_vec(), mod_revision: Some(revision) }
}

fn the_value(key: &str) -> RangeRequest {
    RangeRequest { key: key.as_bytes().to_vec(), ..RangeRequest::default() }
}

fn put(key: &str, value: String) -> PutRequest {
    PutRequest { key: key.as_bytes().to_vec(), value: value.into_bytes() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

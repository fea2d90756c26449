//! Encoding of the sync protocol.

use netabase_store::replica::SyncBound;

use crate::outcome::VersionId;
use crate::protocol::limits::{MAX_NEEDS, MAX_SYNC_RECORDS};
use crate::protocol::record::{Failure, PutAnswer, write_put_answer};
use crate::protocol::sync::{MODEL, Need, VALUE, WireScope, tag};
use crate::rpc::codec::{List, WireRecord, write_optional, write_record, write_short};

/// Encodes a message of a comparison.
pub(crate) fn reconcile(scope: &WireScope<'_>, count: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = begin(tag::RECONCILE, scope);
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// Encodes the answer to a message of a comparison.
pub(crate) fn reconciled(keeps: bool, count: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag::RECONCILE, u8::from(keeps)];
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// Encodes a request for the records of items in at most [`MAX_NEEDS`] ranges.
pub(crate) fn fetch(scope: &WireScope<'_>, needs: &[Need]) -> Vec<u8> {
    let mut list = List::after(begin(tag::FETCH, scope), MAX_NEEDS, usize::MAX);
    for need in needs {
        list.push(|bytes| {
            write_bound(bytes, &need.from);
            write_bound(bytes, &need.to);
            bytes.extend(u16::try_from(need.ids.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(need.ids.as_flattened());
        });
    }
    list.finish()
}

/// Encodes a request for all records of a range.
pub(crate) fn range(scope: &WireScope<'_>, from: &SyncBound, to: &SyncBound) -> Vec<u8> {
    let mut bytes = begin(tag::RANGE, scope);
    write_bound(&mut bytes, from);
    write_bound(&mut bytes, to);
    bytes
}

/// Encodes the failure of a request.
pub(crate) fn failure(failure: Failure) -> Vec<u8> {
    vec![tag::FAILURE, failure.code()]
}

/// Encodes the outcomes of sent records.
pub(crate) fn given(answers: &[PutAnswer]) -> Vec<u8> {
    let mut list = List::after(vec![tag::GIVE], MAX_SYNC_RECORDS, usize::MAX);
    for answer in answers {
        list.push(|bytes| write_put_answer(bytes, *answer));
    }
    list.finish()
}

fn begin(tag: u8, scope: &WireScope<'_>) -> Vec<u8> {
    let mut bytes = vec![tag, if scope.value.is_some() { VALUE } else { MODEL }];
    bytes.extend(scope.model);
    if let Some((index, key)) = scope.value {
        write_short(&mut bytes, index);
        write_short(&mut bytes, key);
    }
    bytes
}

/// A builder of a message with records: as many as fit, but at least one.
#[derive(Debug)]
pub(crate) struct Records(List);

impl Records {
    /// Starts a gift of at most `limit` bytes.
    pub(crate) fn given(scope: &WireScope<'_>, limit: usize) -> Self {
        Self(List::after(begin(tag::GIVE, scope), MAX_SYNC_RECORDS, limit))
    }

    /// Starts an answer of at most `limit` bytes to a fetch, a range or a question for later
    /// versions.
    pub(crate) fn answer(limit: usize) -> Self {
        Self(List::after(Vec::new(), MAX_SYNC_RECORDS, limit))
    }

    pub(crate) fn push(&mut self, record: WireRecord<'_>) -> bool {
        self.0.push(|bytes| write_record(bytes, record))
    }

    /// Adds the answer to one question for a later version.
    pub(crate) fn push_later(&mut self, record: Option<WireRecord<'_>>) -> bool {
        self.0.push(|bytes| write_optional(bytes, record, write_record))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }

    pub(crate) fn fetched(self, needs: usize) -> Vec<u8> {
        let needs = u16::try_from(needs).unwrap_or(u16::MAX).to_be_bytes();
        [&[tag::FETCH], &needs[..], &self.0.finish()].concat()
    }

    pub(crate) fn ranged(self, next: Option<&SyncBound>) -> Vec<u8> {
        let mut bytes = vec![tag::RANGE];
        write_optional(&mut bytes, next, write_bound);
        bytes.extend(self.0.finish());
        bytes
    }

    pub(crate) fn later(self) -> Vec<u8> {
        [&[tag::LATER][..], &self.0.finish()].concat()
    }
}

/// A builder of a question for later versions.
#[derive(Debug)]
pub(crate) struct LaterRequest(List);

impl LaterRequest {
    pub(crate) fn new(scope: &WireScope<'_>, limit: usize) -> Self {
        Self(List::after(begin(tag::LATER, scope), MAX_SYNC_RECORDS, limit))
    }

    pub(crate) fn push(&mut self, key: &[u8], version: VersionId) -> bool {
        self.0.push(|bytes| {
            write_short(bytes, key);
            bytes.extend(version.timestamp.to_bits().to_be_bytes());
            bytes.extend(version.fingerprint);
        })
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

fn write_bound(bytes: &mut Vec<u8>, bound: &SyncBound) {
    bytes.extend(bound.item().timestamp.to_be_bytes());
    bytes.push(u8::try_from(bound.id().len()).unwrap_or_default());
    bytes.extend(bound.id());
}

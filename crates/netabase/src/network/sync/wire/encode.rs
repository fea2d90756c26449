//! Writes the bytes of the sync protocol.

use netabase_store::SyncBound;

use super::{KNOWN, MAX_RECORDS, MODEL, Need, REFUSED, STORED, VALUE, WireScope, tag};
use crate::network::record_protocol::wire::{Failure, PutAnswer, WireRecord};
use crate::outcome::VersionId;

/// Encodes a message of a comparison.
pub(in crate::network) fn reconcile(scope: &WireScope<'_>, count: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = begin(tag::RECONCILE, scope);
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// Encodes the answer to one.
pub(in crate::network) fn reconciled(keeps: bool, count: usize, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag::RECONCILE, u8::from(keeps)];
    bytes.extend(u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(message);
    bytes
}

/// Encodes a question for the records of items; of at most [`MAX_NEEDS`] ranges.
pub(in crate::network) fn fetch(scope: &WireScope<'_>, needs: &[Need]) -> Vec<u8> {
    let mut list = List::after(begin(tag::FETCH, scope));
    for need in needs {
        list.push(usize::MAX, |bytes| {
            write_bound(bytes, &need.from);
            write_bound(bytes, &need.to);
            bytes.extend(u16::try_from(need.ids.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(need.ids.as_flattened());
        });
    }
    list.finish()
}

/// Encodes a question for all records of a range.
pub(in crate::network) fn range(scope: &WireScope<'_>, from: &SyncBound, to: &SyncBound) -> Vec<u8> {
    let mut bytes = begin(tag::RANGE, scope);
    write_bound(&mut bytes, from);
    write_bound(&mut bytes, to);
    bytes
}

/// Returns the answer that nothing was done.
pub(in crate::network) fn failure(failure: Failure) -> Vec<u8> {
    vec![tag::FAILURE, failure.code()]
}

/// Returns what became of the records of a gift.
pub(in crate::network) fn given(answers: &[PutAnswer]) -> Vec<u8> {
    let mut list = List::after(vec![tag::GIVE]);
    for answer in answers {
        list.push(usize::MAX, |bytes| {
            bytes.extend(match answer {
                PutAnswer::Stored => [STORED, 0],
                PutAnswer::Known => [KNOWN, 0],
                PutAnswer::Refused(reason) => [REFUSED, reason.code()],
            });
        });
    }
    list.finish()
}

fn begin(tag: u8, scope: &WireScope<'_>) -> Vec<u8> {
    let mut bytes = vec![tag, if scope.value.is_some() { VALUE } else { MODEL }];
    bytes.extend(scope.model);
    if let Some((index, key)) = scope.value {
        write_key(&mut bytes, index);
        write_key(&mut bytes, key);
    }
    bytes
}

/// Records on their way: as many as have room, the first one in any case.
#[derive(Debug)]
pub(in crate::network) struct Records(List);

impl Records {
    /// Begins a gift.
    pub(in crate::network) fn given(scope: &WireScope<'_>) -> Self {
        Self(List::after(begin(tag::GIVE, scope)))
    }

    /// Begins an answer to a fetch, a range or a question for later versions.
    pub(in crate::network) fn answer() -> Self {
        Self(List::after(Vec::new()))
    }

    pub(in crate::network) fn push(&mut self, (key, envelope): WireRecord<'_>, limit: usize) -> bool {
        self.0.push(limit, |bytes| {
            write_key(bytes, key);
            write_bytes(bytes, envelope);
        })
    }

    /// Adds the answer to one question for a later version.
    pub(in crate::network) fn push_later(&mut self, record: Option<WireRecord<'_>>, limit: usize) -> bool {
        self.0.push(limit, |bytes| {
            bytes.push(u8::from(record.is_some()));
            if let Some((key, envelope)) = record {
                write_key(bytes, key);
                write_bytes(bytes, envelope);
            }
        })
    }

    pub(in crate::network) fn len(&self) -> usize {
        usize::from(self.0.count)
    }

    pub(in crate::network) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }

    pub(in crate::network) fn fetched(self, needs: usize) -> Vec<u8> {
        let needs = u16::try_from(needs).unwrap_or(u16::MAX).to_be_bytes();
        [&[tag::FETCH], &needs[..], &self.0.finish()].concat()
    }

    pub(in crate::network) fn ranged(self, next: Option<&SyncBound>) -> Vec<u8> {
        let mut bytes = vec![tag::RANGE, u8::from(next.is_some())];
        if let Some(next) = next {
            write_bound(&mut bytes, next);
        }
        bytes.extend(self.0.finish());
        bytes
    }

    pub(in crate::network) fn later(self) -> Vec<u8> {
        [&[tag::LATER][..], &self.0.finish()].concat()
    }
}

/// A question for later versions in the making.
#[derive(Debug)]
pub(in crate::network) struct LaterRequest(List);

impl LaterRequest {
    pub(in crate::network) fn new(scope: &WireScope<'_>) -> Self {
        Self(List::after(begin(tag::LATER, scope)))
    }

    pub(in crate::network) fn push(&mut self, key: &[u8], version: VersionId, limit: usize) -> bool {
        self.0.push(limit, |bytes| {
            write_key(bytes, key);
            bytes.extend(version.timestamp.to_bits().to_be_bytes());
            bytes.extend(version.fingerprint);
        })
    }

    pub(in crate::network) fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

/// A count and as many items as there is room for, behind something else.
#[derive(Debug)]
struct List {
    bytes: Vec<u8>,
    at: usize,
    count: u16,
}

impl List {
    fn after(mut bytes: Vec<u8>) -> Self {
        let at = bytes.len();
        bytes.extend([0; 2]);
        Self { bytes, at, count: 0 }
    }

    /// Adds an item, or takes it back if it has no room beside others.
    fn push(&mut self, limit: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if usize::from(self.count) >= MAX_RECORDS {
            return false;
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.count > 0 && self.bytes.len() > limit {
            self.bytes.truncate(before);
            return false;
        }
        self.count += 1;
        true
    }

    fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(self.at..self.at + 2) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        self.bytes
    }
}

/// Keys have at most 1156 bytes, so their length has room in two.
fn write_key(bytes: &mut Vec<u8>, key: &[u8]) {
    bytes.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(key);
}

fn write_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(value);
}

fn write_bound(bytes: &mut Vec<u8>, bound: &SyncBound) {
    bytes.extend(bound.item().timestamp.to_be_bytes());
    bytes.push(u8::try_from(bound.id().len()).unwrap_or_default());
    bytes.extend(bound.id());
}

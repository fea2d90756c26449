//! Sending of the records that a peer lacks, a page at a time, so that memory is bounded however
//! many records are missing.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use netabase_store::replica::{SyncItem, SyncSet};
use netabase_store::{Envelope, NetabaseStore, RecordKey, Scope, ScopePart, StoreError};

use crate::outcome::VersionId;
use crate::platform::{self};
use crate::protocol::record::PutAnswer;
use crate::protocol::sync::{LaterRequest, Records, Response, WireScope};
use crate::replication::sync::limits::{GIVE_PAGE_BYTES, GIVE_PAGE_RECORDS, SYNC_FRAME_BYTES};
use crate::replication::sync::report::SyncFailure;
use crate::replication::sync::session::admit::Page;
use crate::replication::sync::session::{Session, decode, number};

/// Local records, and their versions.
struct Here {
    records: Vec<(RecordKey, VersionId)>,
    bytes: usize,
    /// The number of items that they were looked up for.
    items: usize,
}

/// The records of one message.
struct Batch {
    request: Vec<u8>,
    count: usize,
    /// The records that did not fit.
    rest: VecDeque<RecordKey>,
}

impl Session<'_> {
    /// Returns whether the items that the peer lacks are needed: they are sent to it, or it is
    /// asked whether they have left the value.
    pub(super) fn wants_have(&self, keeps: bool) -> bool {
        self.wire.value.is_some() || self.gives(keeps)
    }

    /// Returns whether the peer replicates the scope and does not fetch missing records itself.
    fn gives(&self, keeps: bool) -> bool {
        keeps && !self.context.replications.is_heard(self.peer, self.scope)
    }

    /// Sends the peer the records that it lacks.
    ///
    /// A record that has the value here and not there may have left the value there, so the peer is
    /// asked first.
    pub(super) async fn give(&mut self, have: Vec<SyncItem>, keeps: bool) -> Result<(), SyncFailure> {
        let outdated: VecDeque<_> = std::mem::take(&mut self.outdated).into();
        if self.gives(keeps) && !self.give_records(outdated, 0).await? {
            return Ok(());
        }
        let (have, mut next): (Arc<[SyncItem]>, _) = (have.into(), 0);
        while next < have.len() && self.wants_have(keeps) {
            let items = Arc::clone(&have);
            let page =
                self.with_set(move |set| Ok(look_up(set, items.get(next..).unwrap_or_default())?)).await?;
            next += page.items;
            let held = have.len() * size_of::<SyncItem>() + page.bytes;
            let later = if self.wire.value.is_some() {
                self.ask_for_later(&page.records).await?
            } else {
                HashSet::new()
            };
            let keys = page.records.into_iter().map(|(key, _)| key);
            let keys = keys.filter(|key| !later.contains(key)).collect();
            drop(later);
            if self.gives(keeps) && !self.give_records(keys, held).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Asks for later versions of records; returns those records of which the peer has one.
    async fn ask_for_later(
        &mut self,
        versions: &[(RecordKey, VersionId)],
    ) -> Result<HashSet<RecordKey>, SyncFailure> {
        let (mut rest, mut later) = (versions, HashSet::new());
        while !rest.is_empty() {
            let mut request = LaterRequest::new(&self.wire, SYNC_FRAME_BYTES);
            let fits = rest.iter().take_while(|(key, version)| request.push(key.as_bytes(), *version));
            let asked = fits.count();
            let frame = self.ask(request.finish()).await?;
            let Response::Later(records) = decode(&frame)? else { return Err(SyncFailure::Nonsense) };
            let answered = records.len();
            if answered == 0 || answered > asked {
                return Err(SyncFailure::Nonsense);
            }
            let keys = records.iter().flatten().filter_map(|(key, _)| RecordKey::parse(key).ok());
            later.extend(keys);
            let admitted = self.admit(Page::Later(frame), answered).await?;
            self.take(admitted, &mut HashSet::new()).await?;
            rest = rest.get(answered..).unwrap_or_default();
        }
        Ok(later)
    }

    /// Sends records, a frame of them at a time; returns whether the peer accepts more. `held` is
    /// the number of other bytes in memory.
    async fn give_records(&mut self, keys: VecDeque<RecordKey>, held: usize) -> Result<bool, SyncFailure> {
        let mut rest = keys;
        while !rest.is_empty() {
            let (scope, model) = (self.scope.clone(), self.wire.model);
            let batch = self.with_store(move |store| batch(store, &scope, model, rest)).await?;
            rest = batch.rest;
            if batch.count == 0 {
                continue;
            }
            let sent = number(batch.request.len());
            self.report.held_bytes = self.report.held_bytes.max(number(held) + sent);
            let frame = match self.ask(batch.request).await {
                // The peer accepts no more at present, and fetches the rest itself.
                Err(SyncFailure::Busy | SyncFailure::OtherScope) => return Ok(false),
                frame => frame?,
            };
            let Response::Given(answers) = decode(&frame)? else { return Err(SyncFailure::Nonsense) };
            if answers.len() != batch.count {
                return Err(SyncFailure::Nonsense);
            }
            let stored = answers.iter().filter(|answer| **answer == PutAnswer::Stored).count();
            self.report.sent += number(stored);
            if stored > 0 {
                self.pace.add(number(stored), sent, platform::now());
            }
        }
        Ok(true)
    }
}

/// Looks up the records of the first items, as many as fit into a page. Records that were removed
/// meanwhile are left out.
fn look_up(set: &mut SyncSet, items: &[SyncItem]) -> Result<Here, StoreError> {
    let mut here = Here { records: Vec::new(), bytes: 0, items: 0 };
    for item in items.iter().take(GIVE_PAGE_RECORDS) {
        if let Some((key, version)) = set.record(item)?
            && let Some(version) = VersionId::of(&version)
        {
            let bytes = key.as_bytes().len() + size_of::<VersionId>();
            if here.items > 0 && here.bytes + bytes > GIVE_PAGE_BYTES {
                break;
            }
            here.bytes += bytes;
            here.records.push((key, version));
        }
        here.items += 1;
    }
    Ok(here)
}

/// Reads as many records as fit; those that were removed meanwhile are left out.
fn batch(
    store: &NetabaseStore,
    scope: &Scope,
    model: [u8; Scope::MODEL_TAG_BYTES],
    mut keys: VecDeque<RecordKey>,
) -> Result<Batch, StoreError> {
    let value = match &scope.part {
        ScopePart::Value { index, key, .. } => Some((index.as_bytes(), key.as_slice())),
        ScopePart::Model(_) | ScopePart::All => None,
    };
    let mut records = Records::given(&WireScope { model, value }, SYNC_FRAME_BYTES);
    while let Some(key) = keys.pop_front() {
        let Some(envelope) = store.replica().version_for_peers(&key)?.filter(Envelope::is_signed) else {
            continue;
        };
        if !records.push((key.as_bytes(), envelope.to_wire().as_bytes())) {
            keys.push_front(key);
            break;
        }
    }
    let count = records.len();
    Ok(Batch { request: records.finish(), count, rest: keys })
}

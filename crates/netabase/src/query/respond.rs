//! The responder of the query protocol.

use std::cell::RefCell;
use std::collections::HashSet;

use libp2p::PeerId;
use netabase_store::query::{PageBounds, QueryError, RawQuery, ResolvedQuery};
use netabase_store::{NetabaseStore, RecordKey, StoreError};

use crate::peers::score::PeerScores;
use crate::protocol::limits::MAX_PAGE_RECORDS;
use crate::protocol::query::{PageRequest, PageWriter, unknown};
use crate::protocol::record::{Failure, Response};
use crate::query::limits::{MAX_PAGE_ENTRIES, READ_FACTOR, RECORDS_PER_CHARGE};
use crate::rpc::frame::Frame;
use crate::swarm::Parts;

/// The responder of the query protocol.
#[derive(Debug)]
pub(crate) struct Responder {
    store: NetabaseStore,
    scores: PeerScores,
    /// The most bytes of a response, beyond one record.
    limit: usize,
}

impl Responder {
    pub(crate) fn new(parts: &Parts, limit: usize) -> Self {
        Self { store: parts.store.clone(), scores: parts.scores.clone(), limit }
    }

    /// Returns the response.
    pub(crate) fn answer(&self, peer: PeerId, request: &Frame) -> Vec<u8> {
        match request.bytes().and_then(PageRequest::decode) {
            Ok(request) if !self.scores.allow_records(&peer, cost(&request)) => {
                Response::Failure(Failure::Busy).encode(self.limit)
            }
            Ok(request) => answer_page(&self.store, &request, self.limit),
            Err(failure) => Response::Failure(failure).encode(self.limit),
        }
    }
}

/// Returns the number of records that a request counts as.
fn cost(request: &PageRequest<'_>) -> usize {
    1 + request.records.min(MAX_PAGE_RECORDS) / RECORDS_PER_CHARGE
}

/// Reads a page of records for a peer. The response has at most `limit` bytes beyond one record.
fn answer_page(store: &NetabaseStore, request: &PageRequest<'_>, limit: usize) -> Vec<u8> {
    let Ok(query) = resolve(store, request) else { return unknown() };
    let bytes = request.bytes.min(limit);
    let bounds = PageBounds { entries: MAX_PAGE_ENTRIES, bytes: bytes.saturating_mul(READ_FACTOR) };
    let (mut page, sent) = (PageWriter::new(bytes), RefCell::new(HashSet::new()));
    // A record with several of the values is read and sent once.
    let wants = |key: &RecordKey| !sent.borrow().contains(key);
    let end = query.page(store, bounds, wants, |key, envelope| {
        // Unsigned records are not sent.
        let fits = !envelope.is_signed() || page.push((key.primary_key(), envelope.to_wire().as_bytes()));
        if fits {
            sent.borrow_mut().insert(key.clone());
        }
        fits
    });
    match end {
        Ok(end) => page.finish(end.last.as_deref(), end.is_last),
        Err(error) => failed(&error),
    }
}

fn failed(error: &StoreError) -> Vec<u8> {
    tracing::warn!(%error, "cannot read the records that a peer requests");
    Response::Failure(Failure::Other).encode(usize::MAX)
}

fn resolve(store: &NetabaseStore, request: &PageRequest<'_>) -> Result<ResolvedQuery, QueryError> {
    let unknown = || QueryError::UnknownModel { model: request.model.to_owned() };
    let schema = store.schema().ok_or_else(unknown)?;
    // A model under another policy is another model.
    let model = schema.models.iter().find(|model| model.marked_name() == request.model);
    let raw = RawQuery {
        definition: request.definition.to_owned(),
        model: model.ok_or_else(unknown)?.name.to_owned(),
        index: request.index.map(str::to_owned),
        span: request.span.clone(),
        reverse: request.reverse,
        limit: Some(u64::try_from(request.records.clamp(1, MAX_PAGE_RECORDS)).unwrap_or(1)),
        after: None,
    };
    raw.resolve(schema)
}

//! Versions on their way to peers by the record protocol.
//!
//! At most [`MAX_PUTS_IN_FLIGHT`] puts are under way to a peer. What comes meanwhile waits and shares the next
//! one, so that many puts at a time cost few requests, and a single one waits for nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use libp2p::request_response::OutboundRequestId;
use libp2p::{Multiaddr, PeerId};
use netabase_store::{Envelope, RecordKey};

use super::PutPermit;
use super::query::{AskId, PutId};
use super::record_protocol::wire::PutRequest;

/// The most puts under way to one peer.
const MAX_PUTS_IN_FLIGHT: usize = 2;

/// A version that one peer is sent.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) key: RecordKey,
    pub(super) envelope: Envelope,
    pub(super) errand: Errand,
}

/// What a version is sent for, and who waits for the answer. All of them hold a permit of the put budget, which
/// bounds how much waits here.
#[derive(Debug, Clone)]
pub(super) enum Errand {
    /// For a put.
    Put(PutId),
    /// For a peer that answered a get with an older version or none. Nobody waits for it.
    Repair { _permit: Arc<PutPermit> },
    /// For a holder that lacks the newest version.
    Mend(AskId),
}

/// What a request in flight is for.
#[derive(Debug)]
pub(super) enum Sent {
    /// It carries versions.
    Parcels(Vec<Parcel>),
    /// It is a question.
    Question(AskId),
}

/// Requests to peers: those under way, and the versions that wait for one.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    in_flight: HashMap<OutboundRequestId, Sent>,
    lines: HashMap<PeerId, Line>,
}

/// What waits for one peer.
#[derive(Debug, Default)]
struct Line {
    in_flight: usize,
    waiting: VecDeque<Parcel>,
    /// Where the peer was last said to be.
    addresses: Vec<Multiaddr>,
}

/// A put that is to be sent now.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) request: Vec<u8>,
    pub(super) parcels: Vec<Parcel>,
    pub(super) addresses: Vec<Multiaddr>,
}

impl Outbox {
    /// Lets a version wait for the next put to a peer.
    pub(super) fn push(&mut self, peer: PeerId, addresses: &[Multiaddr], parcel: Parcel) {
        let line = self.lines.entry(peer).or_default();
        line.addresses = addresses.to_vec();
        line.waiting.push_back(parcel);
    }

    /// Takes what may be sent to a peer now, in a request of at most `limit` bytes.
    pub(super) fn next_batch(&mut self, peer: PeerId, limit: usize) -> Option<Batch> {
        let line = self.lines.get_mut(&peer)?;
        if line.in_flight >= MAX_PUTS_IN_FLIGHT || line.waiting.is_empty() {
            return None;
        }
        let mut request = PutRequest::new(limit);
        let mut parcels = Vec::new();
        while let Some(parcel) = line.waiting.pop_front() {
            if !request.push((parcel.key.as_bytes(), parcel.envelope.as_bytes())) {
                line.waiting.push_front(parcel);
                break;
            }
            parcels.push(parcel);
        }
        line.in_flight += 1;
        Some(Batch { request: request.finish(), parcels, addresses: line.addresses.clone() })
    }

    /// Remembers what a request is for.
    pub(super) fn sent(&mut self, id: OutboundRequestId, sent: Sent) {
        self.in_flight.insert(id, sent);
    }

    /// Takes what a request was for; it is over.
    pub(super) fn take(&mut self, peer: PeerId, id: OutboundRequestId) -> Option<Sent> {
        let sent = self.in_flight.remove(&id)?;
        if let Sent::Parcels(_) = sent
            && let Some(line) = self.lines.get_mut(&peer)
        {
            line.in_flight = line.in_flight.saturating_sub(1);
            if line.in_flight == 0 && line.waiting.is_empty() {
                self.lines.remove(&peer);
            }
        }
        Some(sent)
    }

    /// Takes everything that waits for a peer, which cannot be reached.
    pub(super) fn give_up(&mut self, peer: PeerId) -> VecDeque<Parcel> {
        let Some(line) = self.lines.get_mut(&peer) else { return VecDeque::new() };
        let waiting = std::mem::take(&mut line.waiting);
        if line.in_flight == 0 {
            self.lines.remove(&peer);
        }
        waiting
    }
}

//! Answers the requests of peers on blocking threads: signatures are checked, and the disk is read, on every
//! core and not in the event loop.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal, StoreError};
use tokio::task::JoinSet;

use super::find::wire::PageRequest;
use super::record_protocol::serving::Serving;
use super::record_protocol::wire::{Failure, GetResponse, PutAnswer, RecordsResponse, Request, Response};
use super::record_protocol::{Frame, MAX_OUTGOING_BYTES, ResponseRoom};
use super::repair::respond;
use super::repair::view::View;
use super::sanctions::Offence;
use super::sync::Responder;
use super::trace::TraceKind;
use super::{Parts, Sanctions, Traces, find};
use crate::outcome::VersionId;

/// The most requests that wait for a thread. Later ones are answered at once with `Busy`.
pub(super) const MAX_WAITING_REQUESTS: usize = 256;
/// The most of them from one peer, which must not keep the others out.
pub(super) const MAX_WAITING_OF_PEER: usize = 32;
/// How many requests are worked on at a time where the number of cores is not known.
const DEFAULT_WORKERS: usize = 2;

/// By which protocol a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Records,
    Query,
    Sync,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Records => "record",
            Self::Query => "query",
            Self::Sync => "sync",
        }
    }
}

/// A request of a peer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) peer: PeerId,
    pub(super) request: Frame,
    pub(super) channel: ResponseChannel<Frame>,
    /// Who holds what, for a comparison.
    pub(super) view: Option<Box<View>>,
    pub(super) protocol: Protocol,
}

/// A request that was carried out.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) peer: PeerId,
    pub(super) channel: ResponseChannel<Frame>,
    pub(super) response: Frame,
    /// What the peer should not have sent.
    pub(super) refused: Vec<Offence>,
}

/// The requests of peers that wait or are worked on.
#[derive(Debug)]
pub(super) struct Ingest {
    worker: Worker,
    waiting: VecDeque<Job>,
    /// Whose request was begun last.
    last_peer: Option<PeerId>,
    running: JoinSet<Done>,
    /// How many are worked on at a time: one for each core.
    workers: usize,
}

/// What it takes to carry out a request.
#[derive(Debug, Clone)]
struct Worker {
    store: NetabaseStore,
    sanctions: Sanctions,
    traces: Traces,
    /// The longest response.
    limit: usize,
    room: ResponseRoom,
    sync: Responder,
}

impl Ingest {
    pub(super) fn new(parts: &Parts, limit: usize) -> Self {
        let workers = std::thread::available_parallelism().map_or(DEFAULT_WORKERS, NonZeroUsize::get);
        let (waiting, running) = (VecDeque::new(), JoinSet::new());
        let worker = Worker {
            store: parts.store.clone(),
            sanctions: parts.sanctions.clone(),
            traces: parts.traces.clone(),
            limit,
            room: ResponseRoom::new(MAX_OUTGOING_BYTES, limit),
            sync: Responder {
                store: parts.store.clone(),
                sanctions: parts.sanctions.clone(),
                replications: parts.replications.clone(),
                meters: Arc::clone(parts.metrics.meters()),
            },
        };
        Self { worker, waiting, running, workers, last_peer: None }
    }

    /// Takes a request, or gives back where its answer goes if too many are waiting.
    pub(super) fn offer(&mut self, job: Job) -> Result<(), ResponseChannel<Frame>> {
        let of_peer = self.waiting.iter().filter(|waiting| waiting.peer == job.peer).count();
        if self.waiting.len() >= MAX_WAITING_REQUESTS || of_peer >= MAX_WAITING_OF_PEER {
            return Err(job.channel);
        }
        self.waiting.push_back(job);
        self.start_waiting();
        Ok(())
    }

    /// Returns the next request that was carried out. Cancelling the call loses nothing.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            match self.running.join_next().await {
                Some(Ok(done)) => {
                    self.start_waiting();
                    return done;
                }
                // The peer is told that there is no answer, since its channel was dropped.
                Some(Err(error)) => {
                    tracing::error!(%error, "a request of a peer was not carried out");
                    self.start_waiting();
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Ends; returns when nothing holds the store any more.
    pub(super) async fn stop(mut self) {
        self.running.shutdown().await;
    }

    /// Takes the next request, of another peer than the last one if there is any.
    fn next_waiting(&mut self) -> Option<Job> {
        let next = next_place(self.waiting.iter().map(|job| job.peer), self.last_peer);
        let job = self.waiting.remove(next)?;
        self.last_peer = Some(job.peer);
        Some(job)
    }

    fn start_waiting(&mut self) {
        while self.running.len() < self.workers
            && let Some(job) = self.next_waiting()
        {
            // A peer that has gone away needs no answer.
            if job.channel.is_open() {
                let worker = self.worker.clone();
                self.running.spawn_blocking(move || {
                    let serving = Serving::begin(job.protocol.name(), job.peer, &job.request);
                    let done = match job.protocol {
                        Protocol::Records => worker.carry_out(job),
                        Protocol::Query => worker.answer_page(job),
                        Protocol::Sync => worker.answer_sync(job),
                    };
                    serving.end(&done.response);
                    done
                });
            }
        }
    }
}

impl Worker {
    fn answer_sync(&self, job: Job) -> Done {
        let Job { peer, request, channel, .. } = job;
        let (answer, refused) = self.sync.answer(peer, request.bytes());
        Done { peer, channel, response: self.room.frame(peer, answer), refused }
    }

    fn answer_page(&self, job: Job) -> Done {
        let Job { peer, request, channel, .. } = job;
        let response = self.room.frame(peer, self.answer_query(&peer, &request));
        Done { peer, channel, response, refused: Vec::new() }
    }

    fn carry_out(&self, job: Job) -> Done {
        let Self { store, sanctions, traces, limit, room, sync: _ } = self;
        let limit = *limit;
        let Job { peer, request, channel, view, protocol: _ } = job;
        let mut refused = Vec::new();
        let response = match request.bytes().and_then(Request::decode) {
            // It sends too much, or what it should not: nothing is looked at.
            Ok(Request::Put(records)) if !sanctions.allow_records(&peer, records.len()) => {
                Response::Failure(Failure::Busy).encode(limit)
            }
            Ok(Request::Put(records)) => {
                let mut keep = |(key, value)| {
                    if !sanctions.allow_cost(&peer, store.admission_cost(key, value)) {
                        return PutAnswer::Refused(Refusal::Busy);
                    }
                    match store.admit_quietly(key, value) {
                        Ok(true) => {
                            if let Ok(key) = RecordKey::parse(key) {
                                traces.add(store, &key, TraceKind::Accepted { peer });
                            }
                            PutAnswer::Stored
                        }
                        Ok(false) => PutAnswer::Known,
                        Err(reason) => {
                            refused.push(Offence::of(&peer, key, value, reason));
                            PutAnswer::Refused(reason)
                        }
                    }
                };
                Response::Put(records.into_iter().map(&mut keep).collect()).encode(limit)
            }
            // Whoever is slowed for what it sent asks no faster than it sends.
            Ok(request) if !matches!(request, Request::Put(_)) && !sanctions.allow_records(&peer, 1) => {
                Response::Failure(Failure::Busy).encode(limit)
            }
            Ok(Request::Get(keys)) => {
                let mut copies = GetResponse::new(limit);
                keys.into_iter().all(|key| copies.push(signed(store, key).as_ref().map(Envelope::as_bytes)));
                copies.finish()
            }
            Ok(Request::Versions(keys)) => {
                let version = |key| version_of(store, key);
                Response::Versions(keys.into_iter().map(version).collect()).encode(limit)
            }
            Ok(Request::Compare(ranges)) => {
                let compared = view.map(|view| respond::compare(store, &view, peer, &ranges));
                let compared = compared.unwrap_or_else(|| Ok((Vec::new(), 0)));
                let compared = compared.map(|(compared, cost)| {
                    sanctions.spend(&peer, cost);
                    Response::Compared(compared)
                });
                response_or_failure(compared, limit)
            }
            Ok(Request::Offer(items)) => {
                response_or_failure(respond::wanted(store, &items).map(Response::Wanted), limit)
            }
            Ok(Request::Fetch(positions)) => {
                let mut records = RecordsResponse::new(limit);
                match respond::fetch(store, &positions, &mut records) {
                    Ok(()) => records.finish(),
                    Err(error) => response_or_failure(Err(error), limit),
                }
            }
            Err(failure) => Response::Failure(failure).encode(limit),
        };
        Done { peer, channel, response: room.frame(peer, response), refused }
    }
}

impl Worker {
    fn answer_query(&self, peer: &PeerId, request: &Frame) -> Vec<u8> {
        match request.bytes().and_then(PageRequest::decode) {
            Ok(request) if !self.sanctions.allow_records(peer, find::respond::cost(&request)) => {
                Response::Failure(Failure::Busy).encode(self.limit)
            }
            Ok(request) => find::respond::answer_page(&self.store, &request, self.limit),
            Err(failure) => Response::Failure(failure).encode(self.limit),
        }
    }
}

/// Returns the place of the first peer that is not `last`, or the first place.
fn next_place(mut waiting: impl Iterator<Item = PeerId>, last: Option<PeerId>) -> usize {
    waiting.position(|peer| Some(peer) != last).unwrap_or(0)
}

fn response_or_failure(response: Result<Response<'_>, StoreError>, limit: usize) -> Vec<u8> {
    let failed = |error: &StoreError| tracing::warn!(%error, "cannot read what a peer asks for");
    response.inspect_err(failed).unwrap_or(Response::Failure(Failure::Other)).encode(limit)
}

/// Returns the version under a key, if it is one that is sent. What cannot be read is not here.
fn signed(store: &NetabaseStore, key: &[u8]) -> Option<Envelope> {
    let key = RecordKey::parse(key).ok()?;
    let found = store.envelope(&key);
    let envelope = found.inspect_err(|error| tracing::warn!(%error, %key, "cannot read a record")).ok()??;
    envelope.is_signed().then(|| envelope.to_wire())
}

/// Returns which version is under a key, if it is one that is sent. What cannot be read is not here.
fn version_of(store: &NetabaseStore, key: &[u8]) -> Option<VersionId> {
    let key = RecordKey::parse(key).ok()?;
    let found = store.version_of(&key);
    let found = found.inspect_err(|error| tracing::warn!(%error, %key, "cannot read a record")).ok()?;
    found.map(|(timestamp, fingerprint)| VersionId { timestamp, fingerprint })
}

/// Makes the response to a request that is not carried out.
pub(super) fn busy() -> Frame {
    Frame::failure(Failure::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_asks_much_waits_for_others() {
        let [greedy, other, third] = [(); 3].map(|()| PeerId::random());
        let mut waiting = VecDeque::from([greedy, greedy, greedy, other, greedy, third]);
        let (mut served, mut last) = (Vec::new(), None);
        while !waiting.is_empty() {
            last = waiting.remove(next_place(waiting.iter().copied(), last));
            served.extend(last);
        }
        assert_eq!(served, [greedy, other, greedy, third, greedy, greedy]);
    }
}

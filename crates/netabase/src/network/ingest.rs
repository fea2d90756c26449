//! Answers the requests of peers on blocking threads: signatures are checked, and the disk is read, on every
//! core and not in the event loop.

use std::collections::VecDeque;
use std::num::NonZeroUsize;

use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal, StoreError};
use tokio::task::JoinSet;

use super::record_protocol::wire::{Failure, GetResponse, PutAnswer, RecordsResponse, Request, Response};
use super::record_protocol::{Frame, ResponseRoom};
use super::repair::respond;
use super::repair::view::View;
use super::sync::Responder;
use super::trace::TraceKind;
use super::{Parts, Sanctions, Traces};
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
    Sync,
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
    pub(super) refused: Vec<(Option<RecordKey>, Refusal)>,
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
            room: ResponseRoom::default(),
            sync: Responder {
                store: parts.store.clone(),
                sanctions: parts.sanctions.clone(),
                replications: parts.replications.clone(),
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
        let other = self.waiting.iter().position(|job| Some(job.peer) != self.last_peer);
        let job = self.waiting.remove(other.unwrap_or(0))?;
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
                self.running.spawn_blocking(move || match job.protocol {
                    Protocol::Records => worker.carry_out(job),
                    Protocol::Sync => worker.answer_sync(job),
                });
            }
        }
    }
}

impl Worker {
    fn answer_sync(&self, job: Job) -> Done {
        let Job { peer, request, channel, .. } = job;
        let (answer, refused) = self.sync.answer(peer, request.bytes());
        Done { peer, channel, response: self.room.frame(answer), refused }
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
                let mut keep = |(key, value)| match store.admit_quietly(key, value) {
                    Ok(true) => {
                        if let Ok(key) = RecordKey::parse(key) {
                            traces.add(store, &key, TraceKind::Accepted { peer });
                        }
                        PutAnswer::Stored
                    }
                    Ok(false) => PutAnswer::Known,
                    Err(reason) => {
                        refused.push((RecordKey::parse(key).ok(), reason));
                        PutAnswer::Refused(reason)
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
                let version = |key| signed(store, key).as_ref().and_then(VersionId::of);
                Response::Versions(keys.into_iter().map(version).collect()).encode(limit)
            }
            Ok(Request::Compare(ranges)) => {
                let compared = view.map(|view| respond::compare(store, &view, peer, &ranges));
                let compared = compared.unwrap_or_else(|| Ok(Vec::new()));
                response_or_failure(compared.map(Response::Compared), limit)
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
        Done { peer, channel, response: room.frame(response), refused }
    }
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

/// Makes the response to a request that is not carried out.
pub(super) fn busy() -> Frame {
    Frame::failure(Failure::Busy)
}

//! Answers what peers ask about blobs, on blocking threads: the disk is read and hashed there, and not in the event
//! loop.

use std::collections::VecDeque;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;
use netabase_store::{BlobError, BlobStore};
use tokio::task::JoinSet;

use super::MAX_FRAME_BYTES;
use super::wire::{Request, Response};
use crate::metrics::Meters;
use crate::network::record_protocol::serving::Serving;
use crate::network::record_protocol::wire::Failure;
use crate::network::record_protocol::{Frame, ResponseRoom};
use crate::network::{Parts, Sanctions};

/// The most requests that wait for a thread. Later ones are answered at once with `Busy`.
const MAX_WAITING: usize = 256;
/// The most of them from one peer.
const MAX_WAITING_OF_PEER: usize = 32;
/// How many are worked on at a time.
const WORKERS: usize = 2;
/// How many bytes of slices are in memory until they are sent; an eighth, which one peer may have, is as many slices
/// as it asks for at a time. Who asks for more is told that this node is busy.
const MAX_OUTGOING_BYTES: usize = 40 * 1024 * 1024;

/// A request of a peer.
#[derive(Debug)]
pub(in crate::network) struct Job {
    pub(in crate::network) peer: PeerId,
    pub(in crate::network) request: Frame,
    pub(in crate::network) channel: ResponseChannel<Frame>,
}

/// A request that was carried out.
#[derive(Debug)]
pub(in crate::network) struct Done {
    pub(in crate::network) channel: ResponseChannel<Frame>,
    pub(in crate::network) response: Frame,
}

/// The requests of peers that wait or are worked on.
#[derive(Debug)]
pub(in crate::network) struct Server {
    worker: Worker,
    waiting: VecDeque<Job>,
    /// Whose request was begun last.
    last_peer: Option<PeerId>,
    running: JoinSet<Done>,
}

#[derive(Debug, Clone)]
struct Worker {
    blobs: BlobStore,
    sanctions: Sanctions,
    room: ResponseRoom,
    meters: Arc<Meters>,
}

impl Server {
    pub(super) fn new(parts: &Parts) -> Self {
        let worker = Worker {
            blobs: parts.store.blobs(),
            sanctions: parts.sanctions.clone(),
            room: ResponseRoom::new(MAX_OUTGOING_BYTES, MAX_FRAME_BYTES),
            meters: Arc::clone(parts.metrics.meters()),
        };
        Self { worker, waiting: VecDeque::new(), last_peer: None, running: JoinSet::new() }
    }

    /// Takes a request, or gives it back if too many are waiting.
    pub(in crate::network) fn offer(&mut self, job: Job) -> Result<(), Box<Job>> {
        let of_peer = self.waiting.iter().filter(|waiting| waiting.peer == job.peer).count();
        if self.waiting.len() >= MAX_WAITING || of_peer >= MAX_WAITING_OF_PEER {
            return Err(Box::new(job));
        }
        self.waiting.push_back(job);
        self.start_waiting();
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Done {
        loop {
            match self.running.join_next().await {
                Some(done) => {
                    self.start_waiting();
                    match done {
                        Ok(done) => return done,
                        // The peer is told that there is no answer, since its channel was dropped.
                        Err(error) => tracing::error!(%error, "a request for a blob was not carried out"),
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

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
        while self.running.len() < WORKERS
            && let Some(job) = self.next_waiting()
        {
            // A peer that has gone away needs no answer.
            if job.channel.is_open() {
                let worker = self.worker.clone();
                self.running.spawn_blocking(move || {
                    let serving = Serving::begin("blob", job.peer, &job.request);
                    let done = worker.carry_out(job);
                    serving.end(&done.response);
                    done
                });
            }
        }
    }
}

impl Worker {
    fn carry_out(&self, job: Job) -> Done {
        let Job { peer, request, channel } = job;
        let response = match request.bytes().and_then(Request::decode) {
            // Whoever is slowed for what it sent asks no faster than it sends.
            Ok(_) if !self.sanctions.allow_records(&peer, 1) => Response::Failure(Failure::Busy).encode(),
            Ok(Request::Have(blob)) if self.blobs.has(&blob) => Response::Have.encode(),
            Ok(Request::Have(_)) => Response::NotHere.encode(),
            Ok(Request::Get { blob, first, count }) => {
                match self.blobs.slice(&blob, first..first.saturating_add(count.into())) {
                    Ok(slice) => {
                        self.meters.blob_bytes.add("out", u64::try_from(slice.len()).unwrap_or(u64::MAX));
                        Response::Slice(&slice).encode()
                    }
                    Err(BlobError::Missing { .. } | BlobError::OutOfRange { .. }) => {
                        Response::NotHere.encode()
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot read what a peer asks for");
                        Response::NotHere.encode()
                    }
                }
            }
            Err(failure) => Response::Failure(failure).encode(),
        };
        Done { channel, response: self.room.frame(peer, response) }
    }
}

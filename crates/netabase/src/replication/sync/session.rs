//! A session: one model or value is compared with one peer, until this node has all of the peer's
//! records.

use std::collections::HashSet;
use std::sync::Arc;

use libp2p::PeerId;
use netabase_store::replica::ScopeError;
use netabase_store::replica::{SyncBound, SyncDifference, SyncError, SyncItem, SyncNeed, SyncSet, SyncStep};
use netabase_store::{NetabaseStore, RecordKey, Scope, ScopePart, StoreError};
use tokio::sync::broadcast;

use crate::admission::Admission;
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::command::Commands;
use crate::platform::{self, Instant};
use crate::protocol::record::Failure;
use crate::protocol::sync as wire;
use crate::protocol::sync::{Need, Response, WireScope};
use crate::replication::sync::limits::{MAX_FULL, MAX_IDLE_PAGES, MAX_OUTDATED, MAX_PASSES};
use crate::replication::sync::replication::{Entry, Replications};
use crate::replication::sync::report::{SyncFailure, SyncReport};
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;
use crate::rpc::outbox::Silence;
use crate::telemetry::metrics::Meters;
use admit::{Admitted, Page};
use pace::Pace;

mod admit;
mod compare;
mod fetch;
mod give;
mod pace;

/// The state that all sessions of a node share.
pub(super) struct Context {
    pub(super) store: NetabaseStore,
    pub(super) admission: Admission,
    /// A sender that does not keep the swarm running.
    pub(super) commands: Commands,
    pub(super) events: broadcast::Sender<NetabaseSwarmEvent>,
    pub(super) replications: Replications,
    pub(super) meters: Arc<Meters>,
}

/// Compares a replicated scope with a peer, one model after the other.
pub(super) async fn sync_with(
    context: &Context,
    entry: &Arc<Entry>,
    peer: PeerId,
) -> Result<(), SyncFailure> {
    let mut outcome = Ok(());
    for part in &entry.parts {
        let mut session = Session::new(context, entry, part, peer)?;
        context.tell(NetabaseSwarmEvent::SyncStarted { scope: part.clone(), peer });
        let done = session.run().await;
        session.report.elapsed = platform::since(session.begun);
        session.count();
        entry.add(&session.report);
        context.meters.synced(session.report.elapsed, done.err());
        context.tell(NetabaseSwarmEvent::SyncFinished {
            scope: part.clone(),
            peer,
            report: session.report,
            failure: done.err(),
        });
        match done {
            Ok(()) => {}
            // The sessions of other models may succeed.
            Err(failure @ SyncFailure::OtherScope) => outcome = Err(failure),
            Err(failure) => return Err(failure),
        }
    }
    outcome
}

impl Context {
    fn tell(&self, event: NetabaseSwarmEvent) {
        // Sending fails only without subscribers.
        let _ = self.events.send(event);
    }
}

struct Session<'a> {
    context: &'a Context,
    entry: &'a Arc<Entry>,
    scope: &'a Scope,
    wire: WireScope<'a>,
    peer: PeerId,
    report: SyncReport,
    /// The part of the report that the metrics have counted.
    counted: SyncReport,
    begun: Instant,
    /// The pace, which must not be too slow.
    pace: Pace,
    /// The number of consecutive pages without a new record.
    idle_pages: usize,
    has_streamed: bool,
    /// The number of requests for an immediate comparison when the session began.
    generation: u64,
    /// The number of consecutive records that were refused for lack of space.
    full: usize,
    /// For a value: the records of which this node has later versions than the peer.
    outdated: Vec<RecordKey>,
}

/// The step after a comparison.
enum Next {
    /// The session is complete.
    Nothing,
    /// The scope is compared once more.
    Compare,
}

impl<'a> Session<'a> {
    fn new(
        context: &'a Context,
        entry: &'a Arc<Entry>,
        scope: &'a Scope,
        peer: PeerId,
    ) -> Result<Self, SyncFailure> {
        let model = context.store.replica().model_tag(scope).map_err(|_| SyncFailure::OtherScope)?;
        let value = match &scope.part {
            ScopePart::Value { index, key, .. } => Some((index.as_bytes(), key.as_slice())),
            ScopePart::Model(_) | ScopePart::All => None,
        };
        let now = platform::now();
        Ok(Self {
            context,
            entry,
            scope,
            wire: WireScope { model, value },
            peer,
            report: SyncReport { sessions: 1, ..SyncReport::default() },
            counted: SyncReport::default(),
            begun: now,
            pace: Pace::new(now),
            idle_pages: 0,
            has_streamed: false,
            generation: entry.generation(),
            full: 0,
            outdated: Vec::new(),
        })
    }

    async fn run(&mut self) -> Result<(), SyncFailure> {
        for _ in 0..MAX_PASSES {
            let received = self.report.received;
            let next = self.pass().await?;
            if self.report.received > received {
                // Received records count when they are durable, and the next comparison sees them
                // only then.
                self.with_store(NetabaseStore::flush).await?;
            }
            if matches!(next, Next::Nothing) {
                return Ok(());
            }
        }
        Err(SyncFailure::Endless)
    }

    /// Compares the scope once, and exchanges the difference.
    async fn pass(&mut self) -> Result<Next, SyncFailure> {
        let compared = self.compare().await?;
        let received = self.report.received;
        if let Some(from) = compared.stream_from {
            self.has_streamed = true;
            self.stream(from, SyncBound::END, &mut HashSet::new()).await?;
            return Ok(if self.full < MAX_FULL { Next::Compare } else { Next::Nothing });
        }
        self.fetch(compared.difference.need).await?;
        self.give(compared.difference.have, compared.keeps).await?;
        let is_news = self.report.received > received;
        Ok(if compared.is_whole || !is_news || self.full >= MAX_FULL { Next::Nothing } else { Next::Compare })
    }

    /// Updates the metrics, so that a long session is visible while it runs.
    fn count(&mut self) {
        self.context.meters.syncing(&self.counted, &self.report);
        self.counted = self.report;
    }

    async fn admit(&self, page: Page, count: usize) -> Result<Admitted, SyncFailure> {
        // A task of its own, so that it ends if the session is cancelled.
        let admitting = platform::spawn(admit::admit(self.context, self.peer, self.scope, page, count));
        admitting.await.map_err(|_| SyncFailure::Store)
    }

    /// Counts the outcome of a page, and reports its offences.
    async fn take(
        &mut self,
        admitted: Admitted,
        wanted: &mut HashSet<[u8; SyncItem::ID_BYTES]>,
    ) -> Result<(), SyncFailure> {
        let Admitted {
            ids,
            news,
            news_bytes,
            known,
            refused,
            refused_ids,
            no_room_ids,
            full,
            outdated,
            is_busy,
        } = admitted;
        for id in &ids {
            wanted.remove(id);
        }
        self.report.received += news;
        self.report.known += known;
        self.report.outdated += number(outdated.len());
        self.report.refused += number((refused_ids.len() + no_room_ids.len()).saturating_sub(outdated.len()));
        self.entry.refuse(refused_ids);
        // The author may be allowed since the records were looked at.
        if self.entry.generation() == self.generation {
            self.entry.has_no_room_for(no_room_ids, platform::now());
        }
        self.full = if news > 0 { 0 } else { self.full + full };
        if self.wire.value.is_some() {
            let room = MAX_OUTDATED.saturating_sub(self.outdated.len());
            self.outdated.extend(outdated.into_iter().take(room));
        }
        if news > 0 {
            self.idle_pages = 0;
            self.pace.add(news, news_bytes, platform::now());
            self.count();
            let (scope, peer, report) = (self.scope.clone(), self.peer, self.report);
            self.context.tell(NetabaseSwarmEvent::SyncProgress { scope, peer, report });
        } else {
            self.idle_pages += 1;
        }
        self.context.commands.refuse(self.peer, refused).await.map_err(|_| SyncFailure::Stopped)?;
        if is_busy { Err(SyncFailure::Store) } else { Ok(()) }
    }

    fn check_progress(&self) -> Result<(), SyncFailure> {
        if self.idle_pages > MAX_IDLE_PAGES { Err(SyncFailure::Endless) } else { Ok(()) }
    }

    /// Sends a request to the peer; returns its response unless that is a failure.
    async fn ask(&mut self, request: Vec<u8>) -> Result<Frame, SyncFailure> {
        if self.entry.has_ended() {
            return Err(SyncFailure::Stopped);
        }
        self.pace.check(platform::now())?;
        self.report.bytes_sent += number(request.len());
        let asked = self.context.commands.ask(Protocol::Sync, self.peer, Frame::new(request));
        let frame = asked.await.map_err(|silence| match silence {
            Silence::Stopped => SyncFailure::Stopped,
            Silence::TimedOut | Silence::Unreachable(_) => SyncFailure::Unreachable,
        })?;
        self.report.round_trips += 1;
        self.report.bytes_received += number(frame.bytes().map_or(0, <[u8]>::len));
        self.count();
        match decode(&frame)? {
            Response::Failure(Failure::Busy) => Err(SyncFailure::Busy),
            Response::Failure(Failure::Other) => Err(SyncFailure::OtherScope),
            Response::Failure(_) => Err(SyncFailure::Nonsense),
            _ => Ok(frame),
        }
    }

    /// Runs work with this node's set on a blocking thread.
    async fn with_set<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut SyncSet) -> Result<T, SyncError> + Send + 'static,
    ) -> Result<T, SyncFailure> {
        let (store, scope) = (self.context.store.clone(), self.scope.clone());
        let done = platform::blocking(move || act(&mut store.replica().sync_set(&scope)?));
        let done = done.await.map_err(|_| SyncFailure::Store)?;
        done.map_err(|error| match error {
            SyncError::Store(error) => failed(&error),
            _ => SyncFailure::Nonsense,
        })
    }

    async fn with_store<T: Send + 'static>(
        &self,
        act: impl FnOnce(&NetabaseStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SyncFailure> {
        let store = self.context.store.clone();
        let done = platform::blocking(move || act(&store)).await.map_err(|_| SyncFailure::Store)?;
        done.map_err(|error| failed(&error))
    }
}

fn failed(error: &StoreError) -> SyncFailure {
    match error {
        StoreError::Scope(ScopeError::Unknown { .. } | ScopeError::TooLarge { .. }) => {
            SyncFailure::OtherScope
        }
        error => {
            tracing::warn!(%error, "cannot compare the store");
            SyncFailure::Store
        }
    }
}

fn decode(frame: &Frame) -> Result<Response<'_>, SyncFailure> {
    let bytes = frame.bytes().map_err(|_| SyncFailure::Nonsense)?;
    Response::decode(bytes).map_err(|_| SyncFailure::Nonsense)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

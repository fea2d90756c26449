//! The task that starts sessions: when a holder connects, on request, and periodically.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use tokio::sync::{Notify, watch};

use crate::event_loop::command::{Command, Commands};
use crate::jitter;
use crate::platform::at;
use crate::platform::{self, Instant};
use crate::replication::live::Overrun;
use crate::replication::sync::limits::{MAX_FOUND_PEERS, MAX_SESSIONS, SESSION_BACKOFF, SYNC_JITTER_PERCENT};
use crate::replication::sync::replication::{Entry, ReplicationProgress, Replications};
use crate::replication::sync::report::SyncFailure;
use crate::replication::sync::running::{Running, SessionOf};
use crate::replication::sync::session::{Context, sync_with};
use crate::replication::sync::turns::{Turn, Turns};
use crate::swarm::Parts;
use crate::telemetry::trace_context::TraceContext;

/// The connected peers that speak the sync protocol, which the event loop updates.
#[derive(Debug, Clone, Default)]
pub(crate) struct SyncPeers(Arc<watch::Sender<BTreeSet<PeerId>>>);

impl SyncPeers {
    pub(super) fn subscribe(&self) -> watch::Receiver<BTreeSet<PeerId>> {
        self.0.subscribe()
    }

    fn clear(&self) {
        self.0.send_modify(BTreeSet::clear);
    }

    pub(crate) fn set(&self, peer: PeerId, speaks: bool) {
        self.0.send_if_modified(|peers| if speaks { peers.insert(peer) } else { peers.remove(&peer) });
    }
}

/// The holders of a scope that a lookup has found.
#[derive(Debug)]
struct Found {
    peers: Vec<PeerId>,
    next: Instant,
    is_searching: bool,
}

/// The end of a session.
struct Ended {
    entry: Arc<Entry>,
    peer: PeerId,
    generation: u64,
    /// Whether a record was missing here.
    is_news: bool,
    outcome: Result<(), SyncFailure>,
}

/// The task that starts sessions until it is stopped.
pub(crate) struct Replicator {
    context: Arc<Context>,
    replications: Replications,
    peers: watch::Receiver<BTreeSet<PeerId>>,
    interval: Duration,
    stop: Arc<Notify>,
    overrun: Overrun,
    /// The holders of each scope that a lookup has found, and the time of the next lookup.
    found: BTreeMap<u64, Found>,
    searches: Running<u64, Option<Vec<PeerId>>>,
    turns: Turns,
    /// The scopes with a running session.
    running: Running<SessionOf, Ended>,
}

impl Replicator {
    pub(crate) fn new(parts: &Parts, commands: Commands, stop: Arc<Notify>) -> Self {
        let context = Context {
            store: parts.store.clone(),
            admission: parts.admission(),
            commands,
            events: parts.events.clone(),
            replications: parts.replications.clone(),
            meters: Arc::clone(parts.metrics.meters()),
        };
        Self {
            context: Arc::new(context),
            replications: parts.replications.clone(),
            peers: parts.replications.peers().0.subscribe(),
            interval: parts.config.sync_interval,
            stop,
            overrun: parts.live.overrun().clone(),
            found: BTreeMap::new(),
            searches: Running::new(),
            turns: Turns::default(),
            running: Running::new(),
        }
    }

    pub(crate) async fn run(mut self) {
        let mut kept = self.replications.changes();
        loop {
            let next = [self.search_due(), self.start_due()].into_iter().flatten().min();
            tokio::select! {
                () = self.stop.notified() => break,
                changed = kept.changed() => if changed.is_err() { break },
                () = self.overrun.changed() => {
                    for peer in self.overrun.take() {
                        self.turns.is_overrun(peer);
                    }
                }
                changed = self.peers.changed() => if changed.is_err() { break },
                Some((of, ended)) = self.running.next() => match ended {
                    Ok(ended) => self.on_ended(&ended),
                    Err(error) => {
                        tracing::error!(%error, "a sync has failed");
                        self.turns.has_failed(of.0, of.1, platform::now());
                    }
                },
                Some((id, peers)) = self.searches.next() => {
                    let failed = |error: &_| tracing::error!(%error, "a search for holders has failed");
                    self.on_found(id, peers.inspect_err(failed).ok().flatten());
                }
                () = at(next) => {}
            }
        }
        self.searches.shutdown().await;
        // No read of the store outlives the swarm. The sessions end soon, since their commands
        // fail.
        while self.running.next().await.is_some() {}
        self.replications.peers().clear();
        for entry in self.replications.entries() {
            entry.set_progress(ReplicationProgress::default(), entry.generation());
        }
    }

    /// Returns the holders of a scope: every connected peer that speaks the protocol, since any may
    /// have some of its records, and those that a lookup has found.
    fn holders(&self, entry: &Entry) -> Vec<PeerId> {
        let mut holders = self.peers.borrow().clone();
        holders.extend(self.found.get(&entry.id).into_iter().flat_map(|found| &found.peers));
        holders.into_iter().collect()
    }

    /// Looks up holders that are not connected, as often as scopes are compared; returns the time
    /// of the next lookup.
    ///
    /// Without peers there is no lookup.
    fn search_due(&mut self) -> Option<Instant> {
        let (now, entries) = (platform::now(), self.replications.entries());
        self.found.retain(|id, _| entries.iter().any(|entry| entry.id == *id));
        if self.peers.borrow().is_empty() {
            return None;
        }
        for entry in entries {
            let new = || Found { peers: Vec::new(), next: now, is_searching: false };
            let found = self.found.entry(entry.id).or_insert_with(new);
            if found.next <= now && !found.is_searching {
                found.is_searching = true;
                let (commands, scope) = (self.context.commands.clone(), entry.scope.clone());
                self.searches.start(entry.id, async move {
                    // `None` means that the lookup failed.
                    let found = commands.call(|reply| Command::FindHolders { scope, reply }).await;
                    found.ok().map(|holders| holders.peers)
                });
            }
        }
        self.found.values().filter(|found| !found.is_searching).map(|found| found.next).min()
    }

    fn on_found(&mut self, id: u64, peers: Option<Vec<PeerId>>) {
        let next = platform::now() + jittered(self.interval);
        let Some(found) = self.found.get_mut(&id) else { return };
        (found.next, found.is_searching) = (next, false);
        if let Some(mut peers) = peers {
            peers.truncate(MAX_FOUND_PEERS);
            found.peers = peers;
        }
    }

    /// Starts the due sessions, as far as the limit allows; returns the time of the next one.
    fn start_due(&mut self) -> Option<Instant> {
        let (now, entries) = (platform::now(), self.replications.entries());
        if self.context.store.replica().was_away() {
            // The local records may have been deleted elsewhere, and are about to be discarded.
            return Some(now + SESSION_BACKOFF.first);
        }
        self.turns.retain_scopes(|id| entries.iter().any(|entry| entry.id == id));
        let mut next: Option<Instant> = None;
        for entry in entries {
            let holders = self.holders(&entry);
            self.turns.meet(entry.id, &holders, now);
            self.tell_progress(&entry, &holders);
            if self.is_busy(entry.id) {
                continue;
            }
            let generation = entry.generation();
            let turn = |peer: &PeerId| self.turns.get(entry.id, peer);
            let waits = |peer: &&PeerId| turn(peer).is_some_and(|turn| turn.is_due(generation, now));
            // Connected holders first: the others may be gone.
            let connected = self.peers.borrow().clone();
            let order = |peer: &&PeerId| (!connected.contains(*peer), turn(peer).map(Turn::due));
            let due = holders.iter().filter(waits).min_by_key(order);
            match due.copied() {
                Some(peer) if self.running.len() < MAX_SESSIONS => self.start(entry, peer),
                Some(_) => {}
                None => {
                    let first = holders.iter().filter_map(|peer| turn(peer).map(Turn::due)).min();
                    next = [next, first].into_iter().flatten().min();
                }
            }
        }
        next
    }

    fn start(&mut self, entry: Arc<Entry>, peer: PeerId) {
        let generation = entry.generation();
        self.turns.begin(entry.id, peer, generation);
        let (context, is_connected) = (Arc::clone(&self.context), self.peers.borrow().contains(&peer));
        self.running.start((entry.id, peer), async move {
            if !is_connected {
                // Looks up the peer's addresses and dials it; the session fails if the dial does.
                let _ = context.commands.call(|reply| Command::Locate { peer, reply }).await;
            }
            let before = entry.received();
            let outcome = TraceContext::carry_out("sync", sync_with(&context, &entry, peer)).await;
            let is_news = entry.received() > before;
            Ended { entry, peer, generation, is_news, outcome }
        });
    }

    fn is_busy(&self, id: u64) -> bool {
        self.running.any(|(of, _)| *of == id)
    }

    fn on_ended(&mut self, ended: &Ended) {
        let Ended { entry, peer, generation, is_news, outcome } = ended;
        let (now, interval) = (platform::now(), jittered(self.interval));
        match outcome {
            Ok(()) => self.turns.has_succeeded(entry.id, *peer, *generation, *is_news, now, now + interval),
            Err(failure) => {
                tracing::debug!(%peer, %failure, "a sync has failed");
                self.turns.has_failed(entry.id, *peer, now);
            }
        }
    }

    fn tell_progress(&self, entry: &Entry, holders: &[PeerId]) {
        let generation = entry.generation();
        let (mut current, mut failed) = (0, 0);
        for turn in holders.iter().filter_map(|peer| self.turns.get(entry.id, peer)) {
            let is_current = turn.failures == 0 && turn.done.is_some_and(|done| done >= generation);
            let has_failed = turn.failures > 0 && turn.tried.is_some_and(|tried| tried >= generation);
            current += usize::from(is_current);
            failed += usize::from(has_failed);
        }
        let peers = holders.len();
        let is_syncing = self.is_busy(entry.id);
        let is_caught_up = current > 0 && current + failed == peers;
        entry.set_progress(
            ReplicationProgress { peers, current, failed, is_syncing, is_caught_up },
            generation,
        );
    }
}

pub(super) fn jittered(duration: Duration) -> Duration {
    jitter::around(duration, SYNC_JITTER_PERCENT)
}

//! The republisher: publishes records of our own when they are due, in small paced batches.
//!
//! What is due is kept on disk, so an offline put is published after a restart too. Records are due
//! at once when they were put with nobody to send them to, and every republish interval after that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use libp2p::PeerId;
use netabase_store::{NetabaseStore, RecordKey, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Command, Parts, Publication, PutBudget, PutTerms, Reply};

/// The most records that are published in one batch.
const BATCH: usize = 256;
/// How many of them are under way at a time.
const CONCURRENCY: usize = 8;
/// How long to wait between batches, so that a long schedule does not crowd out everything else.
const PAUSE: Duration = Duration::from_secs(1);
/// How often to look for what is due while nothing happens.
const TICK: Duration = Duration::from_secs(10);

/// Publishes what is due until the swarm is gone.
pub(super) struct Republisher {
    store: NetabaseStore,
    local_peer: PeerId,
    /// Does not keep the swarm running.
    commands: mpsc::WeakSender<Command>,
    puts: PutBudget,
    new_peer: Arc<Notify>,
    stop: Arc<Notify>,
    /// How often our provider records are announced.
    provider_interval: Duration,
}

impl Republisher {
    pub(super) fn new(
        parts: &Parts,
        commands: mpsc::WeakSender<Command>,
        puts: PutBudget,
        new_peer: Arc<Notify>,
        stop: Arc<Notify>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            local_peer: parts.identity.public().to_peer_id(),
            commands,
            puts,
            new_peer,
            stop,
            // Provider records live at other peers only so long; a quarter leaves room for failures.
            provider_interval: parts.config.dht.provider_lifetime / 4,
        }
    }

    /// It is never cancelled in the middle, so that no read of the store outlives it.
    pub(super) async fn run(self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut announced = HashMap::new();
        loop {
            let new_peer = tokio::select! {
                () = self.stop.notified() => return,
                () = self.new_peer.notified() => true,
                _ = ticks.tick() => false,
            };
            if self.publish_due().await.is_none() {
                return;
            }
            if new_peer {
                // The store writes the schedule with a delay; what was put just now is on it soon.
                ticks.reset_after(PAUSE);
            }
            if self.announce_providers(&mut announced).await.is_none() {
                return;
            }
        }
    }

    /// Publishes batch after batch until nothing is due or nobody is there to take it; `None` says
    /// that the swarm is gone.
    async fn publish_due(&self) -> Option<()> {
        loop {
            let due = self.due().await;
            let more = due.len() == BATCH;
            let published = stream::iter(due)
                .map(|key| self.publish(key))
                .buffer_unordered(CONCURRENCY)
                .collect::<Vec<_>>()
                .await;
            let published: Option<Vec<Publication>> = published.into_iter().collect();
            let nobody = published?.iter().all(|publication| publication.peers.is_empty());
            if !more || nobody {
                return Some(());
            }
            tokio::select! {
                () = self.stop.notified() => return None,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Renews leases and reads the schedule on a thread that may wait for the disk.
    async fn due(&self) -> Vec<RecordKey> {
        let store = self.store.clone();
        let due = tokio::task::spawn_blocking(move || {
            // It may have been away while it was running, on a machine that slept.
            store.discard_unvouched()?;
            store.renew_due(BATCH)?;
            store.due(BATCH)
        });
        let due = due.await;
        let due = due.unwrap_or_else(|error| Err(StoreError::Backend(Arc::new(error))));
        due.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read what is to be published");
            Vec::new()
        })
    }

    /// Sends the current version, unless it is not ours any more.
    async fn publish(&self, key: RecordKey) -> Option<Publication> {
        let envelope = match self.store.envelope(&key) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => {
                self.store.unschedule(&key);
                return Some(Publication::default());
            }
            Err(error) => {
                tracing::warn!(%error, %key, "cannot read what is due");
                return Some(Publication::default());
            }
        };
        if self.store.author().is_none_or(|author| envelope.contribution_of(author).is_none()) {
            self.store.schedule(&key, &envelope, None);
            return Some(Publication::default());
        }
        let (reply, answer) = Reply::new(None);
        let permit = self.puts.permit(&envelope).await.ok()?;
        let command = Command::publish(key, envelope, PutTerms::default(), permit, reply);
        self.commands.upgrade()?.send(command).await.ok()?;
        answer.await.ok()?.ok()
    }

    /// Announces the keys that we provide and whose time has come; `None` says that the swarm is gone.
    async fn announce_providers(&self, announced: &mut HashMap<Vec<u8>, Instant>) -> Option<()> {
        let provided = self.store.provided_by(&self.local_peer);
        announced.retain(|key, time| provided.contains(key) && time.elapsed() < self.provider_interval);
        let due = provided.into_iter().filter(|key| !announced.contains_key(key));
        let told = stream::iter(due.collect::<Vec<_>>())
            .map(|key| self.announce(key))
            .buffer_unordered(CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        for told in told {
            announced.extend(told?.map(|key| (key, Instant::now())));
        }
        Some(())
    }

    /// Announces a key; returns it if there was anybody to tell.
    async fn announce(&self, key: Vec<u8>) -> Option<Option<Vec<u8>>> {
        let (reply, told) = Reply::new(None);
        let command = Command::StartProviding { key: key.clone(), reply };
        self.commands.upgrade()?.send(command).await.ok()?;
        let told = told.await.ok()?.unwrap_or(false);
        Some(told.then_some(key))
    }
}

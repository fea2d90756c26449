//! The republisher: publishes this node's records when they are due, in small paced batches.
//!
//! The schedule is stored on disk, so an offline put is published after a restart, too. Records
//! that were put without peers are due at once, in the order of their puts; published ones are due
//! again after the republish interval. Then only records that this node, their author, does not
//! hold need it, after their holders were asked for their versions:
//! [repair](crate::replication::repair) takes care of the others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use libp2p::PeerId;
use netabase_store::replica::AheadOfClock;
use netabase_store::{Envelope, NetabaseStore, RecordKey, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::blobs::provide;
use crate::error::NetabaseError;
use crate::event_loop::command::{Command, Commands, PutTerms};
use crate::jitter;
use crate::outcome::{Health, HolderState};
use crate::peers::presence::discard_unvouched;
use crate::peers::standing::Standings;
use crate::platform::{self, Instant, MissedTickBehavior, interval};
use crate::query::keys::ProviderKey;
use crate::replication::limits::{
    REPUBLISH_BATCH, REPUBLISH_CONCURRENCY, REPUBLISH_JITTER_PERCENT, REPUBLISH_PAUSE, REPUBLISH_RETRY,
    REPUBLISH_TICK,
};
use crate::swarm::{Deadline, Parts, PutBudget};
use crate::telemetry::metrics::Meters;
use crate::telemetry::trace_context::TraceContext;

/// Returns the time at which a version is due again, in milliseconds since the Unix epoch.
pub(crate) fn next_due(store: &NetabaseStore, interval: Duration, is_accepted: bool) -> u64 {
    let wait = if is_accepted {
        jitter::around(interval, REPUBLISH_JITTER_PERCENT)
    } else {
        REPUBLISH_RETRY.min(interval)
    };
    store.replica().clock().unix_millis().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
}

/// Returns the delay of a soon publication, in milliseconds: of a version that was just written, or
/// that is retried.
pub(crate) fn soon(interval: Duration) -> u64 {
    u64::try_from(REPUBLISH_RETRY.min(interval / 2).as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time at which a version is due that was written without peers: at once, after those
/// that were written before.
pub(crate) fn overdue(store: &NetabaseStore, envelope: &Envelope) -> u64 {
    let now = store.replica().clock().unix_millis();
    envelope.version().map_or(now, |version| version.timestamp.unix_millis().min(now))
}

/// The task that publishes due records until the swarm has stopped.
pub(crate) struct Republisher {
    store: NetabaseStore,
    local_peer: PeerId,
    /// A sender that does not keep the swarm running.
    commands: Commands,
    puts: PutBudget,
    meters: Arc<Meters>,
    new_peer: Arc<Notify>,
    stop: Arc<Notify>,
    standings: Standings,
    /// The position up to which versions ahead of the clock were read.
    ahead: Arc<Mutex<AheadOfClock>>,
    interval: Duration,
    /// Whether repair takes care of the records that this node holds.
    repairs: bool,
    call_timeout: Duration,
    /// The time between two announcements of this node's provider records.
    provider_interval: Duration,
}

/// The outcome of a due record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Published {
    /// The record was sent to peers.
    Taken,
    /// There was no peer.
    Nobody,
    /// Nothing was sent, since this node holds the record and repair takes care of it.
    Held,
    /// The record is no longer to be published, or could not be read.
    Passed,
}

impl Published {
    /// Returns its name in metrics.
    const fn label(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Nobody => "nobody",
            Self::Held | Self::Passed => "skipped",
        }
    }

    fn by(anybody: bool) -> Self {
        if anybody { Self::Taken } else { Self::Nobody }
    }
}

/// A due record.
struct DueRecord {
    key: RecordKey,
    envelope: Envelope,
    /// Whether peers have had this version for a while.
    is_known: bool,
}

impl Republisher {
    pub(crate) fn new(
        parts: &Parts,
        commands: Commands,
        puts: PutBudget,
        new_peer: Arc<Notify>,
        stop: Arc<Notify>,
    ) -> Self {
        Self {
            store: parts.store.clone(),
            local_peer: parts.identity.public().to_peer_id(),
            commands,
            puts,
            meters: Arc::clone(parts.metrics.meters()),
            new_peer,
            stop,
            standings: parts.standings.clone(),
            ahead: Arc::default(),
            interval: parts.config.dht.republish_interval,
            repairs: parts.config.dht.repair_interval.is_some(),
            call_timeout: parts.config.call_timeout,
            // Other peers drop provider records after the TTL; a quarter of it leaves time for
            // failures.
            provider_interval: parts.config.dht.provider_lifetime / 4,
        }
    }

    /// Runs the task. It is never cancelled in the middle, so that no read of the store outlives
    /// it.
    pub(crate) async fn run(self) {
        self.publish_on_time().await;
        // Without a republisher no record is due.
        self.meters.republish_due.set(0);
    }

    async fn publish_on_time(&self) {
        let mut ticks = interval(REPUBLISH_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut announced, mut provided) = (HashMap::new(), None);
        let mut looked_ahead: Option<Instant> = None;
        loop {
            let new_peer = tokio::select! {
                () = self.stop.notified() => return,
                () = self.new_peer.notified() => true,
                _ = ticks.tick() => false,
            };
            let is_time = looked_ahead.is_none_or(|looked| platform::since(looked) >= REPUBLISH_RETRY);
            let looks_ahead = (new_peer || is_time) && !self.standings.is_clock_behind();
            if looks_ahead {
                looked_ahead = Some(platform::now());
            }
            if self.publish_due(looks_ahead).await.is_none() {
                return;
            }
            if new_peer {
                // The store writes the schedule with a delay; records that were just put are on it
                // soon.
                ticks.reset_after(REPUBLISH_PAUSE);
            }
            self.provide_blobs(&mut provided).await;
            if self.announce_providers(&mut announced).await.is_none() {
                return;
            }
        }
    }

    /// Publishes batch after batch until no record is due or there is no peer. Returns `None` if
    /// the swarm has stopped.
    async fn publish_due(&self, mut looks_ahead: bool) -> Option<()> {
        loop {
            let (due, ahead) = self.due(looks_ahead).await;
            looks_ahead &= ahead > 0;
            let more = due.len() == REPUBLISH_BATCH || looks_ahead;
            self.meters.republish_due.set(due.len());
            let published = stream::iter(due)
                .map(|key| TraceContext::carry_out("republish", self.publish(key)))
                .buffer_unordered(REPUBLISH_CONCURRENCY)
                .collect::<Vec<_>>()
                .await;
            let published: Vec<Published> = published.into_iter().collect::<Option<_>>()?;
            for outcome in &published {
                self.meters.republished.add(outcome.label(), 1);
            }
            // Unreadable records would be due again at once.
            let goes_on = |outcome: &Published| matches!(outcome, Published::Taken | Published::Held);
            if !more || !published.iter().any(goes_on) {
                return Some(());
            }
            tokio::select! {
                () = self.stop.notified() => return None,
                () = platform::sleep(REPUBLISH_PAUSE) => {}
            }
        }
    }

    /// Renews leases and reads the schedule on a blocking thread. Versions ahead of the clock are
    /// returned now and then, too, since a wrong clock may have computed their due times. Returns
    /// the total number of due records as well.
    async fn due(&self, looks_ahead: bool) -> (Vec<RecordKey>, usize) {
        let (store, ahead) = (self.store.clone(), Arc::clone(&self.ahead));
        let due = platform::blocking(move || {
            // The node may have been away while it was running, on a suspended machine.
            discard_unvouched(&store)?;
            store.replica().renew_due(REPUBLISH_BATCH)?;
            let mut due = store.replica().due(REPUBLISH_BATCH)?;
            if !looks_ahead || due.len() == REPUBLISH_BATCH {
                return Ok((due, usize::from(looks_ahead)));
            }
            let ahead = store.replica().ahead_of_clock(&mut ahead.lock(), REPUBLISH_BATCH - due.len())?;
            let count = ahead.len();
            due.extend(ahead);
            Ok((due, count))
        });
        let due = due.await;
        let due = due.unwrap_or_else(|error| Err(StoreError::Backend(Arc::new(error))));
        due.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the publishing schedule");
            (Vec::new(), 0)
        })
    }

    /// Ensures that the holders have the current version, if this node still publishes it.
    async fn publish(&self, key: RecordKey) -> Option<Published> {
        let Some(due) = self.read(key) else { return Some(Published::Passed) };
        if !due.is_known {
            return self.send(due).await;
        }
        if self.repairs && self.is_holder(&due.key).await? {
            self.is_published(&due, true);
            return Some(Published::Held);
        }
        self.ask_and_send(due).await
    }

    /// Reads a due record; one that need not be published is removed from the schedule.
    fn read(&self, key: RecordKey) -> Option<DueRecord> {
        let envelope = match self.store.envelope(&key) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => {
                self.store.replica().unschedule(&key);
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, %key, "cannot read a due record");
                return None;
            }
        };
        if self.store.author().is_none_or(|author| envelope.contribution_of(author).is_none()) {
            self.store.replica().schedule(&key, &envelope, None);
            return None;
        }
        let is_known = self.is_known(&key, &envelope);
        Some(DueRecord { key, envelope, is_known })
    }

    /// Returns whether the version's due time was an interval after its writing, which is so only
    /// if peers have accepted it. A version that no peer has accepted for that long counts, too,
    /// and is sent to the holders that lack it.
    fn is_known(&self, key: &RecordKey, envelope: &Envelope) -> bool {
        let due = self.store.replica().publication_due(key).ok().flatten().unwrap_or(0);
        let written = envelope.version().map_or(0, |version| version.timestamp.unix_millis());
        let interval = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        // Every node stores the member list, and not only the closest.
        due.saturating_sub(written) >= interval / 2 && self.store.replica().members_key() != Some(key)
    }

    async fn is_holder(&self, key: &RecordKey) -> Option<bool> {
        self.commands.call(|reply| Command::IsHolder { key: key.clone(), reply }).await.ok()
    }

    /// Sends a version to all holders, and schedules it.
    async fn send(&self, due: DueRecord) -> Option<Published> {
        let DueRecord { key, envelope, .. } = due;
        let permit = self.puts.permit(&envelope).await.ok()?;
        let publish = |reply| Command::publish(key, envelope, PutTerms::default(), permit, reply);
        let publication = self.commands.call(publish).await.ok()?;
        Some(Published::by(!publication.peers.is_empty()))
    }

    /// Asks the holders for their versions, and sends the version to those that lack it.
    async fn ask_and_send(&self, due: DueRecord) -> Option<Published> {
        let deadline = Deadline::after(self.call_timeout);
        let ask = |reply| Command::Health { key: due.key.clone(), repair: true, deadline, reply };
        let health = match self.commands.call(ask).await {
            Err(NetabaseError::Closed) => return None,
            // A timeout without holders counts as no peers.
            health => health.ok(),
        };
        let holders = health.as_ref().map_or(0, |health| health.holders.len());
        let is_heard = health.as_ref().is_some_and(|health| is_heard(&due.envelope, health));
        if is_heard {
            self.store.replica().note_heard(&due.key, &due.envelope);
        }
        self.is_published(&due, is_heard);
        Some(Published::by(holders > 0))
    }

    fn is_published(&self, due: &DueRecord, is_accepted: bool) {
        let next = next_due(&self.store, self.interval, is_accepted);
        self.store.replica().schedule(&due.key, &due.envelope, Some(next));
    }

    /// Provides the complete blobs, if they have changed since `generation`.
    async fn provide_blobs(&self, generation: &mut Option<u64>) {
        let now = self.store.blobs().generation();
        if *generation == Some(now) {
            return;
        }
        let (store, local) = (self.store.clone(), self.local_peer);
        match platform::blocking(move || provide::update(&store, local)).await {
            Ok(_) => *generation = Some(now),
            Err(error) => tracing::error!(%error, "cannot provide the blobs"),
        }
    }

    /// Announces the provided keys that are due. Returns `None` if the swarm has stopped.
    async fn announce_providers(&self, announced: &mut HashMap<Vec<u8>, Instant>) -> Option<()> {
        let provided: HashSet<Vec<u8>> =
            self.store.replica().provided_by(&self.local_peer).into_iter().collect();
        announced
            .retain(|key, time| provided.contains(key) && platform::since(*time) < self.provider_interval);
        // Advertised scopes have a pace of their own.
        let due = provided.into_iter().filter(|key| ProviderKey::parse(key).is_none());
        let due = due.filter(|key| !announced.contains_key(key));
        let told = stream::iter(due.collect::<Vec<_>>())
            .map(|key| self.announce(key))
            .buffer_unordered(REPUBLISH_CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        for told in told {
            announced.extend(told?.map(|key| (key, platform::now())));
        }
        Some(())
    }

    /// Announces a key; returns it if a peer was told.
    async fn announce(&self, key: Vec<u8>) -> Option<Option<Vec<u8>>> {
        let told = match self.commands.call(|reply| Command::StartProviding { key: key.clone(), reply }).await
        {
            Err(NetabaseError::Closed) => return None,
            told => told.unwrap_or(false),
        };
        Some(told.then_some(key))
    }
}

/// Returns whether a holder has the newest version, or has nothing that it would change.
fn is_heard(envelope: &Envelope, health: &Health) -> bool {
    let is_current = |(_, state): &(PeerId, HolderState)| *state == HolderState::Current;
    health.holders.iter().any(is_current)
        || health.repairs.iter().any(|repair| repair.answer.is_heard(envelope))
}

#[cfg(test)]
mod tests {
    use netabase_store::{Clock, SigningKey, StorageBackend, StoreOptions, Timestamp};

    use tokio::sync::mpsc;

    use super::*;

    const HOUR: u64 = 60 * 60 * 1000;

    fn key() -> RecordKey {
        RecordKey::new("Def", "Model", b"1").unwrap()
    }

    fn store() -> NetabaseStore {
        let identity = Some(SigningKey::from_bytes(&[1; 32]));
        let options = StoreOptions { backend: StorageBackend::Memory, identity, ..StoreOptions::default() };
        NetabaseStore::open_with("", None, options).unwrap()
    }

    fn written_at(millis: u64) -> Envelope {
        let time = Timestamp::from_unix_millis(millis);
        Envelope::sign(&SigningKey::from_bytes(&[1; 32]), &key(), time, 0, Some(b"value"))
    }

    #[test]
    fn what_was_put_offline_is_due_in_the_order_in_which_it_was_written() {
        let store = store();
        assert!(overdue(&store, &written_at(1000)) < overdue(&store, &written_at(2000)));
        let future = written_at(store.replica().clock().unix_millis() + HOUR);
        assert!(overdue(&store, &future) <= store.replica().clock().unix_millis(), "it is due at once");
    }

    /// A republisher that publishes a single record, and the commands that it sends.
    struct Acting {
        store: NetabaseStore,
        publishing: tokio::task::JoinHandle<Option<Published>>,
        commands: mpsc::Receiver<Command>,
        _sender: mpsc::Sender<Command>,
    }

    fn republisher(store: &NetabaseStore, commands: &mpsc::Sender<Command>) -> Republisher {
        Republisher {
            store: store.clone(),
            local_peer: PeerId::random(),
            commands: Commands::new(commands),
            puts: PutBudget::default(),
            meters: Arc::default(),
            new_peer: Arc::default(),
            stop: Arc::default(),
            standings: Standings::default(),
            ahead: Arc::default(),
            interval: Duration::from_millis(24 * HOUR),
            repairs: true,
            call_timeout: Duration::from_secs(1),
            provider_interval: Duration::from_secs(1),
        }
    }

    /// Publishes a record that was written a day ago and became due `after` hours later.
    fn publish(after: u64) -> Acting {
        let (store, now) = (store(), Clock::default().unix_millis());
        let envelope = written_at(now - 24 * HOUR);
        store.replica().admit(key().as_bytes(), envelope.as_bytes()).unwrap();
        store.replica().schedule(&key(), &envelope, Some(now - (24 - after) * HOUR));
        store.flush().unwrap();
        let (sender, commands) = mpsc::channel(10);
        let republisher = republisher(&store, &sender);
        let publishing = platform::spawn(async move { republisher.publish(key()).await });
        Acting { store, publishing, commands, _sender: sender }
    }

    impl Acting {
        async fn is_asked_whether_it_is_a_holder(&mut self, answer: bool) {
            match self.commands.recv().await {
                Some(Command::IsHolder { reply, .. }) => {
                    crate::event_loop::command::answer(reply, Ok(answer));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_record_that_its_author_holds_and_repairs_is_not_sent_again() {
        let mut acting = publish(24);
        acting.is_asked_whether_it_is_a_holder(true).await;
        assert_eq!(acting.publishing.await.unwrap(), Some(Published::Held));
        assert!(acting.commands.try_recv().is_err());
        acting.store.flush().unwrap();
        let now = acting.store.replica().clock().unix_millis();
        assert!(acting.store.replica().publication_due(&key()).unwrap() > Some(now + 21 * HOUR));
    }

    #[tokio::test]
    async fn what_is_sent_to_nobody_for_a_reason_is_skipped_and_none_is_due_after_the_end() {
        let (store, now) = (store(), Clock::default().unix_millis());
        let (held, gone) = (key(), RecordKey::new("Def", "Model", b"2").unwrap());
        let envelope = written_at(now - 24 * HOUR);
        store.replica().admit(held.as_bytes(), envelope.as_bytes()).unwrap();
        store.replica().schedule(&held, &envelope, Some(now));
        store.flush().unwrap();
        let (sender, mut commands) = mpsc::channel(10);
        let republisher = republisher(&store, &sender);
        let (meters, stop) = (Arc::clone(&republisher.meters), Arc::clone(&republisher.stop));
        assert_eq!(republisher.publish(gone).await, Some(Published::Passed));
        let running = platform::spawn(republisher.run());
        match commands.recv().await {
            Some(Command::IsHolder { reply, .. }) => crate::event_loop::command::answer(reply, Ok(true)),
            other => panic!("{other:?}"),
        }
        assert_ne!(meters.republish_due.get(), 0);
        stop.notify_one();
        running.await.unwrap();
        let counted: Vec<_> = meters.republished.read().collect();
        assert_eq!(counted, [("taken", 0), ("nobody", 0), ("skipped", 1)]);
        assert_eq!(meters.republish_due.get(), 0);
    }

    #[tokio::test]
    async fn the_holders_of_a_record_are_asked_for_it_where_its_author_is_none() {
        let mut acting = publish(24);
        acting.is_asked_whether_it_is_a_holder(false).await;
        assert!(matches!(acting.commands.recv().await, Some(Command::Health { repair: true, .. })));
    }

    #[tokio::test]
    async fn a_record_that_was_never_published_is_sent() {
        let mut acting = publish(0);
        assert!(matches!(acting.commands.recv().await, Some(Command::PutRecord { .. })));
    }
}

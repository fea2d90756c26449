//! Advertising of held records: one provider record for each model, and for each value of each
//! secondary key.
//!
//! A worker compares the held keys with the advertised ones, and advertises new keys a few at a
//! time. The store keeps the advertised keys, as everything that this node provides, and the worker
//! advertises them again before other nodes drop them: in rounds, whose progress is stored, too.
//! Keys that are no longer held are not advertised again, and other nodes drop them when their TTL
//! ends.
//! more, and others forget it when its time is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use libp2p::{PeerId, kad};
use netabase_store::schema::ModelSchema;
use netabase_store::{NetabaseStore, StoreError};
use tokio::sync::{Notify, mpsc};

use crate::error::NetabaseError;
use crate::event_loop::command::{Command, Commands, Reply};
use crate::ops::provide::{Provide, ProvideAction};
use crate::platform::{self, Instant, MissedTickBehavior, interval};
use crate::query::keys::{ProviderKey, shard_of};
use crate::query::limits::{MAX_LISTED_PROVIDERS, MAX_SHARD_DEPTH};
use crate::replication::limits::{
    ADVERTISE_CONCURRENCY, ADVERTISE_REST, ADVERTISE_TICK, KEYS_PER_TICK, LIST_ANSWERS, LIST_TIMEOUT,
    MAX_ADVERTISED_KEYS, MAX_ADVERTISED_VALUES, NEW_KEYS_PER_TICK,
};
use crate::swarm::{Deadline, Parts};

/// The store mark of a round's progress: its start, and the last key that was advertised.
const MARK: &str = "find/advertise";

/// The task that advertises held records until the swarm has stopped.
pub(crate) struct Advertiser {
    store: NetabaseStore,
    local: PeerId,
    /// A sender that does not keep the swarm running.
    commands: Commands,
    stop: Arc<Notify>,
    /// The time between two rounds.
    interval: Duration,
    call_timeout: Duration,
    /// The held keys, as far as they are advertised.
    held: BTreeSet<ProviderKey>,
    /// The store's number of commits when `held` was computed.
    seen_commits: Option<u64>,
    /// The time from which it may be computed again.
    rest_until: Instant,
    /// The times at which this run of the program has advertised a key.
    said: HashMap<ProviderKey, Instant>,
}

/// The progress of a round, which advertises all keys again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    /// The start, in milliseconds since the Unix epoch.
    began: u64,
    /// The last key that was advertised; `None` if all were.
    last: Option<ProviderKey>,
}

impl Advertiser {
    pub(crate) fn new(parts: &Parts, commands: Commands, stop: Arc<Notify>) -> Self {
        Self {
            store: parts.store.clone(),
            local: parts.identity.public().to_peer_id(),
            commands,
            stop,
            // Other nodes drop a key after the TTL; a third of it leaves time for failures.
            interval: parts.config.dht.provider_lifetime / 3,
            call_timeout: parts.config.call_timeout,
            held: BTreeSet::new(),
            seen_commits: None,
            rest_until: platform::now(),
            said: HashMap::new(),
        }
    }

    /// Runs the task. It is never cancelled in the middle, so that no read of the store outlives
    /// it.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(ADVERTISE_TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = Arc::clone(&self.stop);
        loop {
            tokio::select! {
                () = stop.notified() => return,
                _ = ticks.tick() => {}
            }
            match self.go_on().await {
                Ok(()) => {}
                Err(NetabaseError::Closed) => return,
                Err(error) => tracing::warn!(%error, "cannot advertise the held records"),
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), NetabaseError> {
        let peers = self.call(|reply| Command::View { reply }).await?.peers().len();
        // A client is in no peer's routing table.
        let mode = self.call(|reply| Command::Mode { reply }).await?;
        if peers == 0 || mode == kad::Mode::Client {
            return Ok(());
        }
        self.find_out().await?;
        self.withdraw().await?;
        let due = self.due();
        let may_be_full = peers >= MAX_LISTED_PROVIDERS;
        let said = stream::iter(due.clone())
            .map(|key| self.say(key, may_be_full))
            .buffer_unordered(ADVERTISE_CONCURRENCY)
            .collect::<Vec<_>>()
            .await;
        for key in said {
            if let Some(key) = key? {
                self.said.insert(key, platform::now());
            }
        }
        Ok(())
    }

    /// Computes the held keys, if there were writes.
    async fn find_out(&mut self) -> Result<(), NetabaseError> {
        let commits = self.store.replica().commits();
        if self.seen_commits == Some(commits) || platform::now() < self.rest_until {
            return Ok(());
        }
        let (store, began) = (self.store.clone(), platform::now());
        let held = platform::blocking(move || held(&store)).await;
        self.held = held.map_err(|error| StoreError::Backend(Arc::new(error)))??;
        self.seen_commits = Some(commits);
        self.rest_until = platform::now() + platform::since(began) * ADVERTISE_REST;
        Ok(())
    }

    /// Withdraws the keys that are no longer held.
    async fn withdraw(&mut self) -> Result<(), NetabaseError> {
        let mut kept = self.held.clone();
        kept.extend(self.held.iter().flat_map(|key| self.shards_of(*key)));
        for key in self.provided().difference(&kept) {
            let key = key.to_bytes();
            self.call(|reply| Command::StopProviding { key, reply }).await?;
        }
        let held = &self.held;
        self.said.retain(|key, _| held.contains(key));
        Ok(())
    }

    /// Returns the keys to advertise now: new ones, and then those that are due again, for which a
    /// part is reserved however many are new.
    fn due(&self) -> Vec<ProviderKey> {
        let provided = self.provided();
        let mut due: Vec<ProviderKey> =
            self.held.difference(&provided).copied().take(KEYS_PER_TICK).collect();
        let left = KEYS_PER_TICK - due.len().min(NEW_KEYS_PER_TICK);
        let (now, interval) = (self.store.replica().clock().unix_millis(), self.interval.as_millis());
        let interval = u64::try_from(interval).unwrap_or(u64::MAX);
        let mut round = self.round().unwrap_or(Round { began: now, last: None });
        if round.last.is_none() {
            if now < round.began.saturating_add(interval) {
                // A first round starts when the oldest advertisement is due again.
                self.set_round(round);
                return due;
            }
            round = Round { began: now, last: Some(ProviderKey::FIRST) };
        }
        let said_lately = |key: &ProviderKey| {
            self.said.get(key).is_some_and(|said| platform::since(*said) < self.interval / 2)
        };
        let after = |key: &&ProviderKey| round.last.is_some_and(|last| **key > last);
        let again: Vec<ProviderKey> = self.held.intersection(&provided).filter(after).copied().collect();
        let mut again = again.into_iter().filter(|key| !said_lately(key)).peekable();
        let batch: Vec<ProviderKey> = again.by_ref().take(left).collect();
        round.last = if again.peek().is_none() { None } else { batch.last().copied().or(round.last) };
        self.set_round(round);
        due.truncate(KEYS_PER_TICK - batch.len());
        due.extend(batch);
        due
    }

    /// Advertises a key, and the shards of its list that are due as well; returns the key if a peer
    /// was told.
    async fn say(&self, key: ProviderKey, may_be_full: bool) -> Result<Option<ProviderKey>, NetabaseError> {
        let mut provide = Provide::new(self.local, key, may_be_full);
        let (mut action, mut outcome) = (provide.begin(), Ok(Some(key)));
        loop {
            action = match action {
                ProvideAction::Read(list) => provide.on_list(self.is_full(list).await?),
                ProvideAction::Announce(list) => {
                    let key = list.to_bytes();
                    let told = self.call(|reply| Command::StartProviding { key, reply }).await;
                    let to_anybody = matches!(told, Ok(true));
                    match told {
                        Ok(true) => {}
                        Ok(false) | Err(NetabaseError::Provider(_) | NetabaseError::Timeout { .. }) => {
                            outcome = Ok(None);
                        }
                        Err(error) => outcome = Err(error),
                    }
                    provide.on_announced(to_anybody)
                }
                ProvideAction::Withdraw(list) => {
                    let key = list.to_bytes();
                    self.call(|reply| Command::StopProviding { key, reply }).await?;
                    return outcome;
                }
                ProvideAction::Finish => return outcome,
            };
        }
    }

    /// Returns whether a list has so many other peers that it may have no space for this node.
    async fn is_full(&self, key: ProviderKey) -> Result<bool, NetabaseError> {
        let (providers, mut answers) = mpsc::channel(LIST_ANSWERS);
        self.commands.send(Command::LookUpProviders { key: key.to_bytes(), providers }).await?;
        let (mut others, deadline) = (BTreeSet::new(), platform::now() + LIST_TIMEOUT);
        while let Ok(Some(answer)) = platform::timeout_at(deadline, answers.recv()).await {
            others.extend(answer.into_iter().filter(|peer| *peer != self.local));
            if others.len() >= MAX_LISTED_PROVIDERS {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the shards under which this node may be found instead of a full list.
    fn shards_of(&self, key: ProviderKey) -> Vec<ProviderKey> {
        let shard = |name: &mut ProviderKey, depth| {
            *name = name.shard(shard_of(self.local, depth));
            Some(*name)
        };
        (0..MAX_SHARD_DEPTH).scan(key, shard).collect()
    }

    /// Returns the keys that are advertised and not withdrawn.
    fn provided(&self) -> BTreeSet<ProviderKey> {
        let provided = self.store.replica().provided_by(&self.local);
        provided.iter().filter_map(|key| ProviderKey::parse(key)).collect()
    }

    fn round(&self) -> Option<Round> {
        let bytes = self.store.replica().mark(MARK)?;
        let (began, last) = bytes.split_first_chunk()?;
        let last = if last.is_empty() { None } else { Some(ProviderKey::parse(last)?) };
        Some(Round { began: u64::from_be_bytes(*began), last })
    }

    fn set_round(&self, round: Round) {
        if self.round() == Some(round) {
            return;
        }
        let last = round.last.map(ProviderKey::to_bytes).unwrap_or_default();
        if let Err(error) =
            self.store.replica().set_mark(MARK, &[&round.began.to_be_bytes()[..], &last].concat())
        {
            tracing::warn!(%error, "cannot store the progress of a round of announcements");
        }
    }

    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, NetabaseError> {
        Deadline::after(self.call_timeout).limit(self.commands.call(command)).await
    }
}

/// Returns the keys of everything that a store holds.
fn held(store: &NetabaseStore) -> Result<BTreeSet<ProviderKey>, StoreError> {
    let mut held = BTreeSet::new();
    let Some(schema) = store.schema() else { return Ok(held) };
    let models: Vec<&ModelSchema> = schema.models.to_vec();
    for model in models {
        if !store.replica().has_records(model.name)? {
            continue;
        }
        held.insert(ProviderKey::of_model(schema.name, model));
        for index in model.indexes {
            let values = store.replica().index_values(model.name, index.name, MAX_ADVERTISED_VALUES + 1)?;
            if values.len() > MAX_ADVERTISED_VALUES || held.len() + values.len() > MAX_ADVERTISED_KEYS {
                held.insert(ProviderKey::of_unlisted(schema.name, model, index.name));
            } else {
                let key = |value: &Vec<u8>| ProviderKey::of_value(schema.name, model, index.name, value);
                held.extend(values.iter().map(key));
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use libp2p::kad::ProviderRecord;
    use libp2p::kad::store::RecordStore;
    use netabase_store::{Clock, StorageBackend, StoreOptions};
    use parking_lot::Mutex;

    use super::*;
    use crate::event_loop::command::answer;
    use crate::query::holders::{Holders, look_up};
    use crate::query::limits::MAX_HOLDERS;

    const HOUR: u64 = 60 * 60 * 1000;

    fn store(clock: &Clock) -> NetabaseStore {
        let options =
            StoreOptions { backend: StorageBackend::Memory, clock: clock.clone(), ..StoreOptions::default() };
        NetabaseStore::open_with("", None, options).unwrap()
    }

    fn begun(store: &NetabaseStore, local: PeerId, commands: &mpsc::Sender<Command>) -> Advertiser {
        Advertiser {
            store: store.clone(),
            local,
            commands: Commands::new(commands),
            stop: Arc::default(),
            interval: Duration::from_millis(16 * HOUR),
            call_timeout: Duration::from_secs(60),
            held: BTreeSet::new(),
            seen_commits: None,
            rest_until: platform::now(),
            said: HashMap::new(),
        }
    }

    /// The lists of a distributed hash table, none of which exceeds its limit.
    type Lists = Arc<Mutex<HashMap<Vec<u8>, BTreeSet<PeerId>>>>;

    /// Answers commands as the event loop of `local` would.
    fn table(lists: &Lists, local: PeerId) -> mpsc::Sender<Command> {
        let (sender, mut commands) = mpsc::channel(10);
        let lists = Arc::clone(lists);
        platform::spawn(async move {
            while let Some(command) = commands.recv().await {
                match command {
                    Command::StartProviding { key, reply } => {
                        let mut lists = lists.lock();
                        let list = lists.entry(key).or_default();
                        if list.len() < MAX_LISTED_PROVIDERS {
                            list.insert(local);
                        }
                        answer(reply, Ok(true));
                    }
                    Command::LookUpProviders { key, providers } => {
                        let list = lists.lock().get(&key).cloned().unwrap_or_default();
                        providers.try_send(list.into_iter().collect()).unwrap();
                    }
                    command => panic!("not expected: {command:?}"),
                }
            }
        });
        sender
    }

    /// Advertises the same key by `count` peers, and looks them up.
    async fn found_of(count: usize) -> (BTreeSet<PeerId>, Holders) {
        let (lists, clock) = (Lists::default(), Clock::default());
        let (store, key) = (store(&clock), ProviderKey::FIRST);
        let mut peers = BTreeSet::new();
        for _ in 0..count {
            let local = PeerId::random();
            peers.insert(local);
            let commands = table(&lists, local);
            assert_eq!(begun(&store, local, &commands).say(key, true).await.unwrap(), Some(key));
        }
        let commands = table(&lists, PeerId::random());
        let found = look_up(&Commands::new(&commands), vec![key]).await;
        (peers, found)
    }

    #[tokio::test]
    async fn holders_of_what_many_hold_are_found_in_the_shards_of_full_lists() {
        let (peers, found) = found_of(200).await;
        assert_eq!((found.peers.into_iter().collect::<BTreeSet<_>>(), found.is_complete), (peers, true));
    }

    #[tokio::test]
    async fn so_many_holders_that_not_all_are_looked_for_are_said_to_be() {
        let (peers, found) = found_of(1000).await;
        assert_eq!((found.peers.len(), found.is_complete), (MAX_HOLDERS, false));
        assert!(found.peers.iter().all(|peer| peers.contains(peer)));
    }

    #[tokio::test]
    async fn what_is_held_is_said_a_few_keys_at_a_time_and_not_again_before_it_is_due() {
        let time = Arc::new(AtomicU64::new(1000 * HOUR));
        let now = Arc::clone(&time);
        let clock = Clock::from_fn(move || now.load(Ordering::Relaxed));
        let (mut store, local) = (store(&clock), PeerId::random());
        let (commands, _loop) = mpsc::channel(1);
        let mut advertiser = begun(&store, local, &commands);
        advertiser.held = (0..40).map(|shard| ProviderKey::FIRST.shard(shard)).collect();
        let mut say = |advertiser: &mut Advertiser| {
            let due = advertiser.due();
            for key in &due {
                store.add_provider(ProviderRecord::new(key.to_bytes(), local, Vec::new())).unwrap();
            }
            due
        };
        let first: Vec<usize> = (0..4).map(|_| say(&mut advertiser).len()).collect();
        assert_eq!(first, [16, 16, 8, 0]);
        time.fetch_add(15 * HOUR, Ordering::Relaxed);
        assert_eq!(say(&mut advertiser), []);

        // A restarted program continues where the previous one was.
        time.fetch_add(HOUR, Ordering::Relaxed);
        let mut again = say(&mut advertiser);
        let mut restarted = begun(&advertiser.store, local, &commands);
        restarted.held.clone_from(&advertiser.held);
        again.extend((0..4).flat_map(|_| say(&mut restarted)));
        assert_eq!(again, advertiser.held.into_iter().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_is_held_is_said_again_in_time_while_more_is_new_than_can_be_said() {
        let time = Arc::new(AtomicU64::new(1000 * HOUR));
        let now = Arc::clone(&time);
        let (mut store, local) =
            (store(&Clock::from_fn(move || now.load(Ordering::Relaxed))), PeerId::random());
        let (commands, _loop) = mpsc::channel(1);
        let mut advertiser = begun(&store, local, &commands);
        let old: Vec<ProviderKey> = (0..8).map(|shard| ProviderKey::FIRST.shard(shard)).collect();
        let mut say = |advertiser: &mut Advertiser| {
            let due = advertiser.due();
            for key in &due {
                store.add_provider(ProviderRecord::new(key.to_bytes(), local, Vec::new())).unwrap();
                advertiser.said.insert(*key, platform::now());
            }
            due
        };
        advertiser.held = old.iter().copied().collect();
        assert_eq!(say(&mut advertiser).len(), 8);
        time.fetch_add(16 * HOUR, Ordering::Relaxed);
        advertiser.said.clear();
        // Each tick has as many new keys as it can advertise.
        let mut again = BTreeSet::new();
        for tick in 0..2 {
            advertiser.held.extend((0..16).map(|shard| old[tick].shard(shard)));
            let due = say(&mut advertiser);
            assert_eq!(due.len(), KEYS_PER_TICK);
            let (renewed, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|key| old.contains(key));
            assert_eq!(new.len(), NEW_KEYS_PER_TICK);
            again.extend(renewed);
        }
        assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), old.into_iter().collect());
    }
}

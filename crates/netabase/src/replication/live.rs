//! Live changes: local versions reach the peers that watch them at once, and versions of peers
//! reach this node.
//!
//! Changes travel by gossipsub, on a [topic] for each model and for each value of a secondary key.
//! This module has the state that outlives a swarm and that the store's observer and watches share:
//! the watched scopes, the topics of peers, and the versions that wait for publication. The
//! [exchange] is the network's part.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashlink::LruCache;
use libp2p::gossipsub::TopicHash;
use netabase_store::schema::DefinitionSchema;
use netabase_store::{Envelope, RecordKey, Scope, ScopePart, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) mod behaviour;
pub(crate) mod exchange;
mod judge;
pub(crate) mod limits;
mod overrun;
mod publish;
mod rates;
pub(crate) mod topic;

pub(crate) use overrun::Overrun;
use topic::topic_of;

use crate::replication::live::limits::{
    MAX_PUBLISHED, MAX_TOPICS, MAX_VALUE_TOPICS, MAX_WAITING_BYTES, MAX_WAITING_VERSIONS,
};

/// The watched scopes and the versions to publish, whether a swarm runs or not.
#[derive(Clone)]
pub(crate) struct Live(Arc<Shared>);

struct Shared {
    /// The network's name.
    network: Arc<str>,
    schema: &'static DefinitionSchema,
    state: Mutex<State>,
    /// Notifies the event loop of versions to publish, or of changed topics.
    news: Notify,
    counters: Counters,
    overrun: Overrun,
}

struct State {
    /// The number of watches of each scope.
    followed: HashMap<Scope, usize>,
    /// The topics of connected peers, with the number of peers that subscribe to each.
    wanted: HashMap<TopicHash, usize>,
    waiting: VecDeque<Announcement>,
    waiting_bytes: usize,
    /// The topics with subscribers on which a version was not published since they were last taken.
    unpublished: HashSet<TopicHash>,
    /// The topics on which versions of this program were published.
    published: LruCache<(RecordKey, Timestamp), Vec<TopicHash>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            followed: HashMap::new(),
            wanted: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            unpublished: HashSet::new(),
            published: LruCache::new(MAX_PUBLISHED),
        }
    }
}

/// A version that waits for publication.
#[derive(Debug)]
struct Announcement {
    key: RecordKey,
    envelope: Envelope,
    topics: Vec<TopicHash>,
}

impl Announcement {
    fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.envelope.as_bytes().len()
    }
}

/// The counters since the database was opened.
#[derive(Debug, Default)]
struct Counters {
    published: AtomicU64,
    unpublished: AtomicU64,
    unsent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    accepted: AtomicU64,
    ignored: AtomicU64,
    rejected: AtomicU64,
    fetched: AtomicU64,
}

/// The numbers of live messages since the database was opened; see
/// [`Netabase::live_stats`](crate::Node::live_stats).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveStats {
    /// Versions that were published, once for each topic.
    pub published: u64,
    /// Versions that were not published, since too many were waiting or being sent. Peers find them
    /// by sync.
    pub unpublished: u64,
    /// Messages that a subscriber of their topic was not sent, since its queue was full.
    pub unsent: u64,
    /// Messages that peers have sent, repetitions included.
    pub received: u64,
    /// Received messages that were dropped unseen: on a topic that this node does not subscribe to,
    /// or above a limit. After drops above a limit this node compares the scopes that it replicates
    /// at once.
    pub dropped: u64,
    /// Messages whose records were valid, and that were forwarded.
    pub accepted: u64,
    /// Messages that were not forwarded and do not count against the peer, such as those with old
    /// versions.
    pub ignored: u64,
    /// Messages that no honest peer forwards.
    pub rejected: u64,
    /// Records that were too large for a message and were fetched.
    pub fetched: u64,
}

impl Counters {
    fn read(&self) -> LiveStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LiveStats {
            published: read(&self.published),
            unpublished: read(&self.unpublished),
            unsent: read(&self.unsent),
            received: read(&self.received),
            dropped: read(&self.dropped),
            accepted: read(&self.accepted),
            ignored: read(&self.ignored),
            rejected: read(&self.rejected),
            fetched: read(&self.fetched),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Live {
    pub(crate) fn new(network: Arc<str>, schema: &'static DefinitionSchema) -> Self {
        let (state, news) = (Mutex::new(State::default()), Notify::new());
        let (counters, overrun) = Default::default();
        Self(Arc::new(Shared { network, schema, state, news, counters, overrun }))
    }

    /// Returns the peers whose changes were lost.
    pub(crate) fn overrun(&self) -> &Overrun {
        &self.0.overrun
    }

    pub(crate) fn stats(&self) -> LiveStats {
        self.0.counters.read()
    }

    /// Follows a scope until the returned guard is dropped.
    pub(crate) fn follow(&self, scope: Scope) -> Following {
        let mut state = self.0.state.lock();
        let count = state.followed.entry(scope.clone()).or_default();
        *count += 1;
        if *count == 1 {
            self.0.news.notify_one();
        }
        drop(state);
        Following { live: self.clone(), scope }
    }

    fn leave(&self, scope: &Scope) {
        let mut state = self.0.state.lock();
        if let Some(count) = state.followed.get_mut(scope) {
            *count -= 1;
            if *count == 0 {
                state.followed.remove(scope);
                self.0.news.notify_one();
            }
        }
    }

    /// Queues a version that this program has written in place of `previous`, for the topics that
    /// have subscribers and on which it was not published yet.
    ///
    /// Never blocks. A version above the limits is not published.
    pub(crate) fn announce(&self, key: &RecordKey, envelope: &Envelope, previous: Option<&Envelope>) {
        if !self.is_wanted() || !envelope.is_signed() {
            return;
        }
        let Some(timestamp) = envelope.timestamp() else { return };
        let versions = [Some(envelope), previous].into_iter().flatten();
        let scopes: BTreeSet<Scope> =
            versions.flat_map(|version| Scope::of_record(self.0.schema, key, version)).collect();
        let topics: Vec<TopicHash> = scopes.iter().map(|scope| self.topic(scope)).collect();
        let mut state = self.0.state.lock();
        let known = state.published.peek(&(key.clone(), timestamp)).cloned().unwrap_or_default();
        let is_news = |topic: &TopicHash| state.wanted.contains_key(topic) && !known.contains(topic);
        let topics: Vec<TopicHash> = topics.into_iter().filter(is_news).collect();
        if topics.is_empty() {
            return;
        }
        let announcement = Announcement { key: key.clone(), envelope: envelope.to_wire(), topics };
        let bytes = announcement.bytes();
        let is_full = state.waiting.len() >= MAX_WAITING_VERSIONS
            || state.waiting_bytes.saturating_add(bytes) > MAX_WAITING_BYTES;
        if is_full && !state.waiting.is_empty() {
            count(&self.0.counters.unpublished);
            // The event loop is about to take the queue.
            state.unpublished.extend(announcement.topics);
            return;
        }
        let published = known.into_iter().chain(announcement.topics.iter().cloned()).collect();
        state.published.insert((key.clone(), timestamp), published);
        state.waiting_bytes += bytes;
        state.waiting.push_back(announcement);
        drop(state);
        self.0.news.notify_one();
    }

    /// Returns whether a peer has subscribed to any topic.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.state.lock().wanted.is_empty()
    }

    /// Takes the versions to publish.
    fn take_waiting(&self) -> VecDeque<Announcement> {
        let mut state = self.0.state.lock();
        state.waiting_bytes = 0;
        std::mem::take(&mut state.waiting)
    }

    /// Takes the topics on which a version was not published.
    fn take_unpublished(&self) -> HashSet<TopicHash> {
        std::mem::take(&mut self.0.state.lock().unpublished)
    }

    /// Records the subscription of a connected peer.
    fn want(&self, topic: TopicHash) {
        *self.0.state.lock().wanted.entry(topic).or_default() += 1;
    }

    /// Records that a peer has disconnected or left topics. Without subscribers nothing is
    /// published.
    fn want_no_more<'a>(&self, topics: impl IntoIterator<Item = &'a TopicHash>) {
        let mut state = self.0.state.lock();
        for topic in topics {
            if let Some(count) = state.wanted.get_mut(topic) {
                *count -= 1;
                if *count == 0 {
                    state.wanted.remove(topic);
                    state.unpublished.remove(topic);
                }
            }
        }
        if state.wanted.is_empty() {
            state.waiting.clear();
            state.waiting_bytes = 0;
        }
    }

    /// Records that no peer is connected.
    fn want_nothing(&self) {
        let mut state = self.0.state.lock();
        state.wanted.clear();
        state.unpublished.clear();
        state.waiting.clear();
        state.waiting_bytes = 0;
    }

    /// Waits until there are versions to publish, or the topics have changed. This method is cancel
    /// safe.
    async fn changed(&self) {
        self.0.news.notified().await;
    }

    /// Returns whether a followed scope contains one of `scopes`.
    fn covers(&self, scopes: &[Scope]) -> bool {
        let state = self.0.state.lock();
        let all = scopes.first().map(|scope| {
            let definition = scope.definition.clone();
            Scope { definition, part: ScopePart::All }
        });
        all.iter().chain(scopes).any(|scope| state.followed.contains_key(scope))
    }

    /// Returns the topics of the followed scopes.
    fn topics(&self) -> HashSet<TopicHash> {
        let mut models: BTreeSet<Scope> = BTreeSet::new();
        let mut values: HashMap<Scope, Vec<Scope>> = HashMap::new();
        for scope in self.0.state.lock().followed.keys() {
            match &scope.part {
                ScopePart::All => models.extend(self.0.schema.models.iter().map(|model| Scope {
                    definition: scope.definition.clone(),
                    part: ScopePart::Model(model.name.to_owned()),
                })),
                ScopePart::Model(_) => {
                    models.insert(scope.clone());
                }
                ScopePart::Value { model, .. } => {
                    let definition = scope.definition.clone();
                    let model = Scope { definition, part: ScopePart::Model(model.clone()) };
                    values.entry(model).or_default().push(scope.clone());
                }
            }
        }
        let count: usize = values.values().map(Vec::len).sum();
        for (model, values) in &values {
            if values.len() > MAX_VALUE_TOPICS || count > MAX_TOPICS {
                models.insert(model.clone());
            }
        }
        // The topic of a model has all of its records, so those of its values are not needed.
        let values = values.into_iter().filter(|(model, _)| !models.contains(model));
        let values: Vec<Scope> = values.flat_map(|(_, values)| values).collect();
        models.iter().chain(&values).take(MAX_TOPICS).map(|scope| self.topic(scope)).collect()
    }

    fn topic(&self, scope: &Scope) -> TopicHash {
        topic_of(&self.0.network, self.0.schema, scope)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// A guard that keeps a scope followed.
#[derive(Debug)]
pub(crate) struct Following {
    live: Live,
    scope: Scope,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.live.leave(&self.scope);
    }
}

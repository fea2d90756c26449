//! The untyped handle, for programs that learn their models at run time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use netabase_store::changes::StoreEvent;
use netabase_store::members::{MemberList, SignedMembers};
use netabase_store::replica::Discarded;
use netabase_store::schema::{DefinitionSchema, EncodedRecord};
use netabase_store::{
    Author, ChangeKind, Envelope, NetabaseStore, OpenError, Origin, RecordKey, Scope, StorageBackend,
    StoreError, StoreOptions, Version, WriteError, WriterMode,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, broadcast, oneshot};
use tracing::Instrument;

use crate::blobs::Blobs;
use crate::blobs::limits::WINDOW_GROUPS;
use crate::config::{DhtMode, NetabaseConfig};
use crate::connection::processor::Processor;
use crate::dht::known_peers;
use crate::error::{NetabaseError, file_error};
use crate::event::{Events, NetabaseSwarmEvent, RecordEvent};
use crate::event_loop::command::{Command, OnNewer, Publication, PutTerms, Reading};
use crate::identity::{self, Identity, Loaded};
use crate::limits::{CONFIRM_TIMEOUT, EVENT_CAPACITY, HOLDER_TIMEOUT};
use crate::outcome::{
    Consistency, GetOptions, Health, PutOptions, ReadOutcome, ReadSource, WriteOutcome, system_time,
};
use crate::peers::authors::AuthorRates;
use crate::peers::connections::ConnectionInfo;
use crate::peers::other_roots::{OtherRoot, OtherRoots};
use crate::peers::presence::Presence;
use crate::peers::score::{PeerReport, PeerScores};
use crate::peers::standing::{Standing, Standings};
use crate::platform::{self, files};
use crate::query::FoundPages;
use crate::replication::live::{Live, LiveStats};
use crate::replication::repair::RepairReport;
use crate::replication::repair::backlog::Backlog;
use crate::replication::republish::overdue;
use crate::replication::sync::{ReplicateOptions, Replication, Replications};
use crate::swarm::{Deadline, Parts, RunningSwarm};
use crate::telemetry::metrics::{Call, Metrics};
use crate::telemetry::trace::{Trace, Traces};
use crate::update::UpdateTurns;

/// The untyped handle of a database and its swarm: records are bytes under a [`RecordKey`], of the
/// models of a [`DefinitionSchema`].
///
/// [`Netabase`](crate::Netabase) dereferences to a `Node`, so every method here can be called on
/// it; [`Netabase::node`](crate::Netabase::node) returns the `Node`. A program that learns its
/// models at run time opens a `Node` directly.
///
/// Cloning is cheap, and clones share the database and the swarm; both close soon after the last
/// clone is dropped. Async methods must be called inside a tokio runtime; cancelling one never
/// cancels the operation that it has started.
///
/// ```
/// use netabase::netabase_store::NetabaseDefinition;
/// use netabase::netabase_store::schema::EncodedRecord;
/// use netabase::{GetOptions, NetabaseConfig, Node, PutOptions, StoreOptions, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message { #[primary_key] pub id: String, pub text: String }
/// # }
/// # use chat::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::NetabaseError> {
/// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
/// let node = Node::open(ChatDefinition::SCHEMA, config)?;
/// let Some(model) = node.schema().model("Message") else { return Ok(()) };
/// let message: EncodedRecord = model.codec.from_json(1, r#"{"id":"42","text":"hello"}"#)?;
/// let key = node.key_of(&message)?;
/// node.put(message, PutOptions::default()).await?;
///
/// let found = node.get(&key, GetOptions::default()).await?;
/// let Some(envelope) = found.record else { return Ok(()) };
/// assert_eq!(model.codec.to_json(envelope.payload())?, r#"{"id":"42","text":"hello"}"#);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

/// The state that all clones share.
pub(crate) struct Inner {
    pub(crate) parts: Parts,
    swarm: Mutex<Option<Arc<RunningSwarm>>>,
    /// Serializes starts and stops of the swarm.
    lifecycle: AsyncMutex<()>,
    pub(crate) update_turns: UpdateTurns,
    schema: &'static DefinitionSchema,
    /// The path of the database, or `None` if it is in memory.
    database_path: Option<PathBuf>,
    identity_change: Option<IdentityChange>,
}

/// A change of the identity that a database is opened with; see [`Node::identity_change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityChange {
    /// The author at the previous opening, or `None` if the database does not record one.
    pub former: Option<Author>,
}

/// Starting and stopping the swarm run in tasks of their own, so that a cancelled call does not
/// leave the operation half done.
impl Inner {
    /// Returns the swarm, if it is running.
    pub(crate) fn running(&self) -> Result<Arc<RunningSwarm>, NetabaseError> {
        self.swarm.lock().clone().ok_or(NetabaseError::NotRunning)
    }

    async fn start(&self) -> Result<(), NetabaseError> {
        let _lifecycle = self.lifecycle.lock().await;
        let running = self.swarm.lock().as_ref().is_some_and(|swarm| !swarm.is_finished());
        if !running {
            let swarm = RunningSwarm::start(self.parts.clone()).await?;
            *self.swarm.lock() = Some(Arc::new(swarm));
        }
        Ok(())
    }

    async fn stop(&self) {
        let _lifecycle = self.lifecycle.lock().await;
        let swarm = self.swarm.lock().take();
        if let Some(swarm) = swarm {
            swarm.stop().await;
        }
    }
}

impl Node {
    /// Opens or creates a database of the models of `schema` with the settings in `config`.
    ///
    /// Blocks until the database is open; in an async function use `spawn_blocking`.
    ///
    /// Fails if the configuration is invalid, or if the database is open elsewhere, damaged, or
    /// holds another definition.
    pub fn open(schema: &'static DefinitionSchema, config: NetabaseConfig) -> Result<Self, NetabaseError> {
        config.validate()?;
        let database_path = database_path(schema, &config);
        if let (StorageBackend::Redb | StorageBackend::Sled, None, Some(directory)) =
            (config.store.backend, &config.database_path, &config.directory)
        {
            create_directory(directory)?;
        }
        let Opened { store, identity, identity_change } =
            open_store(schema, &config, database_path.as_deref())?;
        let (events, _) = broadcast::channel(EVENT_CAPACITY);
        let (members_news, traces) = (Arc::new(Notify::new()), Traces::default());
        let found_pages = FoundPages::default();
        let network: Arc<str> = config.network.as_deref().unwrap_or(schema.name).into();
        let live = Live::new(Arc::clone(&network), schema);
        let scores = PeerScores::default();
        let replications = Replications::default();
        let backlog = Backlog::default();
        let metrics = Metrics::new(&store, &live, &scores, &replications);
        store.set_observer({
            let (events, members_news) = (events.clone(), Arc::clone(&members_news));
            let found_pages = found_pages.clone();
            let (traces, clock) = (traces.clone(), store.replica().clock().clone());
            // `metrics` itself would keep the store open.
            let (live, meters) = (live.clone(), Arc::clone(metrics.meters()));
            let backlog = backlog.clone();
            let members_key = store.replica().members_key().cloned();
            move |event| {
                traces.observe(clock.unix_millis(), &event);
                found_pages.observe(&event);
                announce(&live, &event);
                backlog.observe(&event);
                meters.observe(&event);
                let event = translate(event, members_key.as_ref());
                if matches!(event, NetabaseSwarmEvent::MembersChanged(_)) {
                    members_news.notify_one();
                }
                // Sending fails only without subscribers.
                let _ = events.send(event);
            }
        });
        let root = config.store.root;
        let beside = config.database_path.as_deref().or(database_path.as_deref());
        let parts = Parts {
            network,
            known_peers: beside.map(|path| known_peers::path_beside(path).into()),
            author_rates: AuthorRates::new(&config),
            config: Arc::new(config),
            scores,
            processor: Processor::new(),
            other_roots: OtherRoots::new(root),
            standings: Standings::default(),
            identity,
            store,
            events,
            traces,
            live,
            metrics,
            members_news,
            found_pages,
            blob_window: Arc::new(Semaphore::new(WINDOW_GROUPS)),
            replications,
            backlog,
            presence: Presence::default(),
        };
        let inner = Inner {
            parts,
            schema,
            swarm: Mutex::default(),
            lifecycle: AsyncMutex::default(),
            update_turns: UpdateTurns::new(),
            database_path,
            identity_change,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the schema of the definition.
    pub fn schema(&self) -> &'static DefinitionSchema {
        self.inner.schema
    }

    /// Returns the key of a record of this node's definition.
    pub fn key_of(&self, record: &EncodedRecord) -> Result<RecordKey, NetabaseError> {
        Ok(record.model.record_key(self.schema().name, &record.keys.primary)?)
    }

    /// Starts the swarm, and returns when it listens. Does nothing if the swarm is running.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time and I/O enabled.
    pub async fn start_swarm(&self) -> Result<(), NetabaseError> {
        let inner = Arc::clone(&self.inner);
        platform::spawn(async move { inner.start().await }).await.map_err(NetabaseError::task)?
    }

    /// Stops the swarm; calls in flight end with [`NetabaseError::Closed`]. The database stays
    /// open, and the swarm can be started again. Does nothing if the swarm is not running.
    pub async fn stop_swarm(&self) -> Result<(), NetabaseError> {
        let inner = Arc::clone(&self.inner);
        platform::spawn(async move { inner.stop().await }).await.map_err(NetabaseError::task)
    }

    /// Returns the change of identity if the database was opened with another identity than the
    /// last time, such as a new one because the identity file was missing.
    ///
    /// Records that the former identity has signed stay valid. This node can no longer change the
    /// records of owned models that the former identity wrote, and those records count as another
    /// author's. To undo the change, restore the identity file and open the database again.
    pub fn identity_change(&self) -> Option<IdentityChange> {
        self.inner.identity_change
    }

    /// Returns this node's peer id, which is the same at every start.
    pub fn local_peer_id(&self) -> PeerId {
        self.inner.parts.identity.public().to_peer_id()
    }

    /// Returns the addresses that the swarm listens on, or none if the swarm is not running.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.inner.swarm.lock().as_ref().map(|swarm| swarm.listen_addresses()).unwrap_or_default()
    }

    /// Returns the path of the database, or `None` if it is in memory.
    pub fn database_path(&self) -> Option<&Path> {
        self.inner.database_path.as_deref()
    }

    /// Returns the settings that the database was opened with.
    pub fn config(&self) -> &NetabaseConfig {
        &self.inner.parts.config
    }

    /// Returns the local store, for typed trees, secondary keys and transactions.
    ///
    /// Records that are written through the store are signed and shared like any other, within a
    /// minute.
    pub fn store(&self) -> &NetabaseStore {
        &self.inner.parts.store
    }

    /// Returns the handle of large values, local and remote.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(Arc::clone(&self.inner))
    }

    /// Subscribes to all events from now on, whether the swarm is running or not.
    pub fn subscribe_to_broadcasts(&self) -> Events {
        Events::new(self.inner.parts.events.subscribe(), Arc::clone(self.metrics().meters()))
    }

    /// Returns the metrics of this node.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.parts.metrics
    }

    /// Returns the number of live messages since the database was opened.
    pub fn live_stats(&self) -> LiveStats {
        self.inner.parts.live.stats()
    }

    /// Stores a record here and at the closest peers, replacing any earlier version.
    ///
    /// [`Netabase::put_record_with`](crate::Netabase::put_record_with) documents the outcome and
    /// the errors.
    pub async fn put(
        &self,
        record: EncodedRecord,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let model = record.model.name;
        self.metrics().call(Call::Put, model, self.put_now(record, options), |_| "ok").await
    }

    async fn put_now(
        &self,
        record: EncodedRecord,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        if let Some(expected) = options.expected {
            let (done, durable) = oneshot::channel();
            let key =
                self.store().replica().submit_if(&record, options.lifetime, expected, answer_to(done))?;
            return self.write_if(key, durable, options).await;
        }
        let key = self.key_of(&record)?;
        let previous = self.previous(&key)?;
        let (done, durable) = oneshot::channel();
        let (key, envelope) =
            self.store().replica().submit_with(&record, options.lifetime, move |result| {
                // The caller may have cancelled the call.
                let _ = done.send(result);
            })?;
        self.announce(&key, &envelope, previous.as_ref());
        self.write(key, envelope, durable, options).await
    }

    /// Removes a record here and at every peer by writing a signed tombstone. Returns `None`, and
    /// writes nothing, if there is no such record.
    ///
    /// [`Netabase::remove_record_with`](crate::Netabase::remove_record_with) documents the details.
    pub async fn remove(
        &self,
        key: RecordKey,
        options: PutOptions,
    ) -> Result<Option<WriteOutcome>, NetabaseError> {
        let model = key.model().to_owned();
        let found = |outcome: &Option<_>| if outcome.is_some() { "ok" } else { "missing" };
        self.metrics().call(Call::Remove, &model, self.remove_now(key, options), found).await
    }

    async fn remove_now(
        &self,
        key: RecordKey,
        options: PutOptions,
    ) -> Result<Option<WriteOutcome>, NetabaseError> {
        if let Some(expected) = options.expected {
            let (done, durable) = oneshot::channel();
            let key = self.store().replica().submit_removal_if(&key, expected, answer_to(done))?;
            return self.write_if(key, durable, options).await.map(Some);
        }
        let previous = self.previous(&key)?;
        let (done, durable) = oneshot::channel();
        if let Some(tombstone) = self.store().replica().submit_removal(&key, answer_to(done))? {
            self.announce(&key, &tombstone, previous.as_ref());
            return self.write(key, tombstone, durable, options).await.map(Some);
        }
        // A record that only peers have can be removed, too. A local tombstone needs no
        // confirmation.
        let asked = GetOptions { consistency: Consistency::LocalFirst, timeout: options.timeout };
        let Some(found) = self.read(&key, asked).await?.record else { return Ok(None) };
        let (done, durable) = oneshot::channel();
        let tombstone = self.store().replica().submit_removal_after(&key, &found, answer_to(done))?;
        self.announce(&key, &tombstone, Some(&found));
        self.write(key, tombstone, durable, options).await.map(Some)
    }

    /// Reads the record under `key` with `options`, and returns its source and the peers' answers,
    /// too.
    ///
    /// Contributions to a merged record are joined. With [`Consistency::All`] the call returns what
    /// it has found when its timeout passes. It fails with [`NetabaseError::Timeout`] if it has
    /// found no peers by then.
    pub async fn get(
        &self,
        key: &RecordKey,
        options: GetOptions,
    ) -> Result<ReadOutcome<Envelope>, NetabaseError> {
        self.metrics().call(Call::Get, key.model(), self.read(key, options), found_where).await
    }

    pub(crate) async fn read(
        &self,
        key: &RecordKey,
        options: GetOptions,
    ) -> Result<ReadOutcome<Envelope>, NetabaseError> {
        // An expired local version may supersede the copies of peers.
        let before = self.store().replica().version_for_peers(key)?;
        let unconfirmed = !self.is_current();
        let swarm = match options.consistency {
            Consistency::Local => None,
            Consistency::LocalFirst if before.is_some() => {
                return self.confirm(key, before, options, unconfirmed).await;
            }
            Consistency::LocalFirst => self.running().ok(),
            Consistency::Newest | Consistency::All => Some(self.running()?),
        };
        let Some(swarm) = swarm else {
            // A damaged local version is an error if no peer is asked.
            let before = if before.is_none() { self.store().envelope(key)? } else { before };
            return Ok(self.outcome(before, Reading::default(), unconfirmed));
        };
        let deadline = swarm.deadline(options.timeout);
        self.read_from_peers(key, before, &swarm, deadline, options.consistency).await
    }

    /// Reads the local version, and asks peers for a newer one if this node was away.
    async fn confirm(
        &self,
        key: &RecordKey,
        here: Option<Envelope>,
        options: GetOptions,
        unconfirmed: bool,
    ) -> Result<ReadOutcome<Envelope>, NetabaseError> {
        let swarm =
            self.running().ok().filter(|_| unconfirmed && self.metrics().meters().connected_peers.get() > 0);
        if let Some(swarm) = swarm {
            let patience = options.timeout.map_or(CONFIRM_TIMEOUT, |timeout| timeout.min(CONFIRM_TIMEOUT));
            let deadline = swarm.deadline(Some(patience));
            let read = self.read_from_peers(key, here.clone(), &swarm, deadline, options.consistency).await;
            if let Ok(outcome) = read
                && !outcome.peers.is_empty()
            {
                return Ok(outcome);
            }
        }
        // The node may have become current meanwhile.
        let here = if unconfirmed { self.store().replica().version_for_peers(key)? } else { here };
        Ok(self.outcome(here, Reading::default(), !self.is_current()))
    }

    async fn read_from_peers(
        &self,
        key: &RecordKey,
        before: Option<Envelope>,
        swarm: &RunningSwarm,
        deadline: Deadline,
        consistency: Consistency,
    ) -> Result<ReadOutcome<Envelope>, NetabaseError> {
        let asked = key.clone();
        let mut reading = if consistency == Consistency::All {
            swarm.ask(deadline, |reply| Command::GetAllCopies { key: asked, deadline, reply }).await?
        } else {
            swarm.call_before(deadline, |reply| Command::GetRecord { key: asked, reply }).await?
        };
        // A version that was stored here meanwhile may be the one that a peer has just returned.
        let is_news = |now: &Envelope| before.as_ref() == Some(now) || reading.newest.as_ref() != Some(now);
        let local = self.store().replica().version_for_peers(key)?.filter(is_news);
        if let (Some(found), Some(local)) = (&reading.newest, &local) {
            // Both versions of a merged record may have contributions that the other lacks.
            reading.newest = Some(self.store().replica().join(key, found, local));
        }
        Ok(self.outcome(local, reading, false))
    }

    fn outcome(&self, local: Option<Envelope>, reading: Reading, unconfirmed: bool) -> ReadOutcome<Envelope> {
        let here = if unconfirmed { ReadSource::Unconfirmed } else { ReadSource::Local };
        read_outcome(local, here, reading, self.store().replica().clock().unix_millis())
    }

    /// Returns whether this node has compared all of its records with other nodes since it was last
    /// away: suspended, not running, or without connections.
    ///
    /// A node that is not current starts a comparison as soon as it connects to peers. Until then
    /// [`Consistency::LocalFirst`] asks peers as well, and the source of a record that no peer has
    /// confirmed is [`ReadSource::Unconfirmed`]. A node that has never known a peer is current, and
    /// so is one whose [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval) is `None`,
    /// which never compares by itself.
    pub fn is_current(&self) -> bool {
        !self.inner.parts.presence.is_behind()
    }

    /// Asks the holders of the record under `key` for the version that each of them has.
    ///
    /// [`Netabase::health`](crate::Netabase::health) documents the details.
    pub async fn health(&self, key: RecordKey) -> Result<Health, NetabaseError> {
        self.survey(key, false).await
    }

    /// Asks like [`health`](Self::health), and sends the newest version to the holders that lack
    /// it.
    pub async fn health_and_repair(&self, key: RecordKey) -> Result<Health, NetabaseError> {
        self.survey(key, true).await
    }

    /// Returns the recent history of the record under `key` on this node.
    ///
    /// [`Netabase::why`](crate::Netabase::why) documents the details.
    pub async fn why(&self, key: RecordKey) -> Result<Trace, NetabaseError> {
        let is_holder = match self.running() {
            Ok(swarm) => {
                let (key, deadline) = (key.clone(), swarm.deadline(Some(HOLDER_TIMEOUT)));
                match swarm.call_before(deadline, |reply| Command::IsHolder { key, reply }).await {
                    // The history is on the disk, and is told without the swarm.
                    Err(NetabaseError::Timeout { .. }) => None,
                    told => Some(told?),
                }
            }
            Err(_) => None,
        };
        let (store, traces) = (self.store().clone(), self.inner.parts.traces.clone());
        let trace = platform::blocking(move || traces.trace(&store, key, is_holder));
        Ok(trace.await.map_err(NetabaseError::task)??)
    }

    /// Returns the current member list of a closed network, or `None` if the node has received
    /// none. Fails with
    /// [`MembersError::OpenNetwork`](netabase_store::members::MembersError::OpenNetwork) in an open
    /// network.
    pub fn members(&self) -> Result<Option<MemberList>, NetabaseError> {
        Ok(self.store().replica().members()?.map(|signed| signed.members().clone()))
    }

    /// Replaces the member list, which names the authors that may write. Signs `list` with the
    /// network's `root` key, an [`Identity`], a [`Keypair`] or a
    /// [`SigningKey`](netabase_store::SigningKey), which may differ from this node's identity.
    ///
    /// The list is effective here at once, and at every other node when it arrives: each node
    /// forwards the list to its peers and to every peer that connects later. A node removes the
    /// records that the list does not allow in the background, and refuses them from then on.
    /// Returns as [`put`](Self::put) does, where the peers are the connected ones; without the
    /// network the call succeeds at once.
    ///
    /// Fails with [`StoreError::Members`] if `root` is not the network's root key.
    pub async fn publish_members<R>(&self, list: &MemberList, root: R) -> Result<WriteOutcome, NetabaseError>
    where
        R: TryInto<Identity>,
        NetabaseError: From<R::Error>,
    {
        let root = root.try_into()?;
        let signed = self.store().replica().sign_members(list, root.signing_key())?;
        self.apply_members(signed).await
    }

    /// Publishes a list that was signed elsewhere, where the root key is kept, as
    /// [`publish_members`](Self::publish_members) does; see [`MemberList::sign`].
    ///
    /// Fails with [`StoreError::Members`] if another key than the root key signed the list, or if
    /// this node has a newer one.
    pub async fn apply_members(&self, signed: SignedMembers) -> Result<WriteOutcome, NetabaseError> {
        let (done, durable) = oneshot::channel();
        let (key, envelope) = self.store().replica().submit_members(&signed, move |result| {
            // The caller may have cancelled the call.
            let _ = done.send(result);
        })?;
        self.write(key, envelope, durable, PutOptions::default()).await
    }

    /// Refuses the records of an author at this node from now on; returns whether the author was
    /// not refused before. The database keeps the list.
    ///
    /// A record of the author is refused as
    /// [`RefusedAuthor`](netabase_store::Refusal::RefusedAuthor), which costs the sender nothing,
    /// and is neither given to peers nor in the results of reads and queries. The author's stored
    /// records are removed in the background, without tombstones; other nodes keep theirs.
    ///
    /// Returns when the list is on the disk; cancelling the call does not undo it. Fails with
    /// [`WriteError::NeededAuthor`] for this node's own author and the root of its network, and
    /// with [`WriteError::TooManyRefusedAuthors`] beyond 1024 authors.
    ///
    /// ```no_run
    /// # async fn example(node: &netabase::Node) -> Result<(), netabase::NetabaseError> {
    /// for (author, usage) in node.store().replica().largest_authors()? {
    ///     println!("{author}: {} records, {} bytes", usage.records, usage.bytes());
    /// }
    /// let flooder = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
    /// if let Ok(flooder) = flooder.parse::<netabase::Author>() {
    ///     node.refuse_author(flooder).await?;
    ///     assert!(node.refused_authors().contains(&flooder));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn refuse_author(&self, author: Author) -> Result<bool, NetabaseError> {
        let is_new = self.on_store(move |store| store.replica().refuse_author(author)).await?;
        self.found_pages().clear();
        Ok(is_new)
    }

    /// Takes records of an author again; returns whether the author was refused. Scopes that this
    /// node [replicates](Self::replicate) are compared with their holders at once; other records of
    /// the author come when peers next compare theirs with this node's.
    ///
    /// Returns when the list is on the disk. An author in
    /// [`refused_authors`](netabase_store::StoreOptions::refused_authors) of the settings is
    /// refused again at the next start.
    pub async fn allow_author(&self, author: Author) -> Result<bool, NetabaseError> {
        let is_change = self.on_store(move |store| store.replica().allow_author(author)).await?;
        if is_change {
            self.inner.parts.replications.fetch_refused_again();
        }
        Ok(is_change)
    }

    /// Returns the refused authors, in the order of their bytes.
    pub fn refused_authors(&self) -> Vec<Author> {
        self.store().replica().refused_authors()
    }

    /// Returns the authors of whom peers have sent new records faster than
    /// [`author_records_per_second`](NetabaseConfig::author_records_per_second) in the last ten
    /// minutes, each with the number of refused records, the largest first.
    ///
    /// Peers offer the records again. The author's name on a refused record is unproved.
    pub fn fast_authors(&self) -> Vec<(Author, u64)> {
        self.inner.parts.author_rates.refused()
    }

    /// Removes the stored records of an author from this node alone, without tombstones; returns
    /// the numbers of removed records and tombstones. Unless the author is
    /// [refused](Self::refuse_author), peers send the records again.
    ///
    /// Takes time in proportion to the size of the database. Fails as
    /// [`refuse_author`](Self::refuse_author) does.
    pub async fn remove_author(&self, author: Author) -> Result<Discarded, NetabaseError> {
        let removed = self.on_store(move |store| store.replica().remove_author(author)).await?;
        self.found_pages().clear();
        Ok(removed)
    }

    /// Runs work that waits for the store, on a thread for blocking work.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&NetabaseStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, NetabaseError> {
        let store = self.store().clone();
        Ok(platform::blocking(move || work(&store)).await.map_err(NetabaseError::task)??)
    }

    /// Runs a complete repair: compares all local records with their other holders, sends the
    /// versions that the holders lack, fetches those that this node lacks, and returns a report.
    ///
    /// The node repairs by itself once in every
    /// [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval), at a low rate. This call
    /// runs at full speed, and [`call_timeout`](NetabaseConfig::call_timeout) does not apply to it.
    pub async fn repair(&self) -> Result<RepairReport, NetabaseError> {
        self.running()?.repair().await
    }

    /// Replicates every record of a scope to this node until the returned handle is dropped. A
    /// scope is a [definition](Scope::definition), a [model](Scope::model) or one
    /// [value](Scope::value) of a secondary key.
    ///
    /// Peers send changes live. The node connects to the holders of the scope and compares the
    /// scope with each of them: now, when one connects, and every
    /// [`sync_interval`](NetabaseConfig::sync_interval). It fetches and verifies missing records,
    /// and sends the records that a peer lacks if the peer replicates the scope, too. Repair does
    /// not drop the scope's records, and eviction takes them last. The call may precede the start
    /// of the swarm. `docs/sync.md` is the guide.
    ///
    /// Fails with [`ScopeError::Unknown`](netabase_store::replica::ScopeError::Unknown) if this
    /// program's definition has no such model or secondary key.
    pub fn replicate(&self, scope: Scope) -> Result<Replication, NetabaseError> {
        self.replicate_with(scope, &ReplicateOptions::default())
    }

    /// Replicates a scope like [`replicate`](Self::replicate), with `options`, such as with the
    /// large values that its records name.
    pub fn replicate_with(
        &self,
        scope: Scope,
        options: &ReplicateOptions,
    ) -> Result<Replication, NetabaseError> {
        Ok(self.inner.parts.replications.begin(self.store(), &self.inner.parts.live, scope, options)?)
    }

    /// Fills the routing table by looking up this node's own neighbourhood; returns the number of
    /// peers in the table afterwards.
    ///
    /// The node does the same at the start and every
    /// [`bootstrap_interval`](crate::DHTDiscoveryConfig::bootstrap_interval). Fails with
    /// [`NetabaseError::NoKnownPeers`] if no peer is known.
    pub async fn bootstrap(&self) -> Result<usize, NetabaseError> {
        self.running()?.call(|reply| Command::Bootstrap { reply }).await
    }

    /// Adds an address of a peer to the routing table and starts to connect to the peer.
    ///
    /// The call does not wait for the connection; [`connect`](Self::connect) does. Fails with
    /// [`NetabaseError::OwnAddress`] if the address or the peer is this node's own.
    pub async fn add_address(&self, peer: PeerId, address: Multiaddr) -> Result<(), NetabaseError> {
        self.running()?.call(|reply| Command::AddAddress { peer, address, reply }).await
    }

    /// Connects to a peer, at `address` or at another known address of the peer, and waits for the
    /// connection.
    ///
    /// Fails with [`NetabaseError::NotReached`], which has the failure of each address, and with
    /// [`NetabaseError::OwnAddress`] if the address or the peer is this node's own. Cancelling the
    /// call does not cancel the dial.
    ///
    /// ```no_run
    /// # async fn example(node: &netabase::Node) -> Result<(), Box<dyn std::error::Error>> {
    /// let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN".parse()?;
    /// node.connect(peer, "/ip4/192.0.2.7/tcp/4001".parse()?).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(&self, peer: PeerId, address: Multiaddr) -> Result<(), NetabaseError> {
        self.running()?.call(|reply| Command::Connect { peer, address, reply }).await
    }

    /// Removes an address of a peer from the routing table; returns whether the table had it.
    pub async fn remove_address(&self, peer: PeerId, address: Multiaddr) -> Result<bool, NetabaseError> {
        self.running()?.call(|reply| Command::RemoveAddress { peer, address, reply }).await
    }

    /// Removes a peer from the routing table and disconnects from it; returns whether the peer was
    /// known. The peer may connect again.
    pub async fn remove_peer(&self, peer: PeerId) -> Result<bool, NetabaseError> {
        self.running()?.call(|reply| Command::RemovePeer { peer, reply }).await
    }

    /// Returns whether the node serves the distributed hash table or is only its client.
    pub async fn get_mode(&self) -> Result<kad::Mode, NetabaseError> {
        self.running()?.call(|reply| Command::Mode { reply }).await
    }

    /// Sets whether the node serves the distributed hash table, until the swarm is stopped.
    pub async fn set_mode(&self, mode: DhtMode) -> Result<(), NetabaseError> {
        self.running()?.call(|reply| Command::SetMode { mode, reply }).await
    }

    /// Returns the protocol names of the distributed hash table.
    pub async fn get_protocol_names(&self) -> Result<Vec<StreamProtocol>, NetabaseError> {
        self.running()?.call(|reply| Command::ProtocolNames { reply }).await
    }

    /// Returns the connected peers.
    pub async fn connected_peers(&self) -> Result<Vec<PeerId>, NetabaseError> {
        self.running()?.call(|reply| Command::ConnectedPeers { reply }).await
    }

    /// Returns the current connections, the oldest first. The list is complete even if a subscriber
    /// to events has missed some.
    ///
    /// Fails if the swarm is not running.
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, NetabaseError> {
        self.running()?.call(|reply| Command::Connections { reply }).await
    }

    /// Returns what peers have reported about this node, such as that its clock is wrong.
    pub fn standing(&self) -> Standing {
        self.inner.parts.standings.now()
    }

    /// Returns the report on a peer's conduct: its refused records, and whether the node slows or
    /// bans it. Returns `None` if the peer has sent nothing, or if the report was dropped since.
    pub fn peer_report(&self, peer: PeerId) -> Option<PeerReport> {
        self.inner.parts.scores.report(&peer)
    }

    /// Returns the reports on the conduct of all peers that have sent anything, up to
    /// [`MAX_TRACKED_PEERS`](crate::limits::MAX_TRACKED_PEERS) of them.
    pub fn peer_reports(&self) -> Vec<PeerReport> {
        self.inner.parts.scores.reports()
    }

    /// Returns the peers of the last ten minutes whose closed network has the same name as this
    /// node's and another root; see [`NetabaseSwarmEvent::OtherRoot`].
    pub fn other_roots(&self) -> Vec<OtherRoot> {
        self.inner.parts.other_roots.recent()
    }

    /// Deletes a peer's score and report, and lifts its ban; returns whether there was a report.
    pub fn pardon(&self, peer: PeerId) -> bool {
        self.inner.parts.scores.pardon(&peer)
    }

    /// Returns the cache of pages that queries of the network have found.
    pub(crate) fn found_pages(&self) -> &FoundPages {
        &self.inner.parts.found_pages
    }

    pub(crate) fn running(&self) -> Result<Arc<RunningSwarm>, NetabaseError> {
        self.inner.running()
    }

    /// Returns the version that a write is about to replace, if there is a watch.
    fn previous(&self, key: &RecordKey) -> Result<Option<Envelope>, NetabaseError> {
        if self.inner.parts.live.is_wanted() { Ok(self.store().envelope(key)?) } else { Ok(None) }
    }

    /// Sends a version to its watches while the disk is at work. A version that the writer may
    /// refuse is sent after the commit.
    fn announce(&self, key: &RecordKey, envelope: &Envelope, previous: Option<&Envelope>) {
        if !self.store().replica().may_refuse(key) {
            self.inner.parts.live.announce(key, envelope, previous);
        }
    }

    async fn survey(&self, key: RecordKey, repair: bool) -> Result<Health, NetabaseError> {
        let model = key.model().to_owned();
        let asked = async {
            let swarm = self.running()?;
            let deadline = swarm.deadline(None);
            swarm.ask(deadline, |reply| Command::Health { key, repair, deadline, reply }).await
        };
        self.metrics().call(Call::Health, &model, asked, |_| "ok").await
    }

    /// Waits for the disk and for the network, which work concurrently.
    async fn write(
        &self,
        key: RecordKey,
        envelope: Envelope,
        durable: oneshot::Receiver<Result<Option<ChangeKind>, StoreError>>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let version = envelope.version().ok_or(StoreError::from(WriteError::NoIdentity))?;
        let durable = durable.instrument(tracing::debug_span!("store_write"));
        // Boxed, since two branches await the future.
        let publish = Box::pin(self.publish(&key, envelope, &options, OnNewer::Overtake));
        let (change, published) = if self.store().replica().may_refuse(&key) {
            // A version that the writer refuses must not be published.
            let change = durable.await.map_err(|_| NetabaseError::Closed)??;
            (change, publish.await)
        } else {
            let (durable, published) = futures::join!(durable, publish);
            (durable.map_err(|_| NetabaseError::Closed)??, published)
        };
        Ok(written(version, change, published?))
    }

    /// Waits for a conditional write, which is published after its commit, since the writer may
    /// refuse it.
    async fn write_if(
        &self,
        key: RecordKey,
        durable: oneshot::Receiver<Result<(ChangeKind, Envelope), StoreError>>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let written = self.written_if(durable).await?;
        self.publish_written(&key, written, &options).await
    }

    /// Waits until a conditional write is durable; returns the change and the version.
    pub(crate) async fn written_if(
        &self,
        durable: oneshot::Receiver<Result<(ChangeKind, Envelope), StoreError>>,
    ) -> Result<(ChangeKind, Envelope), NetabaseError> {
        let durable = durable.instrument(tracing::debug_span!("store_write"));
        Ok(durable.await.map_err(|_| NetabaseError::Closed)??)
    }

    /// Publishes a version that is durable.
    pub(crate) async fn publish_written(
        &self,
        key: &RecordKey,
        (change, envelope): (ChangeKind, Envelope),
        options: &PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let version = envelope.version().ok_or(StoreError::from(WriteError::NoIdentity))?;
        // The caller has decided by the version that was here: a newer one of a peer stays.
        let published = self.publish(key, envelope, options, OnNewer::Report).await?;
        Ok(written(version, Some(change), published))
    }

    /// Publishes a version to the closest peers, or schedules it if there are none.
    async fn publish(
        &self,
        key: &RecordKey,
        envelope: Envelope,
        options: &PutOptions,
        newer: OnNewer,
    ) -> Result<Publication, NetabaseError> {
        self.inner.parts.backlog.is_sent();
        let swarm = self.running().ok();
        let concern = options.write_concern.unwrap_or(self.config().dht.write_concern);
        match &swarm {
            Some(swarm) if concern > 0 => {
                let deadline = swarm.deadline(options.timeout);
                let terms = PutTerms { concern: Some(concern), newer, ..PutTerms::default() };
                return swarm.publish(key.clone(), envelope, terms, deadline).await;
            }
            Some(swarm)
                if swarm.begin_to_publish(key, &envelope, PutTerms { newer, ..PutTerms::default() }) =>
            {
                return Ok(Publication::default());
            }
            Some(_) | None => {}
        }
        let due = overdue(self.store(), &envelope);
        self.store().replica().schedule(key, &envelope, Some(due));
        if let Some(swarm) = &swarm {
            swarm.announce();
        }
        Ok(Publication::default())
    }
}

/// Returns a function that answers a caller, which may have cancelled the call.
pub(crate) fn answer_to<T: Send + 'static>(caller: oneshot::Sender<T>) -> impl FnOnce(T) + Send + 'static {
    move |answer| drop(caller.send(answer))
}

/// Returns the name of the place where a get has found the record.
fn found_where(outcome: &ReadOutcome<Envelope>) -> &'static str {
    match (&outcome.record, outcome.source) {
        (_, Some(ReadSource::Local | ReadSource::Unconfirmed)) => "local",
        (Some(_), _) => "network",
        (None, _) => "missing",
    }
}

/// Returns the outcome of a write.
fn written(version: Version, change: Option<ChangeKind>, published: Publication) -> WriteOutcome {
    let accepted = published.accepted().collect();
    let Publication { peers, signed_again, overtaken_by } = published;
    let asked = peers.iter().map(|peer| peer.peer).collect();
    let replaced = matches!(change, Some(ChangeKind::Updated | ChangeKind::Removed));
    WriteOutcome { version: signed_again.unwrap_or(version), replaced, asked, accepted, peers, overtaken_by }
}

/// Sends the changes of this program to the watches, except those that were sent before the commit.
fn announce(live: &Live, event: &StoreEvent) {
    if let StoreEvent::Changed(change) = event
        && change.origin == Origin::Local
        && matches!(change.kind, ChangeKind::Stored | ChangeKind::Updated | ChangeKind::Removed)
        && let Some(envelope) = &change.envelope
    {
        live.announce(&change.key, envelope, change.previous.as_ref());
    }
}

/// Translates a store's event into the subscribers' event.
fn translate(event: StoreEvent, members_key: Option<&RecordKey>) -> NetabaseSwarmEvent {
    match event {
        StoreEvent::Changed(change) => {
            let list = change.envelope.as_ref().filter(|_| members_key == Some(&change.key));
            match list.map(|list| SignedMembers::parse(list.as_bytes())) {
                Some(Ok(list)) => NetabaseSwarmEvent::MembersChanged(list),
                Some(Err(_)) | None => NetabaseSwarmEvent::Record(RecordEvent::new(change)),
            }
        }
        StoreEvent::Refused { key, reason } => NetabaseSwarmEvent::RecordRefused { peer: None, key, reason },
    }
}

/// Returns the outcome of a read, here and at peers. A tombstone is a version without a record, and
/// so is an expired version.
fn read_outcome(
    local: Option<Envelope>,
    here: ReadSource,
    reading: Reading,
    now: u64,
) -> ReadOutcome<Envelope> {
    let is_over = |envelope: &Envelope| {
        envelope.is_tombstone() || envelope.expires().is_some_and(|expires| expires <= now)
    };
    let Reading { newest, from, peers } = reading;
    let is_newer = |newest: &Envelope| local.as_ref().is_none_or(|local| newest.adds_to(local));
    let found = newest.filter(is_newer).zip(from.map(ReadSource::Peer));
    let found = found.or_else(|| local.map(|local| (local, here)));
    let (envelope, source) = found.unzip();
    ReadOutcome {
        author: envelope.as_ref().and_then(Envelope::author),
        version: envelope.as_ref().and_then(Envelope::version),
        expires: envelope.as_ref().and_then(Envelope::expires).map(system_time),
        record: envelope.filter(|envelope| !is_over(envelope)),
        source,
        peers,
    }
}

fn database_path(schema: &DefinitionSchema, config: &NetabaseConfig) -> Option<PathBuf> {
    match config.store.backend {
        StorageBackend::Memory => None,
        backend => {
            let name = format!("{}.{backend}", schema.name);
            let default = || config.directory.as_deref().unwrap_or(Path::new("")).join(name);
            Some(config.database_path.clone().unwrap_or_else(default))
        }
    }
}

/// Creates the directory of a database if there is none. Only its owner may read it.
fn create_directory(path: &Path) -> Result<(), NetabaseError> {
    files::create_private_directory(path).map_err(|error| file_error(path.to_owned(), error))
}

/// The store mark that records the author that a database was last opened for.
const AUTHOR_MARK: &str = "author";

/// An opened store, and the identity that signs for it.
struct Opened {
    store: NetabaseStore,
    identity: Keypair,
    identity_change: Option<IdentityChange>,
}

/// Opens the store and the identity that signs for it; in memory if there is no path.
fn open_store(
    schema: &'static DefinitionSchema,
    config: &NetabaseConfig,
    path: Option<&Path>,
) -> Result<Opened, NetabaseError> {
    let had_database = path.is_some_and(Path::exists);
    let file = path.filter(|_| config.identity.is_none()).map(identity::path_beside);
    let (identity, is_new) = match (&config.identity, &file) {
        (Some(identity), _) => (identity.clone(), false),
        (None, Some(file)) => {
            let Loaded { keypair, is_new } = identity::load_or_create(file)?;
            (keypair, is_new)
        }
        (None, None) => (platform::new_keypair(), false),
    };
    let opened = open_signed(schema, config, path, &identity);
    if let (Err(error), true, Some(file)) = (&opened, is_new, &file)
        && !matches!(error, NetabaseError::Store(StoreError::Open(OpenError::Locked { .. })))
    {
        // The new identity has signed nothing; a database that could not be opened stays as it was.
        let _ = files::remove(file);
    }
    let store = opened?;
    let identity_change = note_author(&store, had_database && is_new)?;
    if let Some(IdentityChange { former }) = identity_change {
        let former = former.map(tracing::field::display);
        tracing::warn!(
            former,
            "the database was opened with another identity than before: its owned records cannot be changed; \
             restore the identity file if it was lost"
        );
    }
    if store.replica().last_online().is_none() {
        // The clock of absences starts now, so that the first absence counts, too.
        store.replica().note_online();
    }
    Ok(Opened { store, identity, identity_change })
}

fn open_signed(
    schema: &'static DefinitionSchema,
    config: &NetabaseConfig,
    path: Option<&Path>,
    identity: &Keypair,
) -> Result<NetabaseStore, NetabaseError> {
    let position = kad::KBucketKey::from(identity.public().to_peer_id()).hashed_bytes().try_into().ok();
    let identity = Some(Identity::try_from(identity)?.signing_key().clone());
    // A writer without a thread would have no driver.
    let writer = WriterMode::default();
    let options = StoreOptions { identity, position, writer, ..config.store.clone() };
    Ok(NetabaseStore::open_with(path.unwrap_or(Path::new("")), Some(schema), options)?)
}

/// Records the author that the database was opened for. Returns a change if the author differs from
/// the last one, or if a database exists whose identity is `lost`.
fn note_author(store: &NetabaseStore, lost: bool) -> Result<Option<IdentityChange>, NetabaseError> {
    let Some(author) = store.author() else { return Ok(None) };
    let former =
        store.replica().mark(AUTHOR_MARK).and_then(|mark| mark.try_into().ok()).map(Author::from_bytes);
    if former != Some(author) {
        store.replica().set_mark(AUTHOR_MARK, author.as_bytes())?;
    }
    let is_change = former.map_or(lost, |former| former != author);
    Ok(is_change.then_some(IdentityChange { former }))
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("definition", &self.schema().name)
            .field("peer", &self.inner.parts.identity.public().to_peer_id())
            .field("database_path", &self.inner.database_path)
            .field("running", &self.inner.swarm.lock().is_some())
            .finish_non_exhaustive()
    }
}

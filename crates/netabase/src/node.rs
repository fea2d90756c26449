//! The handle without types, which a program has that knows its models only at run time.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use netabase_store::changes::StoreEvent;
use netabase_store::members::{MemberList, SignedMembers};
use netabase_store::schema::{DefinitionSchema, EncodedRecord};
use netabase_store::{
    Author, ChangeKind, Envelope, NetabaseStore, OpenError, Origin, RecordKey, Scope, StorageBackend,
    StoreError, StoreOptions, Version, WriterMode,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, broadcast, oneshot};
use tracing::Instrument;

use crate::blobs::Blobs;
use crate::blobs::limits::WINDOW_GROUPS;
use crate::config::{DhtMode, NetabaseConfig};
use crate::dht::known_peers;
use crate::error::{NetabaseError, file_error};
use crate::event::{Events, NetabaseSwarmEvent, RecordEvent};
use crate::event_loop::command::{Command, Publication, Reading};
use crate::identity::{self, Identity, Loaded};
use crate::limits::{CONFIRM_TIMEOUT, EVENT_CAPACITY};
use crate::outcome::{
    Consistency, GetOptions, Health, PutOptions, ReadOutcome, ReadSource, WriteOutcome, system_time,
};
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

/// A database and its swarm without types: records are bytes under a [`RecordKey`], of the models
/// of a [`DefinitionSchema`].
///
/// [`Netabase`](crate::Netabase) is this and a definition, and everything here can be called on it,
/// too; [`Netabase::node`](crate::Netabase::node) returns it. A program that knows its models only
/// at run time opens one by itself.
///
/// Cloning is cheap, and clones share the database and the swarm; both close soon after the last
/// clone is dropped. Methods that wait must be called inside a tokio runtime; cancelling one never
/// cancels what it has set in motion.
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

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) parts: Parts,
    swarm: Mutex<Option<Arc<RunningSwarm>>>,
    /// Keeps starts and stops from overlapping.
    lifecycle: AsyncMutex<()>,
    pub(crate) update_turns: UpdateTurns,
    schema: &'static DefinitionSchema,
    /// Where the database is; none if it is in memory.
    database_path: Option<PathBuf>,
    identity_change: Option<IdentityChange>,
}

/// A database that was opened with another identity than before; see [`Node::identity_change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityChange {
    /// The author that the database was opened for the last time, if it says so.
    pub former: Option<Author>,
}

/// Both run in tasks of their own, so that a caller who does not wait for the end leaves no half of
/// it.
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
    /// Opens or creates a database of the models of `schema` as `config` says.
    ///
    /// Blocks as long as the whole database takes; in an async function use `spawn_blocking`.
    ///
    /// Fails if the configuration is not valid, or if the database is open elsewhere, damaged, or
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
            // Not the metrics, which keep the store open.
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
                // Without subscribers there is nobody to miss it.
                let _ = events.send(event);
            }
        });
        let root = config.store.root;
        let beside = config.database_path.as_deref().or(database_path.as_deref());
        let parts = Parts {
            network,
            known_peers: beside.map(|path| known_peers::path_beside(path).into()),
            config: Arc::new(config),
            scores,
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

    /// Returns the models.
    pub fn schema(&self) -> &'static DefinitionSchema {
        self.inner.schema
    }

    /// Returns the key of a record of this definition.
    pub fn key_of(&self, record: &EncodedRecord) -> Result<RecordKey, NetabaseError> {
        Ok(record.model.record_key(self.schema().name, &record.keys.primary)?)
    }

    /// Starts sharing: returns when the swarm listens. Does nothing if it runs already.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O enabled.
    pub async fn start_swarm(&self) -> Result<(), NetabaseError> {
        let inner = Arc::clone(&self.inner);
        platform::spawn(async move { inner.start().await }).await.map_err(NetabaseError::task)?
    }

    /// Stops sharing; calls in flight end with [`NetabaseError::Closed`]. The database stays open,
    /// and the swarm can be started again. Does nothing if it is not running.
    pub async fn stop_swarm(&self) -> Result<(), NetabaseError> {
        let inner = Arc::clone(&self.inner);
        platform::spawn(async move { inner.stop().await }).await.map_err(NetabaseError::task)
    }

    /// Returns whether the database was opened with another identity than the last time, such as
    /// one that was made anew because the identity file was missing.
    ///
    /// What the former identity has signed stays valid. Records of owned models that it wrote can
    /// no longer be changed here, and its records count as others'. Restore the identity file and
    /// open the database again.
    pub fn identity_change(&self) -> Option<IdentityChange> {
        self.inner.identity_change
    }

    /// Returns the name of this peer, which is the same at every start.
    pub fn local_peer_id(&self) -> PeerId {
        self.inner.parts.identity.public().to_peer_id()
    }

    /// Returns the addresses that the swarm listens on; none if it is not running.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.inner.swarm.lock().as_ref().map(|swarm| swarm.listen_addresses()).unwrap_or_default()
    }

    /// Returns the path of the database; none if it is in memory.
    pub fn database_path(&self) -> Option<&Path> {
        self.inner.database_path.as_deref()
    }

    /// Returns the settings that the database was opened with.
    pub fn config(&self) -> &NetabaseConfig {
        &self.inner.parts.config
    }

    /// Returns the local store, for typed trees, secondary keys and transactions.
    ///
    /// What is written through it is signed and shared like any other record, within a minute.
    pub fn store(&self) -> &NetabaseStore {
        &self.inner.parts.store
    }

    /// Returns the large values of this node and of others.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(Arc::clone(&self.inner))
    }

    /// Subscribes to all events from now on, whether the swarm runs or not.
    pub fn subscribe_to_broadcasts(&self) -> Events {
        Events::new(self.inner.parts.events.subscribe(), Arc::clone(self.metrics().meters()))
    }

    /// Returns what this node counts of itself.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.parts.metrics
    }

    /// Returns how many live messages there were since the database was opened.
    pub fn live_stats(&self) -> LiveStats {
        self.inner.parts.live.stats()
    }

    /// Stores a record here and at the closest peers, in place of any earlier version.
    ///
    /// [`Netabase::put_record_with`](crate::Netabase::put_record_with) says when it returns, and
    /// what the outcome and the errors mean.
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
                // A caller that has gone away needs no answer.
                let _ = done.send(result);
            })?;
        self.announce(&key, &envelope, previous.as_ref());
        self.write(key, envelope, durable, options).await
    }

    /// Removes a record here and at every peer: a signed tombstone takes its place. Returns `None`
    /// where there is no such record, and writes nothing then.
    ///
    /// [`Netabase::remove_record_with`](crate::Netabase::remove_record_with) says more.
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
        // What only peers have can be removed as well; a deletion that is known here needs nobody
        // to confirm it.
        let asked = GetOptions { consistency: Consistency::LocalFirst, timeout: options.timeout };
        let Some(found) = self.read(&key, asked).await?.record else { return Ok(None) };
        let (done, durable) = oneshot::channel();
        let tombstone = self.store().replica().submit_removal_after(&key, &found, answer_to(done))?;
        self.announce(&key, &tombstone, Some(&found));
        self.write(key, tombstone, durable, options).await.map(Some)
    }

    /// Reads the record under `key` as `options` say, and says where it comes from and what the
    /// peers answered.
    ///
    /// A merged record comes merged. With [`Consistency::All`] the call returns when its timeout
    /// has passed with what is known so far; it fails with [`NetabaseError::Timeout`] if no peers
    /// were found by then.
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
        // One that has expired may end what peers still have.
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
            // One that is damaged is an error where nobody else is asked.
            let before = if before.is_none() { self.store().envelope(key)? } else { before };
            return Ok(self.outcome(before, Reading::default(), unconfirmed));
        };
        let deadline = swarm.deadline(options.timeout);
        self.read_from_peers(key, before, &swarm, deadline, options.consistency).await
    }

    /// Reads what is here, and asks peers whether it has changed if this node was away.
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
        // It may have come to be current meanwhile.
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
        // A version that came to be here meanwhile may be the one that a peer has just answered
        // with.
        let is_news = |now: &Envelope| before.as_ref() == Some(now) || reading.newest.as_ref() != Some(now);
        let local = self.store().replica().version_for_peers(key)?.filter(is_news);
        if let (Some(found), Some(local)) = (&reading.newest, &local) {
            // Of a merged record both may have contributions that the other lacks.
            reading.newest = Some(self.store().replica().join(key, found, local));
        }
        Ok(self.outcome(local, reading, false))
    }

    fn outcome(&self, local: Option<Envelope>, reading: Reading, unconfirmed: bool) -> ReadOutcome<Envelope> {
        let here = if unconfirmed { ReadSource::Unconfirmed } else { ReadSource::Local };
        read_outcome(local, here, reading, self.store().replica().clock().unix_millis())
    }

    /// Returns whether everything here was compared with other nodes since this node was last away:
    /// asleep, not running, or without connections.
    ///
    /// A node that is not current compares what it has with its peers as soon as it is connected to
    /// some. Until then [`Consistency::LocalFirst`] asks peers as well, and what nobody has
    /// confirmed comes from [`ReadSource::Unconfirmed`]. A node that has never known a peer is
    /// current, and so is one with a
    /// [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval) of `None`, which never
    /// compares by itself.
    pub fn is_current(&self) -> bool {
        !self.inner.parts.presence.is_behind()
    }

    /// Asks the peers that should hold the record under `key` which version of it they have.
    ///
    /// [`Netabase::health`](crate::Netabase::health) says more.
    pub async fn health(&self, key: RecordKey) -> Result<Health, NetabaseError> {
        self.survey(key, false).await
    }

    /// Asks like [`health`](Self::health), and sends the newest version to the peers that lack it.
    pub async fn health_and_repair(&self, key: RecordKey) -> Result<Health, NetabaseError> {
        self.survey(key, true).await
    }

    /// Says what happened to the record under `key` on this node.
    ///
    /// [`Netabase::why`](crate::Netabase::why) says more.
    pub async fn why(&self, key: RecordKey) -> Result<Trace, NetabaseError> {
        let is_holder = match self.running() {
            Ok(swarm) => {
                let key = key.clone();
                Some(swarm.call(|reply| Command::IsHolder { key, reply }).await?)
            }
            Err(_) => None,
        };
        let (store, traces) = (self.store().clone(), self.inner.parts.traces.clone());
        let trace = platform::blocking(move || traces.trace(&store, key, is_holder));
        Ok(trace.await.map_err(NetabaseError::task)??)
    }

    /// Returns the current member list of a closed network; none if none has come yet. Fails in an
    /// open network with [`StoreError::OpenNetwork`].
    pub fn members(&self) -> Result<Option<MemberList>, NetabaseError> {
        Ok(self.store().replica().members()?.map(|signed| signed.members().clone()))
    }

    /// Says who may write from now on, in place of the current list: signs `list` with the
    /// network's `root` key, an [`Identity`], a [`Keypair`] or a
    /// [`SigningKey`](netabase_store::SigningKey), which need not be this node's identity.
    ///
    /// It counts here at once, and at every node that it reaches: each passes it on to its peers,
    /// and gives it to every peer that connects later. Records that it does not allow are removed
    /// where they are, in the background, and refused from then on. Returns as [`put`](Self::put)
    /// does, where the peers are those that are connected; without the network it succeeds at once.
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

    /// Does what [`publish_members`](Self::publish_members) does with a list that was signed
    /// elsewhere, where the root key is kept; see [`MemberList::sign`].
    ///
    /// Fails with [`StoreError::Members`] if it is not the root's, or if a newer one is here.
    pub async fn apply_members(&self, signed: SignedMembers) -> Result<WriteOutcome, NetabaseError> {
        let (done, durable) = oneshot::channel();
        let (key, envelope) = self.store().replica().submit_members(&signed, move |result| {
            // A caller that has gone away needs no answer.
            let _ = done.send(result);
        })?;
        self.write(key, envelope, durable, PutOptions::default()).await
    }

    /// Compares everything that is kept here with its other holders, sends them what they lack and
    /// fetches what this node lacks; returns what was done.
    ///
    /// Happens by itself once in every
    /// [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval), at a pace that does not
    /// disturb. Called here it goes as fast as it can, however long that is: it is not bound by
    /// [`call_timeout`](NetabaseConfig::call_timeout).
    pub async fn repair(&self) -> Result<RepairReport, NetabaseError> {
        self.running()?.repair().await
    }

    /// Keeps every record of a scope on this node, and current, until what it returns is dropped: a
    /// [definition](Scope::definition), a [model](Scope::model) or one [value](Scope::value) of a
    /// secondary key.
    ///
    /// Changes come live. The scope is compared with the peers that hold it, which are connected
    /// to: now, when one connects, and every [`sync_interval`](NetabaseConfig::sync_interval). What
    /// is missing here is fetched and verified. Peers that keep the scope, too, are given what they
    /// lack. Its records are not given up in a repair, and go last for lack of room. It may begin
    /// before the swarm is started. `docs/sync.md` is the guide.
    ///
    /// Fails with [`StoreError::OtherScope`] if this program's definition has no such model or
    /// secondary key.
    pub fn replicate(&self, scope: Scope) -> Result<Replication, NetabaseError> {
        self.replicate_with(scope, &ReplicateOptions::default())
    }

    /// Keeps a scope like [`replicate`](Self::replicate), as `options` say: also with the large
    /// values that its records name.
    pub fn replicate_with(
        &self,
        scope: Scope,
        options: &ReplicateOptions,
    ) -> Result<Replication, NetabaseError> {
        Ok(self.inner.parts.replications.begin(self.store(), &self.inner.parts.live, scope, options)?)
    }

    /// Fills the routing table by looking for this node's own neighbourhood; returns how many peers
    /// are in it afterwards.
    ///
    /// Happens by itself at the start and every
    /// [`bootstrap_interval`](crate::DHTDiscoveryConfig::bootstrap_interval). Fails with
    /// [`NetabaseError::NoKnownPeers`] while there is nobody to ask.
    pub async fn bootstrap(&self) -> Result<usize, NetabaseError> {
        self.running()?.call(|reply| Command::Bootstrap { reply }).await
    }

    /// Adds an address of a peer to the routing table and begins to connect to the peer.
    ///
    /// The call does not wait for the connection, as [`connect`](Self::connect) does. Fails with
    /// [`NetabaseError::OwnAddress`] if the address or the peer is this node's own.
    pub async fn add_address(&self, peer: PeerId, address: Multiaddr) -> Result<(), NetabaseError> {
        self.running()?.call(|reply| Command::AddAddress { peer, address, reply }).await
    }

    /// Connects to a peer, at this address or at another one at which it is known, and waits until
    /// that is done.
    ///
    /// Fails with [`NetabaseError::NotReached`], which says what happened at each address, and with
    /// [`NetabaseError::OwnAddress`] if the address or the peer is this node's own. If the call is
    /// cancelled, the node goes on connecting.
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

    /// Removes an address of a peer from the routing table; returns whether it was there.
    pub async fn remove_address(&self, peer: PeerId, address: Multiaddr) -> Result<bool, NetabaseError> {
        self.running()?.call(|reply| Command::RemoveAddress { peer, address, reply }).await
    }

    /// Removes a peer from the routing table and disconnects from it; returns whether it was known.
    /// It may come back by itself.
    pub async fn remove_peer(&self, peer: PeerId) -> Result<bool, NetabaseError> {
        self.running()?.call(|reply| Command::RemovePeer { peer, reply }).await
    }

    /// Returns whether the node serves the distributed hash table or only uses it.
    pub async fn get_mode(&self) -> Result<kad::Mode, NetabaseError> {
        self.running()?.call(|reply| Command::Mode { reply }).await
    }

    /// Changes whether the node serves the distributed hash table, until the swarm is stopped.
    pub async fn set_mode(&self, mode: DhtMode) -> Result<(), NetabaseError> {
        self.running()?.call(|reply| Command::SetMode { mode, reply }).await
    }

    /// Returns the protocol names of the distributed hash table.
    pub async fn get_protocol_names(&self) -> Result<Vec<StreamProtocol>, NetabaseError> {
        self.running()?.call(|reply| Command::ProtocolNames { reply }).await
    }

    /// Returns the peers that are connected now.
    pub async fn connected_peers(&self) -> Result<Vec<PeerId>, NetabaseError> {
        self.running()?.call(|reply| Command::ConnectedPeers { reply }).await
    }

    /// Returns the connections that there are now, the oldest first, and what is known of each. The
    /// node knows them itself, so that it takes no subscriber to events to miss none.
    ///
    /// Fails if the swarm is not running.
    pub async fn connections(&self) -> Result<Vec<ConnectionInfo>, NetabaseError> {
        self.running()?.call(|reply| Command::Connections { reply }).await
    }

    /// Returns what this node has been told of itself by its peers, such as that its clock is
    /// wrong.
    pub fn standing(&self) -> Standing {
        self.inner.parts.standings.now()
    }

    /// Returns what is known of a peer's conduct: which of its records were refused, and whether it
    /// is slowed or banned for it. `None` if it has sent nothing, or was forgotten since.
    pub fn peer_report(&self, peer: PeerId) -> Option<PeerReport> {
        self.inner.parts.scores.report(&peer)
    }

    /// Returns what is known of the conduct of all peers that have sent anything, up to
    /// [`MAX_TRACKED_PEERS`](crate::limits::MAX_TRACKED_PEERS) of them.
    pub fn peer_reports(&self) -> Vec<PeerReport> {
        self.inner.parts.scores.reports()
    }

    /// Returns the peers that were met in the last ten minutes, whose closed network has the same
    /// name as this node's and another root; see [`NetabaseSwarmEvent::OtherRoot`].
    pub fn other_roots(&self) -> Vec<OtherRoot> {
        self.inner.parts.other_roots.recent()
    }

    /// Forgets what a peer has done, and lets a banned one come back at once; returns whether
    /// anything was known of it.
    pub fn pardon(&self, peer: PeerId) -> bool {
        self.inner.parts.scores.pardon(&peer)
    }

    /// Returns what queries of the network have found.
    pub(crate) fn found_pages(&self) -> &FoundPages {
        &self.inner.parts.found_pages
    }

    pub(crate) fn running(&self) -> Result<Arc<RunningSwarm>, NetabaseError> {
        self.inner.running()
    }

    /// Returns the version that a write is about to replace, if anybody watches.
    fn previous(&self, key: &RecordKey) -> Result<Option<Envelope>, NetabaseError> {
        if self.inner.parts.live.is_wanted() { Ok(self.store().envelope(key)?) } else { Ok(None) }
    }

    /// Sends a version to those who watch it, while the disk is at work; one that the writer may
    /// refuse is sent when it is written.
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

    /// Waits for the disk and for the network, which work at the same time.
    async fn write(
        &self,
        key: RecordKey,
        envelope: Envelope,
        durable: oneshot::Receiver<Result<Option<ChangeKind>, StoreError>>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let version = envelope.version().ok_or(StoreError::NoIdentity)?;
        let durable = durable.instrument(tracing::debug_span!("store_write"));
        // Boxed, since it is awaited in one of two places.
        let publish = Box::pin(self.publish(&key, envelope, &options));
        let (change, published) = if self.store().replica().may_refuse(&key) {
            // Nobody may hear of a version that the writer refuses.
            let change = durable.await.map_err(|_| NetabaseError::Closed)??;
            (change, publish.await)
        } else {
            let (durable, published) = futures::join!(durable, publish);
            (durable.map_err(|_| NetabaseError::Closed)??, published)
        };
        Ok(written(version, change, published?))
    }

    /// Waits for a write that is passed on only when it is done, since it may be refused.
    async fn write_if(
        &self,
        key: RecordKey,
        durable: oneshot::Receiver<Result<(ChangeKind, Envelope), StoreError>>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let written = self.written_if(durable).await?;
        self.publish_written(&key, written, &options).await
    }

    /// Waits until a write that may be refused is on the disk; returns what it did and the version.
    pub(crate) async fn written_if(
        &self,
        durable: oneshot::Receiver<Result<(ChangeKind, Envelope), StoreError>>,
    ) -> Result<(ChangeKind, Envelope), NetabaseError> {
        let durable = durable.instrument(tracing::debug_span!("store_write"));
        Ok(durable.await.map_err(|_| NetabaseError::Closed)??)
    }

    /// Passes a version on that is on the disk.
    pub(crate) async fn publish_written(
        &self,
        key: &RecordKey,
        (change, envelope): (ChangeKind, Envelope),
        options: &PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let version = envelope.version().ok_or(StoreError::NoIdentity)?;
        let published = self.publish(key, envelope, options).await?;
        Ok(written(version, Some(change), published))
    }

    /// Sends a version on its way to the closest peers, or has it sent when there are some.
    async fn publish(
        &self,
        key: &RecordKey,
        envelope: Envelope,
        options: &PutOptions,
    ) -> Result<Publication, NetabaseError> {
        self.inner.parts.backlog.is_sent();
        let swarm = self.running().ok();
        let concern = options.write_concern.unwrap_or(self.config().dht.write_concern);
        match &swarm {
            Some(swarm) if concern > 0 => {
                let deadline = swarm.deadline(options.timeout);
                return swarm.publish(key.clone(), envelope, concern, deadline).await;
            }
            Some(swarm) if swarm.begin_to_publish(key, &envelope) => return Ok(Publication::default()),
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

/// Answers a caller, unless it has gone away and needs no answer.
pub(crate) fn answer_to<T: Send + 'static>(caller: oneshot::Sender<T>) -> impl FnOnce(T) + Send + 'static {
    move |answer| drop(caller.send(answer))
}

/// Says where a get has found the record.
fn found_where(outcome: &ReadOutcome<Envelope>) -> &'static str {
    match (&outcome.record, outcome.source) {
        (_, Some(ReadSource::Local | ReadSource::Unconfirmed)) => "local",
        (Some(_), _) => "network",
        (None, _) => "missing",
    }
}

/// Says what became of a write.
fn written(version: Version, change: Option<ChangeKind>, published: Publication) -> WriteOutcome {
    let accepted = published.accepted().collect();
    let Publication { peers } = published;
    let asked = peers.iter().map(|peer| peer.peer).collect();
    let replaced = matches!(change, Some(ChangeKind::Updated | ChangeKind::Removed));
    WriteOutcome { version, replaced, asked, accepted, peers }
}

/// Sends what this program has written to those who watch it. What was sent already is not sent
/// again.
fn announce(live: &Live, event: &StoreEvent) {
    if let StoreEvent::Changed(change) = event
        && change.origin == Origin::Local
        && matches!(change.kind, ChangeKind::Stored | ChangeKind::Updated | ChangeKind::Removed)
        && let Some(envelope) = &change.envelope
    {
        live.announce(&change.key, envelope, change.previous.as_ref());
    }
}

/// Returns what subscribers are told of a store's event.
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

/// Says what a read has found, here and at peers; a tombstone is a version without a record, and so
/// is one that has expired.
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

/// Makes the directory of a database, if it is not there: its records are read by nobody else on
/// the machine.
fn create_directory(path: &Path) -> Result<(), NetabaseError> {
    files::create_private_directory(path).map_err(|error| file_error(path.to_owned(), error))
}

/// The mark of the author that a database was last opened for.
const AUTHOR_MARK: &str = "author";

/// A store, and the identity that signs for it.
struct Opened {
    store: NetabaseStore,
    identity: Keypair,
    identity_change: Option<IdentityChange>,
}

/// Opens the store with the identity that signs for it, in memory if there is no path.
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
        (None, None) => (Keypair::generate_ed25519(), false),
    };
    let opened = open_signed(schema, config, path, &identity);
    if let (Err(error), true, Some(file)) = (&opened, is_new, &file)
        && !matches!(error, NetabaseError::Store(StoreError::Open(OpenError::Locked { .. })))
    {
        // Nobody has used it: what was refused is left as it was.
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
        // From now on, so that the first absence counts, too.
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
    // Nobody drives a writer that has no thread.
    let writer = WriterMode::default();
    let options = StoreOptions { identity, position, writer, ..config.store.clone() };
    Ok(NetabaseStore::open_with(path.unwrap_or(Path::new("")), Some(schema), options)?)
}

/// Notes whom the database was opened for; says so if that was somebody else before, or if there
/// was a database whose identity is `lost`.
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

//! The typed handle that applications hold.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use netabase_store::{
    ChangeKind, Envelope, MemberList, NetabaseDefinition, NetabaseModel, NetabaseStore, Origin, PrimaryKey,
    Query, QueryKey, RecordKey, Scope, SignedMembers, StorageBackend, StoreError, StoreEvent, StoreOptions,
    WatchFrom, decode_payload,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, broadcast, oneshot};

use crate::blobs::Blobs;
use crate::config::{DhtMode, NetabaseConfig};
use crate::error::NetabaseError;
use crate::event::{EVENT_CAPACITY, Events, NetabaseSwarmEvent, RecordEvent};
use crate::identity;
use crate::live::LiveWatch;
use crate::network::{
    self, Command, FoundPages, Live, LiveStats, Node, Parts, PeerReport, Publication, Reading, RepairReport,
    Replication, Replications, Sanctions, Trace, Traces, overdue,
};
use crate::outcome::{
    Consistency, GetOptions, Health, PutOptions, ReadOutcome, ReadSource, WriteOutcome, system_time,
};

/// A typed, local-first, peer-to-peer database of definition `D`.
///
/// Records live in an embedded database on this machine, and everything works without the network.
/// Between [`start_swarm`](Self::start_swarm) and [`stop_swarm`](Self::stop_swarm) a background
/// task shares them with the other peers of the network.
///
/// Cloning is cheap, and clones share the database and the swarm; both close soon after the last clone
/// is dropped. To open the same database again at once, await `stop_swarm` before dropping. Any number of databases may be open in one process. Methods that wait must be called
/// inside a tokio runtime; cancelling one never cancels what it has set in motion.
///
/// ```
/// use netabase::{Netabase, NetabaseConfig, NetabaseModel, StorageBackend, netabase_definition_module};
///
/// #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// mod chat {
///     use netabase::NetabaseModel;
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
///     #[netabase(ChatDefinition)]
///     pub struct Message {
///         #[primary_key]
///         pub id: String,
///         #[secondary_key]
///         pub room: String,
///         pub text: String,
///     }
/// }
/// use chat::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::NetabaseError> {
/// let config = NetabaseConfig { backend: StorageBackend::Memory, ..NetabaseConfig::default() };
/// let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// let message = Message { id: "42".into(), room: "general".into(), text: "hello".into() };
/// netabase.put_record(message.clone()).await?;
/// assert_eq!(netabase.get_record(MessagePrimaryKey("42".into())).await?, Some(message));
/// # Ok(())
/// # }
/// ```
pub struct Netabase<D> {
    inner: Arc<Inner>,
    marker: PhantomData<fn() -> D>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) parts: Parts,
    node: Mutex<Option<Arc<Node>>>,
    /// Keeps starts and stops from overlapping.
    lifecycle: AsyncMutex<()>,
    /// Where the database is; none if it is in memory.
    database_path: Option<PathBuf>,
}

/// Both run in tasks of their own, so that a caller who does not wait for the end leaves no half of it.
impl Inner {
    /// Returns the node, if the swarm is running.
    pub(crate) fn node(&self) -> Result<Arc<Node>, NetabaseError> {
        self.node.lock().clone().ok_or(NetabaseError::NotRunning)
    }

    async fn start(&self) -> Result<(), NetabaseError> {
        let _lifecycle = self.lifecycle.lock().await;
        let running = self.node.lock().as_ref().is_some_and(|node| !node.is_finished());
        if !running {
            let node = Node::start(self.parts.clone()).await?;
            *self.node.lock() = Some(Arc::new(node));
        }
        Ok(())
    }

    async fn stop(&self) {
        let _lifecycle = self.lifecycle.lock().await;
        let node = self.node.lock().take();
        if let Some(node) = node {
            node.stop().await;
        }
    }
}

impl<D: NetabaseDefinition> Netabase<D> {
    /// Opens or creates the database named after the definition in the current directory, with
    /// default settings.
    pub fn new() -> Result<Self, NetabaseError> {
        Self::new_with_config(NetabaseConfig::default())
    }

    /// Opens or creates the database at `path`, with default settings.
    ///
    /// The peer's identity is kept beside it, in a file with `.identity` at the end of its name.
    pub fn new_with_path(path: impl Into<PathBuf>) -> Result<Self, NetabaseError> {
        Self::new_with_config(NetabaseConfig {
            database_path: Some(path.into()),
            ..NetabaseConfig::default()
        })
    }

    /// Opens or creates a database as `config` says.
    ///
    /// Fails if the configuration is not valid, or if the database is open elsewhere, damaged, or
    /// holds another definition.
    pub fn new_with_config(config: NetabaseConfig) -> Result<Self, NetabaseError> {
        config.validate()?;
        let database_path = database_path::<D>(&config);
        let store = open_store::<D>(&config, database_path.as_deref())?;
        let (store, identity) = store;
        let (events, _) = broadcast::channel(EVENT_CAPACITY);
        let (members_news, traces) = (Arc::new(Notify::new()), Traces::default());
        let found_pages = FoundPages::default();
        let network: Arc<str> = config.network.as_deref().unwrap_or(D::SCHEMA.name).into();
        let live = Live::new(Arc::clone(&network), D::SCHEMA);
        store.set_observer({
            let (events, members_news) = (events.clone(), Arc::clone(&members_news));
            let found_pages = found_pages.clone();
            let (traces, clock) = (traces.clone(), store.clock().clone());
            let live = live.clone();
            let members_key = store.members_key().cloned();
            move |event| {
                traces.observe(clock.unix_millis(), &event);
                found_pages.observe(&event);
                announce(&live, &event);
                let event = translate(event, members_key.as_ref());
                if matches!(event, NetabaseSwarmEvent::MembersChanged(_)) {
                    members_news.notify_one();
                }
                // Without subscribers there is nobody to miss it.
                let _ = events.send(event);
            }
        });
        let beside = config.database_path.as_deref().or(database_path.as_deref());
        let parts = Parts {
            network,
            known_peers: beside.map(|path| network::known_peers_beside(path).into()),
            config: Arc::new(config),
            sanctions: Sanctions::default(),
            identity,
            store,
            events,
            traces,
            live,
            members_news,
            found_pages,
            blob_window: Arc::new(Semaphore::new(network::fetch::WINDOW_GROUPS)),
            replications: Replications::default(),
        };
        let inner = Inner { parts, node: Mutex::default(), lifecycle: AsyncMutex::default(), database_path };
        Ok(Self { inner: Arc::new(inner), marker: PhantomData })
    }

    /// Starts sharing: returns when the swarm listens. Does nothing if it runs already.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O enabled.
    pub async fn start_swarm(&self) -> Result<(), NetabaseError> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.start().await }).await.map_err(NetabaseError::network)?
    }

    /// Stops sharing; calls in flight end with [`NetabaseError::Closed`]. The database stays open,
    /// and the swarm can be started again. Does nothing if it is not running.
    pub async fn stop_swarm(&self) -> Result<(), NetabaseError> {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.stop().await }).await.map_err(NetabaseError::network)
    }

    /// Returns the name of this peer, which is the same at every start.
    pub fn local_peer_id(&self) -> PeerId {
        self.inner.parts.identity.public().to_peer_id()
    }

    /// Returns the addresses that the swarm listens on; none if it is not running.
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.inner.node.lock().as_ref().map(|node| node.listen_addresses()).unwrap_or_default()
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
        Events::new(self.inner.parts.events.subscribe())
    }

    /// Follows the changes of the records that `query` asks for, whatever its order, limit and cursor: those of this
    /// program and those of peers, which send them at once while the swarm runs.
    ///
    /// It begins with the next change; [`LiveWatch::from`] begins elsewhere, such as after the last change that was
    /// seen before a restart. While it lives, the scope of the query is [kept here](Self::replicate), so what was missed
    /// comes, too. It works whether the swarm runs or not, and goes on when that is stopped and started.
    /// Each change that reaches this node's database comes once, in the order in which it was written there.
    ///
    /// Fails with [`StoreError::NoHistory`] if the store keeps no history.
    pub fn watch<M, K>(&self, query: Query<M, K>) -> Result<LiveWatch<M>, NetabaseError>
    where
        M: NetabaseModel<Definition = D>,
        K: QueryKey<M>,
    {
        let scope = query.scope();
        let watch = self.store().open_tree::<M>()?.ask(query).watch(WatchFrom::Now)?;
        Ok(LiveWatch::new(watch.into_stream(), self.replicate(scope)?))
    }

    /// Returns how many live messages there were since the database was opened.
    pub fn live_stats(&self) -> LiveStats {
        self.inner.parts.live.stats()
    }

    /// Stores a record here and at the closest peers, in place of any earlier version.
    ///
    /// Returns when the record is durable here and
    /// [`write_concern`](crate::DHTDiscoveryConfig::write_concern) peers have accepted it, or as
    /// many as there are. Without peers, or before the swarm is started, it succeeds at once and is
    /// published when a peer appears.
    ///
    /// A value larger than [`max_value_bytes`](NetabaseConfig::max_value_bytes) is refused with
    /// [`StoreError::ValueTooLarge`]. After [`NetabaseError::Timeout`] and
    /// [`NetabaseError::Closed`] the record is stored here all the same, and published later.
    pub async fn put_record(&self, record: impl Into<D>) -> Result<WriteOutcome, NetabaseError> {
        self.put_record_with(record, PutOptions::default()).await
    }

    /// Stores a record like [`put_record`](Self::put_record), as `options` say.
    ///
    /// The outcome says what each peer did by then. When the timeout has passed, the call returns what is known
    /// so far, and fails with [`NetabaseError::Timeout`] only if no peers were found yet.
    pub async fn put_record_with(
        &self,
        record: impl Into<D>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        let record = record.into().encode()?;
        let key = record.model.record_key(D::SCHEMA.name, &record.keys.primary)?;
        let previous = self.previous(&key)?;
        let (done, durable) = oneshot::channel();
        let (key, envelope) = self.store().submit_with(&record, options.lifetime, move |result| {
            // A caller that has gone away needs no answer.
            let _ = done.send(result);
        })?;
        self.announce(&key, &envelope, previous.as_ref());
        self.write(key, envelope, durable, options).await
    }

    /// Removes a record here and at every peer: a signed tombstone takes its place, which peers
    /// prefer to any earlier version.
    ///
    /// Returns when the tombstone is durable here and enough peers have accepted it, like
    /// [`put_record`](Self::put_record) does. Peers that cannot be reached keep serving the record
    /// until the tombstone reaches them.
    pub async fn remove_record<K>(&self, key: K) -> Result<WriteOutcome, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.remove_record_with(key, PutOptions::default()).await
    }

    /// Removes a record like [`remove_record`](Self::remove_record), as `options` say, which mean what they do
    /// for [`put_record_with`](Self::put_record_with).
    pub async fn remove_record_with<K>(
        &self,
        key: K,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?;
        let previous = self.previous(&key)?;
        let (done, durable) = oneshot::channel();
        let tombstone = self.store().submit_removal(&key, move |result| {
            // A caller that has gone away needs no answer.
            let _ = done.send(result);
        })?;
        self.announce(&key, &tombstone, previous.as_ref());
        self.write(key, tombstone, durable, options).await
    }

    /// Returns the record under `key`: from here if it is here, else from the network.
    ///
    /// A local hit answers without touching the network; use [`fetch_record`](Self::fetch_record)
    /// to ask anyway. `None` means that the record is not here and no peer that answered has it, or
    /// that it was removed.
    pub async fn get_record<K>(&self, key: K) -> Result<Option<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        Ok(self.get_record_with(key, GetOptions::default()).await?.record)
    }

    /// Reads the record under `key` as `options` say, and says where it comes from and what the peers answered.
    ///
    /// Calls for one record that begin within a second share a lookup, as long as no copy was found; one that is
    /// cancelled takes nothing from the others.
    ///
    /// With [`Consistency::All`] the call returns when its timeout has passed with what is known so far; it
    /// fails with [`NetabaseError::Timeout`] if no peers were found by then.
    pub async fn get_record_with<K>(
        &self,
        key: K,
        options: GetOptions,
    ) -> Result<ReadOutcome<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?;
        let before = self.store().envelope(&key)?;
        let node = match options.consistency {
            Consistency::Local => None,
            Consistency::LocalFirst => self.node().ok().filter(|_| before.is_none()),
            Consistency::Newest | Consistency::All => Some(self.node()?),
        };
        let Some(node) = node else { return read_outcome::<K>(before, Reading::default()) };
        let (deadline, asked) = (node.deadline(options.timeout), key.clone());
        let mut reading = if options.consistency == Consistency::All {
            node.ask(deadline, |reply| Command::GetAllCopies { key: asked, deadline, reply }).await?
        } else {
            node.call_before(deadline, |reply| Command::GetRecord { key: asked, reply }).await?
        };
        // A version that came to be here meanwhile may be the one that a peer has just answered with.
        let is_news = |now: &Envelope| before.as_ref() == Some(now) || reading.newest.as_ref() != Some(now);
        let local = self.store().envelope(&key)?.filter(is_news);
        if let (Some(found), Some(local)) = (&reading.newest, &local) {
            // Of a merged record both may have contributions that the other lacks.
            reading.newest = Some(self.store().join(&key, found, local));
        }
        read_outcome::<K>(local, reading)
    }

    /// Asks the network for the record under `key` and returns the newest version, the local one
    /// included.
    ///
    /// Copies are collected until [`read_concern`](crate::DHTDiscoveryConfig::read_concern) peers
    /// have answered with one, or as many as there are. The newest is kept here if this node is one
    /// of the key's holders, and sent to holders that answered with an older one. Fails with
    /// [`NetabaseError::NotRunning`] before the swarm is started.
    pub async fn fetch_record<K>(&self, key: K) -> Result<Option<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let options = GetOptions { consistency: Consistency::Newest, timeout: None };
        Ok(self.get_record_with(key, options).await?.record)
    }

    /// Asks the peers that should hold the record under `key` which version of it they have.
    ///
    /// What they say is believed. Fails with [`NetabaseError::NotRunning`] before the swarm is started, and
    /// with [`NetabaseError::Timeout`] if no peers are found in time; peers that do not answer in time are
    /// [`HolderState::Unreachable`](crate::HolderState::Unreachable).
    pub async fn health<K>(&self, key: K) -> Result<Health, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.survey(RecordKey::of(&key)?, false).await
    }

    /// Asks like [`health`](Self::health), and sends the newest version to the peers that lack it.
    ///
    /// The states are those before the repair; [`Health::repairs`] says what the peers did with the version.
    /// If only a peer has it, then it is fetched and verified first.
    pub async fn health_and_repair<K>(&self, key: K) -> Result<Health, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.survey(RecordKey::of(&key)?, true).await
    }

    /// Returns the current member list of a closed network; none if none has come yet. Fails in an open
    /// network with [`StoreError::OpenNetwork`].
    pub fn members(&self) -> Result<Option<MemberList>, NetabaseError> {
        Ok(self.store().members()?.map(|signed| signed.members().clone()))
    }

    /// Says who may write from now on, in place of the current list: signs `list` with the network's `root`
    /// key, which need not be this node's identity.
    ///
    /// It counts here at once, and at every node that it reaches: each passes it on to its peers, and gives it
    /// to every peer that connects later. Records that it does not allow are removed where they are, in the
    /// background, and refused from then on. Returns as [`put_record`](Self::put_record) does, where the peers
    /// are those that are connected; without the network it succeeds at once.
    ///
    /// Fails with [`StoreError::Members`] if `root` is not the network's root key.
    pub async fn publish_members(
        &self,
        list: &MemberList,
        root: &Keypair,
    ) -> Result<WriteOutcome, NetabaseError> {
        let signed = self.store().sign_members(list, &identity::signing_key(root)?)?;
        self.apply_members(signed).await
    }

    /// Does what [`publish_members`](Self::publish_members) does with a list that was signed elsewhere, where
    /// the root key is kept; see [`MemberList::sign`].
    ///
    /// Fails with [`StoreError::Members`] if it is not the root's, or if a newer one is here.
    pub async fn apply_members(&self, signed: SignedMembers) -> Result<WriteOutcome, NetabaseError> {
        let (done, durable) = oneshot::channel();
        let (key, envelope) = self.store().submit_members(&signed, move |result| {
            // A caller that has gone away needs no answer.
            let _ = done.send(result);
        })?;
        self.write(key, envelope, durable, PutOptions::default()).await
    }

    /// Compares everything that is kept here with its other holders, sends them what they lack and fetches what
    /// this node lacks; returns what was done.
    ///
    /// Happens by itself once in every [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval), at a
    /// pace that does not disturb. Called here it goes as fast as it can, however long that is: it is not bound
    /// by [`call_timeout`](NetabaseConfig::call_timeout).
    pub async fn repair(&self) -> Result<RepairReport, NetabaseError> {
        self.node()?.repair().await
    }

    /// Keeps every record of a scope on this node, and current, until what it returns is dropped: a
    /// [definition](Scope::definition), a [model](Scope::model) or one [value](Scope::value) of a secondary key.
    ///
    /// Changes come live. The scope is compared with the peers that hold it, which are connected to: now, when
    /// one connects, and every [`sync_interval`](NetabaseConfig::sync_interval). What is missing here is fetched and verified. Peers that
    /// keep the scope, too, are given what they lack. Its records are not given up in a repair, and go last for
    /// lack of room. It may begin before the swarm is started. `docs/sync.md` is the guide.
    ///
    /// Fails with [`StoreError::OtherScope`] if this program's definition has no such model or secondary key.
    pub fn replicate(&self, scope: Scope) -> Result<Replication, NetabaseError> {
        Ok(self.inner.parts.replications.begin(self.store(), &self.inner.parts.live, scope)?)
    }

    /// Announces that this node has the record under `key`, now and until
    /// [`stop_providing`](Self::stop_providing), also after a restart.
    pub async fn start_providing<K>(&self, key: K) -> Result<(), NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.node()?.call(|reply| Command::StartProviding { key, reply }).await.map(|_| ())
    }

    /// Stops announcing. Others forget the announcement when its lifetime ends.
    pub async fn stop_providing<K>(&self, key: K) -> Result<(), NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.node()?.call(|reply| Command::StopProviding { key, reply }).await
    }

    /// Returns the peers that announce the record under `key`.
    pub async fn get_providers<K>(&self, key: K) -> Result<HashSet<PeerId>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.node()?.call(|reply| Command::GetProviders { key, reply }).await
    }

    /// Fills the routing table by looking for this node's own neighbourhood; returns how many peers
    /// are in it afterwards.
    ///
    /// Happens by itself at the start and every
    /// [`bootstrap_interval`](crate::DHTDiscoveryConfig::bootstrap_interval). Fails with
    /// [`NetabaseError::NoKnownPeers`] while there is nobody to ask.
    pub async fn bootstrap(&self) -> Result<usize, NetabaseError> {
        self.node()?.call(|reply| Command::Bootstrap { reply }).await
    }

    /// Adds an address of a peer to the routing table and connects to the peer.
    pub async fn add_address(&self, peer: PeerId, address: Multiaddr) -> Result<(), NetabaseError> {
        self.node()?.call(|reply| Command::AddAddress { peer, address, reply }).await
    }

    /// Removes an address of a peer from the routing table; returns whether it was there.
    pub async fn remove_address(&self, peer: PeerId, address: Multiaddr) -> Result<bool, NetabaseError> {
        self.node()?.call(|reply| Command::RemoveAddress { peer, address, reply }).await
    }

    /// Removes a peer from the routing table and disconnects from it; returns whether it was known.
    /// It may come back by itself.
    pub async fn remove_peer(&self, peer: PeerId) -> Result<bool, NetabaseError> {
        self.node()?.call(|reply| Command::RemovePeer { peer, reply }).await
    }

    /// Returns whether the node serves the distributed hash table or only uses it.
    pub async fn get_mode(&self) -> Result<kad::Mode, NetabaseError> {
        self.node()?.call(|reply| Command::Mode { reply }).await
    }

    /// Changes whether the node serves the distributed hash table, until the swarm is stopped.
    pub async fn set_mode(&self, mode: DhtMode) -> Result<(), NetabaseError> {
        self.node()?.call(|reply| Command::SetMode { mode, reply }).await
    }

    /// Returns the protocol names of the distributed hash table.
    pub async fn get_protocol_names(&self) -> Result<Vec<StreamProtocol>, NetabaseError> {
        self.node()?.call(|reply| Command::ProtocolNames { reply }).await
    }

    /// Returns the peers that are connected now.
    pub async fn connected_peers(&self) -> Result<Vec<PeerId>, NetabaseError> {
        self.node()?.call(|reply| Command::ConnectedPeers { reply }).await
    }

    /// Returns what is known of a peer's conduct: which of its records were refused, and whether it is slowed
    /// or banned for it. `None` if it has sent nothing, or was forgotten since.
    pub fn peer_report(&self, peer: PeerId) -> Option<PeerReport> {
        self.inner.parts.sanctions.report(&peer)
    }

    /// Returns what is known of the conduct of all peers that have sent anything, up to
    /// [`MAX_TRACKED_PEERS`](crate::MAX_TRACKED_PEERS) of them.
    pub fn peer_reports(&self) -> Vec<PeerReport> {
        self.inner.parts.sanctions.reports()
    }

    /// Forgets what a peer has done, and lets a banned one come back at once; returns whether anything was
    /// known of it.
    pub fn pardon(&self, peer: PeerId) -> bool {
        self.inner.parts.sanctions.pardon(&peer)
    }

    /// Says what happened to the record under `key` on this node: which version is here and why, who sent it,
    /// what was refused, where it was published and when it is next.
    ///
    /// Events are remembered from the start of the program on, the newest
    /// [`MAX_TRACE_EVENTS`](crate::MAX_TRACE_EVENTS) of all records together; the persisted history of changes
    /// goes back farther.
    pub async fn why<K>(&self, key: K) -> Result<Trace, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?;
        let is_holder = match self.node() {
            Ok(node) => {
                let key = key.clone();
                Some(node.call(|reply| Command::IsHolder { key, reply }).await?)
            }
            Err(_) => None,
        };
        let (store, traces) = (self.store().clone(), self.inner.parts.traces.clone());
        let trace = tokio::task::spawn_blocking(move || traces.trace(&store, key, is_holder));
        Ok(trace.await.map_err(NetabaseError::network)??)
    }

    /// Returns up to `limit` records of the local store, model by model in key order; all of them
    /// with `None`, which reads them all into memory.
    pub async fn query_local_records(&self, limit: Option<usize>) -> Result<Vec<D>, NetabaseError> {
        let node = self.inner.node.lock().clone();
        let records = match node {
            Some(node) => node.call(|reply| Command::LocalStore { limit, reply }).await?,
            None => self.store().local_records(limit)?,
        };
        let decode = |(key, envelope): &(RecordKey, Envelope)| D::decode(key.model(), envelope.payload());
        Ok(records.iter().map(decode).collect::<Result<_, _>>()?)
    }

    /// Returns what queries of the network have found.
    pub(crate) fn found_pages(&self) -> &FoundPages {
        &self.inner.parts.found_pages
    }

    pub(crate) fn node(&self) -> Result<Arc<Node>, NetabaseError> {
        self.inner.node()
    }

    /// Returns the version that a write is about to replace, if anybody watches.
    fn previous(&self, key: &RecordKey) -> Result<Option<Envelope>, NetabaseError> {
        if self.inner.parts.live.is_wanted() { Ok(self.store().envelope(key)?) } else { Ok(None) }
    }

    /// Sends a version to those who watch it, while the disk is at work; one that the writer may refuse is sent
    /// when it is written.
    fn announce(&self, key: &RecordKey, envelope: &Envelope, previous: Option<&Envelope>) {
        if !self.store().may_refuse(key) {
            self.inner.parts.live.announce(key, envelope, previous);
        }
    }

    async fn survey(&self, key: RecordKey, repair: bool) -> Result<Health, NetabaseError> {
        let node = self.node()?;
        let deadline = node.deadline(None);
        node.ask(deadline, |reply| Command::Health { key, repair, deadline, reply }).await
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
        // Boxed, since it is awaited in one of two places.
        let publish = Box::pin(async {
            if let Ok(node) = self.node() {
                let deadline = node.deadline(options.timeout);
                return node.publish(key.clone(), envelope, options.write_concern, deadline).await;
            }
            let due = overdue(self.store(), &envelope);
            self.store().schedule(&key, &envelope, Some(due));
            Ok(Publication::default())
        });
        let (change, published) = if self.store().may_refuse(&key) {
            // Nobody may hear of a version that the writer refuses.
            let change = durable.await.map_err(|_| NetabaseError::Closed)??;
            (change, publish.await)
        } else {
            let (durable, published) = futures::join!(durable, publish);
            (durable.map_err(|_| NetabaseError::Closed)??, published)
        };
        let published = published?;
        let accepted = published.accepted().collect();
        let Publication { peers } = published;
        let asked = peers.iter().map(|peer| peer.peer).collect();
        let replaced = matches!(change, Some(ChangeKind::Updated | ChangeKind::Removed));
        Ok(WriteOutcome { version, replaced, asked, accepted, peers })
    }
}

/// Sends what this program has written to those who watch it. What was sent already is not sent again.
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

/// Says what a read has found, here and at peers; a tombstone is a version without a record.
fn read_outcome<K: PrimaryKey>(
    local: Option<Envelope>,
    reading: Reading,
) -> Result<ReadOutcome<K::Model>, NetabaseError> {
    let Reading { newest, from, peers } = reading;
    let is_newer = |newest: &Envelope| local.as_ref().is_none_or(|local| newest.adds_to(local));
    let found = newest.filter(is_newer).zip(from.map(ReadSource::Peer));
    let found = found.or_else(|| local.map(|local| (local, ReadSource::Local)));
    let (envelope, source) = found.unzip();
    let live = envelope.as_ref().filter(|envelope| !envelope.is_tombstone());
    let record = live.map(|envelope| decode_payload(envelope.payload())).transpose()?;
    Ok(ReadOutcome {
        record,
        author: envelope.as_ref().and_then(Envelope::author),
        version: envelope.as_ref().and_then(Envelope::version),
        expires: envelope.as_ref().and_then(Envelope::expires).map(system_time),
        source,
        peers,
    })
}

fn database_path<D: NetabaseDefinition>(config: &NetabaseConfig) -> Option<PathBuf> {
    match config.backend {
        StorageBackend::Memory => None,
        backend => {
            let default = || PathBuf::from(format!("{}.{backend}", D::SCHEMA.name));
            Some(config.database_path.clone().unwrap_or_else(default))
        }
    }
}

/// Opens the store with the identity that signs for it, in memory if there is no path.
fn open_store<D: NetabaseDefinition>(
    config: &NetabaseConfig,
    path: Option<&Path>,
) -> Result<(NetabaseStore, Keypair), NetabaseError> {
    let identity = match (&config.identity, path) {
        (Some(identity), _) => identity.clone(),
        (None, Some(path)) => identity::load_or_create(&identity::path_beside(path))?,
        (None, None) => Keypair::generate_ed25519(),
    };
    let options = StoreOptions {
        backend: config.backend,
        cache_bytes: config.cache_bytes,
        max_value_bytes: config.max_value_bytes,
        identity: Some(identity::signing_key(&identity)?),
        root: config.root,
        record_lifetime: config.record_lifetime,
        tombstone_floor: config.tombstone_floor,
        max_replica_bytes: config.max_replica_bytes,
        max_author_bytes: config.max_author_bytes,
        max_blob_bytes: config.max_blob_bytes,
        blob_grace: config.blob_grace,
        position: kad::KBucketKey::from(identity.public().to_peer_id()).hashed_bytes().try_into().ok(),
        ..StoreOptions::default()
    };
    let store = NetabaseStore::open_with(path.unwrap_or(Path::new("")), Some(D::SCHEMA), options)?;
    // Before anybody is served what was deleted while this node was away.
    store.discard_unvouched()?;
    Ok((store, identity))
}

impl<D> Clone for Netabase<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), marker: PhantomData }
    }
}

impl<D> fmt::Debug for Netabase<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Netabase")
            .field("peer", &self.inner.parts.identity.public().to_peer_id())
            .field("database_path", &self.inner.database_path)
            .field("running", &self.inner.node.lock().is_some())
            .finish_non_exhaustive()
    }
}

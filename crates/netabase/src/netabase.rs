//! The typed handle that applications hold.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libp2p::identity::Keypair;
use libp2p::{Multiaddr, PeerId, StreamProtocol, kad};
use netabase_store::{
    ChangeKind, Envelope, NetabaseDefinition, NetabaseStore, PrimaryKey, RecordKey, StorageBackend,
    StoreError, StoreEvent, StoreOptions, Version, decode_payload,
};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, broadcast, oneshot};

use crate::config::{DhtMode, NetabaseConfig};
use crate::error::NetabaseError;
use crate::event::{EVENT_CAPACITY, Events, NetabaseSwarmEvent, RecordEvent};
use crate::identity;
use crate::network::{Command, Node, Parts, Publication};

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
struct Inner {
    parts: Parts,
    node: Mutex<Option<Arc<Node>>>,
    /// Keeps starts and stops from overlapping.
    lifecycle: AsyncMutex<()>,
    /// Where the database is; none if it is in memory.
    database_path: Option<PathBuf>,
}

/// Both run in tasks of their own, so that a caller who does not wait for the end leaves no half of it.
impl Inner {
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

/// What became of a put or a removal.
///
/// Whenever one is returned, the version is durable in the local store, or a newer one that came in the
/// meantime is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteOutcome {
    /// The version that was written.
    pub version: Version,
    /// Whether there was a live record here before, which the version replaced or removed.
    pub replaced: bool,
    /// The closest peers that were found, and are sent the version. Empty without peers: it is then
    /// published when there are some.
    pub asked: Vec<PeerId>,
    /// The peers that had accepted the version when the answer was given; the others may follow.
    pub accepted: Vec<PeerId>,
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
        store.set_observer({
            let events = events.clone();
            move |event| {
                // Without subscribers there is nobody to miss it.
                let _ = events.send(match event {
                    StoreEvent::Changed(change) => NetabaseSwarmEvent::Record(RecordEvent::new(change)),
                    StoreEvent::Refused { key, reason } => NetabaseSwarmEvent::RecordRefused { key, reason },
                });
            }
        });
        let network = config.network.as_deref().unwrap_or(D::SCHEMA.name).into();
        let parts = Parts { config: Arc::new(config), network, identity, store, events };
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

    /// Subscribes to all events from now on, whether the swarm runs or not.
    pub fn subscribe_to_broadcasts(&self) -> Events {
        Events::new(self.inner.parts.events.subscribe())
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
        let record = record.into().encode()?;
        let (done, durable) = oneshot::channel();
        let (key, envelope) = self.store().submit(&record, move |result| {
            // A caller that has gone away needs no answer.
            let _ = done.send(result);
        })?;
        self.write(key, envelope, durable).await
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
        let key = RecordKey::of(&key)?;
        let (done, durable) = oneshot::channel();
        let tombstone = self.store().submit_removal(&key, move |result| {
            // A caller that has gone away needs no answer.
            let _ = done.send(result);
        })?;
        self.write(key, tombstone, durable).await
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
        let key = RecordKey::of(&key)?;
        match self.store().envelope(&key)? {
            Some(local) => decode::<K>(Some(&local)),
            None => decode::<K>(self.fetch(key).await?.as_ref()),
        }
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
        let key = RecordKey::of(&key)?;
        self.node()?;
        let found = self.fetch(key.clone()).await?;
        let local = self.store().envelope(&key)?;
        let newest = match (found, local) {
            (Some(found), Some(local)) => Some(self.store().join(&key, &found, &local)),
            (found, local) => found.or(local),
        };
        decode::<K>(newest.as_ref())
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

    fn node(&self) -> Result<Arc<Node>, NetabaseError> {
        self.inner.node.lock().clone().ok_or(NetabaseError::NotRunning)
    }

    /// Asks the network for a record; without a swarm there is nobody to ask.
    async fn fetch(&self, key: RecordKey) -> Result<Option<Envelope>, NetabaseError> {
        match self.node() {
            Ok(node) => node.call(|reply| Command::GetRecord { key, reply }).await,
            Err(_) => Ok(None),
        }
    }

    /// Waits for the disk and for the network, which work at the same time.
    async fn write(
        &self,
        key: RecordKey,
        envelope: Envelope,
        durable: oneshot::Receiver<Result<Option<ChangeKind>, StoreError>>,
    ) -> Result<WriteOutcome, NetabaseError> {
        let version = envelope.version().ok_or(StoreError::NoIdentity)?;
        // Boxed, since it is awaited in one of two places.
        let publish = Box::pin(async {
            if let Ok(node) = self.node() {
                return node.publish(key.clone(), envelope).await;
            }
            self.store().schedule(&key, &envelope, Some(0));
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
        let Publication { asked, accepted } = published?;
        let replaced = matches!(change, Some(ChangeKind::Updated | ChangeKind::Removed));
        Ok(WriteOutcome { version, replaced, asked, accepted })
    }
}

/// Decodes what a key names; a tombstone is nothing.
fn decode<K: PrimaryKey>(envelope: Option<&Envelope>) -> Result<Option<K::Model>, NetabaseError> {
    let live = envelope.filter(|envelope| !envelope.is_tombstone());
    Ok(live.map(|envelope| decode_payload(envelope.payload())).transpose()?)
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
        record_lifetime: config.record_lifetime,
        ..StoreOptions::default()
    };
    let store = NetabaseStore::open_with(path.unwrap_or(Path::new("")), Some(D::SCHEMA), options)?;
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

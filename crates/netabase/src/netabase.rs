//! The typed handle that applications hold.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::PathBuf;

use libp2p::PeerId;
use netabase_store::query::QueryKey;
use netabase_store::schema::decode_payload;
use netabase_store::{Envelope, NetabaseDefinition, NetabaseModel, PrimaryKey, Query, RecordKey, WatchFrom};

use crate::config::NetabaseConfig;
use crate::error::NetabaseError;
use crate::event_loop::command::Command;
use crate::live::LiveWatch;
use crate::node::Node;
use crate::outcome::{Consistency, GetOptions, Health, PutOptions, ReadOutcome, WriteOutcome};
use crate::telemetry::trace::Trace;

/// The handle of a typed, local-first, peer-to-peer database of definition `D`.
///
/// Records live in an embedded database on this machine, and every method that needs no peer works
/// without the network. Between [`start_swarm`](Node::start_swarm) and
/// [`stop_swarm`](Node::stop_swarm) a background task shares the records with the other peers of
/// the network.
///
/// Cloning is cheap, and clones share the database and the swarm; both close soon after the last
/// clone is dropped. To open the same database again at once, await `stop_swarm` before dropping
/// the handle. A process may open any number of databases. Async methods must be called inside a
/// tokio runtime; cancelling one never cancels the operation that it has started.
///
/// ```
/// use netabase::{Netabase, NetabaseConfig, NetabaseModel, StoreOptions, netabase_definition_module};
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
/// let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
/// let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// let message = Message { id: "42".into(), room: "general".into(), text: "hello".into() };
/// netabase.put_record(message.clone()).await?;
/// assert_eq!(netabase.get_record(MessagePrimaryKey("42".into())).await?, Some(message));
/// # Ok(())
/// # }
/// ```
pub struct Netabase<D> {
    node: Node,
    marker: PhantomData<fn() -> D>,
}

impl<D: NetabaseDefinition> Netabase<D> {
    /// Opens or creates the database named after the definition in the current directory, with
    /// default settings.
    ///
    /// Blocks until the database is open; in an async function use `spawn_blocking`.
    pub fn new() -> Result<Self, NetabaseError> {
        Self::new_with_config(NetabaseConfig::default())
    }

    /// Opens or creates the database at `path`, with default settings.
    ///
    /// Blocks until the database is open; in an async function use `spawn_blocking`.
    ///
    /// The peer's identity is in a file beside the database, whose name is that of the database
    /// followed by `.identity`.
    pub fn new_with_path(path: impl Into<PathBuf>) -> Result<Self, NetabaseError> {
        Self::new_with_config(NetabaseConfig {
            database_path: Some(path.into()),
            ..NetabaseConfig::default()
        })
    }

    /// Opens or creates a database with the settings in `config`.
    ///
    /// Blocks until the database is open; in an async function use `spawn_blocking`.
    ///
    /// Fails if the configuration is invalid, or if the database is open elsewhere, damaged, or
    /// holds another definition.
    pub fn new_with_config(config: NetabaseConfig) -> Result<Self, NetabaseError> {
        Ok(Self { node: Node::open(D::SCHEMA, config)?, marker: PhantomData })
    }

    /// Returns the untyped handle of the same database and swarm.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Watches the changes of the records that match `query`, by this program and by peers. The
    /// order, limit and cursor of the query are ignored. While the swarm runs, peers send their
    /// changes at once.
    ///
    /// Blocks on the disk if a page is not cached, for microseconds otherwise.
    ///
    /// The watch starts with the next change; [`LiveWatch::from`] starts it elsewhere, such as
    /// after the last change that was seen before a restart. While the watch lives, this node
    /// [replicates](Node::replicate) the scope of the query, so missed changes arrive, too. The
    /// watch works whether the swarm runs or not, and survives stopping and starting the swarm.
    /// Each change of this node's database is delivered once, in the order in which it was
    /// committed.
    ///
    /// Fails with [`HistoryError::NotKept`](netabase_store::changes::HistoryError::NotKept) if the
    /// store keeps no history.
    pub fn watch<M, K>(&self, query: Query<M, K>) -> Result<LiveWatch<M>, NetabaseError>
    where
        M: NetabaseModel<Definition = D>,
        K: QueryKey<M>,
    {
        let scope = query.scope();
        let watch = self.store().open_tree::<M>()?.ask(query).watch(WatchFrom::Now)?;
        Ok(LiveWatch::new(watch.into_stream(), self.replicate(scope)?))
    }

    /// Stores a record here and at the closest peers, replacing any earlier version.
    ///
    /// Returns when the record is durable here and
    /// [`write_concern`](crate::DHTDiscoveryConfig::write_concern) peers have accepted it, or all
    /// peers if there are fewer. Without peers, or before the swarm is started, the call succeeds
    /// at once, and the record is published when a peer connects.
    ///
    /// Fails with [`WriteError::ValueTooLarge`](netabase_store::WriteError::ValueTooLarge) if the
    /// value is larger than [`max_value_bytes`](crate::StoreOptions::max_value_bytes). After
    /// [`NetabaseError::Timeout`] and [`NetabaseError::Closed`] the record is nevertheless stored
    /// here and is published later.
    pub async fn put_record(&self, record: impl Into<D>) -> Result<WriteOutcome, NetabaseError> {
        self.put_record_with(record, PutOptions::default()).await
    }

    /// Stores a record like [`put_record`](Self::put_record), with `options`.
    ///
    /// The outcome lists each peer's answer so far. When the timeout passes, the call returns the
    /// answers until then. It fails with [`NetabaseError::Timeout`] only if it has found no peers
    /// by then.
    pub async fn put_record_with(
        &self,
        record: impl Into<D>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        self.node.put(record.into().encode()?, options).await
    }

    /// Removes a record here and at every peer by writing a signed tombstone, which replaces every
    /// earlier version.
    ///
    /// Returns `None`, and writes and sends nothing, if there is no such record. If this node has
    /// neither the record nor a tombstone, the call looks for the record at the peers, as
    /// [`get_record`](Self::get_record) does, and removes it if one of them has it. Without the
    /// network only local records can be removed.
    ///
    /// Returns when the tombstone is durable here and enough peers have accepted it, as
    /// [`put_record`](Self::put_record) does. Unreachable peers keep serving the record until they
    /// receive the tombstone.
    pub async fn remove_record<K>(&self, key: K) -> Result<Option<WriteOutcome>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.remove_record_with(key, PutOptions::default()).await
    }

    /// Removes a record like [`remove_record`](Self::remove_record), with `options`, which mean the
    /// same as for [`put_record_with`](Self::put_record_with).
    pub async fn remove_record_with<K>(
        &self,
        key: K,
        options: PutOptions,
    ) -> Result<Option<WriteOutcome>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.remove(RecordKey::of(&key)?, options).await
    }

    /// Returns the record under `key` from the local store, or else from the network.
    ///
    /// A local hit needs no network; use [`fetch_record`](Self::fetch_record) to ask peers
    /// nevertheless. Returns `None` if the record was removed, or if it is not here and no peer
    /// that answered has it.
    pub async fn get_record<K>(&self, key: K) -> Result<Option<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        Ok(self.get_record_with(key, GetOptions::default()).await?.record)
    }

    /// Reads the record under `key` with `options`, and returns its source and the peers' answers,
    /// too.
    ///
    /// Concurrent calls for one record that start within a second of each other share a lookup
    /// until it has found a copy. Cancelling one call does not affect the others.
    ///
    /// With [`Consistency::All`] the call returns what it has found when its timeout passes. It
    /// fails with [`NetabaseError::Timeout`] if it has found no peers by then.
    pub async fn get_record_with<K>(
        &self,
        key: K,
        options: GetOptions,
    ) -> Result<ReadOutcome<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let ReadOutcome { record, author, version, expires, source, peers } =
            self.node.get(&RecordKey::of(&key)?, options).await?;
        let record = record.map(|envelope| decode_payload(envelope.payload())).transpose()?;
        Ok(ReadOutcome { record, author, version, expires, source, peers })
    }

    /// Asks the network for the record under `key` and returns the newest version, the local one
    /// included.
    ///
    /// Collects copies until [`read_concern`](crate::DHTDiscoveryConfig::read_concern) peers have
    /// answered with one, or all peers if there are fewer. This node stores the newest version if
    /// it is one of the key's holders, and sends it to holders that answered with an older one.
    /// Fails with [`NetabaseError::NotRunning`] before the swarm is started.
    pub async fn fetch_record<K>(&self, key: K) -> Result<Option<K::Model>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let options = GetOptions { consistency: Consistency::Newest, timeout: None };
        Ok(self.get_record_with(key, options).await?.record)
    }

    /// Asks the holders of the record under `key` for the version that each of them has.
    ///
    /// The peers' answers are not verified. Fails with [`NetabaseError::NotRunning`] before the
    /// swarm is started, and with [`NetabaseError::Timeout`] if no peers are found in time. Peers
    /// that do not answer in time are
    /// [`HolderState::Unreachable`](crate::health::HolderState::Unreachable).
    pub async fn health<K>(&self, key: K) -> Result<Health, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.health(RecordKey::of(&key)?).await
    }

    /// Asks like [`health`](Self::health), and sends the newest version to the holders that lack
    /// it.
    ///
    /// The states are those before the repair; [`Health::repairs`] has the peers' answers to the
    /// version. If only a peer has the newest version, this node fetches and verifies it first.
    pub async fn health_and_repair<K>(&self, key: K) -> Result<Health, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.health_and_repair(RecordKey::of(&key)?).await
    }

    /// Announces that this node has the record under `key`, until
    /// [`stop_providing`](Self::stop_providing). The announcement survives restarts.
    pub async fn start_providing<K>(&self, key: K) -> Result<(), NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.running()?.call(|reply| Command::StartProviding { key, reply }).await.map(|_| ())
    }

    /// Stops announcing the record under `key`. Other peers drop the announcement when its TTL
    /// ends.
    pub async fn stop_providing<K>(&self, key: K) -> Result<(), NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.running()?.call(|reply| Command::StopProviding { key, reply }).await
    }

    /// Returns the peers that announce the record under `key`.
    pub async fn get_providers<K>(&self, key: K) -> Result<HashSet<PeerId>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.running()?.call(|reply| Command::GetProviders { key, reply }).await
    }

    /// Returns the recent history of the record under `key` on this node: its current version and
    /// sender, refused versions, publications, and the time of the next publication.
    ///
    /// Events are kept in memory from the start of the program: the newest
    /// [`MAX_TRACE_EVENTS`](crate::limits::MAX_TRACE_EVENTS) of all records together. The persisted
    /// history of changes goes back farther.
    pub async fn why<K>(&self, key: K) -> Result<Trace, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.why(RecordKey::of(&key)?).await
    }

    /// Returns up to `limit` records of the local store, model by model in key order. `None` reads
    /// all records into memory.
    pub async fn query_local_records(&self, limit: Option<usize>) -> Result<Vec<D>, NetabaseError> {
        let records = match self.running() {
            Ok(swarm) => swarm.call(|reply| Command::LocalStore { limit, reply }).await?,
            Err(_) => self.store().local_records(limit)?,
        };
        let decode = |(key, envelope): &(RecordKey, Envelope)| D::decode(key.model(), envelope.payload());
        Ok(records.iter().map(decode).collect::<Result<_, _>>()?)
    }
}

/// Untyped methods come from [`Node`].
impl<D> Deref for Netabase<D> {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl<D> Clone for Netabase<D> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone(), marker: PhantomData }
    }
}

impl<D> fmt::Debug for Netabase<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Netabase").field(&self.node).finish()
    }
}

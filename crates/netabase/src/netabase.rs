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

/// A typed, local-first, peer-to-peer database of definition `D`.
///
/// Records live in an embedded database on this machine, and everything works without the network.
/// Between [`start_swarm`](Node::start_swarm) and [`stop_swarm`](Node::stop_swarm) a background
/// task shares them with the other peers of the network.
///
/// Cloning is cheap, and clones share the database and the swarm; both close soon after the last
/// clone is dropped. To open the same database again at once, await `stop_swarm` before dropping.
/// Any number of databases may be open in one process. Methods that wait must be called inside a
/// tokio runtime; cancelling one never cancels what it has set in motion.
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
    /// Blocks as long as the whole database takes; in an async function use `spawn_blocking`.
    pub fn new() -> Result<Self, NetabaseError> {
        Self::new_with_config(NetabaseConfig::default())
    }

    /// Opens or creates the database at `path`, with default settings.
    ///
    /// Blocks as long as the whole database takes; in an async function use `spawn_blocking`.
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
    /// Blocks as long as the whole database takes; in an async function use `spawn_blocking`.
    ///
    /// Fails if the configuration is not valid, or if the database is open elsewhere, damaged, or
    /// holds another definition.
    pub fn new_with_config(config: NetabaseConfig) -> Result<Self, NetabaseError> {
        Ok(Self { node: Node::open(D::SCHEMA, config)?, marker: PhantomData })
    }

    /// Returns the same database and swarm without types.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Follows the changes of the records that `query` asks for, whatever its order, limit and
    /// cursor: those of this program and those of peers, which send them at once while the swarm
    /// runs.
    ///
    /// Blocks on the disk where a page is not cached, for microseconds otherwise.
    ///
    /// It begins with the next change; [`LiveWatch::from`] begins elsewhere, such as after the last
    /// change that was seen before a restart. While it lives, the scope of the query is [kept
    /// here](Node::replicate), so what was missed comes, too. It works whether the swarm runs or
    /// not, and goes on when that is stopped and started. Each change that reaches this node's
    /// database comes once, in the order in which it was written there.
    ///
    /// Fails with [`StoreError::NoHistory`](crate::StoreError::NoHistory) if the store keeps no
    /// history.
    pub fn watch<M, K>(&self, query: Query<M, K>) -> Result<LiveWatch<M>, NetabaseError>
    where
        M: NetabaseModel<Definition = D>,
        K: QueryKey<M>,
    {
        let scope = query.scope();
        let watch = self.store().open_tree::<M>()?.ask(query).watch(WatchFrom::Now)?;
        Ok(LiveWatch::new(watch.into_stream(), self.replicate(scope)?))
    }

    /// Stores a record here and at the closest peers, in place of any earlier version.
    ///
    /// Returns when the record is durable here and
    /// [`write_concern`](crate::DHTDiscoveryConfig::write_concern) peers have accepted it, or as
    /// many as there are. Without peers, or before the swarm is started, it succeeds at once and is
    /// published when a peer appears.
    ///
    /// A value larger than [`max_value_bytes`](crate::StoreOptions::max_value_bytes) is refused
    /// with [`StoreError::ValueTooLarge`](crate::StoreError::ValueTooLarge). After
    /// [`NetabaseError::Timeout`] and [`NetabaseError::Closed`] the record is stored here all the
    /// same, and published later.
    pub async fn put_record(&self, record: impl Into<D>) -> Result<WriteOutcome, NetabaseError> {
        self.put_record_with(record, PutOptions::default()).await
    }

    /// Stores a record like [`put_record`](Self::put_record), as `options` say.
    ///
    /// The outcome says what each peer did by then. When the timeout has passed, the call returns
    /// what is known so far, and fails with [`NetabaseError::Timeout`] only if no peers were found
    /// yet.
    pub async fn put_record_with(
        &self,
        record: impl Into<D>,
        options: PutOptions,
    ) -> Result<WriteOutcome, NetabaseError> {
        self.node.put(record.into().encode()?, options).await
    }

    /// Removes a record here and at every peer: a signed tombstone takes its place, which peers
    /// prefer to any earlier version.
    ///
    /// Returns `None` where there is no such record: nothing is written then, and nothing is sent.
    /// A record that is neither here nor known to be removed is looked for at the peers first, as
    /// [`get_record`](Self::get_record) does, and removed if one of them has it; without the
    /// network only what is here can be removed.
    ///
    /// Returns when the tombstone is durable here and enough peers have accepted it, like
    /// [`put_record`](Self::put_record) does. Peers that cannot be reached keep serving the record
    /// until the tombstone reaches them.
    pub async fn remove_record<K>(&self, key: K) -> Result<Option<WriteOutcome>, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.remove_record_with(key, PutOptions::default()).await
    }

    /// Removes a record like [`remove_record`](Self::remove_record), as `options` say, which mean
    /// what they do for [`put_record_with`](Self::put_record_with).
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

    /// Reads the record under `key` as `options` say, and says where it comes from and what the
    /// peers answered.
    ///
    /// Calls for one record that begin within a second share a lookup, as long as no copy was
    /// found; one that is cancelled takes nothing from the others.
    ///
    /// With [`Consistency::All`] the call returns when its timeout has passed with what is known so
    /// far; it fails with [`NetabaseError::Timeout`] if no peers were found by then.
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
    /// What they say is believed. Fails with [`NetabaseError::NotRunning`] before the swarm is
    /// started, and with [`NetabaseError::Timeout`] if no peers are found in time; peers that do
    /// not answer in time are
    /// [`HolderState::Unreachable`](crate::health::HolderState::Unreachable).
    pub async fn health<K>(&self, key: K) -> Result<Health, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.health(RecordKey::of(&key)?).await
    }

    /// Asks like [`health`](Self::health), and sends the newest version to the peers that lack it.
    ///
    /// The states are those before the repair; [`Health::repairs`] says what the peers did with the
    /// version. If only a peer has it, then it is fetched and verified first.
    pub async fn health_and_repair<K>(&self, key: K) -> Result<Health, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.health_and_repair(RecordKey::of(&key)?).await
    }

    /// Announces that this node has the record under `key`, now and until
    /// [`stop_providing`](Self::stop_providing), also after a restart.
    pub async fn start_providing<K>(&self, key: K) -> Result<(), NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        let key = RecordKey::of(&key)?.as_bytes().to_vec();
        self.running()?.call(|reply| Command::StartProviding { key, reply }).await.map(|_| ())
    }

    /// Stops announcing. Others forget the announcement when its lifetime ends.
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

    /// Says what happened to the record under `key` on this node: which version is here and why,
    /// who sent it, what was refused, where it was published and when it is next.
    ///
    /// Events are remembered from the start of the program on, the newest
    /// [`MAX_TRACE_EVENTS`](crate::limits::MAX_TRACE_EVENTS) of all records together; the persisted
    /// history of changes goes back farther.
    pub async fn why<K>(&self, key: K) -> Result<Trace, NetabaseError>
    where
        K: PrimaryKey,
        D: From<K::Model>,
    {
        self.node.why(RecordKey::of(&key)?).await
    }

    /// Returns up to `limit` records of the local store, model by model in key order; all of them
    /// with `None`, which reads them all into memory.
    pub async fn query_local_records(&self, limit: Option<usize>) -> Result<Vec<D>, NetabaseError> {
        let records = match self.running() {
            Ok(swarm) => swarm.call(|reply| Command::LocalStore { limit, reply }).await?,
            Err(_) => self.store().local_records(limit)?,
        };
        let decode = |(key, envelope): &(RecordKey, Envelope)| D::decode(key.model(), envelope.payload());
        Ok(records.iter().map(decode).collect::<Result<_, _>>()?)
    }
}

/// What needs no types.
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

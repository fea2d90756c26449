//! Typed queries of the network.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use libp2p::PeerId;
use netabase_store::__private::QueryOf;
use netabase_store::schema::{PrimaryFields, decode_payload};
use netabase_store::{
    Cursor, Envelope, KeyRange, NetabaseDefinition, NetabaseModel, Query, RecordKey, Scope, SecondaryKey,
    StoreError, ValueError,
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::error::NetabaseError;
use crate::event_loop::command::Command;
use crate::netabase::Netabase;
use crate::node::Node;
use crate::platform::{self, Instant, JoinHandle};
use crate::query::limits::{DEFAULT_PAGE_RECORDS, STREAM_CAPACITY};
use crate::telemetry::metrics::Call;
use crate::telemetry::trace_context::TraceContext;

pub(crate) mod authors;
pub(crate) mod cache;
pub(crate) mod confirm;
pub(crate) mod holders;
pub(crate) mod intake;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod merge;
pub(crate) mod report;
pub(crate) mod respond;
pub(crate) mod run;

pub use netabase_store::query::{
    CursorError, Page, PageBounds, PageEnd, QueryError, QueryKey, RawQuery, ResolvedQuery, Rows, Select,
    StoredRecord, TreeQuery,
};

pub use authors::{AuthorFilter, Authors};
pub(crate) use cache::{Cached, FoundPage, FoundPages};
pub(crate) use holders::Holders;
pub(crate) use merge::FoundRecord;
pub use report::{CutOff, HolderAnswer, HolderFailure, HolderReport, QueryReport};
pub(crate) use run::{Asker, Run, RunEnd};

use report::{Freshness, QueryOptions};

impl<D: NetabaseDefinition> Netabase<D> {
    /// Queries this node and its peers for the records of a model; see [`NetworkQuery`].
    pub fn query<M: NetabaseModel>(&self) -> NetworkQuery<D, M>
    where
        D: From<M>,
    {
        NetworkQuery { netabase: self.clone(), query: Query::new(), options: QueryOptions::default() }
    }
}

impl Node {
    /// Returns the peers that may hold records of a scope: those that advertise it in the
    /// distributed hash table, or all peers of a small network. This node is not among them.
    /// Returns no peers for a scope of another definition.
    ///
    /// Takes at most 5 s; the result is cached for 5 s. Peers advertise new records within minutes.
    pub async fn holders(&self, scope: Scope) -> Result<Vec<PeerId>, NetabaseError> {
        let holders = self.running()?.call(|reply| Command::FindHolders { scope, reply }).await?;
        Ok(holders.peers)
    }
}

/// A [`Query`] of this node and of the peers that hold matching records.
///
/// Select a key by the methods of the generated trait, `MessageQuery` for a model `Message`, or by
/// those of [`Select`]. Without a key the query selects all records in the order of their primary
/// keys. The query looks up the holders in the distributed hash table and requests pages of records
/// from each, in the order of the query. Every record is verified, and the newest version of a
/// record counts. Results are not stored.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message { #[primary_key] pub id: u64, #[secondary_key] pub room: String }
/// # }
/// # use chat::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), netabase::NetabaseError> {
/// # let config = NetabaseConfig {
/// #     store: StoreOptions::in_memory(),
/// #     listen_addresses: vec!["/memory/0".parse().unwrap()],
/// #     mdns: netabase::MDNSDiscoveryConfig { enabled: false, ..Default::default() },
/// #     ..NetabaseConfig::default()
/// # };
/// # let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// # netabase.start_swarm().await?;
/// # for id in 0..10 {
/// #     netabase.put_record(Message { id, room: "general".into() }).await?;
/// # }
/// let latest = netabase.query::<Message>().room("general").reverse().limit(4);
/// let page = latest.page().await?;
/// assert_eq!(page.records.iter().map(|message| message.id).collect::<Vec<_>>(), [9, 8, 7, 6]);
/// assert!(page.report.is_complete());
///
/// let before = latest.after(page.cursor.unwrap()).page().await?;
/// assert_eq!(before.records.iter().map(|message| message.id).collect::<Vec<_>>(), [5, 4, 3, 2]);
/// # Ok(())
/// # }
/// ```
#[must_use = "a query does nothing until it is run, for example with `page`"]
pub struct NetworkQuery<D, M, K = ()> {
    netabase: Netabase<D>,
    query: Query<M, K>,
    options: QueryOptions,
}

/// A page of records that a query has found in the network.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NetworkPage<M> {
    /// The records, in the order of the query.
    pub records: Vec<M>,
    /// The start of the next page, for [`NetworkQuery::after`]; `None` if no peer that has answered
    /// has more.
    pub cursor: Option<Cursor>,
    /// The peers that the query has asked, and their answers.
    pub report: QueryReport,
}

/// A page of records that an untyped query has found in the network.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct NodePage {
    /// The records, in the order of the query, with their keys. Contributions to a merged record
    /// are joined.
    pub records: Vec<(RecordKey, Envelope)>,
    /// The start of the next page, for [`RawQuery::after`]; `None` if no peer that has answered has
    /// more.
    pub cursor: Option<Cursor>,
    /// The peers that the query has asked, and their answers.
    pub report: QueryReport,
}

impl<D, M, K> QueryOf<M> for NetworkQuery<D, M, K> {}

impl<D: NetabaseDefinition, M: NetabaseModel> Select for NetworkQuery<D, M> {
    type Model = M;
    type Selected<K> = NetworkQuery<D, M, K>;

    fn primary_key(self, keys: impl KeyRange<PrimaryFields<M>>) -> NetworkQuery<D, M, M::PrimaryKey> {
        NetworkQuery { netabase: self.netabase, query: self.query.primary_key(keys), options: self.options }
    }

    fn secondary_key<K: SecondaryKey<Model = M>>(
        self,
        keys: impl KeyRange<K::Fields>,
    ) -> NetworkQuery<D, M, K> {
        let query = self.query.secondary_key(keys);
        NetworkQuery { netabase: self.netabase, query, options: self.options }
    }
}

impl<D: NetabaseDefinition, M: NetabaseModel, K: QueryKey<M>> NetworkQuery<D, M, K> {
    /// Reverses the order of the records.
    pub fn reverse(self) -> Self {
        Self { query: self.query.reverse(), ..self }
    }

    /// Limits the number of records to `limit`.
    pub fn limit(self, limit: u64) -> Self {
        Self { query: self.query.limit(limit), ..self }
    }

    /// Continues after the page of `cursor`, in the order of the query.
    ///
    /// The cursor must come from the same query, with any limit, on this or another node; otherwise
    /// the calls that run the query fail with [`StoreError::Cursor`].
    pub fn after(self, cursor: Cursor) -> Self {
        Self { query: self.query.after(cursor), ..self }
    }

    /// Finds only the records of some authors: an array of them, or [`Authors::Members`].
    ///
    /// A page is as full as without: records of others do not count for the limit. The report says
    /// with [`CutOff`] if a peer had too many of them. Sets
    /// [`QueryOptions::authors`](QueryOptions::authors), which [`options`](Self::options) replaces.
    /// The query fails with
    /// [`MembersError::OpenNetwork`](netabase_store::members::MembersError::OpenNetwork) if it asks
    /// for the members of an open network.
    pub fn written_by(self, authors: impl Into<Authors>) -> Self {
        let options = QueryOptions { authors: authors.into(), ..self.options };
        Self { options, ..self }
    }

    /// Sets the options.
    pub fn options(self, options: QueryOptions) -> Self {
        Self { options, ..self }
    }

    /// Returns the query itself, which can be stored and run again.
    pub fn into_query(self) -> Query<M, K> {
        self.query
    }

    /// Returns the first page, of at most the limit or [`DEFAULT_PAGE_RECORDS`] records, with a
    /// cursor to the next page.
    ///
    /// Fails with [`NetabaseError::NotRunning`] if the swarm is not running, and with
    /// [`NetabaseError::Timeout`] if not even this node has answered in time. Cancelling the call
    /// ends the query.
    pub async fn page(&self) -> Result<NetworkPage<M>, NetabaseError> {
        let mut raw = self.query.raw();
        raw.limit = Some(raw.limit.unwrap_or(DEFAULT_PAGE_RECORDS));
        self.find(raw).await
    }

    /// Collects all records in memory, at most as many as the limit. Fails as [`page`](Self::page)
    /// does.
    pub async fn collect(&self) -> Result<NetworkPage<M>, NetabaseError> {
        self.find(self.query.raw()).await
    }

    /// Returns a stream of the records, in order. The query requests further pages as the stream is
    /// read.
    ///
    /// Fails with [`NetabaseError::NotRunning`] if the swarm is not running. Dropping the stream
    /// ends the query.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime.
    pub fn stream(&self) -> Result<NetworkRows<M>, NetabaseError> {
        let (raw, scope) = (self.query.raw(), self.query.scope());
        let asked = Asking::begin(&self.netabase, &raw, scope, &self.options, None)?;
        let Asking { query, records, report, .. } = asked;
        Ok(NetworkRows { query, records, report, last: None, marker: PhantomData })
    }

    async fn find(&self, raw: RawQuery) -> Result<NetworkPage<M>, NetabaseError> {
        Ok(decoded(find(&self.netabase, &raw, self.query.scope(), &self.options).await?))
    }
}

impl Node {
    /// Queries this node and its peers for records; [`NetworkQuery::page`] documents the details.
    ///
    /// The query asks the holders of `scope`, the smallest scope that has every record that `query`
    /// may find. A query without a limit returns at most [`DEFAULT_PAGE_RECORDS`] records. The
    /// results include records of later versions of the program. They are verified, but not
    /// decoded.
    pub async fn find(
        &self,
        query: &RawQuery,
        scope: Scope,
        options: &QueryOptions,
    ) -> Result<NodePage, NetabaseError> {
        let limit = Some(query.limit.unwrap_or(DEFAULT_PAGE_RECORDS));
        let FoundPage { records, cursor, report } =
            find(self, &RawQuery { limit, ..query.clone() }, scope, options).await?;
        let records = records.into_iter().map(|found| (found.key, found.envelope)).collect();
        Ok(NodePage { records, cursor, report })
    }
}

async fn find(
    node: &Node,
    raw: &RawQuery,
    scope: Scope,
    options: &QueryOptions,
) -> Result<FoundPage, NetabaseError> {
    let outcome_of = |page: &FoundPage| if page.report.is_complete() { "complete" } else { "partial" };
    node.metrics().call(Call::Query, &raw.model, find_uncounted(node, raw, scope, options), outcome_of).await
}

async fn find_uncounted(
    node: &Node,
    raw: &RawQuery,
    scope: Scope,
    options: &QueryOptions,
) -> Result<FoundPage, NetabaseError> {
    let Freshness::Cached(max_age) = options.freshness else {
        return find_now(node, raw, scope, options).await;
    };
    let query = Arc::new(resolve(node, raw)?);
    let pages = node.found_pages();
    match pages.get(raw, &query, &options.authors, max_age).await {
        Cached::Page(page, age) => {
            let mut page = FoundPages::live(node.store(), page);
            page.report.cached = Some(age);
            Ok(page)
        }
        Cached::Turn(turn) => {
            let page = find_now(node, raw, scope, options).await?;
            pages.keep(&turn, &page);
            Ok(page)
        }
    }
}

async fn find_now(
    node: &Node,
    raw: &RawQuery,
    scope: Scope,
    options: &QueryOptions,
) -> Result<FoundPage, NetabaseError> {
    let timeout = options.timeout.unwrap_or(node.config().call_timeout);
    let deadline = platform::now().checked_add(timeout);
    let Asking { mut records, report, end, .. } = Asking::begin(node, raw, scope, options, deadline)?;
    let mut found = Vec::new();
    while let Some(record) = records.recv().await {
        found.push(record?);
    }
    let end = end.await.map_err(|_| NetabaseError::Closed)?;
    let cursor = match end {
        RunEnd::All => None,
        RunEnd::After(cursor) => Some(cursor),
        RunEnd::Nothing => return Err(NetabaseError::Timeout { after: timeout }),
        RunEnd::Abandoned => return Err(NetabaseError::Closed),
    };
    let report = report.lock().clone();
    Ok(FoundPage { records: found, cursor, report })
}

fn resolve(node: &Node, raw: &RawQuery) -> Result<ResolvedQuery, NetabaseError> {
    raw.resolve(node.schema()).map_err(|error| match error {
        QueryError::Cursor(error) => StoreError::from(error).into(),
        error => error.into(),
    })
}

/// A running query.
struct Asking {
    query: Arc<ResolvedQuery>,
    records: mpsc::Receiver<Result<FoundRecord, NetabaseError>>,
    report: Arc<Mutex<QueryReport>>,
    end: JoinHandle<RunEnd>,
}

impl Asking {
    fn begin(
        node: &Node,
        raw: &RawQuery,
        scope: Scope,
        options: &QueryOptions,
        deadline: Option<Instant>,
    ) -> Result<Self, NetabaseError> {
        let asker: Asker = node.running()?.asker();
        let (sender, records) = mpsc::channel(STREAM_CAPACITY);
        let report = Arc::<Mutex<QueryReport>>::default();
        let query = Arc::new(resolve(node, raw)?);
        let run = Run {
            asker,
            query: Arc::clone(&query),
            scope,
            authors: options.authors.filter(node.store())?,
            options: options.clone(),
            deadline,
            report: Arc::clone(&report),
            records: sender,
        };
        Ok(Self { query, records, report, end: platform::spawn(TraceContext::inherit(run.run())) })
    }
}

/// A stream of the records that a query finds in the network, in the order of the query.
///
/// [`next`](Self::next) reads it without the [`Stream`] trait. The stream ends after the last
/// record, at the limit, or after an error.
pub struct NetworkRows<M> {
    query: Arc<ResolvedQuery>,
    records: mpsc::Receiver<Result<FoundRecord, NetabaseError>>,
    report: Arc<Mutex<QueryReport>>,
    /// The index entry of the last record that was read.
    last: Option<Vec<u8>>,
    marker: PhantomData<fn() -> M>,
}

impl<M: NetabaseModel> NetworkRows<M> {
    /// Returns the next record. This method is cancel safe.
    pub async fn next(&mut self) -> Option<Result<M, NetabaseError>> {
        std::future::poll_fn(|context| self.poll(context)).await
    }

    /// Returns the peers that the query has asked so far, and their answers.
    pub fn report(&self) -> QueryReport {
        self.report.lock().clone()
    }

    /// Returns the cursor behind the last record that was read, for [`NetworkQuery::after`].
    pub fn cursor(&self) -> Option<Cursor> {
        self.last.as_ref().map(|entry| self.query.cursor(entry))
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<M, NetabaseError>>> {
        loop {
            let found = match std::task::ready!(self.records.poll_recv(context)) {
                Some(Ok(found)) => found,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let mut report = self.report.lock();
            let record = decode(&found, &mut report);
            drop(report);
            self.last = Some(found.entry);
            if let Some(record) = record {
                return Poll::Ready(Some(Ok(record)));
            }
        }
    }
}

impl<M: NetabaseModel> Stream for NetworkRows<M> {
    type Item = Result<M, NetabaseError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll(context)
    }
}

impl<M> fmt::Debug for NetworkRows<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkRows").field("last", &self.last).finish_non_exhaustive()
    }
}

impl<D, M: NetabaseModel, K: QueryKey<M>> fmt::Debug for NetworkQuery<D, M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { netabase: _, query, options } = self;
        f.debug_struct("NetworkQuery").field("query", query).field("options", options).finish_non_exhaustive()
    }
}

impl<D: NetabaseDefinition, M, K> Clone for NetworkQuery<D, M, K> {
    fn clone(&self) -> Self {
        let (netabase, query, options) = (self.netabase.clone(), self.query.clone(), self.options.clone());
        Self { netabase, query, options }
    }
}

fn decoded<M: NetabaseModel>(page: FoundPage) -> NetworkPage<M> {
    let FoundPage { records, cursor, mut report } = page;
    let records = records.iter().filter_map(|found| decode(found, &mut report)).collect();
    NetworkPage { records, cursor, report }
}

/// Decodes a record, and counts it if that fails.
fn decode<M: NetabaseModel>(found: &FoundRecord, report: &mut QueryReport) -> Option<M> {
    match decode_payload(found.envelope.payload()) {
        Ok(record) => Some(record),
        Err(ValueError::Version { found, known }) if found > known => {
            report.skipped += 1;
            None
        }
        Err(error) => {
            let error = StoreError::from(error);
            tracing::debug!(%error, key = %found.key, "cannot decode a record of a query");
            report.unreadable += 1;
            None
        }
    }
}

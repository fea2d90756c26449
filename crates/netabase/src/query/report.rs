//! The options and the report of a query.

use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;

use crate::query::authors::Authors;

/// How current the results of a query are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Freshness {
    /// The results of the holders of the selected keys: of several versions the newest, and
    /// tombstones as far as this node knows them. The default.
    #[default]
    Found,
    /// Every holder of the model is asked, too, for newer versions of the results, so that a record
    /// that was changed or deleted elsewhere is not returned in its old version. Costs a request to
    /// each holder for every 256 records that it has not sent itself.
    Newest,
    /// The same as [`Found`](Self::Found), or a cached page of an equal query that is not older
    /// than this. Changes of the local store invalidate the cache at once.
    Cached(Duration),
}

/// The options of a query.
///
/// ```
/// use std::time::Duration;
/// use netabase::{Freshness, QueryOptions};
///
/// let mut options = QueryOptions::default();
/// options.freshness = Freshness::Newest;
/// options.peer_timeout = Duration::from_secs(1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryOptions {
    /// How current the results must be. Default: [`Freshness::Found`].
    pub freshness: Freshness,
    /// The authors whose records the query finds. Peers are not told: the query reads on until it
    /// has enough of their records, or the limits below are reached. Default: all authors.
    pub authors: Authors,
    /// The timeout of a page or of all records; the records that all peers have passed by then are
    /// returned. It does not apply to a stream. Default: `None`, which means
    /// [`call_timeout`](crate::NetabaseConfig::call_timeout).
    pub timeout: Option<Duration>,
    /// The timeout of each answer of a peer, after which the query continues without the peer.
    /// Default: 5 s. At most 10 s.
    pub peer_timeout: Duration,
    /// The most peers that are asked, of those that may hold records. Default: 64. At most 256.
    pub max_peers: usize,
    /// The most records of one peer that are read, before the peer is cut off. Default: 100,000.
    pub max_peer_records: u64,
    /// The most bytes of one peer that are read, before the peer is cut off. Default: 64 MiB.
    pub max_peer_bytes: u64,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            freshness: Freshness::default(),
            authors: Authors::default(),
            timeout: None,
            peer_timeout: Duration::from_secs(5),
            max_peers: 64,
            max_peer_records: 100_000,
            max_peer_bytes: 64 * 1024 * 1024,
        }
    }
}

/// The peers that a query has asked, and their answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueryReport {
    /// The peers that may hold matching records.
    pub peers: Vec<HolderReport>,
    /// The number of records that this node had itself.
    pub local_records: u64,
    /// Whether all lists of holders were read completely.
    pub all_holders_found: bool,
    /// The number of records that were skipped because a later version of the program wrote them.
    pub skipped: u64,
    /// The number of records that this node and its peers have, and that other
    /// [authors](QueryOptions::authors) than those asked for wrote. A record counts once for each
    /// node that has it.
    pub of_others: u64,
    /// The number of records that were skipped because they cannot be decoded.
    pub unreadable: u64,
    /// The age of the page if it comes from the cache, or `None`.
    pub cached: Option<Duration>,
}

impl QueryReport {
    /// Returns whether every known holder has sent everything up to the last record, so that a
    /// missing record is on no peer that advertises matching records.
    pub fn is_complete(&self) -> bool {
        self.all_holders_found && self.peers.iter().all(|peer| peer.answer == HolderAnswer::Answered)
    }

    /// Returns the number of peers that have answered.
    pub fn answered(&self) -> usize {
        self.peers.iter().filter(|peer| peer.answer == HolderAnswer::Answered).count()
    }
}

/// A peer's answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderReport {
    /// The peer.
    pub peer: PeerId,
    /// The state of its answer.
    pub answer: HolderAnswer,
    /// The number of its records that were verified and match the query.
    pub records: u64,
    /// The number of bytes of its answers.
    pub bytes: u64,
    /// The number of its records that were refused, or that do not match the query.
    pub refused: u64,
}

/// The state of a peer's answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderAnswer {
    /// The peer has not answered yet.
    Pending,
    /// The peer has sent everything up to the last record that was returned.
    Answered,
    /// The peer was cut off at a limit. Records of other peers were returned beyond it.
    CutOff(CutOff),
    /// The peer has failed to answer. Its earlier records count.
    Failed(HolderFailure),
    /// The peer was not asked, since [`max_peers`](QueryOptions::max_peers) others were.
    NotAsked,
}

/// The limit at which a peer was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutOff {
    /// The peer has sent [`max_peer_records`](QueryOptions::max_peer_records).
    Records,
    /// The peer has sent [`max_peer_bytes`](QueryOptions::max_peer_bytes).
    Bytes,
    /// The peer continues to answer without records.
    Endless,
    /// The query has timed out. No record was returned that a record of the peer might precede.
    Time,
}

/// The reason why a peer has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderFailure {
    /// The peer did not answer in time.
    TimedOut,
    /// The peer was unreachable, or its answer was a failure.
    Unreachable(Arc<str>),
    /// The peer has no such model or secondary key: it runs another version of the program.
    Unknown,
    /// The peer is too busy.
    Busy,
    /// The peer sent what no honest peer sends, and was reported.
    Misbehaved,
}

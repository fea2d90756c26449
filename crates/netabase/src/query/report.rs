//! How a query is asked beyond its defaults, and what it says of whom it has asked.

use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;

/// How sure a query is that what it finds is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Freshness {
    /// What holders have under the keys that are asked for: of several versions the newest, and
    /// deletions as far as this node knows them. The default.
    #[default]
    Found,
    /// Everybody who holds records of the model is asked, too, whether it has a newer version of
    /// what was found: a record that was changed or deleted elsewhere is not returned as it was.
    /// Costs a request to each for every 256 records that it has not sent itself.
    Newest,
    /// The same as [`Found`](Self::Found), or the page that an equal query has found here no longer
    /// ago than this. What changes in the local store is out of the cache at once.
    Cached(Duration),
}

/// What a query asks for beyond the defaults.
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
    /// How current the answer has to be. Default: [`Freshness::Found`].
    pub freshness: Freshness,
    /// How long a page or everything may take; what all peers have told of by then is returned. A
    /// stream has no such end. Default: none, which means
    /// [`call_timeout`](crate::NetabaseConfig::call_timeout).
    pub timeout: Option<Duration>,
    /// How long a peer may take for each answer, before the others do without it. Default: 5 s, and
    /// 10 s at most.
    pub peer_timeout: Duration,
    /// How many peers are asked at most, of those that may hold records. Default: 64, and 256 at
    /// most.
    pub max_peers: usize,
    /// How many records of one peer are looked at, before it is cut off. Default: 100,000.
    pub max_peer_records: u64,
    /// How many bytes of one peer are read, before it is cut off. Default: 64 MiB.
    pub max_peer_bytes: u64,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            freshness: Freshness::default(),
            timeout: None,
            peer_timeout: Duration::from_secs(5),
            max_peers: 64,
            max_peer_records: 100_000,
            max_peer_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Whom a query has asked, and what they said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueryReport {
    /// The peers that may hold such records.
    pub peers: Vec<HolderReport>,
    /// How many records this node had itself.
    pub local_records: u64,
    /// Whether all lists of holders were read to their ends.
    pub all_holders_found: bool,
    /// How many records were passed over because a later version of the program wrote them.
    pub skipped: u64,
    /// How many records were passed over because they cannot be decoded.
    pub unreadable: u64,
    /// How old the answer is, if it comes from the cache.
    pub cached: Option<Duration>,
}

impl QueryReport {
    /// Returns whether every known holder has told of everything up to the last record: what is
    /// missing is with nobody who says that it may hold such records.
    pub fn is_complete(&self) -> bool {
        self.all_holders_found && self.peers.iter().all(|peer| peer.answer == HolderAnswer::Answered)
    }

    /// Returns how many peers have answered.
    pub fn answered(&self) -> usize {
        self.peers.iter().filter(|peer| peer.answer == HolderAnswer::Answered).count()
    }
}

/// What one peer has said to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HolderReport {
    /// The peer.
    pub peer: PeerId,
    /// Whether it has answered.
    pub answer: HolderAnswer,
    /// How many of its records were verified and answer the query.
    pub records: u64,
    /// How many bytes its answers had.
    pub bytes: u64,
    /// How many records it sent that were refused, or that do not answer the query.
    pub refused: u64,
}

/// Whether a peer has answered a query.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderAnswer {
    /// It has not yet.
    Pending,
    /// It has told of everything up to the last record that was returned.
    Answered,
    /// It was not asked for everything that it has. Records of others were returned beyond that.
    CutOff(CutOff),
    /// It has not answered, or not any more. What it sent before counts.
    Failed(HolderFailure),
    /// It was not asked: [`max_peers`](QueryOptions::max_peers) others were.
    NotAsked,
}

/// Why a peer was not asked for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutOff {
    /// It has sent as many records as one peer may.
    Records,
    /// It has sent as many bytes as one peer may.
    Bytes,
    /// It goes on answering, and has nothing to say.
    Endless,
    /// The time of the query was over. Nothing was returned that it might have sent a record
    /// before.
    Time,
}

/// Why a peer has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HolderFailure {
    /// It was too slow.
    TimedOut,
    /// It could not be reached, or said that it could not answer.
    Unreachable(Arc<str>),
    /// It has no such model or secondary key: it runs another version of the program.
    Unknown,
    /// It has more to do than it can.
    Busy,
    /// It sent what no honest peer sends, and was reported for it.
    Misbehaved,
}

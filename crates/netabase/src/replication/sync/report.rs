//! The report of a session.

use std::time::Duration;

use thiserror::Error;

/// The report of a session with a peer about one model or value, or of several sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// The number of sessions.
    pub sessions: u64,
    /// The records that this node lacked and has received and stored, fetched or sent by a peer.
    pub received: u64,
    /// The records that peers lacked and have received, sent by this node or fetched by the peer.
    pub sent: u64,
    /// The received records that were stored here already.
    pub known: u64,
    /// The received records of which this node has a later version, unknown to the peer.
    pub outdated: u64,
    /// The received records that were refused, without outdated ones.
    pub refused: u64,
    /// The records that a peer claimed to have and did not deliver. They may have changed
    /// meanwhile.
    pub withheld: u64,
    /// The requests that were answered.
    pub round_trips: u64,
    /// The answered requests that compared sets.
    pub compare_round_trips: u64,
    /// The bytes that were sent.
    pub bytes_sent: u64,
    /// The bytes that were received.
    pub bytes_received: u64,
    /// The bytes of the comparisons' messages, both ways, without the encoded scope.
    pub compare_bytes: u64,
    /// The records that were streamed in the order of time, without requests for each.
    pub streamed: u64,
    /// The most bytes in memory at a time of data for the peer: ids, keys and records. For several
    /// sessions, the maximum.
    pub held_bytes: u64,
    /// The duration.
    pub elapsed: Duration,
}

impl SyncReport {
    pub(super) fn add(&mut self, other: &Self) {
        let Self {
            sessions,
            received,
            sent,
            known,
            outdated,
            refused,
            withheld,
            round_trips,
            compare_round_trips,
            bytes_sent,
            bytes_received,
            compare_bytes,
            streamed,
            held_bytes,
            elapsed,
        } = other;
        self.sessions += sessions;
        self.received += received;
        self.sent += sent;
        self.known += known;
        self.outdated += outdated;
        self.refused += refused;
        self.withheld += withheld;
        self.round_trips += round_trips;
        self.compare_round_trips += compare_round_trips;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
        self.compare_bytes += compare_bytes;
        self.streamed += streamed;
        self.held_bytes = self.held_bytes.max(*held_bytes);
        self.elapsed += *elapsed;
    }
}

/// The reason why a session ended before this node had all of the peer's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum SyncFailure {
    /// The peer did not answer.
    #[error("the peer did not answer")]
    Unreachable,
    /// The peer was too busy, or could not read its records.
    #[error("the peer was too busy, or could not read its records")]
    Busy,
    /// The peer does not know the model, or has too many records with the value.
    #[error("the peer does not know the model, or has too many records with the value")]
    OtherScope,
    /// The peer's answer did not belong to the request.
    #[error("the peer's answer did not belong to the request")]
    Nonsense,
    /// The peer did not deliver records that it claimed to have.
    #[error("the peer did not deliver records that it claimed to have")]
    Withheld,
    /// The session did not end: it took too many messages, or too long without progress.
    #[error("the session did not end: it took too many messages, or too long without progress")]
    Endless,
    /// The peer delivered too few records in the time that it took.
    #[error("the peer delivered too few records in the time that it took")]
    TooSlow,
    /// This node's store failed, or is too busy.
    #[error("the store failed, or is too busy")]
    Store,
    /// The replication was ended, or the swarm was stopped.
    #[error("the replication was ended, or the swarm was stopped")]
    Stopped,
}

impl SyncFailure {
    /// Returns its name in metrics and spans.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::OtherScope => "other_scope",
            Self::Nonsense => "nonsense",
            Self::Withheld => "withheld",
            Self::Endless => "endless",
            Self::TooSlow => "too_slow",
            Self::Store => "store",
            Self::Stopped => "stopped",
        }
    }
}

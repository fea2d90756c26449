//! What a session has done.

use std::time::Duration;

use thiserror::Error;

/// What a session with a peer has done about one model or value, or several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// How many sessions there were.
    pub sessions: u64,
    /// How many records that this node lacked were received and stored, fetched or given by a peer.
    pub received: u64,
    /// How many records were sent to peers that lacked them: given to them and stored there, or
    /// fetched by them.
    pub sent: u64,
    /// How many records that came were here already.
    pub known: u64,
    /// How many records that came are here in a later version, which the peer has not heard of.
    pub outdated: u64,
    /// How many records that came were refused; not those that are only outdated.
    pub refused: u64,
    /// How many records a peer said to have and did not deliver. They may have changed meanwhile.
    pub withheld: u64,
    /// How many requests were answered.
    pub round_trips: u64,
    /// How many of them compared sets.
    pub compare_round_trips: u64,
    /// How many bytes were sent.
    pub bytes_sent: u64,
    /// How many bytes were received.
    pub bytes_received: u64,
    /// How many bytes the messages had that compared sets, both ways, without what says of which
    /// scope they are.
    pub compare_bytes: u64,
    /// How many records came in the order of time, without being asked for one by one.
    pub streamed: u64,
    /// The most bytes that were in memory at a time to be given to the peer: ids, keys and records.
    /// Of several sessions, that of the one with the most.
    pub held_bytes: u64,
    /// How long it took.
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

/// Why a session with a peer has ended before this node had everything that the peer has.
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
    /// The peer answered what is no answer to what was asked.
    #[error("the peer answered what is no answer to what was asked")]
    Nonsense,
    /// The peer did not deliver what it said to have.
    #[error("the peer did not deliver what it said to have")]
    Withheld,
    /// The peer did not come to an end.
    #[error("the peer did not come to an end")]
    Endless,
    /// The peer brought too little for the time that it took.
    #[error("the peer brought too little for the time that it took")]
    TooSlow,
    /// This node's store failed, or is too busy.
    #[error("the store failed, or is too busy")]
    Store,
    /// The replication was ended, or the swarm stopped.
    #[error("the replication was ended, or the swarm was stopped")]
    Stopped,
}

impl SyncFailure {
    /// Returns what metrics and spans call it.
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

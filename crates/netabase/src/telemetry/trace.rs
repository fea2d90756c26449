//! Record traces: the recent history of a record on this node.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use libp2p::PeerId;
use netabase_store::changes::StoreEvent;
use netabase_store::text;
use netabase_store::{
    Author, Change, ChangeKind, Envelope, NetabaseStore, Origin, RecordKey, Refusal, StoreError, Timestamp,
};
use parking_lot::Mutex;

use crate::outcome::{PeerAnswer, WriteAnswer};
use crate::telemetry::limits::{MAX_HISTORY_ENTRIES, MAX_TRACE_EVENTS};

/// The recent history of a record on this node; [`Netabase::why`] returns it.
///
/// Its `Display` has a line per event, with times in UTC.
///
/// [`Netabase::why`]: crate::Netabase::why
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trace {
    /// The record's key.
    pub key: RecordKey,
    /// The stored version, which may be a tombstone.
    pub current: Option<Envelope>,
    /// Whether this node is one of the closest to the key, and so a holder of the record, or `None`
    /// if the swarm is not running or does not answer within a second.
    pub is_holder: Option<bool>,
    /// The time of this node's next publication of the record, in milliseconds since the Unix
    /// epoch, or `None` if this node does not publish it.
    pub next_publication: Option<u64>,
    /// The events since the start of the program, the oldest first.
    pub events: Vec<TraceEvent>,
    /// The changes of the record in the persisted history, the oldest first, with their positions.
    pub history: Vec<(u64, Change)>,
}

/// An event of a record on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// The time, in milliseconds since the Unix epoch.
    pub time: u64,
    /// The kind of event.
    pub kind: TraceKind,
}

/// The author and the timestamp of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The timestamp.
    pub timestamp: Timestamp,
    /// The author.
    pub author: Author,
}

impl Written {
    /// Returns the author and timestamp of an envelope, or `None` if it is unsigned.
    pub(crate) fn of(envelope: &Envelope) -> Option<Self> {
        Some(Self { timestamp: envelope.timestamp()?, author: envelope.author()? })
    }
}

/// A kind of event of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceKind {
    /// A version was committed to the store, or a record has expired.
    Changed {
        /// The kind of change.
        kind: ChangeKind,
        /// The origin of the version.
        origin: Origin,
        /// The author and timestamp, or `None` if the version is unsigned.
        written: Option<Written>,
    },
    /// A peer sent a new version, which was accepted.
    Accepted {
        /// The peer.
        peer: PeerId,
    },
    /// A version was refused.
    Refused {
        /// The sender, if known.
        peer: Option<PeerId>,
        /// The reason.
        reason: Refusal,
    },
    /// A version was sent to the closest peers, all of which have answered or timed out.
    Published {
        /// The peers that were asked, and their answers. Empty if no holder was found.
        answers: Vec<PeerAnswer<WriteAnswer>>,
    },
    /// The record was fetched from the network.
    Fetched {
        /// The author and timestamp of the newest version, or `None` if no peer had one.
        written: Option<Written>,
        /// The number of peers that had a copy.
        copies: usize,
        /// Whether the version was stored here.
        kept: bool,
    },
    /// The newest version was sent to peers that had an older one or none.
    Repaired {
        /// The peers.
        peers: Vec<PeerId>,
    },
}

/// The recent events of all records. They outlive the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traces(Arc<Mutex<VecDeque<(RecordKey, TraceEvent)>>>);

impl Traces {
    /// Adds an event at the current time of the store's clock.
    pub(crate) fn add(&self, store: &NetabaseStore, key: &RecordKey, kind: TraceKind) {
        self.add_at(store.replica().clock().unix_millis(), key, kind);
    }

    /// Adds an event of the store.
    pub(crate) fn observe(&self, time: u64, event: &StoreEvent) {
        match event {
            StoreEvent::Changed(change) => self.add_at(time, &change.key, TraceKind::from(change)),
            StoreEvent::Refused { key: Some(key), reason } => {
                self.add_at(time, key, TraceKind::Refused { peer: None, reason: *reason });
            }
            StoreEvent::Refused { key: None, .. } => {}
        }
    }

    /// Collects the trace of a record. Blocks on the disk.
    pub(crate) fn trace(
        &self,
        store: &NetabaseStore,
        key: RecordKey,
        is_holder: Option<bool>,
    ) -> Result<Trace, StoreError> {
        Ok(Trace {
            current: store.envelope(&key)?,
            is_holder,
            next_publication: store.replica().publication_due(&key)?,
            events: self.of(&key),
            history: store.history_of(&key, MAX_HISTORY_ENTRIES)?,
            key,
        })
    }

    fn add_at(&self, time: u64, key: &RecordKey, kind: TraceKind) {
        let mut events = self.0.lock();
        if events.len() >= MAX_TRACE_EVENTS {
            events.pop_front();
        }
        events.push_back((key.clone(), TraceEvent { time, kind }));
    }

    /// Returns the events of one record, the oldest first.
    fn of(&self, key: &RecordKey) -> Vec<TraceEvent> {
        let events = self.0.lock();
        events.iter().filter(|(of, _)| of == key).map(|(_, event)| event.clone()).collect()
    }
}

impl From<&Change> for TraceKind {
    fn from(change: &Change) -> Self {
        let written = change.envelope.as_ref().and_then(Written::of);
        Self::Changed { kind: change.kind, origin: change.origin, written }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.key)?;
        match &self.current {
            Some(envelope) => writeln!(f, "  here: {}", Described(envelope))?,
            None => writeln!(f, "  here: nothing")?,
        }
        let holder = match self.is_holder {
            Some(true) => "yes, this node is one of the closest to the key",
            Some(false) => "no, others are closer to the key",
            None => "not known, the swarm is not running or is busy",
        };
        writeln!(f, "  holder: {holder}")?;
        match self.next_publication {
            Some(due) => writeln!(f, "  published next: {}", Utc(due))?,
            None => writeln!(f, "  published next: not by this node")?,
        }
        for (number, change) in &self.history {
            writeln!(f, "  change {number}: {}", TraceKind::from(change))?;
        }
        for event in &self.events {
            // The reason why a peer was not reached quotes addresses, which peers choose.
            writeln!(f, "  {} {}", Utc(event.time), text::line(&event.kind.to_string()))?;
        }
        Ok(())
    }
}

impl fmt::Display for TraceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { kind, origin, written } => {
                let kind = match kind {
                    ChangeKind::Stored => "stored",
                    ChangeKind::Updated => "updated",
                    ChangeKind::Removed => "removed",
                    ChangeKind::Expired => "expired",
                    ChangeKind::Evicted => "given up",
                };
                let origin = match origin {
                    Origin::Local => "by this program",
                    Origin::Network => "by a peer",
                };
                write!(f, "{kind} {origin}")?;
                written.map_or(Ok(()), |written| write!(f, ", {written}"))
            }
            Self::Accepted { peer } => write!(f, "accepted from {peer}"),
            Self::Refused { peer: Some(peer), reason } => write!(f, "refused from {peer}: {reason}"),
            Self::Refused { peer: None, reason } => write!(f, "refused: {reason}"),
            Self::Published { answers } if answers.is_empty() => {
                write!(f, "not published, no holder was found")
            }
            Self::Published { answers } => {
                write!(f, "published to {} peers:", answers.len())?;
                answers.iter().try_for_each(|PeerAnswer { peer, answer, .. }| match answer {
                    WriteAnswer::Accepted => write!(f, " {peer} accepted;"),
                    WriteAnswer::Known => write!(f, " {peer} had it;"),
                    WriteAnswer::Refused(reason) => write!(f, " {peer} refused, {reason};"),
                    WriteAnswer::TimedOut => write!(f, " {peer} did not answer in time;"),
                    WriteAnswer::Unreachable(reason) => write!(f, " {peer} failed, {reason};"),
                    WriteAnswer::Pending => write!(f, " {peer} has not answered;"),
                })
            }
            Self::Fetched { written: Some(written), copies, kept } => {
                let kept = if *kept { "kept" } else { "not kept" };
                write!(f, "fetched {copies} copies, the newest {kept}, {written}")
            }
            Self::Fetched { written: None, .. } => write!(f, "fetched, and no peer had a copy"),
            Self::Repaired { peers } => {
                write!(f, "sent to {} peers that were behind:", peers.len())?;
                peers.iter().try_for_each(|peer| write!(f, " {peer};"))
            }
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version of {} by {}", Utc(self.timestamp.unix_millis()), self.author)
    }
}

/// The display of a stored version.
struct Described<'a>(&'a Envelope);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(envelope) = self;
        write!(f, "{}", if envelope.is_tombstone() { "a tombstone" } else { "a record" })?;
        match Written::of(envelope) {
            Some(written) => write!(f, ", {written}")?,
            None => write!(f, ", not signed")?,
        }
        match envelope.expires() {
            Some(expires) => write!(f, ", expires {}", Utc(expires)),
            None => Ok(()),
        }
    }
}

/// The display of a time in milliseconds since the Unix epoch.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = date(days);
        let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", millis % 1000)
    }
}

/// Returns the Gregorian date of a day after the Unix epoch, by Howard Hinnant's `civil_from_days`:
/// years start in March, so that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_people_read_them() {
        let printed = |millis| Utc(millis).to_string();
        assert_eq!(printed(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(printed(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(printed(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(printed(1_732_291_200_007), "2024-11-22T16:00:00.007Z");
    }

    #[test]
    fn the_events_that_are_remembered_are_bounded() {
        let traces = Traces::default();
        let key = |id: usize| RecordKey::new("Def", "Model", &id.to_be_bytes()).unwrap();
        let event = || TraceKind::Repaired { peers: Vec::new() };
        for id in 0..=MAX_TRACE_EVENTS {
            traces.add_at(0, &key(id), event());
        }
        traces.add_at(7, &key(2), event());
        assert_eq!((traces.of(&key(0)), traces.of(&key(1)).len()), (Vec::new(), 0));
        assert_eq!(traces.of(&key(2)).iter().map(|event| event.time).collect::<Vec<_>>(), [0, 7]);
        assert_eq!(traces.of(&key(3)).len(), 1);
    }

    #[test]
    fn a_reason_that_a_peer_chose_forges_no_line() {
        let peer = PeerId::random();
        let answers =
            vec![PeerAnswer { peer, answer: WriteAnswer::Unreachable("/dns/a\nhere: \u{1b}".into()) }];
        let trace = Trace {
            key: RecordKey::new("Def", "Model", b"1").unwrap(),
            current: None,
            is_holder: None,
            next_publication: None,
            history: Vec::new(),
            events: vec![TraceEvent { time: 0, kind: TraceKind::Published { answers } }],
        };
        let text = trace.to_string();
        assert!(text.ends_with("failed, /dns/a\\nhere: \\u{1b};\n"), "{text}");
        assert_eq!(text.lines().count(), 5, "{text}");
    }
}

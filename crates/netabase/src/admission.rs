//! Admission: the place that judges the records of peers when they arrive.
//!
//! Records arrive from several sources, and each source has a row in [`Source::policy`]: whether
//! the sender is charged before the record is checked, whether it is blamed for a value that it has
//! signed itself, and which refusals are reported. The store's gate (`version/admit.rs`) checks the
//! records of all sources in the same way. [`Severity`] is the price of a reported refusal.

use libp2p::PeerId;
use libp2p::identity::{PublicKey, ed25519};
use netabase_store::replica::CheckedRecord;
use netabase_store::{Author, Envelope, NetabaseStore, RecordKey, Refusal};

use crate::peers::authors::AuthorRates;
use crate::peers::score::PeerScores;
use crate::telemetry::trace::{TraceKind, Traces};

/// A source of peers' records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A put of the record protocol.
    Put,
    /// A put of Kademlia.
    Kademlia,
    /// The answer to a get.
    Copy,
    /// The answer to a query, or to the question whether a peer has a newer version of its results.
    Query,
    /// A live change.
    Live,
    /// A record that a peer sends for a scope which this node replicates.
    Given,
    /// A record that a sync session has fetched.
    Fetched,
    /// A record that repair has fetched.
    Repair,
}

/// The treatment of the records of one source.
struct Policy {
    charge: Charge,
    /// Whether a sender is blamed for an invalid value that it has signed itself. Senders of other
    /// sources are taken to forward what they store, whatever the version of the model.
    blames_author: bool,
    /// Whether [`why`](crate::Netabase::why) shows an accepted record.
    is_traced: bool,
    reports: Reports,
}

/// Who is charged for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charge {
    /// Nobody: this node has requested the record.
    Nobody,
    /// The author: a new record counts against its rate. The sender was charged before.
    Author,
    /// The author, and the sender for what a record costs beyond a plain one: the record is refused
    /// unseen if the sender's quota is used up.
    SenderAndAuthor,
}

/// Which refusals are reported to the event loop, for subscribers and the peer score.
enum Reports {
    All,
    /// All except these, which say nothing of the sender.
    AllBut(&'static [Refusal]),
    /// The refusals that cost the sender points.
    Offences,
}

impl Source {
    /// Returns the policy of the source: the table of sources.
    fn policy(self) -> Policy {
        use Refusal::{
            Busy, Expired, Full, NotMember, Outdated, OverQuota, RefusedAuthor, StoreFailed, TooLarge,
        };
        // This node has a newer version, no space or a list of refused authors, or the record is
        // over.
        const BEHIND: &[Refusal] =
            &[RefusedAuthor, Outdated, Expired, TooLarge, OverQuota, Full, Busy, StoreFailed];
        // Every repair pass meets the records of former members again.
        const BEHIND_OR_FORMER: &[Refusal] =
            &[NotMember, RefusedAuthor, Outdated, Expired, TooLarge, OverQuota, Full, Busy, StoreFailed];
        let row =
            |charge, blames_author, is_traced, reports| Policy { charge, blames_author, is_traced, reports };
        match self {
            Self::Put | Self::Kademlia => row(Charge::SenderAndAuthor, true, true, Reports::All),
            Self::Copy => row(Charge::Nobody, true, false, Reports::All),
            Self::Query => row(Charge::Nobody, false, false, Reports::AllBut(&[Expired, RefusedAuthor])),
            Self::Live => row(Charge::Author, false, true, Reports::Offences),
            Self::Given => row(Charge::SenderAndAuthor, false, false, Reports::All),
            Self::Fetched => row(Charge::Nobody, false, false, Reports::AllBut(BEHIND)),
            Self::Repair => row(Charge::Nobody, true, false, Reports::AllBut(BEHIND_OR_FORMER)),
        }
    }
}

/// The gate that checks peers' records and stores the valid ones.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    store: NetabaseStore,
    scores: PeerScores,
    author_rates: AuthorRates,
    traces: Traces,
}

/// A record of a peer that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reason: Refusal,
    /// The report of the refusal, or `None` if it is not reported.
    pub(crate) offence: Option<Offence>,
}

impl Admission {
    pub(crate) fn new(store: NetabaseStore, scores: PeerScores, traces: Traces) -> Self {
        Self { store, scores, author_rates: AuthorRates::default(), traces }
    }

    /// Limits the new records of each author that peers send.
    pub(crate) fn with_author_rates(self, author_rates: AuthorRates) -> Self {
        Self { author_rates, ..self }
    }

    /// Checks a record that `peer` has sent and queues it for the writer, without waiting for the
    /// disk. Returns whether the record was new.
    pub(crate) fn admit(
        &self,
        source: Source,
        peer: PeerId,
        key: &[u8],
        value: &[u8],
    ) -> Result<bool, Refused> {
        let (policy, replica) = (source.policy(), self.store.replica());
        if policy.charge == Charge::SenderAndAuthor
            && !self.scores.allow_cost(&peer, replica.admission_cost(key, value))
        {
            return Err(Refused { reason: Refusal::TooFast, offence: None });
        }
        let limit = self.author_rates.limit().filter(|_| policy.charge != Charge::Nobody);
        let is_news = replica.admit_limited(key, value, limit).map_err(|reason| {
            let offence = policy.report(peer, key, value, reason);
            Refused { reason, offence }
        })?;
        if is_news
            && policy.is_traced
            && let Ok(key) = RecordKey::parse(key)
        {
            self.traces.add(&self.store, &key, TraceKind::Accepted { peer });
        }
        Ok(is_news)
    }

    /// Checks a record that `peer` has answered with, whatever is stored here, and stores nothing.
    pub(crate) fn check(
        &self,
        source: Source,
        peer: PeerId,
        key: &RecordKey,
        value: &[u8],
    ) -> Result<CheckedRecord, Refused> {
        self.store.replica().check_quietly(key, value).map_err(|reason| {
            let offence = source.policy().report(peer, key.as_bytes(), value, reason);
            Refused { reason, offence }
        })
    }
}

impl Policy {
    fn report(&self, peer: PeerId, key: &[u8], value: &[u8], reason: Refusal) -> Option<Offence> {
        let offence = if self.blames_author {
            Offence::of(&peer, key, value, reason)
        } else {
            Offence::passed_on(RecordKey::parse(key).ok(), reason)
        };
        let is_reported = match self.reports {
            Reports::All => true,
            Reports::AllBut(unreported) => !unreported.contains(&reason),
            Reports::Offences => Severity::of(&offence) != Severity::None,
        };
        is_reported.then_some(offence)
    }
}

/// A refusal to report to the event loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offence {
    /// The key, or `None` if the peer sent an invalid one.
    pub(crate) key: Option<RecordKey>,
    pub(crate) reason: Refusal,
    /// Whether the sender claims to be the only author, and so cannot have forwarded another peer's
    /// record, or has sent the record in answer to another question.
    pub(crate) is_author: bool,
}

impl Offence {
    /// Returns the offence of a record that any peer may have forwarded.
    pub(crate) fn passed_on(key: Option<RecordKey>, reason: Refusal) -> Self {
        Self { key, reason, is_author: false }
    }

    /// Returns the offence of a record that answers no question. The answer is the peer's own,
    /// whoever has written the record.
    pub(crate) fn answered(key: RecordKey, reason: Refusal) -> Self {
        Self { key: Some(key), reason, is_author: true }
    }

    /// Returns the offence of a record that `peer` has sent.
    pub(crate) fn of(peer: &PeerId, key: &[u8], value: &[u8], reason: Refusal) -> Self {
        let parts = Envelope::parse(value).map(|envelope| envelope.contributions()).unwrap_or_default();
        let is_theirs = |part: &Envelope| part.author().and_then(peer_of).as_ref() == Some(peer);
        let is_author = !parts.is_empty() && parts.iter().all(is_theirs);
        Self { key: RecordKey::parse(key).ok(), reason, is_author }
    }
}

/// Returns the peer that signs as an author.
pub(crate) fn peer_of(author: Author) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(author.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The severity of a refusal, for the peer that sent the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Honest peers cause it: one of the clocks is wrong, the peer is behind, or this node is busy,
    /// full, or has no member list yet or another one.
    None,
    /// An honest peer may cause it: its models or limits differ from ours, and it forwards what it
    /// has accepted. The peer may be slowed, but is never banned.
    Slight,
    /// No honest peer causes it: every node makes this check before it stores a record.
    Grave,
}

impl Severity {
    /// Returns the severity of a refusal.
    pub(crate) fn of(offence: &Offence) -> Self {
        match offence.reason {
            Refusal::InvalidSignature | Refusal::InvalidEnvelope | Refusal::InvalidBlob => Self::Grave,
            Refusal::InvalidKey if offence.key.is_none() => Self::Grave,
            Refusal::InvalidKey | Refusal::NotOwner | Refusal::TooLarge => Self::Slight,
            // A peer without the model forwards what its author has signed.
            Refusal::InvalidValue | Refusal::KeyMismatch if offence.is_author => Self::Slight,
            // FutureTimestamp, since hellos tell whose clock is wrong; Outdated, Expired,
            // NotMember, RefusedAuthor, OtherPolicy, NotCanonical, OverQuota, Full, Busy,
            // StoreFailed, and the refusals that a later store adds.
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use netabase_store::{SigningKey, StoreOptions, Timestamp, WritePolicy};

    use super::*;

    #[test]
    fn who_passes_on_what_its_author_got_wrong_is_not_blamed() {
        let keys = libp2p::identity::Keypair::generate_ed25519();
        let (author, relay) = (keys.public().to_peer_id(), PeerId::random());
        let secret = keys.try_into_ed25519().unwrap().secret();
        let [own, other] =
            [secret.as_ref().try_into().unwrap(), [7; 32]].map(|key| SigningKey::from_bytes(&key));
        let sign = |key: &RecordKey, by| Envelope::sign(by, key, Timestamp::from_bits(1), 0, Some(b"none"));
        let open = RecordKey::new("Def", "Model", b"1").unwrap();
        let merged = RecordKey::with_policy(WritePolicy::Merged, "Def", "Model", b"1").unwrap();
        let both = Envelope::bundle(&[sign(&merged, &own), sign(&merged, &other)]).unwrap();
        let alone = Envelope::bundle(&[sign(&merged, &own)]).unwrap();
        let severity = |peer, key: &RecordKey, envelope: &Envelope, reason| {
            Severity::of(&Offence::of(&peer, key.as_bytes(), envelope.as_bytes(), reason))
        };
        for reason in [Refusal::InvalidValue, Refusal::KeyMismatch] {
            assert_eq!(severity(author, &open, &sign(&open, &own), reason), Severity::Slight);
            assert_eq!(severity(relay, &open, &sign(&open, &own), reason), Severity::None);
            assert_eq!(severity(author, &open, &sign(&open, &other), reason), Severity::None);
            assert_eq!(severity(author, &merged, &alone, reason), Severity::Slight);
            assert_eq!(severity(author, &merged, &both, reason), Severity::None);
        }
        assert_eq!(severity(relay, &open, &sign(&open, &own), Refusal::InvalidSignature), Severity::Grave);
    }

    #[test]
    fn every_source_reports_a_forgery_and_keeps_what_is_behind_to_itself() {
        let store = NetabaseStore::open_with("", None, StoreOptions::in_memory()).unwrap();
        let admission = Admission::new(store, PeerScores::default(), Traces::default());
        let key = RecordKey::new("Def", "Model", b"1").unwrap();
        let author = SigningKey::from_bytes(&[7; 32]);
        let version = |time| Envelope::sign(&author, &key, Timestamp::from_bits(time), 0, Some(b"value"));
        let admit = |source, envelope: &[u8]| {
            admission
                .admit(source, PeerId::random(), key.as_bytes(), envelope)
                .map_err(|refused| (refused.reason, refused.offence.map(|offence| Severity::of(&offence))))
        };
        assert_eq!(admit(Source::Put, version(2).as_bytes()), Ok(true));
        let mut forged = version(3).as_bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        for (source, reported) in [
            (Source::Put, Some(Severity::None)),
            (Source::Kademlia, Some(Severity::None)),
            (Source::Given, Some(Severity::None)),
            (Source::Live, None),
            (Source::Fetched, None),
            (Source::Repair, None),
        ] {
            let grave = Some(Severity::Grave);
            assert_eq!(admit(source, &forged), Err((Refusal::InvalidSignature, grave)), "{source:?}");
            let outdated = admit(source, version(1).as_bytes());
            assert_eq!(outdated, Err((Refusal::Outdated, reported)), "{source:?}");
        }
        for source in [Source::Copy, Source::Query] {
            let refused = admission.check(source, PeerId::random(), &key, &forged).unwrap_err();
            assert_eq!(refused.offence.map(|offence| Severity::of(&offence)), Some(Severity::Grave));
        }
    }

    #[test]
    fn only_what_peers_send_unasked_is_charged() {
        for source in [Source::Put, Source::Kademlia, Source::Given] {
            assert_eq!(source.policy().charge, Charge::SenderAndAuthor, "{source:?}");
        }
        // Live changes are charged to their sender before gossip sees them.
        assert_eq!(Source::Live.policy().charge, Charge::Author);
        for source in [Source::Copy, Source::Query, Source::Fetched, Source::Repair] {
            assert_eq!(source.policy().charge, Charge::Nobody, "{source:?}");
        }
    }
}

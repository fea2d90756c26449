//! Judging of live messages on blocking threads.

use std::hash::RandomState;

use hashlink::LruCache;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId, TopicHash};
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal, Scope, Timestamp};
use parking_lot::{Mutex, MutexGuard};

use crate::admission::{Admission, Offence, Severity, Source};
use crate::connection::processor::Processor;
use crate::ops::answers;
use crate::platform;
use crate::protocol::live::Message;
use crate::replication::live::limits::{JUDGE_LIMITS, JUDGE_TURNS, MAX_JUDGED, NEWS_TIME};
use crate::replication::live::{Live, count};
use crate::rpc::frame::Frame;
use crate::rpc::pool::{Order, Pool};

/// A job: something that a peer has sent.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: MessageId,
    pub(super) work: Work,
}

/// The content of a job.
#[derive(Debug)]
pub(super) enum Work {
    /// A message.
    Message { topic: TopicHash, bytes: Vec<u8> },
    /// A peer's response to a fetch of a record that was too long for a message.
    Fetched { topic: TopicHash, key: RecordKey, answer: Frame },
}

/// The verdict on a message.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(super) peer: PeerId,
    pub(super) id: MessageId,
    pub(super) verdict: Verdict,
    /// The records that were refused.
    pub(super) refused: Vec<Offence>,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Said(MessageAcceptance),
    /// The record must be fetched first.
    Fetch {
        topic: TopicHash,
        key: RecordKey,
    },
}

/// The ids of valid versions: hashes of their keys and content.
type Known = LruCache<[u8; 32], ()>;

/// The queued and running jobs: one at a time for each peer, so that changes keep their order.
pub(super) type Judges = Pool<Job, Judged>;

#[derive(Debug)]
struct Judge {
    live: Live,
    store: NetabaseStore,
    admission: Admission,
    /// The versions that were found valid.
    known: Mutex<Known>,
    /// The latest timestamps of records that have left the watched scopes: an earlier version may
    /// arrive later, and would stay.
    outside: Mutex<LruCache<RecordKey, Timestamp, RandomState>>,
    /// Locks that serialize the versions of one record; each lock stands for many records.
    turns: [Mutex<()>; JUDGE_TURNS],
}

/// Creates the pool that judges messages.
pub(super) fn judges(live: Live, store: NetabaseStore, admission: Admission, processor: Processor) -> Judges {
    let judge = Judge {
        live,
        store,
        admission,
        known: Mutex::new(LruCache::new(MAX_JUDGED)),
        outside: Mutex::new(LruCache::with_hasher(MAX_JUDGED, platform::random_hasher())),
        turns: std::array::from_fn(|_| Mutex::new(())),
    };
    Pool::new(JUDGE_LIMITS, Order::OfPeer, processor, move |peer, job| Some(judge.judge(peer, job)))
}

/// The verdict on one record of a message.
enum Finding {
    /// The record is valid, and new to some peer.
    Good,
    /// The record has no value for peers.
    Useless,
    /// The record is refused.
    Refused(Offence),
}

impl Judge {
    fn judge(&self, peer: PeerId, job: Job) -> Judged {
        let Job { id, work } = job;
        let judged = |verdict, refused| Judged { peer, id, verdict, refused };
        let findings = match &work {
            Work::Message { topic, bytes } => match Message::decode(bytes) {
                Ok(Message::Records(records)) => {
                    records.iter().map(|(key, envelope)| self.record(peer, topic, key, envelope)).collect()
                }
                Ok(Message::Notice { key, timestamp }) => match self.notice(topic, key, timestamp) {
                    Ok(key) => return judged(Verdict::Fetch { topic: topic.clone(), key }, Vec::new()),
                    Err(finding) => vec![finding],
                },
                // The message cannot be checked; nodes that know its kind receive it from others.
                Ok(Message::Unknown) => vec![Finding::Useless],
                Err(_) => vec![Finding::Refused(Offence::passed_on(None, Refusal::InvalidEnvelope))],
            },
            Work::Fetched { topic, key, answer } => vec![self.fetched(peer, topic, key, answer)],
        };
        let (acceptance, refused) = sum_up(findings);
        judged(Verdict::Said(acceptance), refused)
    }

    /// Checks a record, and stores it if it belongs to a watched scope.
    fn record(&self, peer: PeerId, topic: &TopicHash, key: &[u8], value: &[u8]) -> Finding {
        let key = match RecordKey::parse(key) {
            Ok(key) => key,
            Err(error) => return refusal(None, error.into()),
        };
        let id = content_id(&key, value);
        if self.known.lock().peek(&id).is_some() {
            // The version has come on another topic, or together with others.
            return Finding::Good;
        }
        let envelope = match Envelope::parse(value) {
            Ok(envelope) => envelope,
            Err(error) => return refusal(Some(key), error.into()),
        };
        let _turn = self.turn(&key);
        let (scopes, covered) = self.place(&key, &envelope);
        if scopes.is_empty() {
            return Finding::Refused(Offence::passed_on(Some(key), Refusal::InvalidKey));
        }
        let finding =
            if covered { self.keep(peer, &key, &envelope) } else { self.check(peer, &key, &envelope) };
        match finding {
            // A record that does not belong to the topic has no value for its subscribers.
            Finding::Good if !scopes.iter().any(|scope| self.live.topic(scope) == *topic) => Finding::Useless,
            Finding::Good => {
                if covered {
                    self.known.lock().insert(id, ());
                }
                Finding::Good
            }
            finding => finding,
        }
    }

    /// Returns the scopes that a version belongs to or has left, and whether one of them is
    /// watched.
    fn place(&self, key: &RecordKey, envelope: &Envelope) -> (Vec<Scope>, bool) {
        let schema = self.live.0.schema;
        let mut scopes = Scope::of_record(schema, key, envelope);
        if let Ok(Some(previous)) = self.store.envelope(key) {
            scopes.extend(Scope::of_record(schema, key, &previous));
        }
        let covered = self.live.covers(&scopes);
        (scopes, covered)
    }

    fn turn(&self, key: &RecordKey) -> Option<MutexGuard<'_, ()>> {
        let turn = key.position().first().map_or(0, |byte| usize::from(*byte) % JUDGE_TURNS);
        self.turns.get(turn).map(Mutex::lock)
    }

    fn keep(&self, peer: PeerId, key: &RecordKey, envelope: &Envelope) -> Finding {
        if self.outside.lock().peek(key).copied() > envelope.timestamp() {
            return Finding::Useless;
        }
        match self.admission.admit(Source::Live, peer, key.as_bytes(), envelope.as_bytes()) {
            Ok(true) => Finding::Good,
            Ok(false) => self.repetition(envelope),
            Err(refused) => {
                // A sync session fetches what was refused for now.
                if matches!(refused.reason, Refusal::Busy | Refusal::TooFast) {
                    self.live.overrun().add(peer);
                }
                refused.offence.map_or(Finding::Useless, Finding::Refused)
            }
        }
    }

    /// Checks a version that is not stored.
    fn check(&self, peer: PeerId, key: &RecordKey, envelope: &Envelope) -> Finding {
        match self.admission.check(Source::Live, peer, key, envelope.as_bytes()) {
            Ok(_) => {
                let seen = self.outside.lock().peek(key).copied();
                if let Some(timestamp) = envelope.timestamp().max(seen) {
                    self.outside.lock().insert(key.clone(), timestamp);
                }
                self.repetition(envelope)
            }
            Err(refused) => refused.offence.map_or(Finding::Useless, Finding::Refused),
        }
    }

    /// Returns the verdict on a version that is stored already: it came by another way, and is new
    /// to the subscribers, or an old message is repeated.
    fn repetition(&self, envelope: &Envelope) -> Finding {
        let news = u64::try_from(NEWS_TIME.as_millis()).unwrap_or(u64::MAX);
        let since = self.store.replica().clock().unix_millis().saturating_sub(news);
        if envelope.timestamp().is_some_and(|timestamp| timestamp.unix_millis() >= since) {
            Finding::Good
        } else {
            Finding::Useless
        }
    }

    /// Returns the record of a notice, if its version is not stored.
    fn notice(&self, topic: &TopicHash, key: &[u8], timestamp: Timestamp) -> Result<RecordKey, Finding> {
        let key = RecordKey::parse(key).map_err(|error| refusal(None, error.into()))?;
        let current = self.store.envelope(&key).ok().flatten();
        match current {
            Some(current) if current.timestamp() >= Some(timestamp) => {
                let (scopes, _) = self.place(&key, &current);
                let fits = scopes.iter().any(|scope| self.live.topic(scope) == *topic);
                let is_it = current.timestamp() == Some(timestamp);
                Err(if fits && is_it { self.repetition(&current) } else { Finding::Useless })
            }
            _ => Ok(key),
        }
    }

    /// Checks the response to a fetch. The notice is forwarded only if the record is stored, since
    /// other peers will ask this node for it.
    fn fetched(&self, peer: PeerId, topic: &TopicHash, key: &RecordKey, answer: &Frame) -> Finding {
        let Ok(copies) = answers::copies(answer, 1) else { return Finding::Useless };
        let Some(value) = copies.first().copied().flatten() else { return Finding::Useless };
        count(&self.live.0.counters.fetched);
        match self.record(peer, topic, key.as_bytes(), value) {
            Finding::Good if self.store.envelope(key).ok().flatten().is_none() => Finding::Useless,
            finding => finding,
        }
    }
}

/// Returns the id of a version's content under its key.
fn content_id(key: &RecordKey, value: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let len = u64::try_from(key.as_bytes().len()).unwrap_or(u64::MAX);
    hasher.update(&len.to_be_bytes()).update(key.as_bytes()).update(value);
    *hasher.finalize().as_bytes()
}

/// Refuses records that no honest peer would forward. Refusals of a node that is behind or full
/// make a record useless.
fn refusal(key: Option<RecordKey>, reason: Refusal) -> Finding {
    let offence = Offence::passed_on(key, reason);
    match Severity::of(&offence) {
        Severity::None => Finding::Useless,
        Severity::Slight | Severity::Grave => Finding::Refused(offence),
    }
}

/// Returns the verdict on a message: it is forwarded if a record in it is valid, and none is
/// forged.
fn sum_up(findings: Vec<Finding>) -> (MessageAcceptance, Vec<Offence>) {
    let is_good = findings.iter().any(|finding| matches!(finding, Finding::Good));
    let refused = findings.into_iter().filter_map(|finding| match finding {
        Finding::Refused(offence) => Some(offence),
        Finding::Good | Finding::Useless => None,
    });
    let refused: Vec<_> = refused.collect();
    let acceptance = match (refused.is_empty(), is_good) {
        (false, _) => MessageAcceptance::Reject,
        (true, true) => MessageAcceptance::Accept,
        (true, false) => MessageAcceptance::Ignore,
    };
    (acceptance, refused)
}

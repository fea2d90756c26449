//! Judges live messages on blocking threads.

use hashlink::LruCache;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId, TopicHash};
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal, Scope, Timestamp};
use parking_lot::{Mutex, MutexGuard};

use crate::admission::{Admission, Offence, Severity, Source};
use crate::ops::answers;
use crate::protocol::live::Message;
use crate::replication::live::limits::{JUDGE_LIMITS, JUDGE_TURNS, MAX_JUDGED, NEWS_TIME};
use crate::replication::live::{Live, count};
use crate::rpc::frame::Frame;
use crate::rpc::pool::{Order, Pool};

/// A message of a peer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: MessageId,
    pub(super) work: Work,
}

/// What is to be judged.
#[derive(Debug)]
pub(super) enum Work {
    /// A message.
    Message { topic: TopicHash, bytes: Vec<u8> },
    /// What the peer has answered when it was asked for a record that was too long for a message.
    Fetched { topic: TopicHash, key: RecordKey, answer: Frame },
}

/// What is to be done with a message.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(super) peer: PeerId,
    pub(super) id: MessageId,
    pub(super) verdict: Verdict,
    /// What the peer should not have sent.
    pub(super) refused: Vec<Offence>,
}

#[derive(Debug)]
pub(crate) enum Verdict {
    Said(MessageAcceptance),
    /// The record has to be fetched first.
    Fetch {
        topic: TopicHash,
        key: RecordKey,
    },
}

/// Good versions: their content, under their keys.
type Known = LruCache<[u8; 32], ()>;

/// The messages that wait or are judged: of each peer one at a time, so that changes come in the
/// order of their writing.
pub(super) type Judges = Pool<Job, Judged>;

#[derive(Debug)]
struct Judge {
    live: Live,
    store: NetabaseStore,
    admission: Admission,
    /// What was found to be good.
    known: Mutex<Known>,
    /// When records were last seen to be outside of what is followed: an earlier version may come
    /// later, and would stay.
    outside: Mutex<LruCache<RecordKey, Timestamp>>,
    /// Versions of one record are judged one after the other; each lock stands for many records.
    turns: [Mutex<()>; JUDGE_TURNS],
}

/// Makes the pool that judges messages.
pub(super) fn judges(live: Live, store: NetabaseStore, admission: Admission) -> Judges {
    let judge = Judge {
        live,
        store,
        admission,
        known: Mutex::new(LruCache::new(MAX_JUDGED)),
        outside: Mutex::new(LruCache::new(MAX_JUDGED)),
        turns: std::array::from_fn(|_| Mutex::new(())),
    };
    Pool::new(JUDGE_LIMITS, Order::OfPeer, move |peer, job| Some(judge.judge(peer, job)))
}

/// What is found of one record of a message.
enum Finding {
    /// It is good, and news to somebody.
    Good,
    /// It says nothing.
    Useless,
    /// The peer should not have sent it.
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
                // Nobody can tell whether it is good; those who know its kind hear of it from
                // others.
                Ok(Message::Unknown) => vec![Finding::Useless],
                Err(_) => vec![Finding::Refused(Offence::passed_on(None, Refusal::InvalidEnvelope))],
            },
            Work::Fetched { topic, key, answer } => vec![self.fetched(peer, topic, key, answer)],
        };
        let (acceptance, refused) = sum_up(findings);
        judged(Verdict::Said(acceptance), refused)
    }

    /// Checks a record, and keeps it if it is one of those that are followed here.
    fn record(&self, peer: PeerId, topic: &TopicHash, key: &[u8], value: &[u8]) -> Finding {
        let key = match RecordKey::parse(key) {
            Ok(key) => key,
            Err(error) => return refusal(None, error.into()),
        };
        let id = content_id(&key, value);
        if self.known.lock().peek(&id).is_some() {
            // It came on another topic, or together with others.
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
            // What has nothing to do with the topic is of no use to those who follow it.
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

    /// Returns the scopes that a version is in, or that it has left, and whether one of them is
    /// followed.
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
                if refused.reason == Refusal::Busy {
                    self.live.overrun().add(peer);
                }
                refused.offence.map_or(Finding::Useless, Finding::Refused)
            }
        }
    }

    /// Checks a version that is not to be kept.
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

    /// What is here already came by another way, and is news to those to whom it is passed on; or
    /// somebody repeats what everybody has.
    fn repetition(&self, envelope: &Envelope) -> Finding {
        let news = u64::try_from(NEWS_TIME.as_millis()).unwrap_or(u64::MAX);
        let since = self.store.replica().clock().unix_millis().saturating_sub(news);
        if envelope.timestamp().is_some_and(|timestamp| timestamp.unix_millis() >= since) {
            Finding::Good
        } else {
            Finding::Useless
        }
    }

    /// Returns the record that a notice is about, if its version is not here.
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

    /// Checks what a peer has answered. It is passed on only if it is kept, since others will ask
    /// for it here.
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

/// Returns what names a version's content under its key.
fn content_id(key: &RecordKey, value: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let len = u64::try_from(key.as_bytes().len()).unwrap_or(u64::MAX);
    hasher.update(&len.to_be_bytes()).update(key.as_bytes()).update(value);
    *hasher.finalize().as_bytes()
}

/// What no honest peer would pass on is refused; what says only that somebody is behind or full is
/// not.
fn refusal(key: Option<RecordKey>, reason: Refusal) -> Finding {
    let offence = Offence::passed_on(key, reason);
    match Severity::of(&offence) {
        Severity::None => Finding::Useless,
        Severity::Slight | Severity::Grave => Finding::Refused(offence),
    }
}

/// A message is passed on if something in it is good, and nothing forged.
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

//! Queries in flight: one map from kad's query ids to what to do next.
//!
//! A query is taken out of the map when kad reports on it and put back only if more is to come, so
//! that no caller is answered twice or forgotten. Ids that are not in the map are kad's own.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::QueryId;
use netabase_store::replica::CheckedRecord;
use netabase_store::{Envelope, RecordKey, Refusal};
use tokio::sync::mpsc;

use crate::error::NetabaseError;
use crate::event_loop::command::{Publication, PutTerms, Reading, Reply, answer};
use crate::ops::survey::Ask;
use crate::outcome::{PeerAnswer, ReadAnswer, WriteAnswer};
use crate::swarm::{Deadline, PutPermit};
use crate::telemetry::trace_context::TraceContext;

/// The most callers that share a get; the next one begins another.
const MAX_GET_CALLERS: usize = 1024;
/// How long a get can be joined: what is written meanwhile at peers that have answered already is
/// missing from it.
const JOIN_TIME: Duration = Duration::from_secs(1);

/// A query that kad works on for us.
#[derive(Debug)]
pub(crate) enum Query {
    /// Looks for the peers that hold a record.
    FindHolders(Waiting),
    /// Collects copies of a record.
    Get(Get),
    /// Announces this node as a provider.
    StartProviding { told: bool, reply: Reply<bool> },
    /// Collects providers.
    GetProviders { found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>> },
    /// Tells of providers as they are found.
    LookUpProviders { providers: mpsc::Sender<HashSet<PeerId>> },
    /// Looks for a peer's addresses, to connect to it.
    Locate { peer: PeerId, reply: Reply<()> },
    /// Fills the routing table.
    Bootstrap { reply: Reply<usize> },
}

/// A query of kad that somebody waits for: it may wait for peers that are silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watched {
    pub(crate) id: QueryId,
    /// How many peers had answered, or failed to, when it was looked at last, and since when it was
    /// so many.
    pub(crate) answered: u32,
    pub(crate) since: tokio::time::Instant,
}

/// Names a put, which has several requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PutId(u64);

/// Names a question to several peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AskId(u64);

/// Who waits for the peers that hold a record, or for a time to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Waiting {
    /// A put.
    Put(PutId),
    /// A question.
    Ask(AskId),
}

/// All queries in flight.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    in_flight: HashMap<QueryId, Query>,
    /// The gets that nobody has answered yet, which others for the same record may join.
    gets: HashMap<RecordKey, QueryId>,
    puts: HashMap<PutId, Put>,
    asks: HashMap<AskId, Ask>,
    last_id: u64,
}

impl Queries {
    pub(crate) fn insert(&mut self, id: QueryId, query: Query) {
        if let Query::Get(get) = &query
            && get.answers.is_empty()
        {
            self.gets.insert(get.key.clone(), id);
        }
        self.in_flight.insert(id, query);
    }

    pub(crate) fn take(&mut self, id: QueryId) -> Option<Query> {
        let query = self.in_flight.remove(&id);
        if let Some(Query::Get(get)) = &query
            && self.gets.get(&get.key) == Some(&id)
        {
            self.gets.remove(&get.key);
        }
        query
    }

    /// Lets a caller wait for a get of the same record that has just begun and has found nothing
    /// yet. Gives the reply back if there is none.
    pub(crate) fn join_get(&mut self, key: &RecordKey, reply: Reply<Reading>) -> Option<Reply<Reading>> {
        let Some(id) = self.gets.get(key) else { return Some(reply) };
        match self.in_flight.get_mut(id) {
            Some(Query::Get(get))
                if get.replies.len() < MAX_GET_CALLERS && get.began.elapsed() < JOIN_TIME =>
            {
                get.replies.push(reply);
                None
            }
            _ => Some(reply),
        }
    }

    pub(crate) fn add_put(&mut self, put: Put) -> PutId {
        let id = PutId(self.next_id());
        self.puts.insert(id, put);
        id
    }

    pub(crate) fn take_put(&mut self, id: PutId) -> Option<Put> {
        self.puts.remove(&id)
    }

    pub(crate) fn put_back(&mut self, id: PutId, put: Put) {
        self.puts.insert(id, put);
    }

    pub(crate) fn add_ask(&mut self, ask: Ask) -> AskId {
        let id = AskId(self.next_id());
        self.asks.insert(id, ask);
        id
    }

    pub(crate) fn take_ask(&mut self, id: AskId) -> Option<Ask> {
        self.asks.remove(&id)
    }

    pub(crate) fn put_back_ask(&mut self, id: AskId, ask: Ask) {
        self.asks.insert(id, ask);
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

/// A version on its way to the closest peers, each of which answers for itself.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    /// How many peers are to accept it before the caller is answered.
    concern: usize,
    /// When the caller is answered in any case.
    pub(crate) deadline: Option<Deadline>,
    /// None until the holders are known.
    publication: Option<Publication>,
    /// How many peers have not answered yet.
    outstanding: usize,
    /// The trace of the call.
    pub(crate) trace: Option<TraceContext>,
    /// Taken when the caller is answered.
    reply: Option<Reply<Publication>>,
    /// Makes room for another put when this one is dropped.
    _permit: PutPermit,
}

impl Put {
    /// Makes a put that is answered when `concern` peers have accepted.
    pub(crate) fn new(
        key: RecordKey,
        envelope: Envelope,
        concern: usize,
        terms: PutTerms,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) -> Self {
        let deadline = terms.deadline;
        Self {
            key,
            envelope,
            concern,
            deadline,
            publication: None,
            outstanding: 0,
            trace: reply.trace(),
            reply: Some(reply),
            _permit: permit,
        }
    }

    /// The version is being sent to `holders`.
    pub(crate) fn sent_to(&mut self, holders: impl IntoIterator<Item = PeerId>) {
        let pending = |peer| PeerAnswer { peer, answer: WriteAnswer::Pending };
        let peers: Vec<_> = holders.into_iter().map(pending).collect();
        self.outstanding = peers.len();
        self.publication = Some(Publication { peers });
    }

    /// A peer has answered, or will not answer any more.
    pub(crate) fn answered(&mut self, peer: PeerId, answer: WriteAnswer) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let mut peers = self.publication.iter_mut().flat_map(|publication| &mut publication.peers);
        if let Some(pending) = peers.find(|pending| pending.peer == peer) {
            pending.answer = answer;
        }
    }

    /// Answers the caller once enough peers have accepted, or no more can.
    pub(crate) fn answer_if_settled(&mut self) {
        let Some(publication) = &self.publication else { return };
        let wanted = self.concern.min(publication.peers.len());
        let settled = publication.accepted().count() >= wanted || self.is_finished();
        if settled && let Some(reply) = self.reply.take() {
            answer(reply, Ok(publication.clone()));
        }
    }

    /// Answers the caller, who does not wait any longer. The version stays on its way.
    pub(crate) fn answer_late(&mut self, deadline: Deadline) {
        if let Some(reply) = self.reply.take() {
            answer(reply, self.publication.clone().ok_or(NetabaseError::Timeout { after: deadline.after }));
        }
    }

    /// Returns what each peer that was asked has done so far.
    pub(crate) fn answers(&self) -> Vec<PeerAnswer<WriteAnswer>> {
        self.publication.iter().flat_map(|publication| publication.peers.clone()).collect()
    }

    /// Whether every peer has answered.
    pub(crate) fn is_finished(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether there was nobody to send it to.
    pub(crate) fn is_unpublished(&self) -> bool {
        self.publication.as_ref().is_none_or(|publication| publication.peers.is_empty())
    }

    /// Whether any peer has accepted, or has nothing to accept.
    pub(crate) fn is_heard(&self) -> bool {
        let mut peers = self.publication.iter().flat_map(|publication| &publication.peers);
        peers.any(|peer| peer.answer.is_heard(&self.envelope))
    }

    /// Whether a peer may still accept that nobody waits for.
    pub(crate) fn is_undecided(&self) -> bool {
        let mut peers = self.publication.iter().flat_map(|publication| &publication.peers);
        peers.any(|peer| peer.answer == WriteAnswer::Pending)
    }

    /// Returns why peers have refused it.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = Refusal> {
        let peers = self.publication.iter().flat_map(|publication| &publication.peers);
        peers.filter_map(|peer| match peer.answer {
            WriteAnswer::Refused(reason) => Some(reason),
            _ => None,
        })
    }

    /// Whether every peer that has looked at it has refused it for its date. Those that did not
    /// answer, or did not look, say nothing.
    pub(crate) fn is_from_future(&self) -> bool {
        let mut peers = self.publication.iter().flat_map(|publication| &publication.peers);
        let mut reasons = self.refusals().filter(|reason| {
            !matches!(reason, Refusal::Busy | Refusal::Slowed | Refusal::TooFast | Refusal::Overloaded)
        });
        let is_for_its_date = reasons.next() == Some(Refusal::FutureTimestamp)
            && reasons.all(|reason| reason == Refusal::FutureTimestamp);
        is_for_its_date && !peers.any(|peer| peer.answer.is_acceptance())
    }

    /// Whether any peer says that it has a newer version.
    pub(crate) fn is_outdated(&self) -> bool {
        let mut peers = self.publication.iter().flat_map(|publication| &publication.peers);
        peers.any(|peer| peer.answer == WriteAnswer::Refused(Refusal::Outdated))
    }
}

/// The copies of a record that were found so far.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) key: RecordKey,
    /// The newest copy, or all contributions to a merged record, and who sent the last of them.
    newest: Option<(CheckedRecord, PeerId)>,
    /// What the peers answered.
    answers: Vec<PeerAnswer<ReadAnswer>>,
    began: Instant,
    /// Those who wait for it; one that does not any more takes nothing from the others.
    replies: Vec<Reply<Reading>>,
}

/// What a get has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: RecordKey,
    pub(crate) newest: Option<CheckedRecord>,
    /// What the caller is told.
    pub(crate) reading: Reading,
    /// Peers whose copies are older or lack contributions, and those that answered that they have
    /// none.
    pub(crate) behind: Vec<PeerId>,
    pub(crate) replies: Vec<Reply<Reading>>,
}

impl Get {
    pub(crate) fn new(key: RecordKey, reply: Reply<Reading>) -> Self {
        Self { key, newest: None, answers: Vec::new(), began: Instant::now(), replies: vec![reply] }
    }

    /// Adds a copy.
    pub(crate) fn add(&mut self, peer: PeerId, copy: CheckedRecord) {
        let version = copy.envelope().version().map_or(ReadAnswer::Nothing, ReadAnswer::Version);
        self.answers.push(PeerAnswer { peer, answer: version });
        self.newest = Some(match self.newest.take() {
            Some((newest, _)) if copy.envelope().adds_to(newest.envelope()) => (newest.join(copy), peer),
            Some(newest) => newest,
            None => (copy, peer),
        });
    }

    /// Adds the answer of a peer without a copy.
    pub(crate) fn add_without_copy(&mut self, peer: PeerId, answer: ReadAnswer) {
        self.answers.push(PeerAnswer { peer, answer });
    }

    /// Whether a peer has answered already.
    pub(crate) fn has_answer_of(&self, peer: PeerId) -> bool {
        self.answers.iter().any(|answer| answer.peer == peer)
    }

    /// Returns how many copies there are.
    pub(crate) fn copies(&self) -> usize {
        self.answers.iter().filter(|answer| matches!(answer.answer, ReadAnswer::Version(_))).count()
    }

    /// Returns the trace of the call.
    pub(crate) fn trace(&self) -> Option<TraceContext> {
        self.replies.first().and_then(Reply::trace)
    }

    /// Answers the caller that nothing was found out.
    pub(crate) fn fail(self, error: &NetabaseError) {
        for reply in self.replies {
            answer(reply, Err(error.clone()));
        }
    }

    /// Returns what was found, and to whom to say so.
    pub(crate) fn finish(self) -> Found {
        let Self { key, newest, answers, began: _, replies } = self;
        let (newest, from) = newest.unzip();
        let envelope = newest.as_ref().map(|newest| newest.envelope().clone());
        let version = envelope.as_ref().and_then(Envelope::version);
        let is_behind = |answer: &ReadAnswer| match answer {
            ReadAnswer::Version(copy) => Some(*copy) != version,
            ReadAnswer::Nothing => version.is_some(),
            ReadAnswer::Invalid(_) | ReadAnswer::TimedOut | ReadAnswer::Unreachable(_) => false,
        };
        let behind = answers.iter().filter(|answer| is_behind(&answer.answer)).map(|answer| answer.peer);
        let behind = behind.collect();
        Found { key, newest, reading: Reading { newest: envelope, from, peers: answers }, behind, replies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::command::Answer;
    use crate::swarm::PutBudget;
    use libp2p::kad;
    use netabase_store::{NetabaseStore, SigningKey, StoreOptions, Timestamp, WritePolicy};

    fn key() -> RecordKey {
        RecordKey::new("Def", "Model", b"1").unwrap()
    }

    fn copy(time: u64) -> Envelope {
        Envelope::sign(
            &SigningKey::from_bytes(&[1; 32]),
            &key(),
            Timestamp::from_bits(time),
            0,
            Some(b"value"),
        )
    }

    async fn put() -> (Put, Answer<Publication>) {
        let (reply, answered) = Reply::new(None);
        let permit = PutBudget::default().permit(&copy(1)).await.unwrap();
        (Put::new(key(), copy(1), 2, PutTerms::default(), permit, reply), answered)
    }

    #[tokio::test]
    async fn a_put_is_answered_once_when_enough_peers_have_accepted() {
        let (mut put, mut answered) = put().await;
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        put.sent_to(peers);
        put.answer_if_settled();
        assert!(answered.try_recv().is_err());
        put.answered(peers[0], WriteAnswer::Accepted);
        put.answered(peers[1], WriteAnswer::Accepted);
        put.answer_if_settled();
        let publication = answered.try_recv().unwrap().unwrap();
        assert_eq!(publication.accepted().collect::<Vec<_>>(), peers[..2]);
        assert_eq!(publication.peers[2].answer, WriteAnswer::Pending);
        put.answered(peers[2], WriteAnswer::Accepted);
        put.answer_if_settled();
        assert!(put.is_finished());
    }

    #[tokio::test]
    async fn a_put_is_answered_when_no_more_peers_can_accept() {
        let (mut put, mut answered) = put().await;
        let peers = [PeerId::random(), PeerId::random()];
        put.sent_to(peers);
        put.answered(peers[0], WriteAnswer::TimedOut);
        put.answered(peers[1], WriteAnswer::Accepted);
        put.answer_if_settled();
        let publication = answered.try_recv().unwrap().unwrap();
        assert_eq!(publication.peers.len(), 2);
        assert_eq!(publication.accepted().collect::<Vec<_>>(), [peers[1]]);
        assert_eq!(publication.peers[0].answer, WriteAnswer::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_has_nothing_to_delete_has_heard_of_an_old_deletion() {
        let expired = WriteAnswer::Refused(Refusal::Expired);
        for is_tombstone in [true, false] {
            let (mut put, _answered) = put().await;
            if is_tombstone {
                let identity = SigningKey::from_bytes(&[1; 32]);
                put.envelope = Envelope::sign(&identity, &key(), Timestamp::from_bits(1), 0, None);
            }
            let peers = [PeerId::random(), PeerId::random()];
            put.sent_to(peers);
            put.answered(peers[0], WriteAnswer::Refused(Refusal::Busy));
            assert!(!put.is_heard());
            put.answered(peers[1], expired.clone());
            assert_eq!(put.is_heard(), is_tombstone);
        }
    }

    #[tokio::test]
    async fn a_put_without_peers_is_answered_at_once() {
        let (mut put, mut answered) = put().await;
        put.sent_to([]);
        put.answer_if_settled();
        assert_eq!(answered.try_recv().unwrap().unwrap(), Publication::default());
        assert!(!put.is_heard());
    }

    #[tokio::test]
    async fn callers_of_a_get_that_nobody_has_answered_share_it() {
        let (kad, store) = (kad::store::MemoryStore::new(PeerId::random()), store());
        let mut kad = kad::Behaviour::new(PeerId::random(), kad);
        let id = kad.get_record(key().as_bytes().to_vec().into());
        let mut queries = Queries::default();
        let (first, abandoned) = Reply::new(None);
        assert!(queries.join_get(&key(), Reply::new(None).0).is_some(), "there is none");
        queries.insert(id, Query::Get(Get::new(key(), first)));
        let (second, answered) = Reply::new(None);
        assert!(queries.join_get(&key(), second).is_none());
        drop(abandoned);
        let Some(Query::Get(mut get)) = queries.take(id) else { panic!("it is taken once") };
        assert!(queries.join_get(&key(), Reply::new(None).0).is_some());
        get.add(PeerId::random(), store.replica().check_record(&key(), copy(1).as_bytes()).unwrap());
        queries.insert(id, Query::Get(get));
        assert!(queries.join_get(&key(), Reply::new(None).0).is_some(), "what was written since is missing");
        let Some(Query::Get(get)) = queries.take(id) else { panic!("it was put back") };
        let Found { reading, replies, .. } = get.finish();
        for reply in replies {
            answer(reply, Ok(reading.clone()));
        }
        assert_eq!(answered.await.unwrap().unwrap().newest, Some(copy(1)));
        assert!(queries.gets.is_empty());
    }

    fn store() -> NetabaseStore {
        let options = StoreOptions::in_memory();
        NetabaseStore::open_with("", None, options).unwrap()
    }

    #[test]
    fn a_get_returns_the_newest_copy_and_names_the_stale_peers() {
        let (reply, _) = Reply::new(None);
        let options = StoreOptions::in_memory();
        let store = NetabaseStore::open_with("", None, options).unwrap();
        let mut get = Get::new(key(), reply);
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        for (peer, time) in peers.iter().zip([2, 3, 1]) {
            get.add(*peer, store.replica().check_record(&key(), copy(time).as_bytes()).unwrap());
        }
        let found = get.finish();
        assert_eq!(found.newest.map(|newest| newest.envelope().clone()), Some(copy(3)));
        assert_eq!(found.behind, [peers[0], peers[2]]);
        assert_eq!(found.reading.from, Some(peers[1]));
    }

    #[test]
    fn a_get_joins_what_was_contributed_and_names_the_peers_that_lack_some() {
        let (reply, _) = Reply::new(None);
        let options = StoreOptions::in_memory();
        let store = NetabaseStore::open_with("", None, options).unwrap();
        let key = RecordKey::with_policy(WritePolicy::Merged, "Def", "Model", b"1").unwrap();
        let part = |author| {
            let author = SigningKey::from_bytes(&[author; 32]);
            Envelope::sign(&author, &key, Timestamp::from_bits(1), 0, Some(b"value"))
        };
        let parts = [part(1), part(2)];
        let mut get = Get::new(key.clone(), reply);
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        for (peer, parts) in peers.iter().zip([&parts[..1], &parts[1..], &parts[..]]) {
            let bundle = Envelope::bundle(parts).unwrap();
            get.add(*peer, store.replica().check_record(&key, bundle.as_bytes()).unwrap());
        }
        let found = get.finish();
        assert_eq!(found.newest.map(|newest| newest.envelope().clone()), Envelope::bundle(&parts));
        assert_eq!(found.behind, peers[..2]);
    }
}

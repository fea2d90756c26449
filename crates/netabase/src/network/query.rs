//! Queries in flight: one map from kad's query ids to what to do next.
//!
//! A query is taken out of the map when kad reports on it and put back only if more is to come, so
//! that no caller is answered twice or forgotten. Ids that are not in the map are kad's own.

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;
use libp2p::kad::QueryId;
use netabase_store::{CheckedRecord, Envelope, RecordKey, Version};

use super::PutPermit;
use super::command::{Publication, Reply, answer};

/// A query that kad works on for us.
#[derive(Debug)]
pub(super) enum Query {
    /// Looks for the peers that a version is to be sent to.
    FindHolders { put: PutId },
    /// Sends a version to one peer.
    Send { put: PutId, peer: PeerId },
    /// Collects copies of a record.
    Get(Get),
    /// Sends a newer version to peers that answered with an older one or none.
    Repair { _permit: PutPermit },
    /// Announces this node as a provider.
    StartProviding { told: bool, reply: Reply<bool> },
    /// Collects providers.
    GetProviders { found: HashSet<PeerId>, reply: Reply<HashSet<PeerId>> },
    /// Fills the routing table.
    Bootstrap { reply: Reply<usize> },
}

/// Names a put, which has several queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PutId(u64);

/// All queries in flight.
#[derive(Debug, Default)]
pub(super) struct Queries {
    in_flight: HashMap<QueryId, Query>,
    puts: HashMap<PutId, Put>,
    last_put: u64,
}

impl Queries {
    pub(super) fn insert(&mut self, id: QueryId, query: Query) {
        self.in_flight.insert(id, query);
    }

    pub(super) fn take(&mut self, id: QueryId) -> Option<Query> {
        self.in_flight.remove(&id)
    }

    pub(super) fn add_put(&mut self, put: Put) -> PutId {
        self.last_put += 1;
        let id = PutId(self.last_put);
        self.puts.insert(id, put);
        id
    }

    pub(super) fn take_put(&mut self, id: PutId) -> Option<Put> {
        self.puts.remove(&id)
    }

    pub(super) fn put_back(&mut self, id: PutId, put: Put) {
        self.puts.insert(id, put);
    }
}

/// A version on its way to the closest peers, each of which is a query of its own.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) key: RecordKey,
    pub(super) envelope: Envelope,
    publication: Publication,
    /// How many peers have not answered yet.
    outstanding: usize,
    /// Taken when the caller is answered.
    reply: Option<Reply<Publication>>,
    /// Makes room for another put when this one is dropped.
    _permit: PutPermit,
}

impl Put {
    pub(super) fn new(
        key: RecordKey,
        envelope: Envelope,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) -> Self {
        let (publication, reply) = (Publication::default(), Some(reply));
        Self { key, envelope, publication, outstanding: 0, reply, _permit: permit }
    }

    /// The version is being sent to `holders`.
    pub(super) fn sent_to(&mut self, holders: &[PeerId]) {
        self.publication.asked = holders.to_vec();
        self.outstanding = holders.len();
    }

    /// A peer has answered.
    pub(super) fn answered(&mut self, peer: PeerId, accepted: bool) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if accepted {
            self.publication.accepted.push(peer);
        }
    }

    /// Answers the caller once `concern` peers have accepted, or no more can.
    pub(super) fn answer_if_settled(&mut self, concern: usize) {
        let wanted = concern.min(self.publication.asked.len());
        let settled = self.publication.accepted.len() >= wanted || self.is_finished();
        if let Some(reply) = self.reply.take_if(|_| settled) {
            answer(reply, Ok(self.publication.clone()));
        }
    }

    /// Whether every peer has answered.
    pub(super) fn is_finished(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether there was nobody to send it to.
    pub(super) fn is_unpublished(&self) -> bool {
        self.publication.asked.is_empty()
    }

    /// Whether any peer has accepted.
    pub(super) fn is_accepted(&self) -> bool {
        !self.publication.accepted.is_empty()
    }
}

/// The copies of a record that were found so far.
#[derive(Debug)]
pub(super) struct Get {
    pub(super) key: RecordKey,
    /// The newest copy, or all contributions to a merged record.
    newest: Option<CheckedRecord>,
    /// Peers that answered, with their copies.
    answers: Vec<(PeerId, Option<Version>)>,
    reply: Reply<Option<Envelope>>,
}

/// What a get has found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: RecordKey,
    pub(super) newest: Option<CheckedRecord>,
    /// Peers whose copies are older, or lack contributions.
    pub(super) stale: Vec<PeerId>,
    pub(super) reply: Reply<Option<Envelope>>,
}

impl Get {
    pub(super) fn new(key: RecordKey, reply: Reply<Option<Envelope>>) -> Self {
        Self { key, newest: None, answers: Vec::new(), reply }
    }

    /// Adds a copy.
    pub(super) fn add(&mut self, peer: PeerId, copy: CheckedRecord) {
        self.answers.push((peer, copy.envelope().version()));
        self.newest = Some(match self.newest.take() {
            Some(newest) => newest.join(copy),
            None => copy,
        });
    }

    /// Returns how many copies there are.
    pub(super) fn copies(&self) -> usize {
        self.answers.len()
    }

    /// Returns what was found, and to whom to say so.
    pub(super) fn finish(self) -> Found {
        let Self { key, newest, answers, reply } = self;
        let version = newest.as_ref().and_then(|newest| newest.envelope().version());
        let stale = answers.iter().filter(|(_, copy)| *copy != version).map(|(peer, _)| *peer).collect();
        Found { key, newest, stale, reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::PutBudget;
    use crate::network::command::Answer;
    use netabase_store::{NetabaseStore, SigningKey, StorageBackend, StoreOptions, Timestamp, WritePolicy};

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
        (Put::new(key(), copy(1), permit, reply), answered)
    }

    #[tokio::test]
    async fn a_put_is_answered_once_when_enough_peers_have_accepted() {
        let (mut put, mut answered) = put().await;
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        put.sent_to(&peers);
        put.answer_if_settled(2);
        assert!(answered.try_recv().is_err());
        put.answered(peers[0], true);
        put.answered(peers[1], true);
        put.answer_if_settled(2);
        assert_eq!(answered.try_recv().unwrap().unwrap().accepted, peers[..2]);
        put.answered(peers[2], true);
        put.answer_if_settled(2);
        assert!(put.is_finished());
    }

    #[tokio::test]
    async fn a_put_is_answered_when_no_more_peers_can_accept() {
        let (mut put, mut answered) = put().await;
        let peers = [PeerId::random(), PeerId::random()];
        put.sent_to(&peers);
        put.answered(peers[0], false);
        put.answered(peers[1], true);
        put.answer_if_settled(2);
        let publication = answered.try_recv().unwrap().unwrap();
        assert_eq!((publication.asked.len(), publication.accepted), (2, vec![peers[1]]));
    }

    #[tokio::test]
    async fn a_put_without_peers_is_answered_at_once() {
        let (mut put, mut answered) = put().await;
        put.sent_to(&[]);
        put.answer_if_settled(3);
        assert_eq!(answered.try_recv().unwrap().unwrap(), Publication::default());
        assert!(!put.is_accepted());
    }

    #[test]
    fn a_get_returns_the_newest_copy_and_names_the_stale_peers() {
        let (reply, _) = Reply::new(None);
        let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
        let store = NetabaseStore::open_with("", None, options).unwrap();
        let mut get = Get::new(key(), reply);
        let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
        for (peer, time) in peers.iter().zip([2, 3, 1]) {
            get.add(*peer, store.check_record(&key(), copy(time).as_bytes()).unwrap());
        }
        let found = get.finish();
        assert_eq!(found.newest.map(|newest| newest.envelope().clone()), Some(copy(3)));
        assert_eq!(found.stale, [peers[0], peers[2]]);
    }

    #[test]
    fn a_get_joins_what_was_contributed_and_names_the_peers_that_lack_some() {
        let (reply, _) = Reply::new(None);
        let options = StoreOptions { backend: StorageBackend::Memory, ..StoreOptions::default() };
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
            get.add(*peer, store.check_record(&key, bundle.as_bytes()).unwrap());
        }
        let found = get.finish();
        assert_eq!(found.newest.map(|newest| newest.envelope().clone()), Envelope::bundle(&parts));
        assert_eq!(found.stale, peers[..2]);
    }
}

//! A get: asks the nearest peers for their copies until there are enough.
//!
//! Known peers are asked at once, without a lookup. If one of them has no copy, the record may be
//! stored elsewhere: the get asks further peers, more of them the more have none, and looks up
//! nearer ones in the network. If none of the holders has a copy, it asks the next nearest
//! connected peers: the holders may be strangers that have settled around the key.

use std::collections::{HashSet, VecDeque};

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use netabase_store::replica::CheckedRecord;
use netabase_store::{Envelope, RecordKey};

use crate::event_loop::command::Reading;
use crate::outcome::{PeerAnswer, ReadAnswer};

/// The state of a get.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) key: RecordKey,
    /// The number of copies that are enough, or `None` if every holder must answer.
    enough: Option<usize>,
    /// The peers to ask, the nearest first.
    unasked: VecDeque<PeerInfo>,
    /// The peers that were asked and have not answered yet, in the order of asking.
    awaited: Vec<PeerId>,
    /// The peers to ask, the asked ones, and those that have answered.
    known: HashSet<PeerId>,
    lookup: Lookup,
    /// The part of the network that the peers are with which the get has begun.
    begun_with: Known,
    /// The number of peers that have no copy, or failed to answer.
    lacking: usize,
    /// The newest copy, or all contributions to a merged record, and the sender of the last of
    /// them.
    newest: Option<(CheckedRecord, PeerId)>,
    /// The answers of the peers.
    answers: Vec<PeerAnswer<ReadAnswer>>,
    copies: usize,
}

/// The state of the lookup of the holders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lookup {
    NotBegun,
    UnderWay,
    Over,
}

/// The part of the network that known peers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Some,
    /// All that the last lookup has found and those that have connected since: whoever has joined
    /// otherwise may have a record that none of them has.
    Lately,
    All,
}

/// An action of a get, which its owner carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GetAction {
    /// Look up the holders.
    FindHolders,
    /// Ask these peers for their copies.
    Ask(Vec<PeerInfo>),
    /// Start the short wait for further copies: the first one has arrived.
    Settle,
    /// Answer the callers.
    Finish,
}

/// The result of a get.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: RecordKey,
    pub(crate) newest: Option<CheckedRecord>,
    /// The answer to the callers.
    pub(crate) reading: Reading,
    /// The peers whose copies are older or lack contributions, and those that answered that they
    /// have none.
    pub(crate) behind: Vec<PeerId>,
    /// The number of copies.
    pub(crate) copies: usize,
}

impl Get {
    /// Creates a get that needs `enough` copies, or an answer of every holder if `None`.
    pub(crate) fn new(key: RecordKey, enough: Option<usize>) -> Self {
        Self {
            key,
            enough,
            unasked: VecDeque::new(),
            awaited: Vec::new(),
            known: HashSet::new(),
            lookup: Lookup::NotBegun,
            begun_with: Known::Some,
            lacking: 0,
            newest: None,
            answers: Vec::new(),
            copies: 0,
        }
    }

    /// Starts with peers, the nearest first, which are a part of the network.
    pub(crate) fn begin(&mut self, peers: Vec<PeerInfo>, part: Known) -> Vec<GetAction> {
        if part == Known::All {
            self.lookup = Lookup::Over;
        }
        if part == Known::All || self.enough.is_some() {
            self.begun_with = part;
            self.add(peers);
        }
        self.next()
    }

    /// Handles the lookup of the holders. The connected peers `beyond` them are asked last, unless
    /// the answers of the holders are what is wanted.
    pub(crate) fn on_holders(&mut self, holders: &[PeerInfo], beyond: Vec<PeerInfo>) -> Vec<GetAction> {
        self.lookup = Lookup::Over;
        self.add(holders.to_vec());
        if self.enough.is_some() {
            self.add(beyond);
        }
        self.next()
    }

    fn add(&mut self, peers: Vec<PeerInfo>) {
        self.unasked.extend(peers.into_iter().filter(|peer| self.known.insert(peer.peer_id)));
    }

    /// Handles the copy of a peer.
    pub(crate) fn on_copy(&mut self, peer: PeerId, copy: CheckedRecord) -> Vec<GetAction> {
        if !self.is_awaited(peer) {
            return Vec::new();
        }
        let version = copy.envelope().version().map_or(ReadAnswer::Nothing, ReadAnswer::Version);
        self.answers.push(PeerAnswer { peer, answer: version });
        self.copies += 1;
        self.newest = Some(match self.newest.take() {
            Some((newest, _)) if copy.envelope().adds_to(newest.envelope()) => (newest.join(copy), peer),
            Some(newest) => newest,
            None => (copy, peer),
        });
        let mut actions = self.next();
        if self.copies == 1 && self.enough.is_some() && !actions.contains(&GetAction::Finish) {
            actions.push(GetAction::Settle);
        }
        actions
    }

    /// Handles a peer's answer without a valid copy, or its failure.
    pub(crate) fn on_no_copy(&mut self, peer: PeerId, answer: ReadAnswer) -> Vec<GetAction> {
        if !self.is_awaited(peer) {
            return Vec::new();
        }
        self.answers.push(PeerAnswer { peer, answer });
        self.lacking += 1;
        self.next()
    }

    /// Handles the deadline; returns whether there is a result. Peers that have not answered have
    /// timed out.
    pub(crate) fn on_deadline(&mut self) -> bool {
        for peer in self.awaited.drain(..) {
            self.answers.push(PeerAnswer { peer, answer: ReadAnswer::TimedOut });
        }
        self.lookup == Lookup::Over || !self.answers.is_empty()
    }

    /// Returns whether no peer has answered yet, so that a new get would find the same.
    pub(crate) fn is_fresh(&self) -> bool {
        self.answers.is_empty()
    }

    /// Records that a peer has answered; returns whether it was waited for.
    fn is_awaited(&mut self, peer: PeerId) -> bool {
        let place = self.awaited.iter().position(|awaited| *awaited == peer);
        place.map(|place| self.awaited.remove(place)).is_some()
    }

    fn next(&mut self) -> Vec<GetAction> {
        let missing = match self.enough {
            Some(enough) if self.copies >= enough => return vec![GetAction::Finish],
            Some(enough) => enough - self.copies + self.lacking,
            None => usize::MAX,
        };
        let mut actions = Vec::new();
        let asked = self.unasked.len().min(missing.saturating_sub(self.awaited.len()));
        if asked > 0 {
            let asked: Vec<PeerInfo> = self.unasked.drain(..asked).collect();
            self.awaited.extend(asked.iter().map(|peer| peer.peer_id));
            actions.push(GetAction::Ask(asked));
        }
        // Nobody else is likely to have a copy.
        let is_enough = self.begun_with == Known::Lately && (self.copies > 0 || !self.awaited.is_empty());
        // The lookup runs concurrently with the questions, so that further peers are known if the
        // copies are too few.
        let are_few = self.lacking > 0 || self.awaited.len() < missing;
        if self.lookup == Lookup::NotBegun && are_few && !is_enough {
            self.lookup = Lookup::UnderWay;
            actions.push(GetAction::FindHolders);
        }
        if self.awaited.is_empty() && (self.lookup == Lookup::Over || is_enough) {
            actions.push(GetAction::Finish);
        }
        actions
    }

    /// Returns the result.
    pub(crate) fn finish(self) -> Found {
        let Self { key, newest, answers, copies, .. } = self;
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
        Found { key, newest, reading: Reading { newest: envelope, from, peers: answers }, behind, copies }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netabase_store::{NetabaseStore, SigningKey, StoreOptions, Timestamp, WritePolicy};

    fn key() -> RecordKey {
        RecordKey::new("Def", "Model", b"1").unwrap()
    }

    fn envelope(time: u64) -> Envelope {
        let identity = SigningKey::from_bytes(&[1; 32]);
        Envelope::sign(&identity, &key(), Timestamp::from_bits(time), 0, Some(b"value"))
    }

    fn checked(key: &RecordKey, envelope: &Envelope) -> CheckedRecord {
        let store = NetabaseStore::open_with("", None, StoreOptions::in_memory()).unwrap();
        store.replica().check_record(key, envelope.as_bytes()).unwrap()
    }

    fn copy(time: u64) -> CheckedRecord {
        checked(&key(), &envelope(time))
    }

    fn peers(count: usize) -> (Vec<PeerId>, Vec<PeerInfo>) {
        let peers: Vec<PeerId> = (0..count).map(|_| PeerId::random()).collect();
        let infos = peers.iter().map(|peer_id| PeerInfo { peer_id: *peer_id, addrs: Vec::new() }).collect();
        (peers, infos)
    }

    #[test]
    fn the_nearest_are_asked_at_once_and_nobody_else_if_they_have_copies() {
        let ((peers, infos), mut get) = (peers(5), Get::new(key(), Some(3)));
        assert_eq!(get.begin(infos.clone(), Known::Some), [GetAction::Ask(infos[..3].to_vec())]);
        assert_eq!(get.on_copy(peers[1], copy(1)), [GetAction::Settle]);
        assert_eq!(get.on_copy(peers[0], copy(1)), []);
        assert_eq!(get.on_copy(peers[4], copy(1)), [], "it was not asked");
        assert_eq!(get.on_copy(peers[2], copy(1)), [GetAction::Finish]);
        assert_eq!(get.finish().copies, 3);
    }

    #[test]
    fn in_a_network_that_was_whole_lately_the_others_are_looked_up_only_if_nobody_has_a_copy() {
        let ((peers, infos), mut get) = (peers(2), Get::new(key(), Some(3)));
        let asked = [GetAction::Ask(infos.clone())];
        assert_eq!(get.begin(infos.clone(), Known::Lately), asked);
        assert_eq!(get.on_no_copy(peers[0], ReadAnswer::Nothing), []);
        assert_eq!(get.on_copy(peers[1], copy(1)), [GetAction::Finish]);

        let mut get = Get::new(key(), Some(3));
        get.begin(infos, Known::Lately);
        assert_eq!(get.on_no_copy(peers[0], ReadAnswer::Nothing), []);
        assert_eq!(get.on_no_copy(peers[1], ReadAnswer::Nothing), [GetAction::FindHolders]);
        assert_eq!(get.on_holders(&[], Vec::new()), [GetAction::Finish]);
    }

    #[test]
    fn where_no_holder_has_a_copy_the_next_nearest_are_asked() {
        let ((peers, infos), mut get) = (peers(6), Get::new(key(), Some(1)));
        get.begin(infos[..1].to_vec(), Known::Some);
        let asked = [GetAction::FindHolders];
        assert_eq!(get.on_no_copy(peers[0], ReadAnswer::Nothing), asked);
        let asked = [GetAction::Ask(infos[1..3].to_vec())];
        assert_eq!(get.on_holders(&infos[..4], infos[4..].to_vec()), asked);
        let last = [GetAction::Ask(infos[3..5].to_vec())];
        assert_eq!(get.on_no_copy(peers[1], ReadAnswer::Nothing), last);
        let last = [GetAction::Ask(infos[5..].to_vec())];
        assert_eq!(get.on_no_copy(peers[2], ReadAnswer::TimedOut), last);
        assert_eq!(get.on_copy(peers[5], copy(1)), [GetAction::Finish]);

        let mut every = Get::new(key(), None);
        assert_eq!(every.begin(Vec::new(), Known::Some), [GetAction::FindHolders]);
        let holders = [GetAction::Ask(infos[..4].to_vec())];
        assert_eq!(every.on_holders(&infos[..4], infos[4..].to_vec()), holders, "holders alone are asked");
    }

    #[test]
    fn where_one_of_them_has_none_others_are_asked_and_the_network_for_nearer_ones() {
        let ((peers, infos), mut get) = (peers(7), Get::new(key(), Some(2)));
        assert_eq!(get.begin(infos[..5].to_vec(), Known::Some), [GetAction::Ask(infos[..2].to_vec())]);
        let more = [GetAction::Ask(infos[2..4].to_vec()), GetAction::FindHolders];
        assert_eq!(get.on_no_copy(peers[0], ReadAnswer::Nothing), more);
        let last = [GetAction::Ask(infos[4..5].to_vec())];
        assert_eq!(get.on_no_copy(peers[1], ReadAnswer::Nothing), last);
        for peer in &peers[2..5] {
            assert_eq!(get.on_no_copy(*peer, ReadAnswer::Nothing), [], "the lookup is under way");
        }
        assert_eq!(get.on_holders(&infos[4..], Vec::new()), [GetAction::Ask(infos[5..].to_vec())]);
        assert_eq!(get.on_copy(peers[6], copy(1)), [GetAction::Settle]);
        assert_eq!(get.on_no_copy(peers[5], ReadAnswer::TimedOut), [GetAction::Finish]);
        let found = get.finish();
        assert_eq!((found.reading.from, found.behind), (Some(peers[6]), peers[..5].to_vec()));
    }

    #[test]
    fn too_few_that_are_known_are_asked_beside_the_lookup_unless_there_are_no_others() {
        for part in [Known::Some, Known::All] {
            let are_all = part == Known::All;
            let ((peers, infos), mut get) = (peers(1), Get::new(key(), Some(3)));
            let ask = GetAction::Ask(infos.clone());
            let begun = if are_all { vec![ask] } else { vec![ask, GetAction::FindHolders] };
            assert_eq!(get.begin(infos.clone(), part), begun);
            let end = if are_all { GetAction::Finish } else { GetAction::Settle };
            assert_eq!(get.on_copy(peers[0], copy(1)), [end]);
            if !are_all {
                assert_eq!(get.on_holders(&infos, Vec::new()), [GetAction::Finish]);
            }
        }
    }

    #[test]
    fn a_get_of_all_copies_asks_the_holders_alone_and_waits_for_each() {
        let ((peers, infos), mut get) = (peers(3), Get::new(key(), None));
        assert_eq!(get.begin(infos.clone(), Known::Some), [GetAction::FindHolders]);
        assert!(!get.on_deadline(), "nothing is known");
        assert_eq!(get.on_holders(&infos, Vec::new()), [GetAction::Ask(infos)]);
        assert_eq!(get.on_copy(peers[0], copy(1)), []);
        assert_eq!(get.on_no_copy(peers[1], ReadAnswer::Nothing), []);
        assert!(get.on_deadline());
        let peers = get.finish().reading.peers;
        assert_eq!(peers[2].answer, ReadAnswer::TimedOut);
    }

    #[test]
    fn a_get_that_knows_nobody_ends_with_its_lookup() {
        let mut get = Get::new(key(), Some(1));
        assert_eq!(get.begin(Vec::new(), Known::Some), [GetAction::FindHolders]);
        assert_eq!(get.on_holders(&[], Vec::new()), [GetAction::Finish]);
        assert_eq!(Get::new(key(), Some(1)).begin(Vec::new(), Known::All), [GetAction::Finish]);
    }

    #[test]
    fn a_get_returns_the_newest_copy_and_names_the_stale_peers() {
        let ((peers, infos), mut get) = (peers(3), Get::new(key(), Some(3)));
        get.begin(infos, Known::All);
        for (peer, time) in peers.iter().zip([2, 3, 1]) {
            get.on_copy(*peer, copy(time));
        }
        let found = get.finish();
        assert_eq!(found.newest.map(|newest| newest.envelope().clone()), Some(envelope(3)));
        assert_eq!(found.behind, [peers[0], peers[2]]);
        assert_eq!(found.reading.from, Some(peers[1]));
    }

    #[test]
    fn a_get_joins_what_was_contributed_and_names_the_peers_that_lack_some() {
        let key = RecordKey::with_policy(WritePolicy::Merged, "Def", "Model", b"1").unwrap();
        let part = |author| {
            let author = SigningKey::from_bytes(&[author; 32]);
            Envelope::sign(&author, &key, Timestamp::from_bits(1), 0, Some(b"value"))
        };
        let parts = [part(1), part(2)];
        let ((peers, infos), mut get) = (peers(3), Get::new(key.clone(), None));
        get.begin(infos, Known::All);
        for (peer, parts) in peers.iter().zip([&parts[..1], &parts[1..], &parts[..]]) {
            get.on_copy(*peer, checked(&key, &Envelope::bundle(parts).unwrap()));
        }
        let found = get.finish();
        assert_eq!(found.newest.map(|newest| newest.envelope().clone()), Envelope::bundle(&parts));
        assert_eq!(found.behind, peers[..2]);
    }
}

//! A put: sends a version to the holders of its record and counts their answers.

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use netabase_store::{Envelope, RecordKey, Refusal, WritePolicy};

use crate::event_loop::command::{OnNewer, Publication};
use crate::event_loop::limits::MAX_SIGNED_AGAIN;
use crate::outcome::{PeerAnswer, WriteAnswer};

/// The state of a put.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    /// The number of peers that must accept before the caller is answered.
    concern: usize,
    /// The treatment of newer versions of holders.
    newer: OnNewer,
    /// The number of times that the version was signed again.
    signed_again: u32,
    /// The peers that were asked for their newer version.
    asked_for_newer: Vec<PeerId>,
    /// `None` until the holders are known.
    publication: Option<Publication>,
    /// The number of peers that have not answered yet.
    outstanding: usize,
    is_answered: bool,
}

/// An action of a put, which its owner carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutAction {
    /// Send the version to these peers.
    Send(Vec<PeerInfo>),
    /// Ask this peer for its newer version.
    FetchNewer(PeerId),
    /// Answer the caller.
    Answer(Publication),
    /// Schedule the next publication of the version.
    Schedule(Again),
    /// Record that a peer has the version.
    NoteHeard,
    /// Sign the version with a new timestamp: no peer has it, and if this node's clock is right by
    /// now, peers accept the new timestamp.
    Redate,
    /// Look for a newer version, unless one is stored here: a peer has claimed one, or peers may
    /// have one, since no peer accepted this version.
    LookForNewer,
    /// Drop the put: every peer has answered.
    Finish,
}

/// The time of the next publication of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// As soon as a peer is connected.
    Overdue,
    /// After the republish interval if a peer has the version, and sooner otherwise.
    Next { is_heard: bool },
}

impl Put {
    /// Creates a put that is answered when `concern` peers have accepted.
    pub(crate) fn new(key: RecordKey, envelope: Envelope, concern: usize) -> Self {
        Self {
            key,
            envelope,
            concern,
            newer: OnNewer::Yield,
            signed_again: 0,
            asked_for_newer: Vec::new(),
            publication: None,
            outstanding: 0,
            is_answered: false,
        }
    }

    /// Sets the treatment of newer versions of holders. Merged records and the member list have no
    /// such conflicts.
    pub(crate) fn on_newer_version(mut self, newer: OnNewer) -> Self {
        let may_conflict = !self.envelope.is_bundle() && self.key.policy() != WritePolicy::Root;
        self.newer = if may_conflict { newer } else { OnNewer::Yield };
        self
    }

    /// Returns whether the version may be signed again after a newer one.
    pub(crate) fn may_be_signed_again(&self) -> bool {
        self.newer == OnNewer::Overtake && self.signed_again < MAX_SIGNED_AGAIN
    }

    /// Handles the lookup of the holders.
    pub(crate) fn on_holders(&mut self, holders: &[PeerInfo]) -> Vec<PutAction> {
        let pending = |holder: &PeerInfo| PeerAnswer { peer: holder.peer_id, answer: WriteAnswer::Pending };
        let peers = holders.iter().map(pending).collect();
        self.publication = Some(Publication { peers, ..Publication::default() });
        self.outstanding = holders.len();
        let mut actions = self.next();
        if !holders.is_empty() {
            actions.push(PutAction::Send(holders.to_vec()));
        }
        actions
    }

    /// Handles the answer of a peer, or its failure.
    pub(crate) fn on_answer(&mut self, peer: PeerId, answer: WriteAnswer) -> Vec<PutAction> {
        self.outstanding = self.outstanding.saturating_sub(1);
        let mut peers = self.publication.iter_mut().flat_map(|publication| &mut publication.peers);
        if let Some(pending) = peers.find(|pending| pending.peer == peer) {
            pending.answer = answer;
        }
        self.next()
    }

    /// Handles the newer version of a peer, `None` if the peer has not proved one, and the version
    /// that was signed after it.
    pub(crate) fn on_newer(&mut self, newer: Option<&Envelope>, again: Option<Envelope>) -> Vec<PutAction> {
        let Some(publication) = &mut self.publication else { return Vec::new() };
        publication.overtaken_by = newer.and_then(Envelope::version).or(publication.overtaken_by);
        let Some(again) = again else { return self.next() };
        self.signed_again += 1;
        self.asked_for_newer.clear();
        (publication.signed_again, publication.overtaken_by) = (again.version(), None);
        self.envelope = again;
        // A silent peer is sent what it has missed when it answers again.
        let answered = publication.peers.iter_mut().filter(|peer| peer.answer != WriteAnswer::Pending);
        let holders: Vec<_> = answered
            .map(|peer| {
                peer.answer = WriteAnswer::Pending;
                PeerInfo { peer_id: peer.peer, addrs: Vec::new() }
            })
            .collect();
        self.outstanding = holders.len();
        vec![PutAction::Send(holders)]
    }

    /// Handles the caller's deadline; returns the answers so far, if the holders are known. The put
    /// continues.
    pub(crate) fn on_deadline(&mut self) -> Option<Publication> {
        self.is_answered = true;
        self.publication.clone()
    }

    fn next(&mut self) -> Vec<PutAction> {
        if let Some(peer) = self.newer_to_fetch() {
            // The version is sent again, or the caller is told of the newer one.
            if self.outstanding > 0 {
                return Vec::new();
            }
            self.asked_for_newer.push(peer);
            return vec![PutAction::FetchNewer(peer)];
        }
        let mut actions = Vec::new();
        actions.extend(self.answer_if_settled().map(PutAction::Answer));
        if self.outstanding > 0 {
            return actions;
        }
        let nobody_asked = self.peers().is_empty();
        let is_heard = self.is_heard();
        actions.push(PutAction::Schedule(if nobody_asked {
            Again::Overdue
        } else {
            Again::Next { is_heard }
        }));
        if is_heard {
            actions.push(PutAction::NoteHeard);
        }
        let unwanted = !nobody_asked && !is_heard && !self.is_undecided();
        if self.is_from_future() {
            actions.push(PutAction::Redate);
        } else if unwanted || self.is_outdated() {
            actions.push(PutAction::LookForNewer);
        }
        actions.push(PutAction::Finish);
        actions
    }

    /// Returns the caller's answer, once enough peers have accepted or no more can.
    fn answer_if_settled(&mut self) -> Option<Publication> {
        let publication = self.publication.as_ref().filter(|_| !self.is_answered)?;
        let wanted = self.concern.min(publication.peers.len());
        if self.outstanding > 0 && publication.accepted().count() < wanted {
            return None;
        }
        self.is_answered = true;
        Some(publication.clone())
    }

    /// Returns the answers so far of each peer that was asked.
    pub(crate) fn peers(&self) -> &[PeerAnswer<WriteAnswer>] {
        self.publication.as_ref().map_or(&[], |publication| &publication.peers)
    }

    fn answers(&self) -> impl Iterator<Item = &WriteAnswer> {
        self.peers().iter().map(|peer| &peer.answer)
    }

    /// Returns whether a peer has accepted, or has nothing to accept.
    fn is_heard(&self) -> bool {
        self.answers().any(|answer| answer.is_heard(&self.envelope))
    }

    /// Returns whether a silent peer may still accept.
    fn is_undecided(&self) -> bool {
        self.answers().any(|answer| *answer == WriteAnswer::Pending)
    }

    /// Returns whether every peer that checked the version has refused its timestamp. Peers that
    /// did not check it do not count.
    fn is_from_future(&self) -> bool {
        let did_not_look = |reason: &Refusal| {
            matches!(reason, Refusal::Busy | Refusal::Slowed | Refusal::TooFast | Refusal::Overloaded)
        };
        let mut reasons = self
            .answers()
            .filter_map(|answer| match answer {
                WriteAnswer::Refused(reason) => Some(*reason),
                _ => None,
            })
            .filter(|reason| !did_not_look(reason))
            .peekable();
        reasons.peek().is_some()
            && reasons.all(|reason| reason == Refusal::FutureTimestamp)
            && !self.answers().any(WriteAnswer::is_acceptance)
    }

    /// Returns a peer that claims a newer version and was not asked for it, until one has proved
    /// its claim.
    fn newer_to_fetch(&self) -> Option<PeerId> {
        let claims = |peer: &&PeerAnswer<WriteAnswer>| {
            peer.answer == WriteAnswer::Refused(Refusal::Outdated)
                && !self.asked_for_newer.contains(&peer.peer)
        };
        let publication = self.publication.as_ref().filter(|_| self.newer != OnNewer::Yield)?;
        let is_proved = publication.overtaken_by.is_some();
        let claiming = publication.peers.iter().filter(|_| !is_proved).find(claims);
        claiming.map(|peer| peer.peer)
    }

    /// Returns whether a peer claims a newer version.
    fn is_outdated(&self) -> bool {
        self.answers().any(|answer| *answer == WriteAnswer::Refused(Refusal::Outdated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netabase_store::{SigningKey, Timestamp};

    fn put(concern: usize, payload: Option<&[u8]>) -> (Put, Vec<PeerId>) {
        let key = RecordKey::new("Def", "Model", b"1").unwrap();
        let identity = SigningKey::from_bytes(&[1; 32]);
        let envelope = Envelope::sign(&identity, &key, Timestamp::from_bits(1), 0, payload);
        (Put::new(key, envelope, concern), (0..3).map(|_| PeerId::random()).collect())
    }

    fn infos(peers: &[PeerId]) -> Vec<PeerInfo> {
        peers.iter().map(|peer_id| PeerInfo { peer_id: *peer_id, addrs: Vec::new() }).collect()
    }

    #[test]
    fn a_put_is_answered_once_when_enough_peers_have_accepted() {
        let (mut put, peers) = put(2, Some(b"value"));
        assert_eq!(put.on_holders(&infos(&peers)), [PutAction::Send(infos(&peers))]);
        assert_eq!(put.on_answer(peers[0], WriteAnswer::Accepted), []);
        let actions = put.on_answer(peers[1], WriteAnswer::Accepted);
        let [PutAction::Answer(publication)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(publication.accepted().collect::<Vec<_>>(), peers[..2]);
        assert_eq!(publication.peers[2].answer, WriteAnswer::Pending);
        let again = PutAction::Schedule(Again::Next { is_heard: true });
        let actions = put.on_answer(peers[2], WriteAnswer::Accepted);
        assert_eq!(actions, [again, PutAction::NoteHeard, PutAction::Finish]);
    }

    #[test]
    fn a_put_is_answered_when_no_more_peers_can_accept() {
        let (mut put, peers) = put(2, Some(b"value"));
        put.on_holders(&infos(&peers[..2]));
        assert_eq!(put.on_answer(peers[0], WriteAnswer::TimedOut), []);
        let actions = put.on_answer(peers[1], WriteAnswer::Accepted);
        let [PutAction::Answer(publication), .., PutAction::Finish] = &actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(publication.accepted().collect::<Vec<_>>(), [peers[1]]);
        assert_eq!(publication.peers[0].answer, WriteAnswer::TimedOut);
    }

    #[test]
    fn a_caller_who_waits_no_longer_is_told_what_is_known_and_nothing_more() {
        let (mut put, peers) = put(2, Some(b"value"));
        assert_eq!(put.on_deadline(), None);
        put.on_holders(&infos(&peers));
        assert_eq!(put.on_deadline().map(|known| known.peers.len()), Some(3));
        for peer in &peers {
            let actions = put.on_answer(*peer, WriteAnswer::Accepted);
            assert!(!actions.iter().any(|action| matches!(action, PutAction::Answer(_))), "{actions:?}");
        }
    }

    #[test]
    fn a_peer_that_has_nothing_to_delete_has_heard_of_an_old_deletion() {
        for is_tombstone in [true, false] {
            let (mut put, peers) = put(1, (!is_tombstone).then_some(b"value"));
            put.on_holders(&infos(&peers[..2]));
            put.on_answer(peers[0], WriteAnswer::Refused(Refusal::Busy));
            let actions = put.on_answer(peers[1], WriteAnswer::Refused(Refusal::Expired));
            assert_eq!(actions.contains(&PutAction::NoteHeard), is_tombstone, "{actions:?}");
            assert_eq!(actions.contains(&PutAction::LookForNewer), !is_tombstone, "{actions:?}");
        }
    }

    #[test]
    fn a_put_of_a_user_is_signed_again_after_the_newer_version_of_a_holder() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        let at =
            |put: &Put, time| Envelope::sign(&identity, &put.key, Timestamp::from_bits(time), 0, Some(b"v"));
        let outdated = || WriteAnswer::Refused(Refusal::Outdated);
        let (put, peers) = put(1, Some(b"value"));
        let mut put = put.on_newer_version(OnNewer::Overtake);
        put.on_holders(&infos(&peers[..2]));
        assert_eq!(put.on_answer(peers[0], outdated()), [], "the caller is not answered yet");
        let mut time = 1;
        for attempt in 0..=MAX_SIGNED_AGAIN {
            let actions = put.on_answer(peers[1], WriteAnswer::Accepted);
            assert_eq!(actions, [PutAction::FetchNewer(peers[0])]);
            let (newer, again) = (at(&put, time + 1), at(&put, time + 2));
            assert_eq!(put.may_be_signed_again(), attempt < MAX_SIGNED_AGAIN);
            if attempt == MAX_SIGNED_AGAIN {
                let actions = put.on_newer(Some(&newer), None);
                let [PutAction::Answer(publication), ..] = &actions[..] else { panic!("{actions:?}") };
                assert_eq!(publication.signed_again, at(&put, time).version());
                assert_eq!(publication.overtaken_by, newer.version());
                assert!(actions.contains(&PutAction::LookForNewer), "{actions:?}");
                break;
            }
            time += 2;
            assert_eq!(put.on_newer(Some(&newer), Some(again)), [PutAction::Send(infos(&peers[..2]))]);
            assert_eq!(put.on_answer(peers[0], outdated()), []);
        }
    }

    #[test]
    fn a_claim_of_a_newer_version_counts_if_it_is_proved() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        for is_proved in [true, false] {
            let (put, peers) = put(1, Some(b"value"));
            let mut put = put.on_newer_version(OnNewer::Overtake);
            let newer = Envelope::sign(&identity, &put.key, Timestamp::from_bits(2), 0, None);
            put.on_holders(&infos(&peers[..2]));
            put.on_answer(peers[0], WriteAnswer::Refused(Refusal::Outdated));
            put.on_answer(peers[1], WriteAnswer::Accepted);
            let actions = put.on_newer(is_proved.then_some(&newer), None);
            let [PutAction::Answer(publication), .., PutAction::Finish] = &actions[..] else {
                panic!("{actions:?}")
            };
            assert_eq!(publication.overtaken_by, newer.version().filter(|_| is_proved));
        }
    }

    #[test]
    fn a_put_without_peers_is_answered_at_once() {
        let (mut put, _) = put(1, Some(b"value"));
        let answer = PutAction::Answer(Publication::default());
        let again = PutAction::Schedule(Again::Overdue);
        assert_eq!(put.on_holders(&[]), [answer, again, PutAction::Finish]);
    }

    #[test]
    fn a_version_gets_another_date_if_whoever_has_looked_at_it_says_that_it_is_from_the_future() {
        let future = || WriteAnswer::Refused(Refusal::FutureTimestamp);
        for (answers, redates, looks) in [
            (vec![future(), future()], true, false),
            (vec![future(), WriteAnswer::TimedOut], true, false),
            (vec![future(), WriteAnswer::Refused(Refusal::Slowed)], true, false),
            (vec![future(), WriteAnswer::Accepted], false, false),
            (vec![future(), WriteAnswer::Refused(Refusal::Outdated)], false, true),
            (vec![WriteAnswer::TimedOut, WriteAnswer::Refused(Refusal::Busy)], false, true),
            (vec![WriteAnswer::Pending, WriteAnswer::TimedOut], false, false),
        ] {
            let (mut put, peers) = put(1, Some(b"value"));
            put.on_holders(&infos(&peers[..2]));
            let last = peers.iter().zip(&answers).map(|(peer, answer)| put.on_answer(*peer, answer.clone()));
            let last = last.last().unwrap();
            assert_eq!(last.contains(&PutAction::Redate), redates, "{answers:?}");
            assert_eq!(last.contains(&PutAction::LookForNewer), looks, "{answers:?}");
        }
    }
}

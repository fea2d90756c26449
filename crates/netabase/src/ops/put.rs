//! A put: a version on its way to the holders of its record, each of which answers for itself.

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use netabase_store::{Envelope, RecordKey, Refusal};

use crate::event_loop::command::Publication;
use crate::outcome::{PeerAnswer, WriteAnswer};

/// A version on its way.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    /// How many peers are to accept it before the caller is answered.
    concern: usize,
    /// None until the holders are known.
    publication: Option<Publication>,
    /// How many peers have not answered yet.
    outstanding: usize,
    is_answered: bool,
}

/// A step of a put that its owner carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PutAction {
    /// Send the version to these peers.
    Send(Vec<PeerInfo>),
    /// Tell the caller.
    Answer(Publication),
    /// Publish the version again when that is due.
    Schedule(Again),
    /// Note that a peer has the version.
    NoteHeard,
    /// Give the version another date: nobody has it, and if our clock is right by now, it gets one
    /// that others believe.
    Redate,
    /// Look for a newer version, unless one is here. Somebody has it, or perhaps everybody, since
    /// nobody accepted this one.
    LookForNewer,
    /// Forget the put: every peer has answered.
    Finish,
}

/// When a version is to be published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// As soon as there is somebody to publish it to.
    Overdue,
    /// Sooner if no peer has it.
    Next { is_heard: bool },
}

impl Put {
    /// Makes a put that is answered when `concern` peers have accepted.
    pub(crate) fn new(key: RecordKey, envelope: Envelope, concern: usize) -> Self {
        Self { key, envelope, concern, publication: None, outstanding: 0, is_answered: false }
    }

    /// The holders of the record are known.
    pub(crate) fn on_holders(&mut self, holders: &[PeerInfo]) -> Vec<PutAction> {
        let pending = |holder: &PeerInfo| PeerAnswer { peer: holder.peer_id, answer: WriteAnswer::Pending };
        self.publication = Some(Publication { peers: holders.iter().map(pending).collect() });
        self.outstanding = holders.len();
        let mut actions = self.next();
        if !holders.is_empty() {
            actions.push(PutAction::Send(holders.to_vec()));
        }
        actions
    }

    /// A peer has answered, or will not answer any more.
    pub(crate) fn on_answer(&mut self, peer: PeerId, answer: WriteAnswer) -> Vec<PutAction> {
        self.outstanding = self.outstanding.saturating_sub(1);
        let mut peers = self.publication.iter_mut().flat_map(|publication| &mut publication.peers);
        if let Some(pending) = peers.find(|pending| pending.peer == peer) {
            pending.answer = answer;
        }
        self.next()
    }

    /// The caller waits no longer; returns what is known, if the holders are. The version stays on
    /// its way.
    pub(crate) fn on_deadline(&mut self) -> Option<Publication> {
        self.is_answered = true;
        self.publication.clone()
    }

    fn next(&mut self) -> Vec<PutAction> {
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

    /// Returns what the caller is told, once enough peers have accepted, or no more can.
    fn answer_if_settled(&mut self) -> Option<Publication> {
        let publication = self.publication.as_ref().filter(|_| !self.is_answered)?;
        let wanted = self.concern.min(publication.peers.len());
        if self.outstanding > 0 && publication.accepted().count() < wanted {
            return None;
        }
        self.is_answered = true;
        Some(publication.clone())
    }

    /// Returns what each peer that was asked has done so far.
    pub(crate) fn peers(&self) -> &[PeerAnswer<WriteAnswer>] {
        self.publication.as_ref().map_or(&[], |publication| &publication.peers)
    }

    fn answers(&self) -> impl Iterator<Item = &WriteAnswer> {
        self.peers().iter().map(|peer| &peer.answer)
    }

    /// Whether any peer has accepted, or has nothing to accept.
    fn is_heard(&self) -> bool {
        self.answers().any(|answer| answer.is_heard(&self.envelope))
    }

    /// Whether a peer may still accept that nobody waits for.
    fn is_undecided(&self) -> bool {
        self.answers().any(|answer| *answer == WriteAnswer::Pending)
    }

    /// Whether every peer that has looked at it has refused it for its date. Those that did not
    /// answer, or did not look, say nothing.
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

    /// Whether any peer says that it has a newer version.
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

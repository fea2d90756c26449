//! A survey: asks each holder of a record for its version, and sends the newest version to the
//! holders that lack it if a repair is requested.

use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use netabase_store::{Envelope, RecordKey, Refusal, WritePolicy};

use crate::outcome::{Health, HolderState, PeerAnswer, VersionId, WriteAnswer};
use crate::rpc::outbox::Silence;

/// The state of a survey.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) key: RecordKey,
    /// Whether to send the newest version to the holders that lack it.
    repair: bool,
    /// `None` until the holders are known.
    holders: Option<Vec<Holder>>,
    /// Whether the local version was read.
    is_read: bool,
    /// The local version.
    local: Option<VersionId>,
    /// The newest version that is stored here, or that was fetched and verified.
    copy: Option<Envelope>,
    /// The peer whose copy is being fetched.
    fetching: Option<PeerId>,
    /// Whether a copy was fetched.
    fetched: bool,
    repairs: Vec<PeerAnswer<WriteAnswer>>,
}

/// An action of a survey, which its owner carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SurveyAction {
    /// Ask these peers for their versions.
    Ask(Vec<PeerInfo>),
    /// Read the local version.
    ReadLocal,
    /// Fetch the copy of this peer.
    Fetch(PeerInfo),
    /// Send the version to these peers.
    Send(Vec<PeerInfo>, Envelope),
    /// Answer the caller.
    Finish,
}

#[derive(Debug)]
struct Holder {
    info: PeerInfo,
    /// `None` until the holder has answered.
    claim: Option<Claim>,
}

/// The answer of a holder.
#[derive(Debug, Clone)]
pub(crate) enum Claim {
    Has(Option<VersionId>),
    Invalid(Refusal),
    Unreachable(Arc<str>),
}

impl From<Silence> for Claim {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::TimedOut | Silence::Stopped => Self::Unreachable(timed_out()),
            Silence::Unreachable(reason) => Self::Unreachable(reason),
        }
    }
}

fn timed_out() -> Arc<str> {
    "the peer did not answer in time".into()
}

impl Holder {
    fn version(&self) -> Option<VersionId> {
        match self.claim {
            Some(Claim::Has(version)) => version,
            _ => None,
        }
    }

    /// Returns whether the holder answered with another version than `newest`, or with none.
    fn lacks(&self, newest: VersionId) -> bool {
        matches!(self.claim, Some(Claim::Has(version)) if version != Some(newest))
    }

    fn state(&self, newest: Option<VersionId>) -> (PeerId, HolderState) {
        let state = match &self.claim {
            Some(Claim::Has(None)) => HolderState::Missing,
            Some(Claim::Has(version)) if *version == newest => HolderState::Current,
            Some(Claim::Has(Some(older))) => HolderState::Older(*older),
            Some(Claim::Invalid(reason)) => HolderState::Invalid(*reason),
            Some(Claim::Unreachable(reason)) => HolderState::Unreachable(Arc::clone(reason)),
            None => HolderState::Unreachable(timed_out()),
        };
        (self.info.peer_id, state)
    }
}

impl Survey {
    pub(crate) fn new(key: RecordKey, repair: bool) -> Self {
        Self {
            key,
            repair,
            holders: None,
            is_read: false,
            local: None,
            copy: None,
            fetching: None,
            fetched: false,
            repairs: Vec::new(),
        }
    }

    /// Handles the lookup of the holders.
    pub(crate) fn on_holders(&mut self, holders: &[PeerInfo]) -> Vec<SurveyAction> {
        let unasked = |info: &PeerInfo| Holder { info: info.clone(), claim: None };
        self.holders = Some(holders.iter().map(unasked).collect());
        if holders.is_empty() { self.next() } else { vec![SurveyAction::Ask(holders.to_vec())] }
    }

    /// Returns whether the copy of `peer` is being fetched.
    pub(crate) fn is_fetching_from(&self, peer: PeerId) -> bool {
        self.fetching == Some(peer)
    }

    /// Handles a peer's answer to the question for its version, or its failure.
    pub(crate) fn on_claim(&mut self, peer: PeerId, claim: Claim) -> Vec<SurveyAction> {
        self.fetching.take_if(|fetching| *fetching == peer);
        let mut holders = self.holders.iter_mut().flatten();
        if let Some(holder) = holders.find(|holder| holder.info.peer_id == peer) {
            holder.claim = Some(claim);
        }
        self.next()
    }

    /// Handles the local version; `repair` tells whether it may be sent to peers.
    pub(crate) fn on_local(&mut self, copy: Option<Envelope>, repair: bool) -> Vec<SurveyAction> {
        self.is_read = true;
        self.local = copy.as_ref().and_then(VersionId::of);
        self.copy = copy;
        self.repair &= repair;
        self.next()
    }

    /// Handles the fetched copy of a peer, which `join` joins with the local version.
    pub(crate) fn on_fetched(
        &mut self,
        peer: PeerId,
        copy: Envelope,
        join: impl FnOnce(&Envelope, &Envelope) -> Envelope,
    ) -> Vec<SurveyAction> {
        let claim = Claim::Has(VersionId::of(&copy));
        self.copy = Some(match self.copy.take() {
            Some(here) => join(&here, &copy),
            None => copy,
        });
        self.fetched = true;
        self.on_claim(peer, claim)
    }

    /// Handles a peer's answer to a version that it lacked, or its failure.
    pub(crate) fn on_sent(&mut self, peer: PeerId, answer: WriteAnswer) -> Vec<SurveyAction> {
        if let Some(repair) = self.repairs.iter_mut().find(|repair| repair.peer == peer) {
            repair.answer = answer;
        }
        self.next()
    }

    fn next(&mut self) -> Vec<SurveyAction> {
        if !self.is_surveyed() || self.fetching.is_some() {
            return Vec::new();
        }
        if !self.is_read {
            return vec![SurveyAction::ReadLocal];
        }
        if self.repair
            && self.repairs.is_empty()
            && let Some(action) = self.mend()
        {
            return vec![action];
        }
        if self.is_mended() { vec![SurveyAction::Finish] } else { Vec::new() }
    }

    /// Returns the action that sends the newest version to the holders that lack it, or fetches it
    /// first.
    fn mend(&mut self) -> Option<SurveyAction> {
        let newest = self.newest()?;
        let Some(envelope) = self.copy.clone().filter(|copy| VersionId::of(copy) == Some(newest)) else {
            let holder = self.holders().iter().find(|holder| holder.version() == Some(newest))?;
            let info = holder.info.clone();
            self.fetching = Some(info.peer_id);
            return Some(SurveyAction::Fetch(info));
        };
        let behind = self.holders().iter().filter(|holder| holder.lacks(newest));
        let behind: Vec<PeerInfo> = behind.map(|holder| holder.info.clone()).collect();
        let pending = |peer: &PeerInfo| PeerAnswer { peer: peer.peer_id, answer: WriteAnswer::Pending };
        self.repairs = behind.iter().map(pending).collect();
        (!behind.is_empty()).then_some(SurveyAction::Send(behind, envelope))
    }

    fn holders(&self) -> &[Holder] {
        self.holders.as_deref().unwrap_or_default()
    }

    /// Returns whether every holder has answered.
    fn is_surveyed(&self) -> bool {
        self.holders.is_some() && self.holders().iter().all(|holder| holder.claim.is_some())
    }

    /// Returns whether every peer that was sent the newest version has answered.
    fn is_mended(&self) -> bool {
        self.repairs.iter().all(|repair| repair.answer != WriteAnswer::Pending)
    }

    fn newest(&self) -> Option<VersionId> {
        // The joined version of a merged record is the newest, whatever the order of its
        // contributions.
        if self.fetched && self.key.policy() == WritePolicy::Merged {
            return self.copy.as_ref().and_then(VersionId::of);
        }
        let here = self.copy.as_ref().and_then(VersionId::of).max(self.local);
        self.holders().iter().map(Holder::version).chain([here]).max().flatten()
    }

    /// Returns the result, if the holders are known.
    pub(crate) fn health(&self) -> Option<Health> {
        let newest = self.newest();
        let holders = self.holders.as_ref()?.iter();
        let holders: Vec<_> = holders.map(|holder| holder.state(newest)).collect();
        let current = holders.iter().filter(|(_, state)| *state == HolderState::Current).count();
        let (wanted, repairs) = (holders.len(), self.repairs.clone());
        Some(Health { holders, current, wanted, newest, local: self.local, repairs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netabase_store::{SigningKey, Timestamp};

    fn key() -> RecordKey {
        RecordKey::new("Def", "Model", b"1").unwrap()
    }

    fn version(time: u64) -> Envelope {
        let identity = SigningKey::from_bytes(&[1; 32]);
        Envelope::sign(&identity, &key(), Timestamp::from_bits(time), 0, Some(b"value"))
    }

    fn has(time: u64) -> Claim {
        Claim::Has(VersionId::of(&version(time)))
    }

    fn infos(count: usize) -> Vec<PeerInfo> {
        (0..count).map(|_| PeerInfo { peer_id: PeerId::random(), addrs: Vec::new() }).collect()
    }

    /// Returns a survey whose holders have made these claims.
    fn surveyed(repair: bool, claims: &[Claim]) -> (Survey, Vec<PeerInfo>) {
        let (mut survey, holders) = (Survey::new(key(), repair), infos(claims.len()));
        assert_eq!(survey.on_holders(&holders), [SurveyAction::Ask(holders.clone())]);
        let (last, first) = claims.split_last().unwrap();
        for (holder, claim) in holders.iter().zip(first) {
            assert_eq!(survey.on_claim(holder.peer_id, claim.clone()), []);
        }
        let last = survey.on_claim(holders.last().unwrap().peer_id, last.clone());
        assert_eq!(last, [SurveyAction::ReadLocal]);
        (survey, holders)
    }

    #[test]
    fn a_survey_that_repairs_nothing_ends_when_all_have_answered() {
        let (mut survey, _) = surveyed(false, &[has(2), has(1), Claim::Has(None)]);
        assert_eq!(survey.on_local(Some(version(2)), true), [SurveyAction::Finish]);
        let health = survey.health().unwrap();
        assert_eq!((health.current, health.wanted, health.repairs.len()), (1, 3, 0));
        assert_eq!(health.newest, VersionId::of(&version(2)));
    }

    #[test]
    fn holders_that_lack_what_is_here_are_sent_it_and_waited_for() {
        let unreachable = Claim::Unreachable("gone".into());
        let (mut survey, holders) = surveyed(true, &[has(2), has(1), Claim::Has(None), unreachable]);
        let send = SurveyAction::Send(holders[1..3].to_vec(), version(2));
        assert_eq!(survey.on_local(Some(version(2)), true), [send]);
        assert_eq!(survey.on_sent(holders[1].peer_id, WriteAnswer::Accepted), []);
        let end = survey.on_sent(holders[2].peer_id, WriteAnswer::TimedOut);
        assert_eq!(end, [SurveyAction::Finish]);
    }

    #[test]
    fn the_newest_is_fetched_first_where_it_is_not_here_and_another_if_its_holder_has_none() {
        let (mut survey, holders) = surveyed(true, &[has(3), has(2), Claim::Has(None)]);
        assert_eq!(survey.on_local(None, true), [SurveyAction::Fetch(holders[0].clone())]);
        assert!(survey.is_fetching_from(holders[0].peer_id));
        let next = survey.on_claim(holders[0].peer_id, Claim::Has(None));
        assert_eq!(next, [SurveyAction::Fetch(holders[1].clone())]);
        let sent = survey.on_fetched(holders[1].peer_id, version(2), |_, new| new.clone());
        let behind = vec![holders[0].clone(), holders[2].clone()];
        assert_eq!(sent, [SurveyAction::Send(behind, version(2))]);
    }

    #[test]
    fn a_node_that_was_away_gives_nothing_to_others() {
        let (mut survey, _) = surveyed(true, &[Claim::Has(None)]);
        assert_eq!(survey.on_local(Some(version(1)), false), [SurveyAction::Finish]);
    }

    #[test]
    fn nothing_is_known_before_the_holders_are() {
        let mut survey = Survey::new(key(), true);
        assert!(survey.health().is_none());
        assert_eq!(survey.on_holders(&[]), [SurveyAction::ReadLocal]);
        assert_eq!(survey.on_local(None, true), [SurveyAction::Finish]);
    }
}

//! Questions to each of the peers that hold a record: for its copies, and for how well it is kept.

use std::collections::HashSet;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use netabase_store::{Clock, Envelope, RecordKey, Refusal, WritePolicy};

use crate::dht::queries::{AskId, Get, Waiting};
use crate::error::NetabaseError;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reading, Reply, answer};
use crate::outcome::{Health, HolderState, PeerAnswer, ReadAnswer, VersionId, WriteAnswer};
use crate::peers::score::Offence;
use crate::protocol::record::{Response, get_request, versions_request};
use crate::rpc::frame::{Frame, MEANINGLESS};
use crate::rpc::outbox::{Asker, Errand, Parcel, Silence};
use crate::swarm::{Deadline, PutPermit};
use crate::telemetry::trace_context::TraceContext;

/// A question to the holders of a record.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What are your copies?
    Copies(Copies),
    /// Which versions do you have?
    Survey(Survey),
}

impl Ask {
    pub(crate) fn key(&self) -> &RecordKey {
        match self {
            Self::Copies(copies) => &copies.get.key,
            Self::Survey(survey) => &survey.key,
        }
    }

    fn trace(&self) -> Option<TraceContext> {
        match self {
            Self::Copies(copies) => copies.get.trace(),
            Self::Survey(survey) => survey.reply.trace(),
        }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        match self {
            Self::Copies(copies) => copies.deadline,
            Self::Survey(survey) => survey.deadline,
        }
    }
}

/// Collects a copy, or the word that there is none, from each holder.
#[derive(Debug)]
pub(crate) struct Copies {
    get: Get,
    deadline: Deadline,
    /// Who has not answered yet. None until the holders are known.
    silent: Option<HashSet<PeerId>>,
}

impl Copies {
    pub(crate) fn new(key: RecordKey, deadline: Deadline, reply: Reply<Reading>) -> Self {
        Self { get: Get::new(key, reply), deadline, silent: None }
    }

    /// Notes that a peer has answered, or will not; returns whether it was waited for.
    fn is_awaited(&mut self, peer: PeerId) -> bool {
        self.silent.as_mut().is_some_and(|silent| silent.remove(&peer))
    }

    fn is_finished(&self) -> bool {
        self.silent.as_ref().is_some_and(HashSet::is_empty)
    }
}

/// Finds out how well a record is kept, and sends the newest version to holders that lack it.
#[derive(Debug)]
pub(crate) struct Survey {
    key: RecordKey,
    repair: bool,
    deadline: Deadline,
    /// None until they are known.
    holders: Option<Vec<Holder>>,
    local: Option<VersionId>,
    /// The newest version that is here, or that was fetched and verified.
    copy: Option<Envelope>,
    /// The peer whose copy is on its way.
    fetching: Option<PeerId>,
    /// Whether a copy was fetched.
    fetched: bool,
    repairs: Vec<PeerAnswer<WriteAnswer>>,
    /// Held while versions are on their way.
    permit: Option<PutPermit>,
    reply: Reply<Health>,
}

#[derive(Debug)]
struct Holder {
    info: PeerInfo,
    /// None until it has answered.
    claim: Option<Claim>,
}

/// What a holder said.
#[derive(Debug, Clone)]
enum Claim {
    Has(Option<VersionId>),
    Invalid(Refusal),
    Unreachable(Arc<str>),
}

impl Holder {
    fn version(&self) -> Option<VersionId> {
        match self.claim {
            Some(Claim::Has(version)) => version,
            _ => None,
        }
    }

    /// Whether it answered, with something else than `newest`.
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
    pub(crate) fn new(key: RecordKey, repair: bool, deadline: Deadline, reply: Reply<Health>) -> Self {
        Self {
            key,
            repair,
            deadline,
            holders: None,
            local: None,
            copy: None,
            fetching: None,
            fetched: false,
            repairs: Vec::new(),
            permit: None,
            reply,
        }
    }

    fn holders(&self) -> &[Holder] {
        self.holders.as_deref().unwrap_or_default()
    }

    fn claim(&mut self, peer: PeerId, claim: Claim) {
        let mut holders = self.holders.iter_mut().flatten();
        if let Some(holder) = holders.find(|holder| holder.info.peer_id == peer) {
            holder.claim = Some(claim);
        }
    }

    /// Whether every holder has answered.
    fn is_surveyed(&self) -> bool {
        self.holders.is_some() && self.holders().iter().all(|holder| holder.claim.is_some())
    }

    /// Whether everybody who was sent the newest version has answered.
    fn is_mended(&self) -> bool {
        self.repairs.iter().all(|repair| repair.answer != WriteAnswer::Pending)
    }

    fn newest(&self) -> Option<VersionId> {
        // Of a merged record what was joined is the newest, whatever the order of its parts.
        if self.fetched && self.key.policy() == WritePolicy::Merged {
            return self.copy.as_ref().and_then(VersionId::of);
        }
        let here = self.copy.as_ref().and_then(VersionId::of).max(self.local);
        self.holders().iter().map(Holder::version).chain([here]).max().flatten()
    }

    fn finish(self) {
        let result = match self.holders {
            None => Err(NetabaseError::Timeout { after: self.deadline.after }),
            Some(_) => Ok(self.health()),
        };
        answer(self.reply, result);
    }

    fn health(&self) -> Health {
        let newest = self.newest();
        let holders: Vec<_> = self.holders().iter().map(|holder| holder.state(newest)).collect();
        let current = holders.iter().filter(|(_, state)| *state == HolderState::Current).count();
        let wanted = holders.len();
        Health { holders, current, wanted, newest, local: self.local, repairs: self.repairs.clone() }
    }
}

impl EventLoop {
    /// Asks the holders, who are known now.
    pub(crate) fn ask_holders(&mut self, id: AskId, holders: &[PeerInfo]) {
        let Some(mut ask) = self.queries.take_ask(id) else { return };
        let (key, trace, limit) = (ask.key().clone(), ask.trace(), self.max_frame_bytes());
        let request = match &mut ask {
            Ask::Copies(copies) => {
                copies.silent = Some(holders.iter().map(|holder| holder.peer_id).collect());
                get_request([key.as_bytes()], limit)
            }
            Ask::Survey(survey) => {
                let unasked = |info: &PeerInfo| Holder { info: info.clone(), claim: None };
                survey.holders = Some(holders.iter().map(unasked).collect());
                versions_request([key.as_bytes()], limit)
            }
        };
        self.go_on_with_ask(id, ask);
        let request = Frame::new(request).traced(trace);
        for holder in holders {
            self.send_question(holder, request.clone(), Asker::Ask(id));
        }
    }

    /// A peer has answered a question, or will not.
    pub(crate) fn on_question_answered(&mut self, id: AskId, peer: PeerId, result: &Result<Frame, Silence>) {
        // A question whose caller waits no longer needs no answer.
        let Some(mut ask) = self.queries.take_ask(id) else { return };
        match &mut ask {
            Ask::Copies(copies) => self.on_copy_answered(copies, peer, result),
            Ask::Survey(survey) if survey.fetching == Some(peer) => {
                survey.fetching = None;
                self.on_newest_fetched(survey, peer, result);
            }
            Ask::Survey(survey) => survey.claim(peer, self.claim_of(result)),
        }
        self.go_on_with_ask(id, ask);
    }

    /// A peer has answered a version that it was sent because it lacked it.
    pub(crate) fn on_mended(&mut self, id: AskId, peer: PeerId, answer: WriteAnswer) {
        let Some(mut ask) = self.queries.take_ask(id) else { return };
        if let Ask::Survey(survey) = &mut ask
            && let Some(repair) = survey.repairs.iter_mut().find(|repair| repair.peer == peer)
        {
            repair.answer = answer;
        }
        self.go_on_with_ask(id, ask);
    }

    /// The caller waits no longer: it is told what is known.
    pub(crate) fn on_ask_deadline(&mut self, id: AskId) {
        match self.queries.take_ask(id) {
            Some(Ask::Copies(mut copies)) => match copies.silent.take() {
                None => copies.get.fail(&NetabaseError::Timeout { after: copies.deadline.after }),
                Some(silent) => {
                    for peer in silent {
                        copies.get.add_without_copy(peer, ReadAnswer::TimedOut);
                    }
                    self.on_copies_collected(copies.get);
                }
            },
            Some(Ask::Survey(survey)) => survey.finish(),
            None => {}
        }
    }

    fn go_on_with_ask(&mut self, id: AskId, ask: Ask) {
        let deadline = ask.deadline();
        let unfinished = match ask {
            Ask::Copies(copies) if copies.is_finished() => {
                self.on_copies_collected(copies.get);
                None
            }
            Ask::Copies(copies) => Some(Ask::Copies(copies)),
            Ask::Survey(survey) => self.go_on_with_survey(id, survey).map(Ask::Survey),
        };
        match unfinished {
            Some(ask) => self.queries.put_back_ask(id, ask),
            None => self.forget_deadline(Waiting::Ask(id), Some(deadline)),
        }
    }

    fn on_copy_answered(&mut self, copies: &mut Copies, peer: PeerId, result: &Result<Frame, Silence>) {
        if !copies.is_awaited(peer) {
            return;
        }
        let answer = match copy_in(result) {
            Ok(Some(value)) => return self.add_copy(&mut copies.get, peer, value),
            Ok(None) => ReadAnswer::Nothing,
            Err(Silence::TimedOut | Silence::Stopped) => ReadAnswer::TimedOut,
            Err(Silence::Unreachable(reason)) => ReadAnswer::Unreachable(reason),
        };
        copies.get.add_without_copy(peer, answer);
    }

    /// Says what an answer to the question for versions claims.
    fn claim_of(&self, result: &Result<Frame, Silence>) -> Claim {
        let skew = u64::try_from(Clock::MAX_SKEW.as_millis()).unwrap_or(u64::MAX);
        let latest = self.store.replica().clock().unix_millis().saturating_add(skew);
        match version_in(result) {
            Ok(Some(version)) if version.timestamp.unix_millis() > latest => {
                Claim::Invalid(Refusal::FutureTimestamp)
            }
            Ok(version) => Claim::Has(version),
            Err(silence) => silence.into(),
        }
    }

    /// Takes the next step of a survey; returns it unless it is answered.
    fn go_on_with_survey(&mut self, id: AskId, mut survey: Survey) -> Option<Survey> {
        if !survey.is_surveyed() || survey.fetching.is_some() {
            return Some(survey);
        }
        if survey.copy.is_none() {
            survey.copy = self.store.envelope(&survey.key).ok().flatten().filter(Envelope::is_signed);
            survey.local = survey.copy.as_ref().and_then(VersionId::of);
        }
        let begun = !survey.repairs.is_empty();
        if survey.repair && !begun && !self.store.replica().was_away() {
            self.mend(id, &mut survey);
        }
        if survey.fetching.is_some() || !survey.is_mended() {
            return Some(survey);
        }
        survey.finish();
        None
    }

    /// Sends the newest version to the holders that lack it; fetches it first if it is not here.
    fn mend(&mut self, id: AskId, survey: &mut Survey) {
        let Some(newest) = survey.newest() else { return };
        let envelope = survey.copy.clone().filter(|copy| VersionId::of(copy) == Some(newest));
        let Some(envelope) = envelope else {
            return self.fetch_newest(id, survey, newest);
        };
        let behind: Vec<PeerInfo> = survey
            .holders()
            .iter()
            .filter(|holder| holder.lacks(newest))
            .map(|holder| holder.info.clone())
            .collect();
        if behind.is_empty() {
            return;
        }
        survey.permit = self.puts.try_permit(&envelope);
        let answer = match survey.permit {
            Some(_) => WriteAnswer::Pending,
            None => WriteAnswer::Unreachable("too much is on its way to peers already".into()),
        };
        for holder in behind {
            if self.silence.is_silent(&holder.peer_id) {
                self.silence.has_missed(&holder.peer_id);
                survey.repairs.push(PeerAnswer { peer: holder.peer_id, answer: WriteAnswer::TimedOut });
                continue;
            }
            survey.repairs.push(PeerAnswer { peer: holder.peer_id, answer: answer.clone() });
            if survey.permit.is_some() {
                let (key, envelope, errand) = (survey.key.clone(), envelope.clone(), Errand::Mend(id));
                let trace = survey.reply.trace();
                self.send_version(&holder, Parcel { key, envelope, errand, trace });
            }
        }
    }

    fn fetch_newest(&mut self, id: AskId, survey: &mut Survey, newest: VersionId) {
        let mut holders = survey.holders().iter();
        let has_it = |holder: &&Holder| {
            holder.version() == Some(newest) && !self.silence.is_silent(&holder.info.peer_id)
        };
        let Some(holder) = holders.find(has_it) else { return };
        let info = holder.info.clone();
        survey.fetching = Some(info.peer_id);
        let request = Frame::new(get_request([survey.key.as_bytes()], self.max_frame_bytes()));
        self.send_question(&info, request.traced(survey.reply.trace()), Asker::Ask(id));
    }

    /// Takes the newest version from a peer that says to have it, or finds that it does not.
    fn on_newest_fetched(&mut self, survey: &mut Survey, peer: PeerId, result: &Result<Frame, Silence>) {
        let claim = match copy_in(result) {
            Ok(Some(value)) => self.take_copy(survey, peer, value),
            Ok(None) => Claim::Has(None),
            Err(silence) => silence.into(),
        };
        survey.claim(peer, claim);
    }

    fn take_copy(&mut self, survey: &mut Survey, peer: PeerId, value: &[u8]) -> Claim {
        let copy = match self.store.replica().check_quietly(&survey.key, value) {
            Ok(copy) => copy,
            Err(reason) => {
                self.on_refused(peer, Offence::of(&peer, survey.key.as_bytes(), value, reason));
                return Claim::Invalid(reason);
            }
        };
        let envelope = copy.envelope().clone();
        self.keep_if_holder(&survey.key, copy);
        let claim = Claim::Has(VersionId::of(&envelope));
        survey.copy = Some(match survey.copy.take() {
            Some(here) => self.store.replica().join(&survey.key, &here, &envelope),
            None => envelope,
        });
        survey.fetched = true;
        claim
    }
}

impl From<Silence> for Claim {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::TimedOut | Silence::Stopped => Self::Unreachable(timed_out()),
            Silence::Unreachable(reason) => Self::Unreachable(reason),
        }
    }
}

/// Returns the answer to a get of one key.
fn copy_in(result: &Result<Frame, Silence>) -> Result<Option<&[u8]>, Silence> {
    match response_in(result)? {
        Response::Get(copies) if copies.len() == 1 => Ok(copies.first().copied().flatten()),
        other => Err(silence_of(&other)),
    }
}

/// Returns the answer to a question for the version under one key.
fn version_in(result: &Result<Frame, Silence>) -> Result<Option<VersionId>, Silence> {
    match response_in(result)? {
        Response::Versions(versions) if versions.len() == 1 => Ok(versions.first().copied().flatten()),
        other => Err(silence_of(&other)),
    }
}

fn response_in(result: &Result<Frame, Silence>) -> Result<Response<'_>, Silence> {
    let frame = result.as_ref().map_err(Clone::clone)?;
    let response = frame.bytes().ok().and_then(|bytes| Response::decode(bytes).ok());
    response.ok_or_else(|| Silence::Unreachable(MEANINGLESS.into()))
}

/// Says what a response is that is no answer to the question.
fn silence_of(response: &Response<'_>) -> Silence {
    Silence::Unreachable(match response {
        Response::Failure(failure) => failure.text().into(),
        _ => MEANINGLESS.into(),
    })
}

fn timed_out() -> Arc<str> {
    "the peer did not answer in time".into()
}

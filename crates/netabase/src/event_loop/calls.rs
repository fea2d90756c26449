//! Calls in flight that ask several peers.
//!
//! `ops` makes the decisions; this module carries them out.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use netabase_store::replica::CheckedRecord;
use netabase_store::{Clock, Envelope, RecordKey, Refusal};

use crate::admission::Source;
use crate::error::NetabaseError;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Publication, Reading, Reply, answer};
use crate::event_loop::limits::{JOIN_TIME, MAX_GET_CALLERS, SETTLING_TIME};
use crate::ops::answers;
use crate::ops::get::{Found, Get, GetAction};
use crate::ops::put::{Again, Put, PutAction};
use crate::ops::survey::{Claim, Survey, SurveyAction};
use crate::outcome::{Health, ReadAnswer, WriteAnswer};
use crate::platform::{self, Instant};
use crate::protocol::record::{get_request, versions_request};
use crate::replication::republish::{next_due, overdue};
use crate::rpc::frame::Frame;
use crate::rpc::outbox::{Asker, Outgoing, Purpose, Silence};
use crate::swarm::{Deadline, PutBudget, PutPermit};
use crate::telemetry::trace::{TraceKind, Written};
use crate::telemetry::trace_context::TraceContext;

/// The id of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

/// All calls in flight.
#[derive(Debug)]
pub(crate) struct Calls {
    in_flight: HashMap<CallId, Call>,
    /// Gets that callers for the same record may join.
    gets: HashMap<RecordKey, CallId>,
    /// The calls by the times at which their callers stop waiting.
    deadlines: BTreeSet<(Instant, CallId)>,
    /// Gets that have a copy, in the order of the times at which they need no more.
    settling: VecDeque<(Instant, CallId)>,
    last_id: u64,
    /// The memory for versions that are being sent to peers.
    pub(crate) puts: PutBudget,
}

#[derive(Debug)]
struct Call {
    op: Op,
    /// The time at which the caller is answered in any case.
    deadline: Option<Deadline>,
}

/// The operation of a call, and its callers.
#[derive(Debug)]
enum Op {
    Put(Sending),
    /// The callers of a get; cancelling one does not affect the others.
    Get(Get, Vec<Reply<Reading>>, Instant),
    /// The permit is held while versions are on their way.
    Survey(Survey, Reply<Health>, Option<PutPermit>),
}

#[derive(Debug)]
struct Sending {
    put: Put,
    /// The trace of the call.
    trace: Option<TraceContext>,
    /// `None` once the caller is answered.
    reply: Option<Reply<Publication>>,
    /// Returned to the put budget when this put is dropped.
    _permit: PutPermit,
}

impl Calls {
    pub(crate) fn new(puts: PutBudget) -> Self {
        Self {
            in_flight: HashMap::new(),
            gets: HashMap::new(),
            deadlines: BTreeSet::new(),
            settling: VecDeque::new(),
            last_id: 0,
            puts,
        }
    }

    fn add(&mut self, op: Op, deadline: Option<Deadline>) -> CallId {
        self.last_id += 1;
        let id = CallId(self.last_id);
        self.deadlines.extend(deadline.map(|deadline| (deadline.at, id)));
        self.in_flight.insert(id, Call { op, deadline });
        id
    }

    fn take(&mut self, id: CallId) -> Option<Op> {
        let Call { op, deadline } = self.in_flight.remove(&id)?;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline.at, id));
        }
        if let Op::Get(get, ..) = &op
            && self.gets.get(&get.key) == Some(&id)
        {
            self.gets.remove(&get.key);
        }
        Some(op)
    }

    fn op(&mut self, id: CallId) -> Option<&mut Op> {
        self.in_flight.get_mut(&id).map(|call| &mut call.op)
    }

    fn sending(&mut self, id: CallId) -> Option<&mut Sending> {
        match self.op(id)? {
            Op::Put(sending) => Some(sending),
            Op::Get(..) | Op::Survey(..) => None,
        }
    }

    fn get(&mut self, id: CallId) -> Option<&mut Get> {
        match self.op(id)? {
            Op::Get(get, ..) => Some(get),
            Op::Put(_) | Op::Survey(..) => None,
        }
    }

    fn survey(&mut self, id: CallId) -> Option<&mut Survey> {
        match self.op(id)? {
            Op::Survey(survey, ..) => Some(survey),
            Op::Put(_) | Op::Get(..) => None,
        }
    }

    /// Returns the trace of a call.
    fn trace(&self, id: CallId) -> Option<TraceContext> {
        match &self.in_flight.get(&id)?.op {
            Op::Put(sending) => sending.trace,
            Op::Get(_, replies, _) => replies.first().and_then(Reply::trace),
            Op::Survey(_, reply, _) => reply.trace(),
        }
    }

    /// Adds a caller to a get of the same record that has just started and has found nothing yet.
    /// Returns the reply if there is none.
    fn join_get(&mut self, key: &RecordKey, reply: Reply<Reading>) -> Option<Reply<Reading>> {
        let Some(id) = self.gets.get(key) else { return Some(reply) };
        match self.in_flight.get_mut(id).map(|call| &mut call.op) {
            Some(Op::Get(get, replies, began))
                if get.is_fresh()
                    && replies.len() < MAX_GET_CALLERS
                    && platform::since(*began) < JOIN_TIME =>
            {
                replies.push(reply);
                None
            }
            _ => Some(reply),
        }
    }

    /// Returns the deadline of the first call that has to be answered by time.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(time, _)| *time)
    }

    /// Returns the time at which the first get needs no more copies.
    pub(crate) fn next_settled(&self) -> Option<Instant> {
        self.settling.front().map(|(time, _)| *time)
    }
}

/// The start of calls.
impl EventLoop {
    /// Sends a version to the holders of its record.
    ///
    /// The version is in the local store already: kad's own `put_record` would check and store it
    /// once more, and would not report the peers that accepted it.
    pub(crate) fn begin_put(
        &mut self,
        put: Put,
        deadline: Option<Deadline>,
        permit: PutPermit,
        reply: Reply<Publication>,
    ) {
        let key = put.key.clone();
        let members = self.members_holders(&key, put.envelope.version());
        let sending = Sending { put, trace: reply.trace(), reply: Some(reply), _permit: permit };
        let id = self.calls.add(Op::Put(sending), deadline);
        match members {
            Some(peers) => self.on_holders_known(id, &peers),
            None => self.find_holders_of_put(&key, id),
        }
    }

    /// Asks the nearest peers for their copies. Concurrent calls for the same record share the
    /// result.
    pub(crate) fn get_record(&mut self, key: RecordKey, reply: Reply<Reading>) {
        if let Some(reply) = self.calls.join_get(&key, reply) {
            self.begin_get(key, reply);
        }
    }

    /// Starts a get that does not join an earlier one.
    fn begin_get(&mut self, key: RecordKey, reply: Reply<Reading>) {
        let enough = self.config.dht.read_concern.get();
        let id = self.go_and_get(Get::new(key.clone(), Some(enough)), None, reply);
        if self.calls.get(id).is_some_and(|get| get.is_fresh()) {
            self.calls.gets.insert(key, id);
        }
    }

    /// Fetches the newer version that a peer has claimed. The get stores it.
    pub(crate) fn look_for_newer(&mut self, key: RecordKey) {
        let (reply, _) = Reply::new(None);
        self.begin_get(key, reply);
    }

    /// Asks each of the holders for its copy.
    pub(crate) fn get_all_copies(&mut self, key: RecordKey, deadline: Deadline, reply: Reply<Reading>) {
        self.go_and_get(Get::new(key, None), Some(deadline), reply);
    }

    fn go_and_get(&mut self, get: Get, deadline: Option<Deadline>, reply: Reply<Reading>) -> CallId {
        let (known, part) = self.nearest_known(&get.key);
        let id = self.calls.add(Op::Get(get, vec![reply], platform::now()), deadline);
        self.go_on_with_get(id, |get| get.begin(known, part));
        id
    }

    /// Asks each of the holders for its version.
    pub(crate) fn survey(&mut self, survey: Survey, deadline: Deadline, reply: Reply<Health>) {
        let key = survey.key.clone();
        let id = self.calls.add(Op::Survey(survey, reply, None), Some(deadline));
        self.find_holders(&key, id);
    }
}

/// Events of calls in flight.
impl EventLoop {
    /// Continues a call that waits for the holders of a record.
    pub(crate) fn on_holders_known(&mut self, id: CallId, holders: &[PeerInfo]) {
        match self.calls.op(id) {
            Some(Op::Put(_)) => self.go_on_with_put(id, |put| put.on_holders(holders)),
            Some(Op::Get(get, ..)) => {
                let key = get.key.clone();
                let beyond = self.beyond(&key, holders);
                self.go_on_with_get(id, |get| get.on_holders(holders, beyond));
            }
            Some(Op::Survey(..)) => self.go_on_with_survey(id, |survey| survey.on_holders(holders)),
            // The caller has stopped waiting.
            None => {}
        }
    }

    /// Records a peer's answer to a put, or that there will be none.
    pub(crate) fn on_sent(&mut self, id: CallId, peer: PeerId, answer: WriteAnswer) {
        let Some(sending) = self.calls.sending(id) else { return };
        if self.peers.members.is_list(&sending.put.key) {
            self.peers.members.answered(&peer, &answer);
        }
        if let WriteAnswer::Refused(reason) = answer
            && reason != Refusal::Outdated
        {
            self.peers.standings.refused(reason);
        }
        if matches!(answer, WriteAnswer::Refused(Refusal::FutureTimestamp | Refusal::Slowed)) {
            // The hello tells whose clock is wrong, or for how long the peer refuses.
            self.greet(peer);
        }
        self.go_on_with_put(id, |put| put.on_answer(peer, answer));
    }

    /// Records a peer's answer to a version that a survey has sent.
    pub(crate) fn on_mended(&mut self, id: CallId, peer: PeerId, answer: WriteAnswer) {
        self.go_on_with_survey(id, |survey| survey.on_sent(peer, answer));
    }

    /// Records a peer's answer to a question, or that there will be none.
    pub(crate) fn on_question_answered(&mut self, id: CallId, peer: PeerId, result: &Result<Frame, Silence>) {
        match self.calls.op(id) {
            Some(Op::Get(get, ..)) => {
                let key = get.key.clone();
                self.on_copy(id, &key, peer, answers::copy(result));
            }
            Some(Op::Survey(survey, ..)) if survey.is_fetching_from(peer) => {
                let key = survey.key.clone();
                self.on_newest_fetched(id, &key, peer, answers::copy(result));
            }
            Some(Op::Survey(..)) => {
                let claim = self.claim_of(result);
                self.go_on_with_survey(id, |survey| survey.on_claim(peer, claim));
            }
            Some(Op::Put(sending)) => {
                let (key, ours) = (sending.put.key.clone(), sending.put.envelope.clone());
                let may_sign = sending.put.may_be_signed_again();
                let copy = answers::copy(result).ok().flatten();
                let newer = copy.and_then(|value| self.check_copy(peer, &key, value).ok());
                let newer = newer.map(|copy| copy.envelope().clone()).filter(|newer| newer.adds_to(&ours));
                let sign = |newer: &Envelope| self.store.replica().sign_after(&key, &ours, newer);
                let again = newer.as_ref().filter(|_| may_sign).and_then(sign);
                self.go_on_with_put(id, |put| put.on_newer(newer.as_ref(), again));
            }
            // The caller has stopped waiting.
            None => {}
        }
    }

    /// Verifies a peer's answer to a get. If the answer is refused, the next copy may be better.
    fn on_copy(&mut self, id: CallId, key: &RecordKey, peer: PeerId, copy: Result<Option<&[u8]>, Silence>) {
        let none = match copy {
            Ok(Some(value)) => match self.check_copy(peer, key, value) {
                Ok(copy) => return self.go_on_with_get(id, |get| get.on_copy(peer, copy)),
                Err(reason) => ReadAnswer::Invalid(reason),
            },
            Ok(None) => ReadAnswer::Nothing,
            Err(Silence::TimedOut | Silence::Stopped) => ReadAnswer::TimedOut,
            Err(Silence::Unreachable(reason)) => ReadAnswer::Unreachable(reason),
        };
        self.go_on_with_get(id, |get| get.on_no_copy(peer, none));
    }

    /// Stores the newest version of a peer that claimed it, or records that the peer does not have
    /// it.
    fn on_newest_fetched(
        &mut self,
        id: CallId,
        key: &RecordKey,
        peer: PeerId,
        copy: Result<Option<&[u8]>, Silence>,
    ) {
        let claim = match copy {
            Ok(Some(value)) => match self.check_copy(peer, key, value) {
                Ok(copy) => {
                    let (envelope, store) = (copy.envelope().clone(), self.store.clone());
                    self.keep_if_holder(key, copy);
                    let join = |here: &Envelope, new: &Envelope| store.replica().join(key, here, new);
                    return self.go_on_with_survey(id, |survey| survey.on_fetched(peer, envelope, join));
                }
                Err(reason) => Claim::Invalid(reason),
            },
            Ok(None) => Claim::Has(None),
            Err(silence) => silence.into(),
        };
        self.go_on_with_survey(id, |survey| survey.on_claim(peer, claim));
    }

    /// Checks a copy that a peer has answered with, and reports a refusal.
    fn check_copy(&mut self, peer: PeerId, key: &RecordKey, value: &[u8]) -> Result<CheckedRecord, Refusal> {
        self.admission.check(Source::Copy, peer, key, value).map_err(|refusal| {
            if let Some(offence) = refusal.offence {
                self.on_refused(peer, offence);
            }
            refusal.reason
        })
    }

    /// Returns what an answer to the question for versions claims.
    fn claim_of(&self, result: &Result<Frame, Silence>) -> Claim {
        let skew = u64::try_from(Clock::MAX_SKEW.as_millis()).unwrap_or(u64::MAX);
        let latest = self.store.replica().clock().unix_millis().saturating_add(skew);
        match answers::version(result) {
            Ok(Some(version)) if version.timestamp.unix_millis() > latest => {
                Claim::Invalid(Refusal::FutureTimestamp)
            }
            Ok(version) => Claim::Has(version),
            Err(silence) => silence.into(),
        }
    }

    /// Answers the call with the earliest deadline with its partial result.
    pub(crate) fn on_deadline(&mut self) {
        let Some((_, id)) = self.calls.deadlines.pop_first() else { return };
        let Some(Call { op, deadline }) = self.calls.in_flight.get_mut(&id) else { return };
        let late =
            NetabaseError::Timeout { after: deadline.take().map_or(Duration::ZERO, |late| late.after) };
        if let Op::Put(sending) = op {
            let known = sending.put.on_deadline();
            if let Some(reply) = sending.reply.take() {
                answer(reply, known.ok_or(late));
            }
            return;
        }
        match self.calls.take(id) {
            Some(Op::Get(mut get, replies, _)) => {
                if get.on_deadline() {
                    return self.on_copies_collected(get.finish(), replies);
                }
                for reply in replies {
                    answer(reply, Err(late.clone()));
                }
            }
            Some(Op::Survey(survey, reply, _)) => answer(reply, survey.health().ok_or(late)),
            Some(Op::Put(_)) | None => {}
        }
    }

    /// Ends a get that has waited long enough for further copies.
    pub(crate) fn on_settled(&mut self) {
        if let Some((_, id)) = self.calls.settling.pop_front() {
            self.finish_get(id);
        }
    }
}

/// The steps of calls.
impl EventLoop {
    fn go_on_with_put(&mut self, id: CallId, event: impl FnOnce(&mut Put) -> Vec<PutAction>) {
        let Some(Sending { put, .. }) = self.calls.sending(id) else { return };
        let actions = event(put);
        self.do_for_put(id, actions);
    }

    fn do_for_put(&mut self, id: CallId, actions: Vec<PutAction>) {
        for action in actions {
            let Some(Sending { put, trace, reply, .. }) = self.calls.sending(id) else { return };
            let (key, envelope) = (put.key.clone(), put.envelope.clone());
            match action {
                PutAction::Answer(publication) => {
                    if let Some(reply) = reply.take() {
                        answer(reply, Ok(publication));
                    }
                }
                PutAction::Send(holders) => {
                    // Each peer has a request of its own, so that one dead peer does not delay the
                    // answers of others.
                    let trace = *trace;
                    for holder in &holders {
                        let (key, envelope, purpose) = (key.clone(), envelope.clone(), Purpose::Put(id));
                        self.send_version(holder, Outgoing { key, envelope, purpose, trace });
                    }
                }
                PutAction::FetchNewer(peer_id) => {
                    let request = get_request([key.as_bytes()], self.max_frame_bytes());
                    self.ask_each(&[PeerInfo { peer_id, addrs: Vec::new() }], id, request);
                }
                PutAction::Schedule(again) => {
                    let due = match again {
                        Again::Overdue => overdue(&self.store, &envelope),
                        Again::Next { is_heard } => {
                            next_due(&self.store, self.config.dht.republish_interval, is_heard)
                        }
                    };
                    self.store.replica().schedule(&key, &envelope, Some(due));
                }
                PutAction::NoteHeard => self.store.replica().note_heard(&key, &envelope),
                PutAction::Redate => self.store.replica().redate(&key, &envelope),
                PutAction::LookForNewer => {
                    // A newer local version explains the versions of peers.
                    let local = self.store.envelope(&key).ok().flatten();
                    if !local.is_some_and(|local| local.adds_to(&envelope)) {
                        self.look_for_newer(key);
                    }
                }
                PutAction::Finish => {
                    let Some(Op::Put(Sending { put, .. })) = self.calls.take(id) else { return };
                    let answers = put.peers().to_vec();
                    self.telemetry.traces.add(&self.store, &key, TraceKind::Published { answers });
                }
            }
        }
    }

    fn go_on_with_get(&mut self, id: CallId, event: impl FnOnce(&mut Get) -> Vec<GetAction>) {
        let Some(get) = self.calls.get(id) else { return };
        let (actions, key) = (event(get), get.key.clone());
        self.do_for_get(id, &key, actions);
    }

    fn do_for_get(&mut self, id: CallId, key: &RecordKey, actions: Vec<GetAction>) {
        for action in actions {
            match action {
                GetAction::FindHolders => self.find_holders(key, id),
                GetAction::Ask(peers) => {
                    self.ask_each(&peers, id, get_request([key.as_bytes()], self.max_frame_bytes()));
                }
                GetAction::Settle => self.calls.settling.push_back((platform::now() + SETTLING_TIME, id)),
                GetAction::Finish => self.finish_get(id),
            }
        }
    }

    fn go_on_with_survey(&mut self, id: CallId, event: impl FnOnce(&mut Survey) -> Vec<SurveyAction>) {
        let Some(survey) = self.calls.survey(id) else { return };
        let (actions, key) = (event(survey), survey.key.clone());
        self.do_for_survey(id, &key, actions);
    }

    fn do_for_survey(&mut self, id: CallId, key: &RecordKey, actions: Vec<SurveyAction>) {
        let limit = self.max_frame_bytes();
        for action in actions {
            match action {
                SurveyAction::Ask(holders) => {
                    self.ask_each(&holders, id, versions_request([key.as_bytes()], limit));
                }
                SurveyAction::ReadLocal => {
                    let copy = self.store.envelope(key).ok().flatten().filter(Envelope::is_signed);
                    let repair = !self.store.replica().was_away();
                    let Some(survey) = self.calls.survey(id) else { return };
                    let actions = survey.on_local(copy, repair);
                    self.do_for_survey(id, key, actions);
                }
                SurveyAction::Fetch(holder) => {
                    self.ask_each(&[holder], id, get_request([key.as_bytes()], limit));
                }
                SurveyAction::Send(holders, envelope) => self.mend(id, key, &envelope, &holders),
                SurveyAction::Finish => {
                    if let Some(Op::Survey(survey, reply, _)) = self.calls.take(id) {
                        answer(reply, survey.health().ok_or(NetabaseError::Closed));
                    }
                }
            }
        }
    }

    fn ask_each(&mut self, peers: &[PeerInfo], id: CallId, request: Vec<u8>) {
        let request = Frame::new(request).traced(self.calls.trace(id));
        for peer in peers {
            self.send_question(peer, request.clone(), Asker::Ask(id));
        }
    }

    /// Sends a version to the holders that lack it, if the put budget allows it.
    fn mend(&mut self, id: CallId, key: &RecordKey, envelope: &Envelope, holders: &[PeerInfo]) {
        let trace = self.calls.trace(id);
        let has_room = match (self.calls.puts.try_permit(envelope), self.calls.op(id)) {
            (Some(permit), Some(Op::Survey(_, _, held))) => {
                *held = Some(permit);
                true
            }
            _ => false,
        };
        for holder in holders {
            if has_room {
                let (key, envelope, purpose) = (key.clone(), envelope.clone(), Purpose::Mend(id));
                self.send_version(holder, Outgoing { key, envelope, purpose, trace });
            } else {
                let full = WriteAnswer::Unreachable("the put budget of this node is used up".into());
                self.on_mended(id, holder.peer_id, full);
            }
        }
    }

    fn finish_get(&mut self, id: CallId) {
        if let Some(Op::Get(get, replies, _)) = self.calls.take(id) {
            self.on_copies_collected(get.finish(), replies);
        }
    }

    /// Stores the newest version if this node is one of its holders, answers the callers, and sends
    /// the version to peers that had an older one or none.
    fn on_copies_collected(&mut self, found: Found, replies: Vec<Reply<Reading>>) {
        let Found { key, newest, reading, behind, copies } = found;
        let (mut written, mut kept) = (None, false);
        if let Some(newest) = newest {
            let envelope = newest.envelope().clone();
            written = Written::of(&envelope);
            kept = self.keep_if_holder(&key, newest);
            self.repair(&key, &envelope, behind);
        }
        self.telemetry.traces.add(&self.store, &key, TraceKind::Fetched { written, copies, kept });
        for reply in replies {
            answer(reply, Ok(reading.clone()));
        }
    }

    /// Sends a version to peers that lack it. If the put budget is used up, the peers receive it
    /// when they are next asked.
    fn repair(&mut self, key: &RecordKey, envelope: &Envelope, behind: Vec<PeerId>) {
        if behind.is_empty() {
            return;
        }
        let Some(permit) = self.calls.puts.try_permit(envelope).map(Arc::new) else { return };
        self.telemetry.traces.add(&self.store, key, TraceKind::Repaired { peers: behind.clone() });
        for peer_id in behind {
            let purpose = Purpose::Repair { _permit: Arc::clone(&permit) };
            let outgoing = Outgoing { key: key.clone(), envelope: envelope.clone(), purpose, trace: None };
            self.send_version(&PeerInfo { peer_id, addrs: Vec::new() }, outgoing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::get::Known;

    #[test]
    fn callers_of_a_get_that_nobody_has_answered_share_it() {
        let key = RecordKey::new("Def", "Model", b"1").unwrap();
        let peer = PeerInfo { peer_id: PeerId::random(), addrs: Vec::new() };
        let mut calls = Calls::new(PutBudget::default());
        let (first, abandoned) = Reply::new(None);
        assert!(calls.join_get(&key, Reply::new(None).0).is_some(), "there is none");
        let mut get = Get::new(key.clone(), Some(2));
        get.begin(vec![peer.clone()], Known::All);
        let id = calls.add(Op::Get(get, vec![first], platform::now()), None);
        calls.gets.insert(key.clone(), id);
        let (second, mut answered) = Reply::new(None);
        assert!(calls.join_get(&key, second).is_none());
        drop(abandoned);
        calls.get(id).unwrap().on_no_copy(peer.peer_id, ReadAnswer::Nothing);
        assert!(calls.join_get(&key, Reply::new(None).0).is_some(), "what was written since is missing");
        let Some(Op::Get(get, replies, _)) = calls.take(id) else { panic!("it is taken once") };
        let reading = get.finish().reading;
        for reply in replies {
            answer(reply, Ok(reading.clone()));
        }
        assert_eq!(answered.try_recv().unwrap().unwrap().peers, reading.peers);
        assert!(calls.take(id).is_none() && calls.gets.is_empty());
    }

    #[test]
    fn a_call_that_has_ended_leaves_no_deadline_behind() {
        let key = RecordKey::new("Def", "Model", b"1").unwrap();
        let mut calls = Calls::new(PutBudget::default());
        let deadline = Deadline::after(Duration::from_secs(1));
        let survey = Op::Survey(Survey::new(key, false), Reply::new(None).0, None);
        let id = calls.add(survey, Some(deadline));
        assert_eq!(calls.next_deadline(), Some(deadline.at));
        calls.take(id).unwrap();
        assert_eq!(calls.next_deadline(), None);
    }
}

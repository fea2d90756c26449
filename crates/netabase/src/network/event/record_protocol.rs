//! What the record protocol says, and what is sent by it.

use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use libp2p::request_response::{Event, Message, OutboundFailure, OutboundRequestId, ResponseChannel};
use netabase_store::Refusal;

use crate::error::NetabaseError;
use crate::network::ask::Silence;
use crate::network::command::answer;
use crate::network::ingest::{Done, Job, Protocol, busy};
use crate::network::outbox::{Asker, Errand, Parcel, Sent};
use crate::network::query::PutId;
use crate::network::record_protocol::wire::{self, Failure, PutAnswer, Response};
use crate::network::record_protocol::{self, Frame, MEANINGLESS};
use crate::network::swarm::EventLoop;
use crate::outcome::WriteAnswer;

impl EventLoop {
    pub(in crate::network) fn on_record_protocol(&mut self, event: record_protocol::Event) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                self.on_request(peer, request, channel);
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                self.on_response(peer, request_id, response);
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.on_request_failed(peer, request_id, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a peer's request was not answered");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Lets a request of a peer wait for a thread.
    fn on_request(&mut self, peer: PeerId, request: Frame, channel: ResponseChannel<Frame>) {
        if self.store.was_away() {
            // Others may have deleted what is here; it is about to be discarded.
            self.meters.busy.add("record", 1);
            return self.respond(channel, busy());
        }
        let compares = request.bytes().is_ok_and(wire::is_comparison);
        let view = compares.then(|| Box::new(self.view().with(peer)));
        let job = Job { peer, request, channel, view, protocol: Protocol::Records };
        if let Err(channel) = self.ingest.offer(job) {
            self.meters.busy.add("record", 1);
            self.respond(channel, busy());
        }
    }

    /// A request of a peer was carried out.
    pub(in crate::network) fn on_request_done(&mut self, done: Done) {
        let Done { peer, channel, response, refused } = done;
        for offence in refused {
            self.on_refused(peer, offence);
        }
        self.respond(channel, response);
    }

    pub(in crate::network) fn respond(&mut self, channel: ResponseChannel<Frame>, response: Frame) {
        // A peer that has gone away needs no answer.
        let _ = self.swarm.behaviour_mut().records.send_response(channel, response);
    }

    /// Sends a version to a peer, together with others that wait for it.
    pub(in crate::network) fn send_version(&mut self, holder: &PeerInfo, parcel: Parcel) {
        let addresses = self.addresses_of(holder);
        self.outbox.push_version(holder.peer_id, &addresses, parcel);
        self.send_waiting(holder.peer_id);
    }

    /// Asks a peer something.
    pub(in crate::network) fn send_question(&mut self, holder: &PeerInfo, request: Frame, ask: Asker) {
        let addresses = self.addresses_of(holder);
        self.outbox.push_question(holder.peer_id, &addresses, request, ask);
        self.send_waiting(holder.peer_id);
    }

    /// Returns where a peer may be dialled: not everything that a lookup has heard of it.
    fn addresses_of(&mut self, holder: &PeerInfo) -> Vec<libp2p::Multiaddr> {
        if holder.addrs.is_empty() || self.swarm.is_connected(&holder.peer_id) {
            return Vec::new();
        }
        self.swarm.behaviour_mut().kad.judge_addresses(holder.peer_id, holder.addrs.clone())
    }

    /// Sends what waits for a peer, as far as enough of what it was sent has been answered.
    fn send_waiting(&mut self, peer: PeerId) {
        let limit = self.max_frame_bytes();
        while let Some(request) = self.outbox.next(peer, limit) {
            let records = &mut self.swarm.behaviour_mut().records;
            let id = records.send_request_with_addresses(&peer, request.frame, request.addresses);
            self.outbox.sent(id, request.sent);
        }
    }

    pub(in crate::network) fn max_frame_bytes(&self) -> usize {
        record_protocol::max_frame_bytes(self.config.max_value_bytes)
    }

    fn on_response(&mut self, peer: PeerId, id: OutboundRequestId, response: Frame) {
        match self.outbox.take(peer, id) {
            Some(Sent::Parcels(parcels)) => {
                let answers = put_answers(&response, parcels.len());
                for (parcel, answer) in parcels.into_iter().zip(answers) {
                    self.on_delivered(peer, &parcel.errand, answer);
                }
            }
            Some(Sent::Question(asker)) => self.on_answered(asker, peer, Ok(response)),
            Some(Sent::Shared(questions)) => self.on_shared_response(peer, questions, &response),
            None => {}
        }
        self.send_waiting(peer);
    }

    /// Each of several questions has its part of a response; those that had no room in it are asked again.
    fn on_shared_response(&mut self, peer: PeerId, mut questions: Vec<(Frame, Asker)>, response: &Frame) {
        let bytes = response.bytes().ok();
        let Some(answers) = bytes.and_then(|bytes| wire::split_response(bytes, questions.len())) else {
            for (_, asker) in questions {
                self.on_answered(asker, peer, Ok(response.clone()));
            }
            return;
        };
        let left = questions.split_off(answers.len());
        self.outbox.ask_again(peer, left);
        for ((_, asker), answer) in questions.into_iter().zip(answers) {
            self.on_answered(asker, peer, Ok(Frame::new(answer)));
        }
    }

    /// A peer has not answered. What waits for it would fail in the same way, one after the other.
    fn on_request_failed(&mut self, peer: PeerId, id: OutboundRequestId, error: &OutboundFailure) {
        let (answer, silence) = match error {
            OutboundFailure::Timeout => (WriteAnswer::TimedOut, Silence::TimedOut),
            error => {
                let reason = Arc::<str>::from(reason(error));
                (WriteAnswer::Unreachable(Arc::clone(&reason)), Silence::Unreachable(reason))
            }
        };
        let (mut asks, mut parcels) = (Vec::new(), Vec::new());
        match self.outbox.take(peer, id) {
            Some(Sent::Parcels(sent)) => parcels = sent,
            Some(Sent::Question(ask)) => asks.push(ask),
            Some(Sent::Shared(questions)) => asks.extend(questions.into_iter().map(|(_, asker)| asker)),
            None => {}
        }
        let (waiting, questions) = self.outbox.give_up(peer);
        for parcel in parcels.into_iter().chain(waiting) {
            self.on_delivered(peer, &parcel.errand, answer.clone());
        }
        for asker in asks.into_iter().chain(questions.into_iter().map(|(_, asker)| asker)) {
            self.on_answered(asker, peer, Err(silence.clone()));
        }
    }

    fn on_answered(&mut self, asker: Asker, peer: PeerId, result: Result<Frame, Silence>) {
        match asker {
            Asker::Ask(ask) => self.on_question_answered(ask, peer, &result),
            Asker::Call(reply) => answer(reply, result.map_err(|_| NetabaseError::Unreachable { peer })),
        }
    }

    fn on_delivered(&mut self, peer: PeerId, errand: &Errand, answer: WriteAnswer) {
        match *errand {
            Errand::Put(put) => self.on_sent(put, peer, answer),
            Errand::Repair { .. } => {}
            Errand::Members { .. } => self.members.answered(&peer, &answer),
            Errand::Mend(ask) => self.on_mended(ask, peer, answer),
        }
    }

    /// The caller waits no longer: it is told what is known.
    pub(in crate::network) fn on_put_deadline(&mut self, id: PutId) {
        if let Some(mut put) = self.queries.take_put(id) {
            if let Some(deadline) = put.deadline.take() {
                put.answer_late(deadline);
            }
            self.queries.put_back(id, put);
        }
    }
}

/// Says what a peer did with each of `count` versions.
fn put_answers(response: &Frame, count: usize) -> Vec<WriteAnswer> {
    let answer = match response.bytes().map(Response::decode) {
        Ok(Ok(Response::Put(answers))) if answers.len() == count => {
            return answers.into_iter().map(WriteAnswer::from).collect();
        }
        Ok(Ok(Response::Failure(Failure::Busy))) => WriteAnswer::Refused(Refusal::Busy),
        Ok(Ok(Response::Failure(Failure::TooLarge))) => WriteAnswer::Refused(Refusal::TooLarge),
        Ok(Ok(Response::Failure(failure))) => WriteAnswer::Unreachable(failure.text().into()),
        _ => WriteAnswer::Unreachable(MEANINGLESS.into()),
    };
    vec![answer; count]
}

impl From<PutAnswer> for WriteAnswer {
    fn from(answer: PutAnswer) -> Self {
        match answer {
            PutAnswer::Stored => Self::Accepted,
            PutAnswer::Known => Self::Known,
            PutAnswer::Refused(reason) => Self::Refused(reason),
        }
    }
}

fn reason(error: &OutboundFailure) -> String {
    match error {
        OutboundFailure::DialFailure => "the peer cannot be reached".into(),
        OutboundFailure::Timeout => "the peer did not answer in time".into(),
        OutboundFailure::ConnectionClosed => "the connection was closed before the answer".into(),
        OutboundFailure::UnsupportedProtocols => "the peer does not speak the record protocol".into(),
        OutboundFailure::Io(error) => format!("the stream has failed: {error}"),
    }
}

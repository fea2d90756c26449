//! Events of the request protocols, and the requests that the event loop sends.

use std::sync::Arc;

use libp2p::PeerId;
use libp2p::kad::PeerInfo;
use libp2p::request_response::{Event, Message, OutboundFailure, OutboundRequestId, ResponseChannel};
use netabase_store::{Envelope, RecordKey, Refusal};

use crate::connection::limits::USEFUL_BYTES;
use crate::event_loop::EventLoop;
use crate::event_loop::command::{Reply, answer};
use crate::outcome::WriteAnswer;
use crate::peers::silence::MissedVersions;
use crate::platform::{self};
use crate::protocol::record as wire;
use crate::protocol::record::{Failure, PutAnswer, Response};
use crate::replication::republish::next_due;
use crate::rpc::Protocol;
use crate::rpc::frame::{self, Frame, MEANINGLESS};
use crate::rpc::outbox::{Asker, Outgoing, Purpose, Sent, Silence};
use crate::rpc::serve::{Done, Incoming, busy};

impl EventLoop {
    /// Handles an event of a request protocol.
    pub(crate) fn on_rpc(&mut self, protocol: Protocol, event: frame::Event) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.heard_of(peer);
                let processor = self.rpc.processor.clone();
                processor.time(peer, || self.on_request(protocol, peer, request, channel));
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.heard_of(peer);
                self.rpc
                    .processor
                    .was_useful(peer, response.bytes().map_or(0, <[u8]>::len).div_ceil(USEFUL_BYTES));
                self.on_response(protocol, peer, request_id, response);
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                self.on_request_failed(protocol, peer, request_id, &error);
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, protocol = protocol.name(), "a peer's request was not answered");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    /// Queues a request of a peer for a thread.
    fn on_request(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        request: Frame,
        channel: ResponseChannel<Frame>,
    ) {
        let of_records = request.bytes().ok().filter(|_| protocol == Protocol::Records);
        if let Some(hello) = of_records
            && wire::is_hello(hello)
        {
            return self.on_hello(peer, hello, channel);
        }
        let view = of_records.is_some_and(wire::is_comparison).then(|| Box::new(self.view().with(peer)));
        // The local records are about to be discarded: peers may have deleted them during a long
        // absence.
        let is_away = protocol != Protocol::Blobs && self.store.replica().was_away();
        let incoming = Incoming { protocol, request, channel, view };
        let refused = if is_away { Err(incoming) } else { self.rpc.server.offer(peer, incoming) };
        if let Err(Incoming { channel, .. }) = refused {
            self.telemetry.meters.busy.add(protocol.name(), 1);
            self.respond(channel, busy());
        }
    }

    /// Sends the response to a peer's request.
    pub(crate) fn on_request_done(&mut self, done: Done) {
        let Done { peer, channel, response, refused } = done;
        for offence in refused {
            self.on_refused(peer, offence);
        }
        self.respond(channel, response);
    }

    pub(crate) fn respond(&mut self, channel: ResponseChannel<Frame>, response: Frame) {
        // The peer may have disconnected.
        let _ = self.swarm.behaviour_mut().records.send_response(channel, response);
    }

    /// Sends a request to a peer. `reply` receives the response, or the reason why there is none.
    pub(crate) fn ask_peer(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        request: Frame,
        reply: Reply<Result<Frame, Silence>>,
    ) {
        if !reply.is_awaited() {
            return;
        }
        let request = request.traced(reply.trace());
        if protocol == Protocol::Records {
            let holder = PeerInfo { peer_id: peer, addrs: Vec::new() };
            return self.send_question(&holder, request, Asker::Call(reply));
        }
        if protocol.gives_up_on_silence() && self.peers.silence.is_silent(&peer) {
            return answer(reply, Ok(Err(Silence::TimedOut)));
        }
        let id = self.behaviour_of(protocol).send_request(&peer, request);
        self.rpc.outbox.sent(protocol, peer, id, Sent::Question(Asker::Call(reply)), platform::now());
    }

    fn behaviour_of(&mut self, protocol: Protocol) -> &mut frame::Behaviour {
        let behaviour = self.swarm.behaviour_mut();
        match protocol {
            Protocol::Records => &mut behaviour.records,
            Protocol::Query => &mut behaviour.query,
            Protocol::Sync => &mut behaviour.sync,
            Protocol::Blobs => &mut behaviour.blobs,
        }
    }

    /// Sends a version to a peer, together with others that are queued for it.
    pub(crate) fn send_version(&mut self, holder: &PeerInfo, outgoing: Outgoing) {
        if self.peers.silence.is_silent(&holder.peer_id) {
            self.peers.silence.has_missed(&holder.peer_id);
            return self.on_delivered(holder.peer_id, &outgoing.purpose, WriteAnswer::Pending);
        }
        let addresses = self.addresses_of(holder);
        self.rpc.outbox.push_version(holder.peer_id, &addresses, outgoing);
        self.send_waiting(holder.peer_id);
    }

    /// Sends a question to a peer.
    pub(crate) fn send_question(&mut self, holder: &PeerInfo, request: Frame, ask: Asker) {
        if self.peers.silence.is_silent(&holder.peer_id) {
            return self.on_answered(ask, holder.peer_id, Err(Silence::TimedOut));
        }
        let addresses = self.addresses_of(holder);
        self.rpc.outbox.push_question(holder.peer_id, &addresses, request, ask);
        self.send_waiting(holder.peer_id);
    }

    /// Returns the addresses at which a peer may be dialled, which are not all that a lookup has
    /// found.
    fn addresses_of(&mut self, holder: &PeerInfo) -> Vec<libp2p::Multiaddr> {
        if holder.addrs.is_empty() || self.swarm.is_connected(&holder.peer_id) {
            return Vec::new();
        }
        self.swarm.behaviour_mut().kad.judge_addresses(holder.peer_id, holder.addrs.clone())
    }

    /// Sends the queue of a peer, as far as its limit of concurrent requests allows.
    fn send_waiting(&mut self, peer: PeerId) {
        let limit = self.max_frame_bytes();
        while let Some(request) = self.rpc.outbox.next(peer, limit) {
            let (bytes, is_connected) =
                (request.frame.bytes().map_or(0, <[u8]>::len), self.swarm.is_connected(&peer));
            let records = &mut self.swarm.behaviour_mut().records;
            let id = records.send_request_with_addresses(&peer, request.frame, request.addresses);
            let now = platform::now();
            self.rpc.outbox.sent(Protocol::Records, peer, id, request.sent, now);
            self.peers.silence.asked(peer, bytes, is_connected, now);
        }
    }

    /// Sends a connected peer an empty question, to see whether it answers.
    pub(crate) fn probe(&mut self, peer: PeerId) {
        let frame = Frame::new(wire::versions_request([], self.max_frame_bytes()));
        let (bytes, now) = (frame.bytes().map_or(0, <[u8]>::len), platform::now());
        let id = self.swarm.behaviour_mut().records.send_request(&peer, frame);
        self.rpc.outbox.sent(Protocol::Records, peer, id, Sent::Late(Vec::new()), now);
        self.peers.silence.asked(peer, bytes, true, now);
    }

    pub(crate) fn max_frame_bytes(&self) -> usize {
        frame::max_frame_bytes(self.config.store.max_value_bytes)
    }

    fn on_response(&mut self, protocol: Protocol, peer: PeerId, id: OutboundRequestId, response: Frame) {
        if protocol != Protocol::Records {
            return self.on_answer(protocol, peer, id, Ok(response));
        }
        if self.on_hello_answered(peer, id, Some(&response)) {
            return;
        }
        let Some((sent, since)) = self.rpc.outbox.take(protocol, peer, id) else { return };
        self.peers.silence.answered(&peer, platform::since(since));
        self.owes_less(peer);
        match sent {
            Sent::Versions(versions) => {
                let answers = put_answers(&response, versions.len());
                for (outgoing, answer) in versions.into_iter().zip(answers) {
                    self.on_delivered(peer, &outgoing.purpose, answer);
                }
            }
            Sent::Question(asker) => self.on_answered(asker, peer, Ok(response)),
            Sent::Shared(questions) => self.on_shared_response(peer, questions, &response),
            Sent::Late(versions) => {
                let answers = put_answers(&response, versions.len());
                for ((key, envelope), answer) in versions.into_iter().zip(answers) {
                    self.on_late_answer(&key, &envelope, &answer);
                }
            }
        }
        self.send_waiting(peer);
    }

    /// Stops waiting for a peer that owes no answer.
    fn owes_less(&mut self, peer: PeerId) {
        if !self.rpc.outbox.is_waiting_for(&peer) {
            self.peers.silence.owes_nothing(&peer);
        }
    }

    /// Answers several questions with their parts of a shared response. Questions whose answers did
    /// not fit are asked again.
    fn on_shared_response(&mut self, peer: PeerId, mut questions: Vec<(Frame, Asker)>, response: &Frame) {
        let bytes = response.bytes().ok();
        let Some(answers) = bytes.and_then(|bytes| wire::split_response(bytes, questions.len())) else {
            for (_, asker) in questions {
                self.on_answered(asker, peer, Ok(response.clone()));
            }
            return;
        };
        let left = questions.split_off(answers.len());
        self.rpc.outbox.ask_again(peer, left);
        for ((_, asker), answer) in questions.into_iter().zip(answers) {
            self.on_answered(asker, peer, Ok(Frame::new(answer)));
        }
    }

    /// Handles the answer to a request of its own, or its failure.
    fn on_answer(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        id: OutboundRequestId,
        result: Result<Frame, Silence>,
    ) {
        if let Some((Sent::Question(asker), _)) = self.rpc.outbox.take(protocol, peer, id) {
            self.on_answered(asker, peer, result);
        }
    }

    /// Handles a request that a peer has not answered. The queue of the peer would fail in the same
    /// way, one request after the other.
    fn on_request_failed(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        id: OutboundRequestId,
        error: &OutboundFailure,
    ) {
        let silence = Silence::of(protocol, error);
        if protocol != Protocol::Records {
            if protocol == Protocol::Sync && matches!(error, OutboundFailure::UnsupportedProtocols) {
                self.replication.sync_peers.set(peer, false);
            }
            return self.on_answer(protocol, peer, id, Err(silence));
        }
        if self.on_hello_answered(peer, id, None) {
            return;
        }
        let Some((sent, _)) = self.rpc.outbox.take(protocol, peer, id) else { return };
        self.owes_less(peer);
        if self.peers.silence.is_silent(&peer) {
            match error {
                // The peer may answer after it wakes up.
                OutboundFailure::Timeout if self.swarm.is_connected(&peer) => self.probe(peer),
                OutboundFailure::Timeout
                | OutboundFailure::ConnectionClosed
                | OutboundFailure::DialFailure => {}
                // The peer has refused the stream.
                OutboundFailure::UnsupportedProtocols | OutboundFailure::Io(_) => self.heard_of(peer),
            }
            return;
        }
        let answer = match &silence {
            Silence::Unreachable(reason) => WriteAnswer::Unreachable(Arc::clone(reason)),
            Silence::TimedOut | Silence::Stopped => WriteAnswer::TimedOut,
        };
        self.give_up(peer, vec![sent], &answer, &silence);
    }

    /// Answers what was sent to a peer, and everything in its queue.
    fn give_up(&mut self, peer: PeerId, sent: Vec<Sent>, answer: &WriteAnswer, silence: &Silence) {
        let (mut asks, mut versions) = (Vec::new(), Vec::new());
        for sent in sent {
            match sent {
                Sent::Versions(sent) => versions.extend(sent),
                Sent::Question(ask) => asks.push(ask),
                Sent::Shared(questions) => asks.extend(questions.into_iter().map(|(_, asker)| asker)),
                Sent::Late(_) => {}
            }
        }
        let (waiting, questions) = self.rpc.outbox.give_up(peer);
        for outgoing in versions.into_iter().chain(waiting) {
            self.peers.silence.has_missed(&peer);
            self.on_delivered(peer, &outgoing.purpose, answer.clone());
        }
        for asker in asks.into_iter().chain(questions.into_iter().map(|(_, asker)| asker)) {
            self.on_answered(asker, peer, Err(silence.clone()));
        }
    }

    /// Stops waiting for a peer that has become silent. The peer may still answer the requests in
    /// flight.
    pub(crate) fn on_silent(&mut self, peer: PeerId) {
        tracing::debug!(%peer, "a peer is silent, and is not waited for");
        let sent = self.rpc.outbox.let_go(peer);
        self.give_up(peer, sent, &WriteAnswer::Pending, &Silence::TimedOut);
    }

    /// Records a message of a peer. If the peer was silent, it may have missed versions.
    pub(crate) fn heard_of(&mut self, peer: PeerId) {
        self.swarm.behaviour_mut().kad.heard_of(peer);
        if let Some(MissedVersions(has_missed)) = self.peers.silence.heard(peer, platform::now()) {
            tracing::debug!(%peer, "a silent peer answers again");
            if has_missed {
                self.peers.news.has_returned(peer);
            }
        }
    }

    fn on_answered(&mut self, asker: Asker, peer: PeerId, result: Result<Frame, Silence>) {
        match asker {
            Asker::Ask(ask) => self.on_question_answered(ask, peer, &result),
            Asker::Call(reply) => answer(reply, Ok(result)),
        }
    }

    fn on_delivered(&mut self, peer: PeerId, purpose: &Purpose, answer: WriteAnswer) {
        match *purpose {
            Purpose::Put(put) => self.on_sent(put, peer, answer),
            Purpose::Repair { .. } => {}
            Purpose::Members { .. } => self.peers.members.answered(&peer, &answer),
            Purpose::Mend(ask) => {
                let answer = if answer == WriteAnswer::Pending { WriteAnswer::TimedOut } else { answer };
                self.on_mended(ask, peer, answer);
            }
        }
    }

    /// Handles a silent peer's late answer to a put: the version need not be published again soon.
    fn on_late_answer(&mut self, key: &RecordKey, envelope: &Envelope, answer: &WriteAnswer) {
        let is_current = self.store.envelope(key).is_ok_and(|here| here.as_ref() == Some(envelope));
        if is_current && answer.is_heard(envelope) {
            let due = next_due(&self.store, self.config.dht.republish_interval, true);
            self.store.replica().schedule(key, envelope, Some(due));
            self.store.replica().note_heard(key, envelope);
        }
    }
}

/// Returns a peer's answers to `count` versions.
fn put_answers(response: &Frame, count: usize) -> Vec<WriteAnswer> {
    let answer = match response.bytes().map(Response::decode) {
        Ok(Ok(Response::Put(answers))) if answers.len() == count => {
            return answers.into_iter().map(WriteAnswer::from).collect();
        }
        Ok(Ok(Response::Failure(Failure::Busy))) => WriteAnswer::Refused(Refusal::Overloaded),
        Ok(Ok(Response::Failure(Failure::Slowed))) => WriteAnswer::Refused(Refusal::Slowed),
        Ok(Ok(Response::Failure(Failure::TooFast))) => WriteAnswer::Refused(Refusal::TooFast),
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

//! Requests to peers, and the callers that wait for their responses.
//!
//! At most [`MAX_PUTS_IN_FLIGHT`] puts to a peer are concurrent. Further versions are queued and
//! share the next put, so that many puts cost few requests, and a single one does not wait.
//! Questions to a peer are queued above a limit, too; single-key questions in the queue share a
//! request.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use libp2p::request_response::{OutboundFailure, OutboundRequestId};
use libp2p::{Multiaddr, PeerId};
use netabase_store::{Envelope, RecordKey};

use crate::event_loop::calls::CallId;
use crate::event_loop::command::Reply;
use crate::platform::Instant;
use crate::protocol::record::{PutRequest, is_same_question, share};
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;
use crate::rpc::limits::{MAX_PUTS_IN_FLIGHT, MAX_QUESTIONS_IN_FLIGHT, MAX_SHARED_QUESTIONS};
use crate::swarm::PutPermit;
use crate::telemetry::trace_context::TraceContext;

/// Returns whether two questions can share a request.
fn can_share(one: &Frame, other: &Frame) -> bool {
    matches!((one.bytes(), other.bytes()), (Ok(one), Ok(other)) if is_same_question(one, other))
}

/// A version that is sent to one peer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) key: RecordKey,
    pub(crate) envelope: Envelope,
    pub(crate) purpose: Purpose,
    /// The trace of the call that sends the version.
    pub(crate) trace: Option<TraceContext>,
}

/// The purpose of sending a version, and the call that waits for the answer. Every purpose holds a
/// permit of the put budget, which bounds the queues.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// A put.
    Put(CallId),
    /// The repair of a peer that answered a get with an older version or none. No call waits for
    /// it.
    Repair { _permit: Arc<PutPermit> },
    /// The member list, for a peer that may lack it. No call waits for it.
    Members { _permit: Arc<PutPermit> },
    /// A repair by a survey of a holder that lacks the newest version.
    Mend(CallId),
}

/// The contents of a request in flight.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Versions.
    Versions(Vec<Outgoing>),
    /// One question.
    Question(Asker),
    /// Several single-key questions.
    Shared(Vec<(Frame, Asker)>),
    /// A request that no caller waits for, with its versions: a probe, or a request to a peer that
    /// has become silent.
    Late(Vec<(RecordKey, Envelope)>),
}

/// A request in flight.
#[derive(Debug)]
struct InFlight {
    peer: PeerId,
    since: Instant,
    sent: Sent,
}

/// The caller that waits for the answer to a question.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A call that asks several peers.
    Ask(CallId),
    /// A caller that decodes the response itself.
    Call(Reply<Result<Frame, Silence>>),
}

/// The reason why a peer did not answer a question.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Silence {
    #[error("the peer did not answer in time")]
    TimedOut,
    #[error("{0}")]
    Unreachable(Arc<str>),
    #[error("this node has stopped")]
    Stopped,
}

impl Silence {
    pub(crate) fn of(protocol: Protocol, error: &OutboundFailure) -> Self {
        let reason = match error {
            OutboundFailure::Timeout => return Self::TimedOut,
            OutboundFailure::DialFailure => "the peer cannot be reached".into(),
            OutboundFailure::ConnectionClosed => "the connection was closed before the answer".into(),
            OutboundFailure::UnsupportedProtocols => {
                format!("the peer does not speak the {} protocol", protocol.name())
            }
            OutboundFailure::Io(error) => format!("the stream has failed: {error}"),
        };
        Self::Unreachable(reason.into())
    }
}

/// Requests to peers: those in flight, and the queues.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Ids are unique for each protocol. [`MAX_QUESTIONS_IN_FLIGHT`] bounds questions of the record
    /// protocol, [`MAX_PAGES_IN_FLIGHT`](crate::query::MAX_PAGES_IN_FLIGHT) those for pages, and
    /// the window of groups those for slices of blobs. A sync session has one or two requests.
    in_flight: HashMap<(Protocol, OutboundRequestId), InFlight>,
    lines: HashMap<PeerId, Line>,
}

/// The queue of one peer. The limit of calls bounds its callers.
#[derive(Debug, Default)]
struct Line {
    puts_in_flight: usize,
    questions_in_flight: usize,
    waiting: VecDeque<Outgoing>,
    questions: VecDeque<(Frame, Asker)>,
    /// The latest reported addresses of the peer.
    addresses: Vec<Multiaddr>,
}

impl Line {
    fn is_idle(&self) -> bool {
        self.puts_in_flight == 0
            && self.questions_in_flight == 0
            && self.waiting.is_empty()
            && self.questions.is_empty()
    }

    fn next_question(&mut self) -> Option<(Frame, Sent)> {
        if self.questions_in_flight >= MAX_QUESTIONS_IN_FLIGHT {
            return None;
        }
        let (request, ask) = self.questions.pop_front()?;
        self.questions_in_flight += 1;
        let mut shared = vec![(request.clone(), ask)];
        while shared.len() < MAX_SHARED_QUESTIONS
            && self.questions.front().is_some_and(|(next, _)| can_share(&request, next))
            && let Some(next) = self.questions.pop_front()
        {
            shared.push(next);
        }
        if shared.len() == 1 {
            return shared.pop().map(|(request, ask)| (request, Sent::Question(ask)));
        }
        let requests = shared.iter().filter_map(|(request, _)| request.bytes().ok());
        let traces = shared.iter().flat_map(|(request, _)| request.traces().iter().copied());
        Some((Frame::new(share(requests)).traced(traces), Sent::Shared(shared)))
    }

    fn next_put(&mut self, limit: usize) -> Option<(Frame, Sent)> {
        if self.puts_in_flight >= MAX_PUTS_IN_FLIGHT || self.waiting.is_empty() {
            return None;
        }
        let mut request = PutRequest::new(limit);
        let mut versions = Vec::new();
        while let Some(outgoing) = self.waiting.pop_front() {
            if !request.push((outgoing.key.as_bytes(), outgoing.envelope.to_wire().as_bytes())) {
                self.waiting.push_front(outgoing);
                break;
            }
            versions.push(outgoing);
        }
        self.puts_in_flight += 1;
        let traces = versions.iter().filter_map(|outgoing| outgoing.trace);
        Some((Frame::new(request.finish()).traced(traces), Sent::Versions(versions)))
    }
}

/// A request to send now.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) frame: Frame,
    pub(crate) sent: Sent,
    pub(crate) addresses: Vec<Multiaddr>,
}

impl Outbox {
    /// Queues a version for the next put to a peer.
    pub(crate) fn push_version(&mut self, peer: PeerId, addresses: &[Multiaddr], outgoing: Outgoing) {
        self.line(peer, addresses).waiting.push_back(outgoing);
    }

    /// Queues a question to a peer.
    pub(crate) fn push_question(
        &mut self,
        peer: PeerId,
        addresses: &[Multiaddr],
        question: Frame,
        ask: Asker,
    ) {
        self.line(peer, addresses).questions.push_back((question, ask));
    }

    /// Queues questions whose answers did not fit into a response in front of the others, in their
    /// order.
    pub(crate) fn ask_again(&mut self, peer: PeerId, questions: Vec<(Frame, Asker)>) {
        if !questions.is_empty() {
            let line = self.lines.entry(peer).or_default();
            questions.into_iter().rev().for_each(|question| line.questions.push_front(question));
        }
    }

    fn line(&mut self, peer: PeerId, addresses: &[Multiaddr]) -> &mut Line {
        let line = self.lines.entry(peer).or_default();
        line.addresses = addresses.to_vec();
        line
    }

    /// Returns the number of versions and questions that are queued or in flight.
    pub(crate) fn len(&self) -> usize {
        let waiting = self.lines.values().map(|line| line.waiting.len() + line.questions.len());
        let of_records = self.in_flight.iter().filter(|((protocol, _), _)| *protocol == Protocol::Records);
        let in_flight = of_records.map(|(_, request)| match &request.sent {
            Sent::Versions(versions) => versions.len(),
            Sent::Question(_) => 1,
            Sent::Shared(questions) => questions.len(),
            Sent::Late(_) => 0,
        });
        waiting.chain(in_flight).sum()
    }

    /// Returns the next request to a peer, of at most `limit` bytes, if it may be sent now.
    pub(crate) fn next(&mut self, peer: PeerId, limit: usize) -> Option<Request> {
        let line = self.lines.get_mut(&peer)?;
        let (frame, sent) = line.next_question().or_else(|| line.next_put(limit))?;
        Some(Request { frame, sent, addresses: line.addresses.clone() })
    }

    /// Records a request in flight.
    pub(crate) fn sent(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        id: OutboundRequestId,
        sent: Sent,
        now: Instant,
    ) {
        self.in_flight.insert((protocol, id), InFlight { peer, since: now, sent });
    }

    /// Removes a request from those in flight; returns its contents and the time at which it was
    /// sent.
    pub(crate) fn take(
        &mut self,
        protocol: Protocol,
        peer: PeerId,
        id: OutboundRequestId,
    ) -> Option<(Sent, Instant)> {
        let InFlight { sent, since, .. } = self.in_flight.remove(&(protocol, id))?;
        self.is_over(protocol, peer, &sent);
        Some((sent, since))
    }

    /// Returns whether a peer owes an answer that a caller waits for.
    pub(crate) fn is_waiting_for(&self, peer: &PeerId) -> bool {
        self.lines.get(peer).is_some_and(|line| line.puts_in_flight + line.questions_in_flight > 0)
    }

    /// Removes the callers of all requests in flight to a peer, and returns the contents. The
    /// answers may still arrive.
    pub(crate) fn let_go(&mut self, peer: PeerId) -> Vec<Sent> {
        let mut let_go = Vec::new();
        for ((protocol, _), request) in &mut self.in_flight {
            if request.peer != peer || !protocol.gives_up_on_silence() {
                continue;
            }
            let late = match &request.sent {
                Sent::Versions(versions) => versions
                    .iter()
                    .map(|outgoing| (outgoing.key.clone(), outgoing.envelope.clone()))
                    .collect(),
                Sent::Question(_) | Sent::Shared(_) => Vec::new(),
                Sent::Late(_) => continue,
            };
            let_go.push((*protocol, std::mem::replace(&mut request.sent, Sent::Late(late))));
        }
        for (protocol, sent) in &let_go {
            self.is_over(*protocol, peer, sent);
        }
        let_go.into_iter().map(|(_, sent)| sent).collect()
    }

    fn is_over(&mut self, protocol: Protocol, peer: PeerId, sent: &Sent) {
        let line = self.lines.get_mut(&peer).filter(|_| protocol == Protocol::Records);
        let Some(line) = line else { return };
        let in_flight = match sent {
            Sent::Versions(_) => &mut line.puts_in_flight,
            Sent::Question(_) | Sent::Shared(_) => &mut line.questions_in_flight,
            Sent::Late(_) => return,
        };
        *in_flight = in_flight.saturating_sub(1);
        self.forget_if_idle(peer);
    }

    /// Removes everything from the queue of a peer, which cannot be reached.
    pub(crate) fn give_up(&mut self, peer: PeerId) -> (VecDeque<Outgoing>, VecDeque<(Frame, Asker)>) {
        let Some(line) = self.lines.get_mut(&peer) else { return Default::default() };
        let waiting = (std::mem::take(&mut line.waiting), std::mem::take(&mut line.questions));
        self.forget_if_idle(peer);
        waiting
    }

    fn forget_if_idle(&mut self, peer: PeerId) {
        if self.lines.get(&peer).is_some_and(Line::is_idle) {
            self.lines.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::command::Reply;
    use crate::swarm::PutBudget;
    use netabase_store::{SigningKey, Timestamp};

    const LIMIT: usize = 1000;

    async fn outgoing(id: u8, len: usize) -> Outgoing {
        let key = RecordKey::new("Def", "Model", &[id]).unwrap();
        let (signer, payload) = (SigningKey::from_bytes(&[1; 32]), vec![0; len]);
        let envelope = Envelope::sign(&signer, &key, Timestamp::default(), 0, Some(&payload));
        let permit = PutBudget::default().permit(&envelope).await.unwrap();
        Outgoing { key, envelope, purpose: Purpose::Repair { _permit: Arc::new(permit) }, trace: None }
    }

    fn records(request: Option<Request>) -> usize {
        match request.map(|request| request.sent) {
            Some(Sent::Versions(versions)) => versions.len(),
            _ => 0,
        }
    }

    #[tokio::test]
    async fn versions_wait_while_two_puts_are_under_way_and_share_the_next() {
        let (mut outbox, peer) = (Outbox::default(), PeerId::random());
        for id in 0..2 {
            outbox.push_version(peer, &[], outgoing(id, 10).await);
            assert_eq!(records(outbox.next(peer, LIMIT)), 1);
        }
        for id in 2..6 {
            outbox.push_version(peer, &[], outgoing(id, 10).await);
            assert_eq!(records(outbox.next(peer, LIMIT)), 0);
        }
        outbox.lines.get_mut(&peer).unwrap().puts_in_flight -= 1;
        assert_eq!(records(outbox.next(peer, LIMIT)), 4);
    }

    #[tokio::test]
    async fn a_put_has_at_most_as_many_bytes_as_allowed() {
        let (mut outbox, peer) = (Outbox::default(), PeerId::random());
        for (id, len) in [(0, 300), (1, 300), (2, 300), (3, 2000)] {
            outbox.push_version(peer, &[], outgoing(id, len).await);
        }
        assert_eq!(records(outbox.next(peer, LIMIT)), 2);
        assert_eq!(records(outbox.next(peer, LIMIT)), 1);
        outbox.lines.get_mut(&peer).unwrap().puts_in_flight = 0;
        assert_eq!(records(outbox.next(peer, LIMIT)), 1, "one that is too large travels alone");
    }

    #[tokio::test]
    async fn questions_about_one_key_wait_while_many_are_under_way_and_share_the_next() {
        use crate::protocol::record::{get_request, versions_request};

        let (mut outbox, peer) = (Outbox::default(), PeerId::random());
        let mut ask =
            |frame| outbox.push_question(peer, &[], Frame::new(frame), Asker::Call(Reply::new(None).0));
        let keys: Vec<[u8; 1]> = (0..40).map(|key| [key]).collect();
        for key in &keys {
            ask(get_request([&key[..]], LIMIT));
        }
        ask(versions_request([&keys[0][..]], LIMIT));
        ask(get_request(keys.iter().map(<[u8; 1]>::as_slice), LIMIT));
        let first = outbox.next(peer, LIMIT).unwrap();
        assert_eq!(first.frame.bytes().unwrap(), get_request(keys.iter().map(<[u8; 1]>::as_slice), LIMIT));
        let Sent::Shared(shared) = first.sent else { panic!("it is one request") };
        assert_eq!(shared.len(), 40);
        let alone = [outbox.next(peer, LIMIT).unwrap(), outbox.next(peer, LIMIT).unwrap()];
        assert!(alone.iter().all(|request| matches!(request.sent, Sent::Question(_))));
        outbox.ask_again(peer, shared);
        assert_eq!(outbox.next(peer, LIMIT).unwrap().frame.bytes(), first.frame.bytes());
    }

    #[tokio::test]
    async fn a_peer_that_is_given_up_leaves_nothing_behind() {
        let (mut outbox, peer) = (Outbox::default(), PeerId::random());
        for id in 0..3 {
            outbox.push_version(peer, &[], outgoing(id, 10).await);
        }
        assert_eq!(outbox.give_up(peer).0.len(), 3);
        assert!(outbox.lines.is_empty());
    }
}

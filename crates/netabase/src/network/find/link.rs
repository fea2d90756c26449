//! The query protocol in the event loop: questions under way, and those of peers.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::PeerId;
use libp2p::request_response::{Event, Message, OutboundFailure, OutboundRequestId};

use crate::network::ask::Silence;
use crate::network::command::{Reply, answer};
use crate::network::ingest::{Job, Protocol, busy};
use crate::network::record_protocol::{self, Frame};
use crate::network::swarm::EventLoop;

/// Who waits for the answers to the questions under way: as many as [`MAX_PAGES_IN_FLIGHT`](super::MAX_PAGES_IN_FLIGHT).
#[derive(Debug, Default)]
pub(in crate::network) struct PagesInFlight(HashMap<OutboundRequestId, Reply<Result<Frame, Silence>>>);

impl EventLoop {
    /// Sends a peer a question for records.
    pub(in crate::network) fn ask_page(
        &mut self,
        peer: PeerId,
        request: Frame,
        reply: Reply<Result<Frame, Silence>>,
    ) {
        if !reply.is_awaited() {
            return;
        }
        let id = self.swarm.behaviour_mut().query.send_request(&peer, request.traced(reply.trace()));
        self.pages.0.insert(id, reply);
    }

    pub(in crate::network) fn on_query_protocol(&mut self, event: record_protocol::Event) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                let job = Job { peer, request, channel, view: None, protocol: Protocol::Query };
                if let Err(channel) = self.ingest.offer(job) {
                    self.meters.busy.add("query", 1);
                    self.respond(channel, busy());
                }
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                self.on_page_answered(request_id, Ok(response));
            }
            Event::OutboundFailure { request_id, error, .. } => {
                self.on_page_answered(request_id, Err(silence(&error)));
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a peer's question was not answered");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_page_answered(&mut self, id: OutboundRequestId, result: Result<Frame, Silence>) {
        if let Some(reply) = self.pages.0.remove(&id) {
            answer(reply, Ok(result));
        }
    }
}

fn silence(error: &OutboundFailure) -> Silence {
    let reason = match error {
        OutboundFailure::Timeout => return Silence::TimedOut,
        OutboundFailure::DialFailure => "the peer cannot be reached".into(),
        OutboundFailure::ConnectionClosed => "the connection was closed before the answer".into(),
        OutboundFailure::UnsupportedProtocols => "the peer does not speak the query protocol".into(),
        OutboundFailure::Io(error) => format!("the stream has failed: {error}"),
    };
    Silence::Unreachable(Arc::from(reason))
}

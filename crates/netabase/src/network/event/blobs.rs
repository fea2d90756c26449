//! What the blob protocol says.

use libp2p::PeerId;
use libp2p::request_response::{Event, Message, ResponseChannel};

use crate::error::NetabaseError;
use crate::network::blobs;
use crate::network::blobs::serve::{Done, Job};
use crate::network::blobs::wire::Response;
use crate::network::command::answer;
use crate::network::record_protocol::Frame;
use crate::network::record_protocol::wire::Failure;
use crate::network::swarm::EventLoop;

impl EventLoop {
    pub(in crate::network) fn on_blob_protocol(&mut self, event: blobs::Event) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                self.on_blob_request(peer, request, channel);
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                if let Some(reply) = self.blobs.asked.remove(&request_id) {
                    answer(reply, Ok(response));
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                tracing::debug!(%peer, %error, "a peer did not answer about a blob");
                if let Some(reply) = self.blobs.asked.remove(&request_id) {
                    answer(reply, Err(NetabaseError::Unreachable { peer }));
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a peer's request for a blob was not answered");
            }
            Event::ResponseSent { .. } => {}
        }
    }

    fn on_blob_request(&mut self, peer: PeerId, request: Frame, channel: ResponseChannel<Frame>) {
        if let Err(refused) = self.blobs.server.offer(Job { peer, request, channel }) {
            let Job { channel, .. } = *refused;
            self.meters.busy.add("blob", 1);
            let response = Frame::new(Response::Failure(Failure::Busy).encode());
            self.on_blob_request_done(Done { channel, response });
        }
    }

    /// A request of a peer was carried out.
    pub(in crate::network) fn on_blob_request_done(&mut self, done: Done) {
        let Done { channel, response } = done;
        // A peer that has gone away needs no answer.
        let _ = self.swarm.behaviour_mut().blobs.send_response(channel, response);
    }
}

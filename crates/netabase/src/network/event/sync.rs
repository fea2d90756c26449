//! What the sync protocol says.

use libp2p::request_response::{Event, Message, OutboundFailure};

use crate::error::NetabaseError;
use crate::network::command::answer;
use crate::network::ingest::{Job, Protocol, busy};
use crate::network::record_protocol;
use crate::network::swarm::EventLoop;

impl EventLoop {
    pub(in crate::network) fn on_sync(&mut self, event: record_protocol::Event) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                let job = Job { peer, request, channel, view: None, protocol: Protocol::Sync };
                // Others may have deleted what is here after a long absence; it is about to be discarded.
                let offered = if self.store.was_away() { Err(job.channel) } else { self.ingest.offer(job) };
                if let Err(channel) = offered {
                    self.meters.busy.add("sync", 1);
                    // A peer that has gone away needs no answer.
                    let _ = self.swarm.behaviour_mut().sync.send_response(channel, busy());
                }
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.swarm.behaviour_mut().kad.heard_of(peer);
                if let Some(reply) = self.sync_asked.remove(&request_id) {
                    answer(reply, Ok(response));
                }
            }
            Event::OutboundFailure { peer, request_id, error, .. } => {
                if matches!(error, OutboundFailure::UnsupportedProtocols) {
                    self.sync_peers.set(peer, false);
                }
                if let Some(reply) = self.sync_asked.remove(&request_id) {
                    answer(reply, Err(NetabaseError::Unreachable { peer }));
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a peer's request was not answered");
            }
            Event::ResponseSent { .. } => {}
        }
    }
}

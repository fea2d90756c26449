//! Large values between nodes: who has them, and slices of them, each verified where it arrives.
//!
//! A request and its response are a frame each, as in the record protocol. This module has the protocol, `wire`
//! what is in the frames, `serve` answers peers, `fetch` asks them, and `provide` tells the network what is here.

use std::collections::HashMap;

use libp2p::StreamProtocol;
use libp2p::request_response::{self, OutboundRequestId};

use super::Parts;
use super::command::Reply;
use super::record_protocol::{self, Frame};
use crate::error::NetabaseError;
use serve::{Done, Server};

pub(crate) mod fetch;
pub(super) mod provide;
pub(super) mod serve;
pub(super) mod wire;

/// The longest frame: a slice of 512 KiB and what proves it.
pub(super) const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// How many bytes of requests from peers are in memory, read or being read.
const MAX_INCOMING_BYTES: usize = 4 * 1024 * 1024;

/// What the blob protocol says.
pub(super) type Event = request_response::Event<Frame, Frame>;

/// Makes the behaviour of the protocol.
pub(super) fn behaviour(name: String) -> Result<record_protocol::Behaviour, NetabaseError> {
    let name = StreamProtocol::try_from_owned(name).map_err(NetabaseError::network)?;
    Ok(record_protocol::framed(name, MAX_FRAME_BYTES, MAX_INCOMING_BYTES))
}

/// What the event loop knows of requests about blobs.
#[derive(Debug)]
pub(super) struct Traffic {
    /// Those of peers.
    pub(super) server: Server,
    /// Who waits for the answer to ours; as many as fetches have slices under way.
    pub(super) asked: HashMap<OutboundRequestId, Reply<Frame>>,
}

impl Traffic {
    pub(super) fn new(parts: &Parts) -> Self {
        Self { server: Server::new(parts), asked: HashMap::new() }
    }

    /// Returns the next request that was carried out. Cancelling the call loses nothing.
    pub(super) async fn next(&mut self) -> Done {
        self.server.next().await
    }

    /// Ends; returns when nothing holds the store any more.
    pub(super) async fn stop(self) {
        self.server.stop().await;
    }
}

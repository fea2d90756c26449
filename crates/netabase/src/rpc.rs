//! Requests and responses between two nodes: frames of bounded length, their memory budgets,
//! requests in flight, and the threads that answer.
//!
//! This module knows no protocol: `protocol` has the contents of frames. Other modules send by
//! `outbox`, or by a command of the event loop, and `serve` calls them.

use libp2p::StreamProtocol;

use crate::connection::processor::Processor;
use crate::error::NetabaseError;
use crate::event_loop::behaviour::{record_protocol_name, sync_protocol_name};
use crate::rpc::outbox::Outbox;
use crate::rpc::serve::Server;
use crate::swarm::Parts;

pub(crate) mod backoff;
pub(crate) mod behaviour;
pub(crate) mod budget;
pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod limits;
pub(crate) mod outbox;
pub(crate) mod pool;
pub(crate) mod serve;
pub(crate) mod serving;
pub(crate) mod token_bucket;

/// Requests in both directions.
#[derive(Debug)]
pub(crate) struct Rpc {
    /// The requests of peers.
    pub(crate) server: Server,
    /// Requests to peers.
    pub(crate) outbox: Outbox,
    /// The processor time that peers take.
    pub(crate) processor: Processor,
    /// The name of the record protocol.
    pub(crate) record_protocol: StreamProtocol,
    /// The name of the sync protocol.
    pub(crate) sync_protocol: StreamProtocol,
}

impl Rpc {
    /// Creates the state for frames of at most `limit` bytes.
    pub(crate) fn new(parts: &Parts, limit: usize) -> Result<Self, NetabaseError> {
        Ok(Self {
            server: serve::server(parts, limit),
            outbox: Outbox::default(),
            processor: parts.processor.clone(),
            record_protocol: record_protocol_name(&parts.network)?,
            sync_protocol: sync_protocol_name(&parts.network)?,
        })
    }
}

/// The protocols of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Records,
    Query,
    Sync,
    Blobs,
}

impl Protocol {
    /// Returns its name in metrics, traces and messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Records => "record",
            Self::Query => "query",
            Self::Sync => "sync",
            Self::Blobs => "blob",
        }
    }

    /// Returns whether calls stop waiting for a silent peer. A slice of a blob may fill a slow
    /// link, and a fetch has a timeout of its own.
    pub(crate) const fn gives_up_on_silence(self) -> bool {
        !matches!(self, Self::Blobs)
    }
}

//! The responder of the blob protocol. It reads and hashes files, so it runs on a blocking thread.

use std::sync::Arc;

use libp2p::PeerId;
use netabase_store::blob::{BlobError, BlobStore};

use crate::peers::score::PeerScores;
use crate::protocol::blob::{Request, Response};
use crate::protocol::record::Failure;
use crate::rpc::frame::Frame;
use crate::swarm::Parts;
use crate::telemetry::metrics::Meters;

/// The responder of the blob protocol.
#[derive(Debug)]
pub(crate) struct Responder {
    blobs: BlobStore,
    scores: PeerScores,
    meters: Arc<Meters>,
}

impl Responder {
    pub(crate) fn new(parts: &Parts) -> Self {
        let meters = Arc::clone(parts.metrics.meters());
        Self { blobs: parts.store.blobs(), scores: parts.scores.clone(), meters }
    }

    /// Returns the response.
    pub(crate) fn answer(&self, peer: PeerId, request: &Frame) -> Vec<u8> {
        match request.bytes().and_then(Request::decode) {
            // A slowed peer cannot ask faster than it may send.
            Ok(_) if !self.scores.allow_records(&peer, 1) => Response::Failure(Failure::Busy).encode(),
            Ok(Request::Have(blob)) if self.blobs.has(&blob) => Response::Have.encode(),
            Ok(Request::Have(_)) => Response::NotHere.encode(),
            Ok(Request::Get { blob, first, count }) => {
                match self.blobs.slice(&blob, first..first.saturating_add(count.into())) {
                    Ok(slice) => {
                        self.meters.blob_bytes.add("out", u64::try_from(slice.len()).unwrap_or(u64::MAX));
                        Response::Slice(&slice).encode()
                    }
                    Err(BlobError::Missing { .. } | BlobError::OutOfRange { .. }) => {
                        Response::NotHere.encode()
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the blob that a peer requests");
                        Response::NotHere.encode()
                    }
                }
            }
            Err(failure) => Response::Failure(failure).encode(),
        }
    }
}

//! Requests of peers, of all protocols: they are queued for a thread, which answers them.

use libp2p::PeerId;
use libp2p::request_response::ResponseChannel;

use crate::admission::Offence;
use crate::blobs::limits::MAX_BLOB_FRAME_BYTES;
use crate::blobs::respond as blobs;
use crate::connection::limits::USEFUL_BYTES;
use crate::connection::processor::Processor;
use crate::dht::holders::View;
use crate::ops::respond as records;
use crate::protocol::record::Failure;
use crate::query::respond as query;
use crate::replication::sync;
use crate::rpc::Protocol;
use crate::rpc::frame::{Frame, ResponseBudget};
use crate::rpc::limits::{MAX_OUTGOING_BYTES, REQUEST_LIMITS};
use crate::rpc::pool::{Order, Pool};
use crate::rpc::serving::Serving;
use crate::swarm::Parts;

/// A request of a peer.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) protocol: Protocol,
    pub(crate) request: Frame,
    pub(crate) channel: ResponseChannel<Frame>,
    /// The view of the network, for a comparison.
    pub(crate) view: Option<Box<View>>,
}

/// A processed request.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) peer: PeerId,
    pub(crate) channel: ResponseChannel<Frame>,
    pub(crate) response: Frame,
    /// The peer's records that were refused.
    pub(crate) refused: Vec<Offence>,
}

/// Queued and running requests of peers.
pub(crate) type Server = Pool<Incoming, Done>;

/// The responders of all protocols.
#[derive(Debug)]
struct Responders {
    records: records::Responder,
    query: query::Responder,
    sync: sync::Responder,
    blobs: blobs::Responder,
    budget: ResponseBudget,
    processor: Processor,
}

/// Creates the pool that answers peers, with at most `limit` bytes of records in one response.
pub(crate) fn server(parts: &Parts, limit: usize) -> Server {
    let responders = Responders {
        records: records::Responder::new(parts, limit),
        query: query::Responder::new(parts, limit),
        sync: sync::Responder::new(parts),
        blobs: blobs::Responder::new(parts),
        budget: ResponseBudget::new(MAX_OUTGOING_BYTES, limit.max(MAX_BLOB_FRAME_BYTES)),
        processor: parts.processor.clone(),
    };
    let work = move |peer, incoming| responders.carry_out(peer, incoming);
    Pool::new(REQUEST_LIMITS, Order::Fair, parts.processor.clone(), work)
}

impl Responders {
    /// Answers a request, unless its peer has disconnected.
    fn carry_out(&self, peer: PeerId, incoming: Incoming) -> Option<Done> {
        let Incoming { protocol, request, channel, view } = incoming;
        if !channel.is_open() {
            return None;
        }
        let serving = Serving::begin(protocol.name(), peer, &request);
        let (answer, refused) = match protocol {
            Protocol::Records => self.records.answer(peer, &request, view.as_deref()),
            Protocol::Query => (self.query.answer(peer, &request), Vec::new()),
            Protocol::Sync => self.sync.answer(peer, request.bytes()),
            Protocol::Blobs => (self.blobs.answer(peer, &request), Vec::new()),
        };
        // The responder of records counts them.
        if protocol != Protocol::Records {
            self.processor.was_useful(peer, answer.len() / USEFUL_BYTES);
        }
        let response = self.budget.frame(peer, answer);
        serving.end(&response);
        Some(Done { peer, channel, response, refused })
    }
}

/// Returns the response to a request that is not carried out because the node is busy.
pub(crate) fn busy() -> Frame {
    Frame::failure(Failure::Busy)
}

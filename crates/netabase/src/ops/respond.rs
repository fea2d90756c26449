//! The responder of the record protocol, which checks the records of puts. It reads and writes the
//! store, so it runs on a blocking thread.

use libp2p::PeerId;
use netabase_store::{Envelope, NetabaseStore, RecordKey, StoreError};

use crate::admission::{Admission, Offence, Source};
use crate::connection::processor::Processor;
use crate::dht::holders::View;
use crate::outcome::VersionId;
use crate::peers::score::{PeerScores, Throttle};
use crate::protocol::record::{Failure, GetResponse, PutAnswer, RecordsResponse, Request, Response};
use crate::replication::repair::respond;
use crate::rpc::frame::Frame;
use crate::swarm::Parts;

/// The responder of the record protocol.
#[derive(Debug)]
pub(crate) struct Responder {
    store: NetabaseStore,
    scores: PeerScores,
    processor: Processor,
    admission: Admission,
    /// The most bytes of a response.
    limit: usize,
}

impl Responder {
    pub(crate) fn new(parts: &Parts, limit: usize) -> Self {
        let (store, scores) = (parts.store.clone(), parts.scores.clone());
        Self { store, scores, processor: parts.processor.clone(), admission: parts.admission(), limit }
    }

    /// Returns the response, and the refused records of the peer. `view` is needed for a
    /// comparison.
    pub(crate) fn answer(
        &self,
        peer: PeerId,
        request: &Frame,
        view: Option<&View>,
    ) -> (Vec<u8>, Vec<Offence>) {
        let Self { store, limit, .. } = self;
        let limit = *limit;
        let mut refused = Vec::new();
        let response = match request.bytes().and_then(Request::decode) {
            // The peer has used up its quota or is slowed: the request is not carried out.
            Ok(request) if let Err(throttle) = self.scores.check_records(&peer, records_in(&request)) => {
                Response::Failure(throttle.into()).encode(limit)
            }
            Ok(Request::Put(records)) => {
                let answers = records.into_iter().map(|record| self.keep(peer, record, &mut refused));
                let answers: Vec<PutAnswer> = answers.collect();
                let is_kept = |answer: &&PutAnswer| matches!(answer, PutAnswer::Stored | PutAnswer::Known);
                self.processor.was_useful(peer, answers.iter().filter(is_kept).count());
                Response::Put(answers).encode(limit)
            }
            Ok(Request::Get(keys)) => {
                let mut copies = GetResponse::new(limit);
                let mut found = 0;
                keys.into_iter().all(|key| {
                    let copy = signed(store, key);
                    found += usize::from(copy.is_some());
                    copies.push(copy.as_ref().map(Envelope::as_bytes))
                });
                self.processor.was_useful(peer, found);
                copies.finish()
            }
            Ok(Request::Versions(keys)) => {
                let version = |key| version_of(store, key);
                Response::Versions(keys.into_iter().map(version).collect()).encode(limit)
            }
            Ok(Request::Compare(ranges)) => {
                let compared = view.map(|view| respond::compare(store, view, peer, &ranges));
                let compared = compared.unwrap_or_else(|| Ok((Vec::new(), 0)));
                let compared = compared.map(|(compared, cost)| {
                    self.scores.spend(&peer, cost);
                    Response::Compared(compared)
                });
                response_or_failure(compared, limit)
            }
            Ok(Request::Offer(items)) => {
                response_or_failure(respond::wanted(store, &items).map(Response::Wanted), limit)
            }
            Ok(Request::Fetch(positions)) => {
                let mut records = RecordsResponse::new(limit);
                match respond::fetch(store, &positions, &mut records) {
                    Ok(()) => records.finish(),
                    Err(error) => response_or_failure(Err(error), limit),
                }
            }
            // The event loop answers hellos.
            Ok(Request::Hello(_)) => Response::Failure(Failure::UnknownRequest).encode(limit),
            Err(failure) => Response::Failure(failure).encode(limit),
        };
        (response, refused)
    }

    /// Stores a record that a peer has put, if it is valid.
    fn keep(&self, peer: PeerId, (key, value): (&[u8], &[u8]), refused: &mut Vec<Offence>) -> PutAnswer {
        match self.admission.admit(Source::Put, peer, key, value) {
            Ok(true) => PutAnswer::Stored,
            Ok(false) => PutAnswer::Known,
            Err(refusal) => {
                refused.extend(refusal.offence);
                PutAnswer::Refused(refusal.reason)
            }
        }
    }
}

/// Returns the number of records that a request counts as, so that a slowed peer cannot ask faster
/// than it may put.
fn records_in(request: &Request<'_>) -> usize {
    match request {
        Request::Put(records) => records.len(),
        Request::Get(_)
        | Request::Versions(_)
        | Request::Compare(_)
        | Request::Offer(_)
        | Request::Fetch(_)
        | Request::Hello(_) => 1,
    }
}

impl From<Throttle> for Failure {
    fn from(throttle: Throttle) -> Self {
        match throttle {
            Throttle::Slowed => Self::Slowed,
            Throttle::TooFast => Self::TooFast,
        }
    }
}

fn response_or_failure(response: Result<Response<'_>, StoreError>, limit: usize) -> Vec<u8> {
    let failed = |error: &StoreError| tracing::warn!(%error, "cannot read the records that a peer requests");
    response.inspect_err(failed).unwrap_or(Response::Failure(Failure::Other)).encode(limit)
}

/// Returns the version under a key if it is one that peers may have. An unreadable record counts as
/// missing.
fn signed(store: &NetabaseStore, key: &[u8]) -> Option<Envelope> {
    let key = RecordKey::parse(key).ok()?;
    let found = store.envelope(&key);
    let envelope = found.inspect_err(|error| tracing::warn!(%error, %key, "cannot read a record")).ok()??;
    envelope.is_signed().then(|| envelope.to_wire())
}

/// Returns the id of the version under a key if it is one that peers may have. An unreadable record
/// counts as missing.
fn version_of(store: &NetabaseStore, key: &[u8]) -> Option<VersionId> {
    let key = RecordKey::parse(key).ok()?;
    let found = store.replica().version_of(&key);
    let found = found.inspect_err(|error| tracing::warn!(%error, %key, "cannot read a record")).ok()?;
    found.map(|(timestamp, fingerprint)| VersionId { timestamp, fingerprint })
}

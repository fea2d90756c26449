//! The responder of the sync protocol. It reads the store, so it runs on a blocking thread.

use std::sync::Arc;

use libp2p::PeerId;
use netabase_store::replica::ScopeError;
use netabase_store::replica::{SyncBound, SyncError, SyncItem, SyncSet};
use netabase_store::schema::IndexKeys;
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal, Scope, ScopePart, StoreError};

use crate::admission::{Admission, Offence, Source};
use crate::outcome::VersionId;
use crate::peers::score::{PeerScores, Throttle};
use crate::protocol::record::{Failure, PutAnswer};
use crate::protocol::sync as wire;
use crate::protocol::sync::{Need, Records, Request, WireScope};
use crate::replication::live::Overrun;
use crate::replication::sync::limits::{
    ENTRIES_PER_RECORD, FRAME_RESERVE, MANY_MORE, MANY_TIMES, MAX_SYNC_SCANNED, SYNC_FRAME_BYTES,
};
use crate::replication::sync::replication::Replications;
use crate::replication::sync::report::SyncReport;
use crate::rpc::codec::WireRecord;
use crate::swarm::Parts;
use crate::telemetry::metrics::Meters;

/// The responder of the sync protocol.
#[derive(Debug)]
pub(crate) struct Responder {
    store: NetabaseStore,
    scores: PeerScores,
    admission: Admission,
    replications: Replications,
    meters: Arc<Meters>,
    /// The peers that report lost live changes.
    overrun: Overrun,
}

/// The number of records of a response, and the response.
type Served = (usize, Vec<u8>);

/// A response, and the refused records of the request.
pub(crate) type Answered = (Vec<u8>, Vec<Offence>);

impl Responder {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            scores: parts.scores.clone(),
            admission: parts.admission(),
            replications: parts.replications.clone(),
            meters: Arc::clone(parts.metrics.meters()),
            overrun: parts.live.overrun().clone(),
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, peer: PeerId, request: Result<&[u8], Failure>) -> Answered {
        let mut refused = Vec::new();
        if request.is_ok_and(wire::is_overrun) {
            let answer = if self.scores.allow_records(&peer, 1) {
                self.overrun.add(peer);
                wire::overrun_request()
            } else {
                wire::failure(Failure::Busy)
            };
            return (answer, refused);
        }
        let answer = request
            .and_then(wire::decode_request)
            .and_then(|(scope, request)| self.carry_out(peer, &scope, request, &mut refused));
        (answer.unwrap_or_else(wire::failure), refused)
    }

    fn carry_out(
        &self,
        peer: PeerId,
        wire_scope: &WireScope<'_>,
        request: Request<'_>,
        refused: &mut Vec<Offence>,
    ) -> Result<Vec<u8>, Failure> {
        let scope = self.scope(wire_scope).ok_or(Failure::Other);
        // The request of a peer without quota is not carried out.
        match self.scores.check_records(&peer, records_in(&request)) {
            Ok(()) => {}
            Err(throttle) => {
                let is_given = matches!(request, Request::Give(_)) && throttle == Throttle::TooFast;
                if is_given && scope.is_ok_and(|scope| self.replications.keeps(&scope)) {
                    // This node fetches the records at its own pace.
                    self.overrun.add(peer);
                }
                return Err(Failure::Busy);
            }
        }
        let scope = scope?;
        match request {
            Request::Reconcile { count, message } => {
                self.of_set(peer, &scope, |set| self.reconcile(peer, &scope, set, count, message))
            }
            Request::Fetch(needs) => {
                self.replications.heard_from(peer, &scope);
                let fetched = self.of_set(peer, &scope, |set| fetch(set, &needs).map_err(failed));
                fetched.map(|served| self.count(&scope, served))
            }
            Request::Range { from, to } => {
                // The peer fetches missing records itself.
                self.replications.heard_from(peer, &scope);
                let ranged = self.of_set(peer, &scope, |set| range(set, &from, &to).map_err(failed));
                ranged.map(|served| self.count(&scope, served))
            }
            Request::Give(records) => self.take(peer, &scope, &records, refused),
            Request::Later(versions) => {
                self.scores.spend(&peer, price(versions.len()));
                self.later(&scope, &versions).map_err(failed)
            }
        }
    }

    fn count(&self, scope: &Scope, (records, answer): Served) -> Vec<u8> {
        let sent = u64::try_from(records).unwrap_or(u64::MAX);
        self.replications.count(scope, &SyncReport { sent, ..SyncReport::default() });
        self.meters.served_sync(records, answer.len());
        answer
    }

    /// Answers from the set of a scope, and charges the peer for the entries that were read: its
    /// next request waits for them.
    fn of_set<T>(
        &self,
        peer: PeerId,
        scope: &Scope,
        answer: impl FnOnce(&mut SyncSet) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut set = self.store.replica().sync_set(scope).map_err(|error| {
            if matches!(error, StoreError::Scope(ScopeError::TooLarge { .. })) {
                self.scores.spend(&peer, price(SyncSet::MAX_VALUE_ITEMS));
            }
            failed(error)
        })?;
        let answer = answer(&mut set);
        self.scores.spend(&peer, price(set.entries_read()));
        answer
    }

    fn scope(&self, scope: &WireScope<'_>) -> Option<Scope> {
        let of_model = self.store.replica().model_of_tag(&scope.model)?;
        let Some((index, key)) = scope.value else { return Some(of_model) };
        if key.len() > IndexKeys::MAX_KEY_BYTES || index.len() > RecordKey::MAX_NAME_BYTES {
            return None;
        }
        let ScopePart::Model(model) = of_model.part else { return None };
        let (index, key) = (String::from_utf8(index.to_vec()).ok()?, key.to_vec());
        Some(Scope { definition: of_model.definition, part: ScopePart::Value { model, index, key } })
    }

    fn reconcile(
        &self,
        peer: PeerId,
        scope: &Scope,
        set: &mut SyncSet,
        count: u32,
        message: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        let keeps = self.replications.keeps(scope);
        self.replications.heard_from(peer, scope);
        let theirs = usize::try_from(count).unwrap_or(usize::MAX);
        if set.len() > theirs.saturating_mul(MANY_TIMES).saturating_add(MANY_MORE) {
            return Ok(wire::reconciled(keeps, set.len(), &[]));
        }
        let limit = (SYNC_FRAME_BYTES - FRAME_RESERVE).max(SyncSet::MIN_MESSAGE_BYTES);
        let answer = set.respond(message, limit).map_err(|error| match error {
            SyncError::Store(error) => failed(error),
            _ => Failure::Malformed,
        })?;
        Ok(wire::reconciled(keeps, set.len(), &answer))
    }

    /// Stores the records that a peer sends, if this node replicates the scope and they belong to
    /// it.
    fn take(
        &self,
        peer: PeerId,
        scope: &Scope,
        records: &[WireRecord<'_>],
        refused: &mut Vec<Offence>,
    ) -> Result<Vec<u8>, Failure> {
        if !self.replications.keeps(scope) {
            return Err(Failure::Other);
        }
        let mut take = |(key, value): &WireRecord<'_>| {
            let parsed = RecordKey::parse(key).ok();
            // For a value scope, records that have left the value come, too.
            if parsed.as_ref().is_some_and(|key| !is_of_model(scope, key)) {
                return PutAnswer::Refused(Refusal::Other);
            }
            match self.admission.admit(Source::Given, peer, key, value) {
                Ok(true) => PutAnswer::Stored,
                Ok(false) => PutAnswer::Known,
                Err(refusal) => {
                    refused.extend(refusal.offence);
                    PutAnswer::Refused(refusal.reason)
                }
            }
        };
        let answers: Vec<_> = records.iter().map(&mut take).collect();
        if answers.contains(&PutAnswer::Refused(Refusal::TooFast)) {
            // This node fetches them at its own pace.
            self.overrun.add(peer);
        }
        let stored = answers.iter().filter(|answer| **answer == PutAnswer::Stored).count();
        let received = u64::try_from(stored).unwrap_or(u64::MAX);
        self.replications.count(scope, &SyncReport { received, ..SyncReport::default() });
        Ok(wire::given(&answers))
    }

    /// Sends the local versions that are later than the peer's.
    fn later(&self, scope: &Scope, versions: &[(&[u8], VersionId)]) -> Result<Vec<u8>, StoreError> {
        let mut records = Records::answer(SYNC_FRAME_BYTES);
        for (key, version) in versions {
            let key = RecordKey::parse(key).ok().filter(|key| is_of_model(scope, key));
            let stored = match &key {
                Some(key) => self.store.replica().version_for_peers(key)?.filter(Envelope::is_signed),
                None => None,
            };
            let is_later = |stored: &Envelope| {
                let here = VersionId::of(stored);
                let is_newer = stored.timestamp() >= Some(version.timestamp);
                here.is_some_and(|here| here != *version) && (is_newer || stored.is_bundle())
            };
            let later = stored.filter(is_later).map(|stored| stored.to_wire());
            let record = key.as_ref().zip(later.as_ref());
            let record = record.map(|(key, later)| (key.as_bytes(), later.as_bytes()));
            if !records.push_later(record) {
                break;
            }
        }
        Ok(records.later())
    }
}

/// Returns the number of records that a request counts as.
fn records_in(request: &Request<'_>) -> usize {
    match request {
        Request::Give(records) => records.len().max(1),
        Request::Reconcile { .. } | Request::Fetch(_) | Request::Range { .. } | Request::Later(_) => 1,
    }
}

/// Returns the number of records that `entries` read entries count as.
const fn price(entries: usize) -> usize {
    entries / ENTRIES_PER_RECORD
}

fn fetch(set: &mut SyncSet, needs: &[Need]) -> Result<Served, StoreError> {
    let (mut records, mut done, mut scanned) = (Records::answer(SYNC_FRAME_BYTES), 0, 0);
    for need in needs {
        if scanned >= MAX_SYNC_SCANNED {
            break;
        }
        let (mut fits, mut left) = (true, need.ids.len());
        let is_wanted = |item: &SyncItem| need.ids.iter().any(|prefix| item.id.starts_with(prefix));
        let mut visit = |_, record: Option<(RecordKey, Envelope)>| {
            left = left.saturating_sub(1);
            if let Some((key, envelope)) = record {
                fits = records.push((key.as_bytes(), envelope.as_bytes()));
            }
            fits && left > 0
        };
        scanned += set.read_at_most(MAX_SYNC_SCANNED, &need.from, &need.to, is_wanted, &mut visit)?;
        if !fits {
            break;
        }
        done += 1;
    }
    Ok((records.len(), records.fetched(done)))
}

fn range(set: &mut SyncSet, from: &SyncBound, to: &SyncBound) -> Result<Served, StoreError> {
    let (mut records, mut next) = (Records::answer(SYNC_FRAME_BYTES), None);
    let mut visit = |item, record: Option<(RecordKey, Envelope)>| {
        let fits = record.is_none_or(|(key, envelope)| records.push((key.as_bytes(), envelope.as_bytes())));
        if !fits {
            next = Some(SyncBound::before(item));
        }
        fits
    };
    set.read(from, to, |_| true, &mut visit)?;
    Ok((records.len(), records.ranged(next.as_ref())))
}

/// Returns whether a record belongs to the model of a scope.
pub(super) fn is_of_model(scope: &Scope, key: &RecordKey) -> bool {
    let (ScopePart::Model(model) | ScopePart::Value { model, .. }) = &scope.part else { return false };
    key.definition() == scope.definition && key.model() == model
}

fn failed(error: StoreError) -> Failure {
    match error {
        StoreError::Scope(ScopeError::Unknown { .. } | ScopeError::TooLarge { .. }) => Failure::Other,
        error => {
            tracing::warn!(%error, "cannot read the records that a peer requests");
            Failure::Busy
        }
    }
}

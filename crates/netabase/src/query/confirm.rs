//! Confirmation: peers are asked for newer versions of the results.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use netabase_store::{Envelope, RecordKey};

use crate::admission::Source;
use crate::error::NetabaseError;
use crate::ops::answers;
use crate::outcome::VersionId;
use crate::platform::{self};
use crate::protocol::record::{get_request, versions_request};
use crate::query::intake::Outcome;
use crate::query::limits::{CONFIRM_REQUEST_BYTES, CONFIRM_TIMEOUTS};
use crate::query::merge::{Merge, SourceId};
use crate::query::run::{Asker, on_a_thread};
use crate::rpc::Protocol;
use crate::rpc::frame::Frame;

/// The records to confirm, and the sources that have sent them.
pub(crate) type Ready = Vec<(RecordKey, Envelope, HashSet<SourceId>)>;

impl Asker {
    /// Adds the newer versions that other peers have of some records. Peers that do not answer in
    /// time are ignored.
    pub(crate) async fn confirm(
        &self,
        mut merge: Merge,
        ready: Ready,
        peers: &[(Option<SourceId>, PeerId)],
        timeout: Duration,
    ) -> Result<Merge, NetabaseError> {
        let deadline = platform::now() + timeout * CONFIRM_TIMEOUTS;
        let mut asked = FuturesUnordered::new();
        for (source, peer) in peers {
            // A source that has sent a record has sent its newest version of it.
            let has_told = |sources: &HashSet<SourceId>| source.is_some_and(|id| sources.contains(&id));
            let unknown = ready.iter().filter(|(_, _, sources)| !has_told(sources));
            let keys: Vec<Known> = unknown.map(|(key, envelope, _)| Known::of(key, envelope)).collect();
            if !keys.is_empty() {
                asked.push(self.newer_at(*peer, keys, timeout));
            }
        }
        while let Some((peer, mut keys)) = asked.next().await {
            // Another peer may have sent the same version meanwhile.
            while let Some(frame) = self.fetch(peer, &keys, timeout.min(deadline - platform::now())).await {
                let (store, admission) = (self.store().clone(), self.admission().clone());
                let (returned, mut outcome, left) = on_a_thread(move || {
                    let mut outcome = Outcome::default();
                    let values = answers::copies(&frame, keys.len()).unwrap_or_default();
                    // As many as fit into a response; the others are requested again.
                    let left = keys.split_off(values.len());
                    let left = if values.is_empty() { Vec::new() } else { left };
                    for (key, value) in keys.into_iter().zip(values) {
                        match value.map(|value| admission.check(Source::Query, peer, &key, value)) {
                            Some(Ok(checked)) => merge.confirm(&store, key, checked.envelope()),
                            Some(Err(refused)) => outcome.refused.extend(refused.offence),
                            None => {}
                        }
                    }
                    (merge, outcome, left)
                })
                .await?;
                (merge, keys) = (returned, left);
                self.tell_refused(peer, &mut outcome).await;
            }
        }
        Ok(merge)
    }

    /// Asks a peer for its versions; returns the keys under which it claims versions that may be
    /// newer.
    async fn newer_at(&self, peer: PeerId, keys: Vec<Known>, timeout: Duration) -> (PeerId, Vec<RecordKey>) {
        let request = versions_request(keys.iter().map(|known| known.key.as_bytes()), CONFIRM_REQUEST_BYTES);
        let Some(frame) = self.ask_records(peer, request, timeout).await else { return (peer, Vec::new()) };
        let versions = answers::versions(&frame, keys.len()).unwrap_or_default();
        let claims = keys.into_iter().zip(versions);
        let newer = claims.filter(|(known, claim)| known.is_older(*claim)).map(|(known, _)| known.key);
        (peer, newer.collect())
    }

    async fn fetch(&self, peer: PeerId, keys: &[RecordKey], timeout: Duration) -> Option<Frame> {
        if keys.is_empty() || timeout.is_zero() {
            return None;
        }
        let request = get_request(keys.iter().map(RecordKey::as_bytes), CONFIRM_REQUEST_BYTES);
        self.ask_records(peer, request, timeout).await
    }

    /// Sends a request by the record protocol.
    async fn ask_records(&self, peer: PeerId, request: Vec<u8>, timeout: Duration) -> Option<Frame> {
        let answer = self.commands().ask(Protocol::Records, peer, Frame::new(request));
        platform::timeout(timeout, answer).await.ok()?.ok()
    }
}

/// A version that was found.
struct Known {
    key: RecordKey,
    version: Option<VersionId>,
    is_bundle: bool,
}

impl Known {
    fn of(key: &RecordKey, envelope: &Envelope) -> Self {
        Self { key: key.clone(), version: VersionId::of(envelope), is_bundle: envelope.is_bundle() }
    }

    /// Returns whether a version that a peer claims may be newer. For a merged record every other
    /// version may have more contributions.
    fn is_older(&self, claim: Option<VersionId>) -> bool {
        match (claim, self.version) {
            (Some(claim), Some(known)) => {
                let is_other = claim.fingerprint != known.fingerprint;
                is_other && (self.is_bundle || claim.timestamp >= known.timestamp)
            }
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

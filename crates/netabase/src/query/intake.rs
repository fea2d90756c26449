//! Decoding and verification of a source's answers.

use std::collections::HashSet;

use libp2p::PeerId;
use netabase_store::key::KeySpan;
use netabase_store::query::{PageBounds, ResolvedQuery};
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal};

use crate::admission::{Admission, Offence, Source};
use crate::error::NetabaseError;
use crate::protocol::query::PageResponse;
use crate::protocol::record::Failure;
use crate::query::limits::PAGE_BYTES;
use crate::query::merge::{Merge, SourceId};
use crate::query::report::HolderFailure;
use crate::rpc::frame::Frame;

/// The request to a source.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) span: KeySpan,
    pub(crate) records: usize,
}

/// An answer of a source that is to be decoded.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) store: NetabaseStore,
    pub(crate) admission: Admission,
    pub(crate) source: SourceId,
    pub(crate) asked: Asked,
    pub(crate) frame: Frame,
}

/// The outcome of an answer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The number of records that were read: verified and matching, or of other authors.
    pub(crate) records: u64,
    /// The number of those records that were read and left out for their author.
    pub(crate) of_others: u64,
    /// The number of records that a later version of the program wrote.
    pub(crate) skipped: u64,
    pub(crate) refused_records: u64,
    /// The offences to report.
    pub(crate) refused: Vec<Offence>,
    /// The last index entry that the answer covers, and the rest of the span, or `None` if nothing
    /// is left.
    pub(crate) last: Option<Vec<u8>>,
    pub(crate) left: Option<KeySpan>,
    pub(crate) failure: Option<HolderFailure>,
    /// This node cannot read its own records.
    pub(crate) error: Option<NetabaseError>,
}

/// Returns whether an answer is `Busy`.
pub(crate) fn is_busy(frame: &Frame) -> bool {
    let response = frame.bytes().ok().and_then(|bytes| PageResponse::decode(bytes).ok());
    response == Some(PageResponse::Failure(Failure::Busy))
}

impl Outcome {
    fn failed(failure: HolderFailure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// Marks the peer as misbehaving, which no honest peer does.
    fn misbehaved(mut self) -> Self {
        self.refused.push(Offence::passed_on(None, Refusal::InvalidEnvelope));
        self.failure = Some(HolderFailure::Misbehaved);
        self
    }
}

impl Intake {
    /// Reads the records of this node.
    pub(crate) fn read_local(self, merge: &mut Merge) -> Outcome {
        let Self { store, source, asked, .. } = self;
        let query = merge.query().narrowed(asked.span.clone(), asked.records);
        let mut outcome = Outcome::default();
        let (mut found, mut bytes) = (Vec::new(), 0);
        let bounds = PageBounds { entries: usize::MAX, bytes: usize::MAX };
        let take = |key: &RecordKey, envelope: Envelope| {
            bytes += envelope.as_bytes().len();
            // At least one record, and no more at a time than in a peer's page.
            let fits = found.is_empty() || bytes <= PAGE_BYTES;
            if fits {
                found.push((key.clone(), envelope));
            }
            fits
        };
        let end = query.page(&store, bounds, |_| true, take);
        match end {
            Ok(end) => {
                for (key, envelope) in found {
                    outcome.records += 1;
                    if merge.authors().passes(&envelope) {
                        merge.add(&store, source, key, envelope);
                    } else {
                        outcome.of_others += 1;
                    }
                }
                if !end.is_last {
                    go_on(&mut outcome, &asked.span, end.last.as_deref(), query.is_reverse());
                }
            }
            Err(error) => outcome.error = Some(error.into()),
        }
        outcome
    }

    /// Verifies the answer of a peer, and adds the valid records to the merge.
    pub(crate) fn take(self, peer: PeerId, merge: &mut Merge) -> Outcome {
        let Self { store, admission, source, asked, frame } = self;
        // The response may have exceeded the frame limit.
        let Ok(bytes) = frame.bytes() else { return Outcome::default().misbehaved() };
        let (records, last, is_last) = match PageResponse::decode(bytes) {
            Ok(PageResponse::Page { records, last, is_last }) => (records, last, is_last),
            Ok(PageResponse::Unknown) => return Outcome::failed(HolderFailure::Unknown),
            Ok(PageResponse::Failure(Failure::Busy)) => return Outcome::failed(HolderFailure::Busy),
            Ok(PageResponse::Failure(failure)) => {
                return Outcome::failed(HolderFailure::Unreachable(failure.text().into()));
            }
            Err(_) => return Outcome::default().misbehaved(),
        };
        let (query, authors) = (merge.query().clone(), merge.authors().clone());
        let mut outcome = Outcome::default();
        // The answer must make progress within the requested span.
        let is_honest = last.is_none_or(|last| asked.span.contains(last)) && (is_last || last.is_some());
        if !is_honest || records.len() > asked.records {
            return outcome.misbehaved();
        }
        if !is_last {
            go_on(&mut outcome, &asked.span, last, query.is_reverse());
        }
        // The part of the query that the answer covers.
        let told = told(&query, &asked.span, if is_last { None } else { last });
        let mut seen = HashSet::new();
        for (primary, value) in records {
            if !seen.insert(primary) {
                return outcome.misbehaved();
            }
            let Some(key) = query.record_key(primary) else {
                outcome.refuse(Some(Offence::passed_on(None, Refusal::InvalidKey)));
                continue;
            };
            // What is left out need not be verified. It counts for the limits of the peer.
            if !authors.is_open() && Envelope::parse(value).is_ok_and(|claimed| !authors.passes(&claimed)) {
                outcome.records += 1;
                outcome.of_others += 1;
                continue;
            }
            let checked = match admission.check(Source::Query, peer, &key, value) {
                Ok(checked) => checked,
                Err(refused) => {
                    outcome.refuse(refused.offence);
                    continue;
                }
            };
            let envelope = checked.envelope().clone();
            if query.index().is_some() && query.is_newer(&envelope) {
                outcome.skipped += 1;
            } else if told.entries_of(&key, &envelope).is_empty() {
                // A tombstone is no answer either.
                outcome.refuse(Some(Offence::answered(key, Refusal::KeyMismatch)));
            } else {
                outcome.records += 1;
                merge.add(&store, source, key, envelope);
            }
        }
        outcome
    }
}

impl Outcome {
    fn refuse(&mut self, offence: Option<Offence>) {
        self.refused_records += u64::from(offence.is_some());
        self.refused.extend(offence);
    }
}

/// Sets the rest of the span after the last entry of a page.
fn go_on(outcome: &mut Outcome, span: &KeySpan, last: Option<&[u8]>, reverse: bool) {
    let left = last.map_or_else(|| span.clone(), |last| span.after_entry(last, reverse));
    outcome.last = last.map(<[u8]>::to_vec);
    outcome.left = (!left.is_empty()).then_some(left);
}

/// Returns the query for the part that a page covers.
fn told(query: &ResolvedQuery, span: &KeySpan, last: Option<&[u8]>) -> ResolvedQuery {
    let mut told = span.clone();
    if let Some(last) = last {
        if query.is_reverse() {
            told.start = last.to_vec();
        } else {
            told.end = Some([last, &[0]].concat());
        }
    }
    query.narrowed(told, usize::MAX)
}

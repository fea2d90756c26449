//! Verification and storage of a peer's records, on all cores.

use std::num::NonZeroUsize;

use libp2p::PeerId;
use netabase_store::replica::SyncItem;
use netabase_store::{Envelope, NetabaseStore, RecordKey, Refusal, Scope};

use crate::admission::{Admission, Offence, Refused, Source};
use crate::platform::{self, JoinSet};
use crate::protocol::sync::Response;
use crate::replication::sync::limits::{MAX_WAITS, MIN_SHARE};
use crate::replication::sync::respond::is_of_model;
use crate::replication::sync::session::{Context, decode, number};
use crate::rpc::codec::WireRecord;
use crate::rpc::frame::Frame;
use crate::rpc::limits::DEFAULT_WORKERS;

/// A response with records.
#[derive(Debug, Clone)]
pub(super) enum Page {
    Fetched(Frame),
    Ranged(Frame),
    Later(Frame),
}

/// The outcome of the records of a response.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    /// The ids of the requested records that have come, whatever their outcome.
    pub(super) ids: Vec<[u8; SyncItem::ID_BYTES]>,
    /// The number of new records, their bytes, and the number of known ones.
    pub(super) news: u64,
    pub(super) news_bytes: u64,
    pub(super) known: u64,
    /// The records that were refused and are reported.
    pub(super) refused: Vec<Offence>,
    /// The ids that would be refused from any peer.
    pub(super) refused_ids: Vec<[u8; SyncItem::ID_BYTES]>,
    /// The ids refused for lack of space or for their author, and how many of them for lack of
    /// total space.
    pub(super) no_room_ids: Vec<[u8; SyncItem::ID_BYTES]>,
    pub(super) full: usize,
    /// The records of which a later version is stored here.
    pub(super) outdated: Vec<RecordKey>,
    /// Whether the store accepts no more writes.
    pub(super) is_busy: bool,
}

impl Admitted {
    fn add(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.news += other.news;
        self.news_bytes += other.news_bytes;
        self.known += other.known;
        self.refused.extend(other.refused);
        self.refused_ids.extend(other.refused_ids);
        self.no_room_ids.extend(other.no_room_ids);
        self.full += other.full;
        self.outdated.extend(other.outdated);
        self.is_busy |= other.is_busy;
    }
}

/// Checks and queues the `count` records of a page.
pub(super) fn admit(
    context: &Context,
    peer: PeerId,
    scope: &Scope,
    page: Page,
    count: usize,
) -> impl Future<Output = Admitted> + Send + 'static {
    let gate = Gate {
        store: context.store.clone(),
        admission: context.admission.clone(),
        peer,
        scope: scope.clone(),
    };
    async move {
        let threads = platform::parallelism().map_or(DEFAULT_WORKERS, NonZeroUsize::get);
        let share = count.div_ceil(threads).max(MIN_SHARE);
        let mut shares = JoinSet::new();
        for begin in (0..count).step_by(share) {
            let (gate, page) = (gate.clone(), page.clone());
            shares.spawn_blocking(move || gate.admit_share(&page, begin, share));
        }
        let mut admitted = Admitted::default();
        while let Some(share) = shares.join_next().await {
            match share {
                Ok(share) => admitted.add(share),
                Err(error) => {
                    tracing::error!(%error, "the verification of a peer's records has panicked");
                    admitted.is_busy = true;
                }
            }
        }
        admitted
    }
}

/// The gate of the records of one scope from one peer.
#[derive(Debug, Clone)]
struct Gate {
    store: NetabaseStore,
    admission: Admission,
    peer: PeerId,
    scope: Scope,
}

impl Gate {
    fn admit_share(&self, page: &Page, begin: usize, share: usize) -> Admitted {
        let (Page::Fetched(frame) | Page::Ranged(frame) | Page::Later(frame)) = page;
        let records: Vec<WireRecord<'_>> = match decode(frame) {
            Ok(Response::Fetched { records, .. } | Response::Ranged { records, .. }) => {
                records.into_iter().skip(begin).take(share).collect()
            }
            Ok(Response::Later(records)) => records.into_iter().skip(begin).take(share).flatten().collect(),
            _ => Vec::new(),
        };
        let mut admitted = Admitted::default();
        for record in records {
            self.admit_one(record, &mut admitted);
            if admitted.is_busy {
                break;
            }
        }
        admitted
    }

    fn admit_one(&self, (key, value): WireRecord<'_>, admitted: &mut Admitted) {
        let parsed = RecordKey::parse(key).ok();
        if parsed.as_ref().is_some_and(|key| !is_of_model(&self.scope, key)) {
            // The record was not requested.
            admitted.refused.push(Offence::passed_on(parsed, Refusal::Other));
            return;
        }
        let envelope = Envelope::parse(value).ok();
        let item =
            parsed.as_ref().zip(envelope.as_ref()).and_then(|(key, envelope)| SyncItem::of(key, envelope));
        let refused = match self.admit_when_there_is_room(key, value) {
            Ok(is_news) => {
                admitted.ids.extend(item.map(|item| item.id));
                admitted.news += u64::from(is_news);
                admitted.news_bytes += if is_news { number(key.len() + value.len()) } else { 0 };
                admitted.known += u64::from(!is_news);
                return;
            }
            Err(refused) => refused,
        };
        admitted.refused.extend(refused.offence);
        // A forged copy is no evidence about the version whose id it has.
        if matches!(refused.reason, Refusal::InvalidSignature | Refusal::InvalidEnvelope) {
            return;
        }
        admitted.ids.extend(item.map(|item| item.id));
        match refused.reason {
            Refusal::Busy | Refusal::StoreFailed => admitted.is_busy = true,
            // A later session may succeed: the member list is not here yet, or the timestamp is
            // ahead.
            Refusal::NotMember | Refusal::FutureTimestamp => {}
            // There may be space later, or the author may be allowed.
            reason @ (Refusal::OverQuota | Refusal::Full | Refusal::RefusedAuthor) => {
                admitted.no_room_ids.extend(item.map(|item| item.id));
                admitted.full += usize::from(reason == Refusal::Full);
            }
            reason => {
                admitted.refused_ids.extend(item.map(|item| item.id));
                if reason == Refusal::Outdated {
                    admitted.outdated.extend(parsed);
                }
            }
        }
    }

    /// Admits a record, and waits for the disk while too many writes are queued.
    fn admit_when_there_is_room(&self, key: &[u8], value: &[u8]) -> Result<bool, Refused> {
        let admit = || self.admission.admit(Source::Fetched, self.peer, key, value);
        for _ in 0..MAX_WAITS {
            match admit() {
                Err(Refused { reason: Refusal::Busy, .. }) if self.store.flush().is_ok() => {}
                outcome => return outcome,
            }
        }
        admit()
    }
}

#[cfg(test)]
mod tests {
    use netabase_store::{Author, ScopePart, SigningKey, StorageBackend, StoreOptions, Timestamp};

    use super::*;
    use crate::peers::score::PeerScores;
    use crate::telemetry::trace::Traces;

    const NOW: u64 = 1_700_000_000_000;
    const HOUR: u64 = 60 * 60 * 1000;
    static SCHEMA: netabase_store::schema::DefinitionSchema =
        netabase_store::schema::DefinitionSchema { name: "Def", models: &[] };

    fn store(options: StoreOptions) -> NetabaseStore {
        let clock = netabase_store::Clock::from_fn(|| NOW);
        let options = StoreOptions { backend: StorageBackend::Memory, clock, ..options };
        NetabaseStore::open_with("", Some(&SCHEMA), options).unwrap()
    }

    /// Returns the outcome of a record with a time of writing and an expiry.
    fn admitted(options: StoreOptions, time: u64, expires: u64, is_forged: bool) -> Admitted {
        let (store, mut admitted) = (store(options), Admitted::default());
        let admission = Admission::new(store.clone(), PeerScores::default(), Traces::default());
        let scope = Scope { definition: "Def".into(), part: ScopePart::Model("Model".into()) };
        let key = RecordKey::new("Def", "Model", &[1]).unwrap();
        let (author, time) = (SigningKey::from_bytes(&[9; 32]), Timestamp::from_unix_millis(time));
        let envelope = Envelope::sign(&author, &key, time, expires, Some(b"value"));
        let mut bytes = envelope.as_bytes().to_vec();
        if let Some(last) = bytes.last_mut() {
            *last ^= u8::from(is_forged);
        }
        let gate = Gate { store, admission, peer: PeerId::random(), scope };
        gate.admit_one((key.as_bytes(), &bytes), &mut admitted);
        admitted
    }

    /// Returns the numbers of ids that came, that are remembered as refused, and as refused for
    /// lack of space, and the number of reported records.
    fn counts(admitted: &Admitted) -> (usize, usize, usize, usize) {
        let Admitted { ids, refused_ids, no_room_ids, refused, .. } = admitted;
        (ids.len(), refused_ids.len(), no_room_ids.len(), refused.len())
    }

    #[test]
    fn only_what_anybody_s_copy_would_be_refused_for_is_remembered() {
        let open = StoreOptions::default;
        assert_eq!(counts(&admitted(open(), NOW, 0, false)), (1, 0, 0, 0));
        // Another peer may have the version whose copy this one has forged, and this one has not
        // delivered it.
        assert_eq!(counts(&admitted(open(), NOW, 0, true)), (0, 0, 0, 1));
        // The timestamp will be valid later, and so may be the member list.
        assert_eq!(counts(&admitted(open(), NOW + 24 * HOUR, 0, false)), (1, 0, 0, 1));
        let closed = StoreOptions { root: Some(Author::from_bytes([3; 32])), ..open() };
        assert_eq!(counts(&admitted(closed, NOW, 0, false)), (1, 0, 0, 1));
        // There may be space later.
        let full = StoreOptions { max_author_bytes: 0, ..open() };
        assert_eq!(counts(&admitted(full, NOW, 0, false)), (1, 0, 1, 0));
        // An expired record stays expired.
        assert_eq!(counts(&admitted(open(), NOW - 2 * HOUR, NOW - HOUR, false)), (1, 1, 0, 0));
    }
}

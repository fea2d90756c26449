//! Finds versions of this store's own author from the future, and has them signed again.
//!
//! A node whose clock was ahead has signed versions that no peer accepts before real time has
//! caught up with them. When the clock is right again, these versions are published like others,
//! and the ones that every peer refuses for their date are signed anew with the present time.

use super::Replica;
use crate::changes::change::Origin;
use crate::engine::Span;
use crate::error::StoreError;
use crate::model::key_range::KeySpan;
use crate::model::schema::IndexKeys;
use crate::replica::limits::MAX_REDATED;
use crate::replica::sync_set::{SyncItem, item_key};
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::{self, Lease, Op};

/// The position of a walk by [`Replica::ahead_of_clock`]. The default begins a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AheadOfClock {
    model: usize,
    /// The key of the last item that was looked at.
    after: Option<Vec<u8>>,
}

impl Replica<'_> {
    /// Returns up to `limit` records with a version of this store's own author that is further
    /// ahead of the clock than peers accept, after those of earlier calls; an empty list ends the
    /// walk, which then begins anew.
    ///
    /// Blocks on the disk in proportion to the bytes read; in an async function use
    /// `spawn_blocking`.
    ///
    /// The call reads only versions from the future, of which there are none unless a clock was
    /// wrong, and some thousands of them at most.
    pub fn ahead_of_clock(
        self,
        position: &mut AheadOfClock,
        limit: usize,
    ) -> Result<Vec<RecordKey>, StoreError> {
        let (core, Some(author)) = (self.core(), self.store.author()) else { return Ok(Vec::new()) };
        let (clock, snapshot) = (&core.options().clock, core.engine().snapshot()?);
        let definition = self.store.schema().map_or("", |schema| schema.name);
        let is_ours = |envelope: &Envelope| {
            let ours = envelope.contribution_of(author).and_then(|ours| ours.timestamp());
            ours.is_some_and(|dated| clock.is_beyond_skew(dated))
        };
        let first = SyncItem { timestamp: clock.latest_taken().unix_millis() + 1, id: SyncItem::FIRST.id };
        let (mut found, mut looked_at) = (Vec::new(), 0);
        while let Some(model) = core.layout().models().get(position.model) {
            let start =
                position.after.take().map_or_else(|| item_key(&first), |after| [&after[..], &[0]].concat());
            let span = KeySpan { start, end: None };
            for entry in snapshot.range(&model.sync, Span::from(&span))?.readable() {
                let entry = entry?;
                position.after = Some(entry.key().to_vec());
                looked_at += 1;
                let key = model.schema.record_key(definition, entry.value())?;
                if core.stored(&snapshot, &key).is_ok_and(|stored| stored.as_ref().is_some_and(is_ours)) {
                    found.push(key);
                }
                if found.len() >= limit || looked_at >= MAX_REDATED {
                    return Ok(found);
                }
            }
            *position = AheadOfClock { model: position.model + 1, after: None };
        }
        // After a call that has found versions, the next call ends the walk.
        if found.is_empty() {
            *position = AheadOfClock::default();
        }
        Ok(found)
    }

    /// Signs the current version `ours` of this store's own author again, after the version `newer`
    /// of a peer that its author did not know, and queues it; returns the envelope.
    ///
    /// Returns `None`, and writes nothing, if the record has another version by now, is merged, or
    /// the queue is full. Readers see the version at once; the write joins a later one, within half
    /// a second.
    pub fn sign_after(self, key: &RecordKey, ours: &Envelope, newer: &Envelope) -> Option<Envelope> {
        let core = self.core();
        let is_current = core.current(key).ok().flatten().is_some_and(|current| current == *ours);
        if !is_current || ours.is_bundle() || ours.author() != core.author() {
            return None;
        }
        core.check_owner(key).ok()?;
        let payload = (!ours.is_tombstone()).then(|| ours.payload());
        let envelope = core.sign(key, Some(newer), payload, ours.expires().unwrap_or_default())?;
        let model = core.layout().place(key).model.filter(|_| payload.is_some());
        let keys = model.and_then(|model| model.schema.keys_of(ours.payload()));
        let secondary = keys.map_or_else(IndexKeys::default, |keys| keys.secondary);
        let (again, key, origin) = (envelope.clone(), key.clone(), Origin::Local);
        let op = Op::Put { key, envelope, secondary, origin, lease: Lease::Kept };
        core.show_pending(&op);
        match core.queue().try_push_lazy(op) {
            Ok(()) => Some(again),
            Err(op) => {
                core.forget_pending(std::iter::once(&op));
                None
            }
        }
    }

    /// Signs a version of this store's own author again with the present time, if it is further
    /// ahead of the clock than peers accept.
    ///
    /// Call this method if every peer that has answered has refused the version as
    /// [`FutureTimestamp`](crate::Refusal::FutureTimestamp), so that no peer has it. Does nothing
    /// if the clock is not so far behind the version, or if the record has another version by now.
    /// Followers see the record change. The write joins a later one, and may be lost in a crash:
    /// the version is then refused once more.
    pub fn redate(self, key: &RecordKey, refused: &Envelope) {
        let refused = apply::published(refused, self.store.author());
        self.core().queue().push_lazy(Op::Redate { key: key.clone(), refused });
    }
}

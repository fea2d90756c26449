//! The periodic deletions of the writer.

use std::time::Duration;

#[cfg(feature = "blobs")]
use crate::blobs::Collector;
use crate::core::Core;
use crate::engine::{Snapshot, Span, unless_damaged};
use crate::error::StoreError;
use crate::replica::limits::{SWEEP_INTERVAL, SWEEP_RECORDS};
use crate::tables;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::{Op, UNSENT};
use crate::write::writer::millis;

/// The state of a writer's sweeps.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// The next time to look for old tombstones, in milliseconds since the Unix epoch. They are
    /// kept for long, so the writer does not look after every write.
    tombstones_due: u64,
    #[cfg(feature = "blobs")]
    blobs: Collector,
    /// The place up to which this walk has looked at them; earlier ones are deleted, or stay until
    /// a later walk.
    tombstones_from: Vec<u8>,
}

impl Sweep {
    /// Returns the deletions that are due, and the time until the next ones are.
    pub(crate) fn due(&mut self, core: &Core) -> Result<(Vec<Op>, Duration), StoreError> {
        let now = core.careful_millis();
        let (mut ops, mut next) = expired(core, now)?;
        // A due time that is further away was reckoned by a clock that has been set back.
        let rest = self.tombstones_due.saturating_sub(now);
        if rest == 0 || rest > millis(SWEEP_INTERVAL) {
            let (old, rest) = self.old_tombstones(core, now)?;
            self.tombstones_due = now.saturating_add(millis(rest));
            ops.extend(old);
            next = next.min(rest);
        }
        let (evictions, is_unfinished) = core.evictions(SWEEP_RECORDS)?;
        ops.extend(evictions);
        #[cfg(feature = "blobs")]
        ops.extend(self.blobs.step(core, now)?);
        Ok((ops, if is_unfinished { Duration::ZERO } else { next }))
    }

    /// Returns the deletions of the next old tombstones, and the time until there are more to look
    /// at.
    fn old_tombstones(&mut self, core: &Core, now: u64) -> Result<(Vec<Op>, Duration), StoreError> {
        let floor = millis(core.options().tombstone_floor);
        // A tombstone that was written at the floor itself is old enough.
        let Some(last) = now.checked_sub(floor) else { return Ok((Vec::new(), SWEEP_INTERVAL)) };
        let snapshot = core.engine().snapshot()?;
        let (mut ops, mut looks) = (Vec::new(), 0);
        let start = std::mem::take(&mut self.tombstones_from);
        for entry in snapshot.range(&tables::TOMBSTONE_TIMES, Span { start: &start, end: None })?.readable() {
            let entry = entry?;
            let Some((time, key)) = tables::split_time_key(entry.key()) else { continue };
            if time > last {
                return Ok((ops, Duration::from_millis(time - last).min(SWEEP_INTERVAL)));
            }
            if looks == SWEEP_RECORDS {
                self.tombstones_from = entry.key().to_vec();
                return Ok((ops, Duration::ZERO));
            }
            looks += 1;
            if !is_kept(core, &snapshot, &key, last)? {
                ops.push(Op::Forget { key, time });
            }
        }
        // Tombstones that stay are looked at again then.
        Ok((ops, SWEEP_INTERVAL))
    }
}

/// Returns whether an old tombstone is this author's and no peer had it before `last`.
fn is_kept(core: &Core, snapshot: &Snapshot, key: &RecordKey, last: u64) -> Result<bool, StoreError> {
    let heard = unless_damaged(snapshot.get(&tables::DELETIONS, key.as_bytes()))?;
    let heard = heard.and_then(|heard| heard.as_slice().try_into().ok()).map(u64::from_be_bytes);
    if heard.is_none_or(|heard| heard != UNSENT && heard <= last) {
        return Ok(false);
    }
    let stored = match core.stored(snapshot, key) {
        Err(error) if error.is_of_entry() => None,
        stored => stored?,
    };
    let is_ours = |stored: &Envelope| core.author().is_some_and(|own| stored.contribution_of(own).is_some());
    Ok(stored.as_ref().is_some_and(is_ours))
}

/// Returns the deletions of records that have expired, and how long it is until the next one does.
fn expired(core: &Core, now: u64) -> Result<(Vec<Op>, Duration), StoreError> {
    let mut ops = Vec::new();
    for entry in core.engine().snapshot()?.all(&tables::EXPIRY)?.readable() {
        let entry = entry?;
        let Some((time, key)) = tables::split_time_key(entry.key()) else { continue };
        if time > now {
            return Ok((ops, Duration::from_millis(time - now).min(SWEEP_INTERVAL)));
        }
        ops.push(Op::Expire { key, time, outlived: entry.value() == tables::OUTLIVED });
        if ops.len() == SWEEP_RECORDS {
            break;
        }
    }
    Ok((ops, SWEEP_INTERVAL))
}

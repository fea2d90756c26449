//! What the writer deletes by itself.

use std::time::Duration;

use crate::apply::Op;
use crate::blobs::Collector;
use crate::core::Core;
use crate::engine::TableName;
use crate::error::StoreError;
use crate::record_key::RecordKey;
use crate::tables;
use crate::writer::millis;

/// The longest the writer sleeps before it looks for what is to go.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The most records that one sweep deletes of each kind.
const SWEEP_RECORDS: usize = 1024;

/// What a writer knows of the next sweeps.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// When to look for old tombstones, in milliseconds since the Unix epoch: their time is long, so that
    /// it need not be after every write.
    graves_due: u64,
    blobs: Collector,
}

impl Sweep {
    /// Returns the deletions that are due, and the time until the next ones are.
    pub(crate) fn due(&mut self, core: &Core) -> Result<(Vec<Op>, Duration), StoreError> {
        let now = core.options().clock.unix_millis();
        let expire = |key, time| Op::Expire { key, time };
        let (mut ops, mut next) = over(core, &tables::EXPIRY, now, expire)?;
        if now >= self.graves_due {
            let floor = millis(core.options().tombstone_floor);
            let forget = |key, time| Op::Forget { key, time };
            // What was written at the floor itself is as old as it.
            let (old, rest) = match now.checked_sub(floor) {
                Some(last) => over(core, &tables::BURIED, last, forget)?,
                None => (Vec::new(), SWEEP_INTERVAL),
            };
            self.graves_due = if old.is_empty() { now.saturating_add(millis(rest)) } else { now };
            ops.extend(old);
            next = next.min(rest);
        }
        ops.extend(core.evictions(SWEEP_RECORDS)?);
        ops.extend(self.blobs.step(core, now)?);
        Ok((ops, next))
    }
}

/// Returns what to do with the records of a table that is ordered by time, up to `last`, and how long it is
/// until the next one.
fn over(
    core: &Core,
    table: &TableName,
    last: u64,
    delete: impl Fn(RecordKey, u64) -> Op,
) -> Result<(Vec<Op>, Duration), StoreError> {
    let mut ops = Vec::new();
    for entry in core.engine().snapshot()?.all(table)? {
        let Some((time, key)) = tables::split_time_key(entry?.key()) else { continue };
        if time > last {
            return Ok((ops, Duration::from_millis(time - last).min(SWEEP_INTERVAL)));
        }
        ops.push(delete(key, time));
        if ops.len() == SWEEP_RECORDS {
            break;
        }
    }
    Ok((ops, SWEEP_INTERVAL))
}

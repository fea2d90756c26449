//! Contributions of peers to one merged record that are written together.
//!
//! Each contribution, however small, makes the whole record be read, merged and written anew. The
//! contributions of a group are joined first, with the same result, so that a group does that once
//! for each record.

use std::collections::{BTreeSet, HashMap};

use crate::changes::change::Origin;
use crate::core::Core;
use crate::model::schema::IndexKeys;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;
use crate::write::apply::{Lease, Op};
use crate::write::writer::Batch;

/// The writes that replace some batches of a group, by their places in it.
#[derive(Debug, Default)]
pub(crate) struct Coalesced(HashMap<usize, Vec<Op>>);

/// A batch in its group, and a write in that.
type Place = (usize, usize);

impl Coalesced {
    /// Joins what peers contribute to the same record; each join is in the place of the first of
    /// them.
    pub(crate) fn of(core: &Core, group: &[Batch]) -> Self {
        let mut by_key: HashMap<&RecordKey, Vec<(Place, &Envelope)>> = HashMap::new();
        for (batch, Batch { ops, .. }) in group.iter().enumerate().filter(|(_, batch)| is_of_peers(batch)) {
            for (op, (key, bundle)) in
                ops.iter().enumerate().filter_map(|(op, write)| Some((op, bundle(core, write)?)))
            {
                by_key.entry(key).or_default().push(((batch, op), bundle));
            }
        }
        let mut joined = HashMap::new();
        for (key, bundles) in by_key {
            let [(first, _), rest @ ..] = bundles.as_slice() else { continue };
            let join = || Envelope::join_all(bundles.iter().map(|(_, bundle)| *bundle));
            let Some(envelope) = (!rest.is_empty()).then(join).flatten() else { continue };
            let (key, secondary, origin) = (key.clone(), IndexKeys::default(), Origin::Network);
            joined.insert(*first, Some(Op::Put { key, envelope, secondary, origin, lease: Lease::None }));
            joined.extend(rest.iter().map(|(place, _)| (*place, None)));
        }
        let changed: BTreeSet<usize> = joined.keys().map(|(batch, _)| *batch).collect();
        let mut rewritten = |batch: usize| {
            let ops = group.get(batch).map(|batch| batch.ops.as_slice()).unwrap_or_default();
            let ops = ops.iter().enumerate().filter_map(|(op, write)| match joined.remove(&(batch, op)) {
                None => Some(write.clone()),
                Some(joined) => joined,
            });
            ops.collect()
        };
        Self(changed.into_iter().map(|batch| (batch, rewritten(batch))).collect())
    }

    /// Returns what is written for the batch at `place`.
    pub(crate) fn ops_of<'a>(&'a self, place: usize, batch: &'a Batch) -> &'a [Op] {
        self.0.get(&place).map_or(&batch.ops, |ops| ops)
    }
}

/// Returns whether a batch is records of peers and nothing else.
fn is_of_peers(batch: &Batch) -> bool {
    let is_record = |op: &Op| matches!(op, Op::Put { origin: Origin::Network, .. });
    batch.expected.is_empty() && batch.done.is_none() && batch.ops.iter().all(is_record)
}

/// Returns what a write is if it is a contribution.
fn bundle<'a>(core: &Core, op: &'a Op) -> Option<(&'a RecordKey, &'a Envelope)> {
    let Op::Put { key, envelope, .. } = op else { return None };
    // A contribution that a newer member list forbids is refused as a whole, and must not fail the
    // others.
    (envelope.is_bundle() && !core.is_excluded(key, envelope.view())).then_some((key, envelope))
}

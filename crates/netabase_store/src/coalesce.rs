//! Contributions of peers to one merged record that are written together.
//!
//! Each contribution makes the whole record be read, merged and written anew, however small it is. Those of a group
//! are joined first, which is the same by what a bundle is, so that a group does that once for each record.

use std::collections::HashMap;

use crate::apply::{Lease, Op};
use crate::change::Origin;
use crate::core::Core;
use crate::envelope::Envelope;
use crate::record_key::RecordKey;
use crate::schema::IndexKeys;
use crate::writer::Batch;

/// What is written in the place of some batches of a group, by their places in it.
#[derive(Debug, Default)]
pub(crate) struct Coalesced(HashMap<usize, Option<Op>>);

impl Coalesced {
    /// Joins what peers contribute to the same record; each join is in the place of the first of them.
    pub(crate) fn of(core: &Core, group: &[Batch]) -> Self {
        let mut by_key: HashMap<&RecordKey, Vec<(usize, &Envelope)>> = HashMap::new();
        for (place, batch) in group.iter().enumerate() {
            if let Some((key, bundle)) = contribution(core, batch) {
                by_key.entry(key).or_default().push((place, bundle));
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
        Self(joined)
    }

    /// Returns what is written for the batch at `place`.
    pub(crate) fn ops_of<'a>(&'a self, place: usize, batch: &'a Batch) -> &'a [Op] {
        match self.0.get(&place) {
            None => &batch.ops,
            Some(None) => &[],
            Some(Some(op)) => std::slice::from_ref(op),
        }
    }
}

/// Returns what a batch is if it is a contribution of peers, and nothing else.
fn contribution<'a>(core: &Core, batch: &'a Batch) -> Option<(&'a RecordKey, &'a Envelope)> {
    let [Op::Put { key, envelope, origin: Origin::Network, .. }] = batch.ops.as_slice() else { return None };
    let is_alone = batch.expected.is_empty() && batch.done.is_none();
    // What a newer member list forbids is refused as a whole, and must not take others with it.
    let is_one = is_alone && envelope.is_bundle() && !core.is_excluded(key, envelope.view());
    is_one.then_some((key, envelope))
}

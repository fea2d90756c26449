//! What each thread does: its n-th call of a round follows from the seed.
//!
//! Every thread has keys of its own, and makes one call after the other. So whatever a crash leaves
//! of it must be what its acknowledged calls come to, or that and the one call that was in flight.

use std::collections::BTreeMap;

use crate::dice::Dice;

/// How many threads write.
pub(super) const THREADS: u8 = 4;
/// How many notes a thread writes to with single puts.
const NOTES: u64 = 150;
/// Transactions write to groups of records beyond those.
const GROUPS: u64 = 8;
const GROUP_RECORDS: u64 = 8;
const FIRST_GROUP: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Model {
    Note,
    Mark,
    Transfer,
}

/// A record of one of the models.
pub(super) type Key = (Model, u64);

/// What is under a key: who wrote it, and whether that was a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write {
    /// Grows with every call of a thread.
    pub(super) stamp: u64,
    pub(super) present: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Put,
    PutMany,
    Remove,
    /// Notes and marks that all have the stamp of the transaction.
    Transaction,
    /// A transfer and both accounts.
    Transfer,
}

/// A call, which is done whole or not at all.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) writes: BTreeMap<Key, Write>,
}

/// Returns the n-th call of a thread in a round.
pub(super) fn call(seed: u64, round: u32, thread: u8, n: u32) -> Call {
    let mut dice = Dice::new(&[seed, round.into(), thread.into(), n.into()]);
    // The number of the call does not come near 24 bits before it is killed.
    let stamp = (u64::from(round) << 24) | u64::from(n & 0x00ff_ffff);
    let id = |slot| (u64::from(thread) << 56) | slot;
    let present = Write { stamp, present: true };
    let (method, writes) = match dice.below(20) {
        0..7 => (Method::Put, BTreeMap::from([((Model::Note, id(dice.below(NOTES))), present)])),
        7..10 => {
            let records = 2 + dice.below(12);
            let note = |_| ((Model::Note, id(dice.below(NOTES))), present);
            (Method::PutMany, (0..records).map(note).collect())
        }
        10..12 => {
            let removed = Write { stamp, present: false };
            (Method::Remove, BTreeMap::from([((Model::Note, id(dice.below(NOTES))), removed)]))
        }
        12..16 => (Method::Transaction, group(&mut dice, stamp, id)),
        _ => (Method::Transfer, BTreeMap::from([((Model::Transfer, id(stamp)), present)])),
    };
    Call { method, writes }
}

/// Writes or removes every record of a group, each by chance.
fn group(dice: &mut Dice, stamp: u64, id: impl Fn(u64) -> u64) -> BTreeMap<Key, Write> {
    let first = FIRST_GROUP + dice.below(GROUPS) * GROUP_RECORDS;
    let records = 2 + dice.below(GROUP_RECORDS - 1);
    (first..first + records)
        .flat_map(|slot| [Model::Note, Model::Mark].map(|model| (model, id(slot))))
        .map(|key| (key, Write { stamp, present: dice.below(4) != 0 }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_follows_from_its_numbers() {
        let calls = |seed| (0..100).map(|n| format!("{:?}", call(seed, 3, 2, n))).collect::<Vec<_>>();
        assert_eq!(calls(1), calls(1));
        assert_ne!(calls(1), calls(2));
    }

    #[test]
    fn threads_share_no_keys() {
        let keys = |thread| (0..500).flat_map(move |n| call(1, 3, thread, n).writes.into_keys());
        let first: Vec<_> = keys(0).collect();
        assert!(keys(1).all(|key| !first.contains(&key)));
    }
}

//! What a database must hold after a crash, and whether it does.

use std::collections::{BTreeMap, BTreeSet};

use netabase_store::admin::CheckOptions;
use netabase_store::{NetabaseModel, NetabaseStore, StoreError, Tree};
use serde::Serialize;

use super::model::*;
use super::plan::{Call, Key, Model, Write};

/// What was found wrong; all zero if nothing was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Databases that cannot be opened or read any more.
    pub unreadable: u64,
    /// Acknowledged writes that are not there.
    pub lost: u64,
    /// Calls that were done in part.
    pub torn: u64,
    /// Records that nobody wrote.
    pub invented: u64,
    /// Secondary keys that find another set of records than a scan.
    pub index_mismatches: u64,
    /// What `NetabaseStore::check` calls a fault: signatures, index entries, counts, history.
    pub check_faults: u64,
}

impl Faults {
    /// Returns whether nothing was found.
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

/// What was in flight at the kill, and what became of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fate {
    pub(super) kept: u64,
    pub(super) dropped: u64,
}

/// What the acknowledged calls come to.
#[derive(Debug, Default)]
pub(super) struct Expected {
    writes: BTreeMap<Key, Write>,
    /// What is on each account beyond what the transfers say: nothing, until something was torn.
    excess: BTreeMap<u32, i64>,
}

impl Expected {
    pub(super) fn apply(&mut self, call: &Call) {
        self.writes.extend(&call.writes);
    }

    /// Compares, and expects from now on what was found.
    pub(super) fn verify(&mut self, found: &Found, in_flight: &[Call], faults: &mut Faults, fate: &mut Fate) {
        for call in in_flight {
            self.settle(call, found, faults, fate);
        }
        let keys: BTreeSet<_> = self.writes.keys().chain(found.records.keys()).collect();
        for key in keys {
            let expected = self.writes.get(key);
            let stamp = expected.filter(|write| write.present).map(|write| write.stamp);
            match found.records.get(key) {
                found if found.copied() == stamp => {}
                Some(found) if expected.is_none_or(|write| *found > write.stamp) => faults.invented += 1,
                _ => faults.lost += 1,
            }
        }
        self.writes.retain(|key, write| !write.present || found.records.contains_key(key));
        for (key, stamp) in &found.records {
            self.writes.insert(*key, Write { stamp: *stamp, present: true });
        }
        let excess = found.excess();
        faults.torn += u64::from(excess != self.excess);
        self.excess = excess;
        faults.invented += found.altered;
        faults.index_mismatches += found.index_mismatches;
        faults.check_faults += found.check_faults;
    }

    /// Finds out whether a call that was in flight was done.
    fn settle(&mut self, call: &Call, found: &Found, faults: &mut Faults, fate: &mut Fate) {
        let stamp = |write: Option<&Write>| write.filter(|write| write.present).map(|write| write.stamp);
        let (mut done, mut undone) = (BTreeMap::new(), 0);
        for (key, write) in &call.writes {
            let (before, after) = (stamp(self.writes.get(key)), stamp(Some(write)));
            let now = found.records.get(key).copied();
            if before != after && now == after {
                done.insert(*key, *write);
            } else if before != after && now == before {
                undone += 1;
            }
        }
        faults.torn += u64::from(!done.is_empty() && undone > 0);
        if done.is_empty() {
            fate.dropped += 1;
        } else {
            fate.kept += 1;
        }
        self.writes.extend(done);
    }
}

/// What a database holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The stamp of each record.
    records: BTreeMap<Key, u64>,
    accounts: BTreeMap<u32, i64>,
    transfers: BTreeMap<u32, i64>,
    /// Records that are not what their stamp says.
    altered: u64,
    index_mismatches: u64,
    check_faults: u64,
}

impl Found {
    /// Reads the whole database, by scans and by every secondary key.
    pub(super) fn read(store: &NetabaseStore) -> Result<Self, StoreError> {
        let report = store.check(CheckOptions::default())?;
        let mut found = Self { check_faults: report.faults, ..Self::default() };
        let notes = found.scan::<Note>(store, |found, record| {
            found.keep((Model::Note, record.id), record.stamp, *record == note(record.id, record.stamp));
        })?;
        for tag in 0..TAGS {
            let key = NoteTagSecondaryKey(tag);
            found.compare(&notes.0, &notes.1, key, |record| record.tag == tag)?;
        }
        for author in (0..AUTHORS).map(author) {
            let key = NoteAuthorSecondaryKey(author.clone());
            found.compare(&notes.0, &notes.1, key, |record| record.author == author)?;
        }
        let marks = found.scan::<Mark>(store, |found, record| {
            found.keep((Model::Mark, record.id), record.stamp, *record == mark(record.id, record.stamp));
        })?;
        for tag in 0..TAGS {
            found.compare(&marks.0, &marks.1, MarkTagSecondaryKey(tag), |record| record.tag == tag)?;
        }
        let transfers = found.scan::<Transfer>(store, |found, record| {
            let written = *record == transfer(record.id, record.stamp);
            found.keep((Model::Transfer, record.id), record.stamp, written);
            *found.transfers.entry(record.from).or_default() -= record.cents;
            *found.transfers.entry(record.to).or_default() += record.cents;
        })?;
        for tag in 0..TAGS {
            let key = TransferTagSecondaryKey(tag);
            found.compare(&transfers.0, &transfers.1, key, |record| record.tag == tag)?;
        }
        let accounts = found.scan::<Account>(store, |found, record| {
            found.accounts.insert(record.id, record.cents);
        })?;
        for cents in found.accounts.values().copied().collect::<BTreeSet<_>>() {
            let key = AccountCentsSecondaryKey(cents);
            found.compare(&accounts.0, &accounts.1, key, |record| record.cents == cents)?;
        }
        Ok(found)
    }

    fn keep(&mut self, key: Key, stamp: u64, as_written: bool) {
        self.records.insert(key, stamp);
        self.altered += u64::from(!as_written);
    }

    /// Reads all records of a model.
    fn scan<M: NetabaseModel>(
        &mut self,
        store: &NetabaseStore,
        mut each: impl FnMut(&mut Self, &M),
    ) -> Result<(Tree<M>, Vec<M>), StoreError> {
        let tree = store.open_tree::<M>()?;
        let records = tree.iter()?.collect::<Result<Vec<M>, _>>()?;
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        self.index_mismatches += u64::from(tree.len()? != count);
        for record in &records {
            each(self, record);
        }
        Ok((tree, records))
    }

    /// Compares what a secondary key finds with what a scan has found, both in primary key order.
    fn compare<M: NetabaseModel + PartialEq>(
        &mut self,
        tree: &Tree<M>,
        records: &[M],
        key: impl Into<M::SecondaryKeys>,
        has_key: impl Fn(&M) -> bool,
    ) -> Result<(), StoreError> {
        let found = tree.find(key)?;
        let same = found.iter().eq(records.iter().filter(|record| has_key(record)));
        self.index_mismatches += u64::from(!same);
        Ok(())
    }

    fn excess(&self) -> BTreeMap<u32, i64> {
        let of = |map: &BTreeMap<u32, i64>, id| map.get(&id).copied().unwrap_or_default();
        (0..ACCOUNTS)
            .map(|id| (id, of(&self.accounts, id) - of(&self.transfers, id)))
            .filter(|(_, excess)| *excess != 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::plan::{self, Method};

    fn found(writes: &BTreeMap<Key, Write>) -> Found {
        let records =
            writes.iter().filter(|(_, write)| write.present).map(|(key, write)| (*key, write.stamp));
        Found { records: records.collect(), ..Found::default() }
    }

    fn transaction() -> Call {
        let mut calls = (0..).map(|n| plan::call(1, 1, 0, n));
        let all_present = |call: &Call| call.writes.values().all(|write| write.present);
        calls.find(|call| call.method == Method::Transaction && all_present(call)).unwrap()
    }

    fn verify(expected: &mut Expected, found: &Found, in_flight: &[Call]) -> Faults {
        let mut faults = Faults::default();
        expected.verify(found, in_flight, &mut faults, &mut Fate::default());
        faults
    }

    #[test]
    fn a_call_in_flight_may_be_done_or_not() {
        let call = transaction();
        for writes in [BTreeMap::new(), call.writes.clone()] {
            let mut expected = Expected::default();
            assert!(verify(&mut expected, &found(&writes), std::slice::from_ref(&call)).none());
            assert!(verify(&mut expected, &found(&writes), &[]).none(), "it is as it was found");
        }
    }

    #[test]
    fn a_call_in_flight_that_was_done_in_part_is_torn() {
        let call = transaction();
        let mut part = call.writes.clone();
        part.pop_first();
        let faults = verify(&mut Expected::default(), &found(&part), &[call]);
        assert_eq!(faults, Faults { torn: 1, ..Faults::default() });
    }

    #[test]
    fn an_acknowledged_write_that_is_not_there_is_lost() {
        let call = transaction();
        let mut expected = Expected::default();
        expected.apply(&call);
        let mut part = call.writes.clone();
        part.pop_first();
        assert_eq!(verify(&mut expected, &found(&part), &[]), Faults { lost: 1, ..Faults::default() });
    }

    #[test]
    fn a_removed_record_that_is_there_again_is_a_lost_removal() {
        let key = (Model::Note, 1);
        let mut expected = Expected::default();
        expected.writes.insert(key, Write { stamp: 2, present: false });
        let old = BTreeMap::from([(key, Write { stamp: 1, present: true })]);
        assert_eq!(verify(&mut expected, &found(&old), &[]), Faults { lost: 1, ..Faults::default() });
    }

    #[test]
    fn a_record_that_nobody_wrote_is_invented() {
        let call = transaction();
        let count = u64::try_from(call.writes.len()).unwrap();
        let faults = verify(&mut Expected::default(), &found(&call.writes), &[]);
        assert_eq!(faults, Faults { invented: count, ..Faults::default() });
    }

    #[test]
    fn money_without_a_transfer_is_torn() {
        let found = Found { accounts: BTreeMap::from([(1, 5)]), ..Found::default() };
        let mut expected = Expected::default();
        assert_eq!(verify(&mut expected, &found, &[]), Faults { torn: 1, ..Faults::default() });
        assert!(verify(&mut expected, &found, &[]).none(), "it is counted once");
    }
}

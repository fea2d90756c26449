//! Where signed records are in the keyspace, and in which version.

use super::{Applier, Old};
use crate::envelope::Envelope;
use crate::record_key::RecordKey;

impl Applier<'_> {
    /// Keeps the table of positions in line with a record that had the version `old`.
    pub(super) fn reposition(&mut self, key: &RecordKey, old: Old<'_>, new: Option<&Envelope>) {
        let was_there = match old {
            Old::Absent => false,
            Old::Version(old) => old.is_signed(),
            Old::Unreadable => true,
        };
        match new.filter(|new| new.is_signed()) {
            Some(new) => self.indexes.push_position(key, Some(new.fingerprint())),
            None if was_there => self.indexes.push_position(key, None),
            None => {}
        }
    }
}

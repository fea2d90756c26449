//! Removes what a newer member list does not allow any more, a bounded step at a time.

use super::Members;
use crate::core::Core;
use crate::engine::{Span, TableName};
use crate::error::StoreError;
use crate::tables::{self, ModelTables, Place};
use crate::version::clock::Timestamp;
use crate::version::envelope::{Author, Envelope, EnvelopeRef, Version};
use crate::version::limits::{SWEEP_ENTRIES, SWEEP_REMOVALS};
use crate::version::record_key::RecordKey;
use crate::write::apply::Op;

/// The progress of the comparison of all stored records with the member list.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The list that everything was compared with last.
    finished: Option<Version>,
    /// The list that is being compared with.
    target: Option<Version>,
    /// The table that is being read, by its number, and the key to continue from.
    table: usize,
    start: Vec<u8>,
}

impl Sweep {
    /// Goes on with what an earlier run has not finished, from the beginning.
    pub(crate) fn new(members: Option<&Members>) -> Self {
        let finished = members.and_then(|members| members.swept);
        Self { finished, target: None, table: 0, start: Vec::new() }
    }

    /// Returns the next writes, or `None` if everything was compared with the current list.
    pub(crate) fn step(&mut self, core: &Core) -> Result<Option<Vec<Op>>, StoreError> {
        let current = core.members().and_then(Members::current);
        let Some(version) = current.map(|list| list.version()) else { return Ok(None) };
        if self.finished == Some(version) {
            return Ok(None);
        }
        // The list is enforced at once, but no record is removed for a list that a crash may still
        // undo.
        if !is_written(core, &version)? {
            return Ok(None);
        }
        if self.target != Some(version) {
            *self = Self { finished: None, target: Some(version), table: 0, start: Vec::new() };
        }
        let models = core.layout().models();
        let (table, model) = match models.get(self.table) {
            Some(model) => (&model.records, Some(model)),
            None if self.table == models.len() => (&tables::FOREIGN, None),
            None if self.table == models.len() + 1 => (&tables::TOMBSTONES, None),
            None => {
                self.finished = Some(version);
                let (key, value) = (tables::META_SWEPT.to_vec(), Some(version_bytes(&version)));
                return Ok(Some(vec![Op::Set { table: &tables::META, key, value }]));
            }
        };
        self.read(core, table, model).map(Some)
    }

    /// Looks at the next records of a table; returns the removals of those that are not allowed.
    fn read(
        &mut self,
        core: &Core,
        table: &TableName,
        model: Option<&ModelTables>,
    ) -> Result<Vec<Op>, StoreError> {
        let definition = core.layout().schema().map_or("", |schema| schema.name);
        let snapshot = core.engine().snapshot()?;
        let mut removals = Vec::new();
        for (number, entry) in
            snapshot.range(table, Span { start: &self.start, end: None })?.readable().enumerate()
        {
            let entry = entry?;
            if number >= SWEEP_ENTRIES || removals.len() >= SWEEP_REMOVALS {
                self.start = entry.key().to_vec();
                return Ok(removals);
            }
            let key = match model {
                Some(model) => model.schema.record_key(definition, entry.key()),
                None => RecordKey::parse(entry.key()),
            };
            // `check` finds damaged entries.
            let (Ok(key), Ok(envelope)) = (key, EnvelopeRef::parse(entry.value())) else { continue };
            if core.is_excluded(&key, envelope) {
                removals.push(Op::Exclude { key });
            }
        }
        self.table += 1;
        self.start.clear();
        Ok(removals)
    }
}

/// Returns whether a list has been committed.
fn is_written(core: &Core, version: &Version) -> Result<bool, StoreError> {
    let Some(members) = core.members() else { return Ok(false) };
    let Place { table, key, .. } = core.layout().place(members.key());
    let stored = core.engine().snapshot()?.get(table, key)?;
    let stored = stored.as_deref().and_then(|bytes| Envelope::parse(bytes).ok());
    Ok(stored.is_some_and(|stored| stored.version().as_ref() == Some(version)))
}

fn version_bytes(version: &Version) -> Vec<u8> {
    [&version.timestamp.to_bits().to_be_bytes()[..], version.author.as_bytes(), &version.hash].concat()
}

pub(super) fn parse_version(bytes: &[u8]) -> Option<Version> {
    let (timestamp, rest) = bytes.split_first_chunk()?;
    let (author, rest) = rest.split_first_chunk()?;
    Some(Version {
        timestamp: Timestamp::from_bits(u64::from_be_bytes(*timestamp)),
        author: Author::from_bytes(*author),
        hash: rest.try_into().ok()?,
    })
}

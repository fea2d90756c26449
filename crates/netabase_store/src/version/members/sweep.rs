//! Removes what a newer member list does not allow any more, and what refused authors wrote, a
//! bounded step at a time.

use super::Members;
use crate::core::Core;
use crate::engine::{Span, TableName};
use crate::error::StoreError;
use crate::replica::authors::RefusedAuthors;
use crate::tables::{self, ModelTables, Place};
use crate::version::clock::Timestamp;
use crate::version::envelope::{Author, Envelope, EnvelopeRef, Version};
use crate::version::limits::{SWEEP_ENTRIES, SWEEP_REMOVALS};
use crate::version::record_key::RecordKey;
use crate::write::apply::Op;

/// The lists that stored records are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lists {
    /// The member list, or `None` in an open network.
    members: Option<Version>,
    /// The additions to the refused authors.
    refused: u64,
}

/// The progress of the comparison of all stored records with the member list and the refused
/// authors.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The lists that everything was compared with last.
    finished: Option<Lists>,
    /// The lists that are being compared with.
    target: Option<Lists>,
    /// The table that is being read, by its number, and the key to continue from.
    table: usize,
    start: Vec<u8>,
}

impl Sweep {
    /// Goes on with what an earlier run has not finished, from the beginning.
    pub(crate) fn new(members: Option<&Members>, refused: &RefusedAuthors) -> Self {
        let members = members.and_then(|members| members.swept);
        let finished = (refused.additions() == 0).then_some(Lists { members, refused: 0 });
        Self { finished, target: None, table: 0, start: Vec::new() }
    }

    /// Returns the next writes, or `None` if everything was compared with the current lists.
    pub(crate) fn step(&mut self, core: &Core) -> Result<Option<Vec<Op>>, StoreError> {
        let current = core.members().and_then(Members::current);
        let members = current.map(|list| list.version());
        // A closed network without a list would lose every record.
        if members.is_none() && core.members().is_some() {
            return Ok(None);
        }
        let lists = Lists { members, refused: core.refused_authors().additions() };
        if self.finished == Some(lists) {
            return Ok(None);
        }
        // The list is enforced at once, but no record is removed for a list that a crash may still
        // undo.
        if let Some(version) = &members
            && !is_written(core, version)?
        {
            return Ok(None);
        }
        if self.target != Some(lists) {
            *self = Self { finished: None, target: Some(lists), table: 0, start: Vec::new() };
        }
        let models = core.layout().models();
        let (table, model) = match models.get(self.table) {
            Some(model) => (&model.records, Some(model)),
            None if self.table == models.len() => (&tables::FOREIGN, None),
            None if self.table == models.len() + 1 => (&tables::TOMBSTONES, None),
            None => {
                self.finished = Some(lists);
                let mut ops = core.refused_authors().end_sweep(lists.refused);
                if let Some(version) = &members {
                    let (key, value) = (tables::META_SWEPT.to_vec(), Some(version_bytes(version)));
                    ops.push(Op::Set { table: &tables::META, key, value });
                }
                return Ok(Some(ops));
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
                removals.push(Op::Exclude { key, author: None });
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

//! The tables of a store. `docs/formats.md` describes the contents.

use std::collections::BTreeSet;
use std::iter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::engine::TableName;
use crate::error::{SchemaError, StoreError, ValueError};
use crate::model::dynamic::Shape;
use crate::model::schema::{DefinitionSchema, Encoding, ModelSchema, payload_version};
use crate::replica::sync_set::Sums;
use crate::version::envelope::Envelope;
use crate::version::record_key::RecordKey;

/// The version of the tables below; a database says which it has.
///
/// Format 1 had no history, and other index entries for optional keys and lists; format 2 had no
/// positions, format 3 neither sets to compare nor references to blobs, and format 4 no checksums.
/// All are brought up to date when the database is opened.
pub(crate) const FORMAT: u32 = 5;
/// A format that is brought up to date by making anew what follows from signed records, and by
/// nothing else.
pub(crate) const REBUILT_FORMAT: u32 = 3;
/// The format from which on what follows from signed records is as it is now.
pub(crate) const SETS_FORMAT: u32 = 4;
/// The format from which on index entries are as they are now.
pub(crate) const INDEXES_FORMAT: u32 = 2;

/// Facts about the database itself. Beside it is a table without checksums that has the format
/// alone, which tells programs of formats before 5 that they cannot read the others.
pub(crate) static META: TableName = TableName::fixed("meta", 0);
/// The key of the format version in [`META`].
pub(crate) const META_FORMAT: &[u8] = b"format";
/// The key of the definition's name in [`META`].
pub(crate) const META_DEFINITION: &[u8] = b"definition";
/// The key of the time when the store was last online, in [`META`].
pub(crate) const META_ONLINE: &[u8] = b"online";
/// The key of the histories that changes here are numbered in, in [`META`].
pub(crate) const META_HISTORIES: &[u8] = b"histories";
/// The start of the key of each model that has tables, in [`META`]; its name follows, with its
/// mark.
pub(crate) const META_MODEL: &[u8] = b"model/";
/// The start of the key of each shape in which records of a model were written, in [`META`]; its
/// name follows, with its mark, a zero and the version.
pub(crate) const META_SHAPE: &[u8] = b"shape/";

/// The same of records whose payloads have their fields under tags; the others have them by
/// positions.
pub(crate) const META_FIELDS: &[u8] = b"fields/";
/// The start of the key of each model that may have records of a later version, in [`META`].
pub(crate) const META_NEWER: &[u8] = b"newer/";
/// The start of the key of each model whose indexes may have stale entries, in [`META`].
pub(crate) const META_STALE: &[u8] = b"stale/";
/// The start of the key of each mark, in [`META`]; its name follows.
pub(crate) const META_MARK: &[u8] = b"mark/";
/// The start of the key of each refused author, in [`META`]; its bytes follow. The value is 1 once
/// the author's stored records are removed.
pub(crate) const META_REFUSED: &[u8] = b"refused/";
/// The key of the version of the member list that everything was compared with, in [`META`].
pub(crate) const META_SWEPT: &[u8] = b"swept";
/// Live records of models that the schema does not have, by whole record key.
pub(crate) static FOREIGN: TableName = TableName::fixed("foreign", 1);
/// Tombstones of all models, by whole record key, and expired versions that end earlier ones.
pub(crate) static TOMBSTONES: TableName = TableName::fixed("tombstones", 2);
/// Expiry time, then record key, of every record that expires; the value is [`OUTLIVED`] where an
/// earlier version that would count for longer may still be somewhere.
pub(crate) static EXPIRY: TableName = TableName::fixed("expiry", 3);
/// The value in [`EXPIRY`] of a record whose last version is to be remembered when it has expired.
pub(crate) const OUTLIVED: &[u8] = &[1];
/// The time of the next publication of each of this store's own records, by record key.
pub(crate) static SCHEDULE: TableName = TableName::fixed("schedule", 4);
/// The same by time: due time, then record key.
pub(crate) static DUE: TableName = TableName::fixed("due", 5);
/// Provider records: key with its length in front, then provider.
#[cfg(feature = "libp2p")]
pub(crate) static PROVIDERS: TableName = TableName::fixed("providers", 6);

/// The changes, in the order of the commits.
pub(crate) static HISTORY: TableName = TableName::fixed("history", 7);
/// Position, then record key, of every signed record and tombstone; the value is the version's
/// fingerprint.
pub(crate) static POSITIONS: TableName = TableName::fixed("positions", 8);
/// The time of each tombstone's write, then its record key.
pub(crate) static TOMBSTONE_TIMES: TableName = TableName::fixed("buried", 9);
/// The usage of each author's signed records, by author; under the empty key the sum of all.
pub(crate) static AUTHORS: TableName = TableName::fixed("authors", 10);
/// The length and the next renewal of each of this store's own leases, by record key.
pub(crate) static LEASES: TableName = TableName::fixed("leases", 11);
/// The same by time: when it is to be renewed, then record key.
pub(crate) static RENEWALS: TableName = TableName::fixed("renewals", 12);
/// Blob hash, then record key, of every blob that a record names; and since when a blob has been
/// without any, by its hash alone.
pub(crate) static BLOBS: TableName = TableName::fixed("blobs", 15);
/// Deletions by this store's own author, by record key: the time when a peer first had each, in
/// milliseconds since the Unix epoch, or 0.
pub(crate) static DELETIONS: TableName = TableName::fixed("deletions", 16);
/// The slot of the first table of the schema.
const FIRST_MODEL_SLOT: usize = 17;

/// The tables of a schema.
#[derive(Debug)]
pub(crate) struct Layout {
    schema: Option<&'static DefinitionSchema>,
    models: Vec<ModelTables>,
}

/// The tables of a model.
#[derive(Debug)]
pub(crate) struct ModelTables {
    pub(crate) schema: &'static ModelSchema,
    /// The model's name with the mark of its policy, which names its tables: under another policy
    /// it is another model.
    pub(crate) marked: String,
    /// Live records, by primary key.
    pub(crate) records: TableName,
    /// For each index: index key, then primary key; the value is the length of the index key.
    pub(crate) indexes: Vec<TableName>,
    /// The items of the model's signed versions in the order of time, and sums of them.
    pub(crate) sync: TableName,
    /// The place of the model in the schema.
    pub(crate) position: usize,
    /// The shape in which this program writes records.
    pub(crate) shape: Shape,
    /// The sums as the writer knows them.
    sums: Mutex<Sums>,
    /// Of how many records a version that a peer has sent waits for its commit.
    arriving: AtomicUsize,
    /// Whether there may be records of a later version of the model than this program knows.
    newer: AtomicBool,
    /// Whether indexes may have entries that their records do not have.
    stale: AtomicBool,
    /// Whether they may have had some since the store was opened, which earlier snapshots still
    /// show.
    was_stale: AtomicBool,
}

/// The place of a record's live version.
#[derive(Debug)]
pub(crate) struct Place<'layout, 'key> {
    pub(crate) table: &'layout TableName,
    pub(crate) key: &'key [u8],
    pub(crate) model: Option<&'layout ModelTables>,
}

impl Layout {
    pub(crate) fn new(schema: Option<&'static DefinitionSchema>) -> Self {
        let models = schema.map_or(&[][..], |schema| schema.models);
        let shapes = schema.map_or_else(Vec::new, Shape::of_models);
        let mut slots = FIRST_MODEL_SLOT..;
        Self {
            schema,
            models: models
                .iter()
                .zip(shapes)
                .zip(0..)
                .map(|((model, shape), at)| ModelTables::new(model, shape, at, &mut slots))
                .collect(),
        }
    }

    /// Returns how many slots the tables take.
    pub(crate) fn slots(&self) -> usize {
        FIRST_MODEL_SLOT + self.models.iter().map(|model| 2 + model.indexes.len()).sum::<usize>()
    }

    pub(crate) fn schema(&self) -> Option<&'static DefinitionSchema> {
        self.schema
    }

    pub(crate) fn models(&self) -> &[ModelTables] {
        &self.models
    }

    pub(crate) fn model(&self, name: &str) -> Option<&ModelTables> {
        self.models.iter().find(|model| model.schema.name == name)
    }

    /// Returns whether a key names a model of the schema, but not as one of its records.
    pub(crate) fn has_other_policy(&self, key: &RecordKey) -> bool {
        let ours = self.schema.is_some_and(|schema| schema.name == key.definition());
        ours && self.model(key.model()).is_some_and(|model| model.schema.policy != key.policy())
    }

    pub(crate) fn place<'key>(&self, key: &'key RecordKey) -> Place<'_, 'key> {
        let ours = self.schema.is_some_and(|schema| schema.name == key.definition());
        match self.model(key.model()).filter(|model| ours && model.schema.policy == key.policy()) {
            Some(model) => Place { table: &model.records, key: key.primary_key(), model: Some(model) },
            None => Place { table: &FOREIGN, key: key.as_bytes(), model: None },
        }
    }
}

impl ModelTables {
    fn new(
        schema: &'static ModelSchema,
        shape: Shape,
        position: usize,
        slots: &mut impl Iterator<Item = usize>,
    ) -> Self {
        let mut table = |name: String| TableName::in_slot(&name, slots.next().unwrap_or(usize::MAX));
        let marked = schema.policy.marked(schema.name);
        Self {
            schema,
            records: table(records_table(&marked)),
            indexes: schema.indexes.iter().map(|index| table(index_table(&marked, index.name))).collect(),
            sync: table(sync_table(&marked)),
            position,
            shape,
            sums: Mutex::default(),
            marked,
            arriving: AtomicUsize::new(0),
            newer: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            was_stale: AtomicBool::new(false),
        }
    }

    /// Returns the sums of the model's items.
    pub(crate) fn sums(&self) -> &Mutex<Sums> {
        &self.sums
    }

    /// Returns whether versions that peers have sent wait for their commit.
    pub(crate) fn is_arriving(&self) -> bool {
        self.arriving.load(Ordering::Acquire) > 0
    }

    pub(crate) fn note_arrival(&self) {
        self.arriving.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn note_settled(&self) {
        self.arriving.fetch_sub(1, Ordering::Release);
    }

    /// Returns whether a write has to look for a record of a later version of the model.
    pub(crate) fn may_hold_newer(&self) -> bool {
        self.newer.load(Ordering::Relaxed)
    }

    pub(crate) fn note_newer(&self) {
        self.newer.store(true, Ordering::Relaxed);
    }

    /// Returns whether a reader has to compare an index entry with its record.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    /// The same for a reader of a snapshot that was taken some time ago.
    pub(crate) fn may_have_been_stale(&self) -> bool {
        self.was_stale.load(Ordering::Relaxed)
    }

    pub(crate) fn note_stale(&self) {
        self.was_stale.store(true, Ordering::Relaxed);
        self.stale.store(true, Ordering::Release);
    }

    /// Sets what the database says, after it was read or changed as a whole.
    pub(crate) fn set_flags(&self, newer: bool, stale: bool) {
        self.newer.store(newer, Ordering::Relaxed);
        self.was_stale.fetch_or(stale, Ordering::Relaxed);
        self.stale.store(stale, Ordering::Release);
    }

    /// Returns whether a payload was written by a later version of the model than this program
    /// knows.
    pub(crate) fn is_newer(&self, payload: &[u8]) -> bool {
        payload_version(payload).is_ok_and(|version| version > self.schema.version)
    }

    /// Returns whether an envelope, or a contribution in it, was written by a later version of the
    /// model.
    pub(crate) fn has_newer(&self, envelope: &Envelope) -> bool {
        any_payload(envelope, |payload| self.is_newer(payload))
    }

    /// Returns whether this program can read records of a version.
    pub(crate) fn reads(&self, version: u32) -> bool {
        let Ok(begin) = postcard::to_stdvec(&version) else { return false };
        let read = self.schema.guarded(|codec| codec.keys(&begin));
        !matches!(read, Err(ValueError::Version { found, .. }) if found == version)
    }

    /// Returns whether no two local records may have the same key in the index at `position`.
    pub(crate) fn is_unique(&self, position: usize) -> bool {
        self.schema.indexes.get(position).is_some_and(|index| index.unique)
    }

    /// Returns whether the writer may refuse a local record that was well-formed.
    pub(crate) fn may_refuse(&self) -> bool {
        self.may_hold_newer() || self.schema.indexes.iter().any(|index| index.unique)
    }

    /// Returns what the database remembers of the model: its version and what its indexes are made
    /// of.
    pub(crate) fn description(&self) -> Vec<u8> {
        let mut description = self.schema.version.to_be_bytes().to_vec();
        if !self.schema.merge.is_empty() {
            // An index without a name, which has no table.
            describe_index("", self.schema.merge, false, &mut description);
        }
        if !self.schema.blobs.is_empty() {
            // The same.
            describe_index("", &format!("blobs:{}", self.schema.blobs), false, &mut description);
        }
        for index in self.schema.indexes {
            describe_index(index.name, index.source, index.unique, &mut description);
        }
        description
    }

    pub(crate) fn index(&self, position: usize) -> Result<&TableName, StoreError> {
        self.indexes
            .get(position)
            .ok_or(StoreError::Schema(SchemaError::OtherModel { definition: "", model: self.schema.name }))
    }
}

/// Returns whether something holds of a version's payload, or of that of a contribution in it.
pub(crate) fn any_payload(envelope: &Envelope, holds: impl Fn(&[u8]) -> bool) -> bool {
    match envelope.view().bundle() {
        Some(bundle) => bundle.live().any(|part| holds(part.payload())),
        None => holds(envelope.payload()),
    }
}

/// Returns the value of an index entry: where its index key ends.
pub(crate) fn entry_value(key_len: usize) -> [u8; 2] {
    u16::try_from(key_len).unwrap_or(u16::MAX).to_be_bytes()
}

/// Splits an index entry into index key and primary key.
pub(crate) fn split_entry<'a>(entry: &'a [u8], value: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let key_len = u16::from_be_bytes(value.try_into().ok()?);
    entry.split_at_checked(key_len.into())
}

/// Returns the name of the table of a model's live records; here and below the model's name has its
/// mark.
pub(crate) fn records_table(model: &str) -> String {
    format!("records/{model}")
}

/// Returns the name of the table of an index.
pub(crate) fn index_table(model: &str, index: &str) -> String {
    format!("index/{model}/{index}")
}

/// Returns the name of the table of a model's items and sums.
pub(crate) fn sync_table(model: &str) -> String {
    format!("sync/{model}")
}

/// Returns the key under which [`META`] remembers a model.
pub(crate) fn model_key(name: &str) -> Vec<u8> {
    [META_MODEL, name.as_bytes()].concat()
}

/// Returns the start of the keys under which [`META`] remembers the shapes of a model's versions,
/// of payloads by fields or by positions.
pub(crate) fn shapes_prefix(encoding: Encoding, model: &str) -> Vec<u8> {
    let start = if encoding == Encoding::Fields { META_FIELDS } else { META_SHAPE };
    [start, model.as_bytes(), &[0]].concat()
}

/// Returns the key of the shape of one version.
pub(crate) fn shape_key(encoding: Encoding, model: &str, version: u32) -> Vec<u8> {
    [shapes_prefix(encoding, model).as_slice(), &version.to_be_bytes()].concat()
}

/// Returns the key under which [`META`] remembers that there may be records of a later version.
pub(crate) fn newer_key(model: &str) -> Vec<u8> {
    [META_NEWER, model.as_bytes()].concat()
}

/// Returns the key under which [`META`] remembers that a model's indexes may have stale entries.
pub(crate) fn stale_key(model: &str) -> Vec<u8> {
    [META_STALE, model.as_bytes()].concat()
}

/// Returns what a database says of a model whose tables are being changed: no program's
/// description.
pub(crate) fn unfinished_description(indexes: &BTreeSet<String>) -> Vec<u8> {
    let mut description = UNFINISHED.to_be_bytes().to_vec();
    for index in indexes {
        describe_index(index, "", false, &mut description);
    }
    description
}

fn describe_index(name: &str, source: &str, unique: bool, out: &mut Vec<u8>) {
    out.extend(name.as_bytes());
    out.push(0);
    out.extend(source.as_bytes());
    out.push(0);
    out.push(unique.into());
}

/// The version in a description of a model whose tables are being changed.
const UNFINISHED: u32 = 0;

/// The description of a model in [`META`].
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// `None` if a change of the tables was not finished.
    pub(crate) version: Option<u32>,
    pub(crate) indexes: BTreeSet<String>,
}

impl Description {
    /// Reads what a database says.
    pub(crate) fn parse(description: &[u8]) -> Self {
        let (version, mut rest) = description.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let version = Some(u32::from_be_bytes(*version)).filter(|version| *version != UNFINISHED);
        let mut indexes = BTreeSet::new();
        while let Some(name) = take_until_zero(&mut rest) {
            if !name.is_empty() {
                indexes.insert(String::from_utf8_lossy(name).into_owned());
            }
            take_until_zero(&mut rest);
            rest = rest.get(1..).unwrap_or_default();
        }
        Self { version, indexes }
    }
}

/// Returns the names of the indexes in a description of format 1: a version, then each name and a
/// zero.
pub(crate) fn indexes_of_format_1(description: &[u8]) -> BTreeSet<String> {
    let mut rest = description.get(4..).unwrap_or_default();
    iter::from_fn(|| take_until_zero(&mut rest))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

fn take_until_zero<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = input.iter().position(|byte| *byte == 0)?;
    let (taken, rest) = input.split_at_checked(end)?;
    *input = rest.get(1..).unwrap_or_default();
    Some(taken)
}

/// Makes the key of an entry that is ordered by time, then by record.
pub(crate) fn time_key(unix_millis: u64, key: &RecordKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + key.as_bytes().len());
    bytes.extend(unix_millis.to_be_bytes());
    bytes.extend(key.as_bytes());
    bytes
}

/// Makes the key of a record's entry in [`POSITIONS`].
pub(crate) fn position_key(key: &RecordKey) -> Vec<u8> {
    [key.position().as_slice(), key.as_bytes()].concat()
}

/// Takes apart what [`time_key`] made.
pub(crate) fn split_time_key(bytes: &[u8]) -> Option<(u64, RecordKey)> {
    let (time, key) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*time), RecordKey::parse(key).ok()?))
}

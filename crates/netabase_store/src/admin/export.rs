//! Writing all records as lines of JSON. `docs/formats.md` describes the lines.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::admin::left_record::{LeftReason, LeftRecord, LeftRecords, read_entry};
use crate::admin::limits::{PIECE_BYTES, PIECE_RECORDS};
use crate::admin::progress::ProgressCallback;
use crate::engine::{Engine, Snapshot, Span};
use crate::error::{AdminError, DamageError, SchemaError, StoreError, ValueError};
use crate::model::schema::payload_version;
use crate::options::NonExhaustive;
use crate::read::long_read::LongRead;
use crate::store::NetabaseStore;
use crate::tables::ModelTables;
use crate::text;
use crate::version::clock::Timestamp;
use crate::version::envelope::Envelope;

/// The name of the format in the first line.
pub(crate) const FORMAT_NAME: &str = "netabase-export";
/// The number of the format of the lines.
pub(crate) const FORMAT_NUMBER: u32 = 1;

/// Options of an export.
#[derive(Debug, Default)]
pub struct ExportOptions<'a> {
    /// Called with the progress after every 100 records, and at the end. Default: no callback. An
    /// export that the callback stops has no last line, so it cannot be mistaken for a complete
    /// one.
    pub progress: ProgressCallback<'a, ExportProgress>,
    /// Adds the signed version of each record, so that an import gives it back with its author,
    /// time and expiry, also in another store. Records of later versions and such as JSON cannot
    /// tell have that alone. Default: `false`.
    pub signed: bool,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

/// The progress of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExportProgress {
    /// The records that were looked at.
    pub done: u64,
    /// The number of records at the beginning; some may turn out to have expired.
    pub total: u64,
}

/// The result of an export.
#[derive(Debug, Clone, Default)]
#[must_use = "an export may have left records out"]
#[non_exhaustive]
pub struct ExportReport {
    /// The records that were written.
    pub records: u64,
    /// The bytes that were written.
    pub bytes: u64,
    /// The records that were left out because a later version of the program wrote them.
    pub newer: u64,
    /// The records that were left out because they are damaged, or cannot be written as JSON.
    pub unreadable: u64,
    /// The first 100 records that were left out.
    pub left_out: Vec<LeftRecord>,
    /// Whether the export is complete: the callback did not stop it.
    pub complete: bool,
    /// The number of snapshots that the lines are of: one, unless much was written meanwhile.
    /// Always one on sled, which has no snapshots.
    pub moments: u64,
}

impl ExportReport {
    /// Returns whether every record was written.
    pub fn is_whole(&self) -> bool {
        self.complete && self.newer == 0 && self.unreadable == 0
    }
}

#[derive(Serialize)]
struct Header<'a> {
    format: &'a str,
    version: u32,
    definition: &'a str,
    time: u64,
}

#[derive(Serialize)]
struct RecordLine<'a> {
    model: &'a str,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// The record key and the version as peers are sent it, in base64 (RFC 4648).
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<String>,
}

#[derive(Serialize)]
struct Trailer {
    records: u64,
    left_out: u64,
}

impl NetabaseStore {
    /// Writes every live record of the schema's models as a line of JSON, model by model in key
    /// order.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// The lines are those of a snapshot, unless more than 32 MiB are written to the store before
    /// the writer has taken all lines: then the rest is of a later snapshot, so that a slow writer
    /// does not keep the space of replaced versions from being used. [`ExportReport::moments`]
    /// counts them. Each record comes once at most. On sled, which has no snapshots, each record is
    /// as it is when its line is made.
    ///
    /// Values are written in the version of the model that this program knows. A record that cannot
    /// be read, that a later version of the program wrote, or that JSON cannot tell (a NaN, a map
    /// whose keys are no text) is left out and reported. Fails with
    /// [`AdminError::Output`](crate::admin::AdminError::Output) if the writer does.
    ///
    /// [`NetabaseStore::import_json`] reads it back; records without their signed versions
    /// ([`ExportOptions::signed`]) get new ones then. Tombstones are not exported.
    ///
    /// ```
    /// # use netabase_store::{NetabaseModel, NetabaseStore, netabase_definition_module};
    /// # #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
    /// # mod library {
    /// #     use netabase_store::NetabaseModel;
    /// #     use serde::{Deserialize, Serialize};
    /// #     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
    /// #     #[netabase(LibraryDefinition)]
    /// #     pub struct Book { #[primary_key] pub isbn: String, pub title: String }
    /// # }
    /// # use library::*;
    /// use netabase_store::export::ExportOptions;
    /// use netabase_store::import::ImportOptions;
    ///
    /// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
    /// let book = Book { isbn: "0131103628".into(), title: "C".into() };
    /// store.open_tree()?.put(&book)?;
    /// let mut file = Vec::new();
    /// let report = store.export_json(&mut file, ExportOptions::default())?;
    /// assert!(report.is_whole());
    /// let line = r#"{"model":"Book","version":1,"value":{"isbn":"0131103628","title":"C"}}"#;
    /// assert_eq!(std::str::from_utf8(&file).unwrap().lines().nth(1), Some(line));
    ///
    /// let other = NetabaseStore::in_memory::<LibraryDefinition>()?;
    /// let report = other.import_json(file.as_slice(), ImportOptions::default())?;
    /// assert!(report.is_whole());
    /// assert_eq!(other.open_tree()?.get(&BookPrimaryKey(book.isbn.clone()))?, Some(book));
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn export_json(
        &self,
        writer: impl Write,
        options: ExportOptions<'_>,
    ) -> Result<ExportReport, StoreError> {
        // Lines are gathered to so many bytes before they are written.
        const BUFFER_BYTES: usize = 64 * 1024;
        let definition = self.schema().ok_or(SchemaError::Missing)?.name;
        let core = self.core();
        core.layout().models().iter().for_each(|model| core.settle(model));
        let (reading, now) = (core.long_reads().begin(), core.options().clock.unix_millis());
        let mut total = 0;
        for model in core.layout().models() {
            total += reading.snapshot(core.engine())?.0.len(&model.records)?;
        }
        let mut export = Export {
            definition,
            out: Lines { writer: BufWriter::with_capacity(BUFFER_BYTES, writer), bytes: 0 },
            options,
            now,
            progress: ExportProgress { done: 0, total },
            left: LeftRecords::default(),
            report: ExportReport { moments: 1, ..ExportReport::default() },
        };
        let version = FORMAT_NUMBER;
        export.out.write(&Header { format: FORMAT_NAME, version, definition, time: now })?;
        for model in core.layout().models() {
            if export.model(core.engine(), &reading, model)?.is_break() {
                return export.finish();
            }
        }
        export.end()
    }
}

/// An export on its way.
struct Export<'a, W: Write> {
    definition: &'static str,
    out: Lines<W>,
    options: ExportOptions<'a>,
    /// In milliseconds since the Unix epoch.
    now: u64,
    progress: ExportProgress,
    left: LeftRecords,
    report: ExportReport,
}

impl<W: Write> Export<'_, W> {
    fn model(
        &mut self,
        engine: &Engine,
        reading: &LongRead,
        model: &ModelTables,
    ) -> Result<ControlFlow<()>, StoreError> {
        // The callback is called once in so many records.
        const PROGRESS_RECORDS: u64 = 100;
        let mut start = Vec::new();
        loop {
            // Nothing is kept of the snapshot while the writer is waited for.
            let (snapshot, is_later) = reading.snapshot(engine)?;
            self.report.moments += u64::from(is_later && engine.has_snapshots());
            let piece = piece(&snapshot, model, &start)?;
            drop(snapshot);
            let Some((last, _)) = piece.last() else { return Ok(ControlFlow::Continue(())) };
            start.clone_from(last);
            start.push(0);
            for (key, value) in piece {
                if let Some(value) = value {
                    self.record(model, &key, &value)?;
                } else {
                    self.report.unreadable += 1;
                    self.left.push(model, &key, LeftReason::Checksum);
                }
                self.progress.done += 1;
                if self.progress.done.is_multiple_of(PROGRESS_RECORDS)
                    && self.options.progress.report(self.progress).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    fn record(&mut self, model: &ModelTables, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match self.read(model, value) {
            Ok(Some((envelope, json))) => {
                self.write(model, key, &envelope, model.schema.version, Some(&json))
            }
            Ok(None) => Ok(()),
            Err(reason) => {
                if let Some((envelope, version)) = self.unread(value, &reason) {
                    return self.write(model, key, &envelope, version, None);
                }
                match reason {
                    LeftReason::Newer { .. } => self.report.newer += 1,
                    _ => self.report.unreadable += 1,
                }
                self.left.push(model, key, reason);
                Ok(())
            }
        }
    }

    /// Returns a live record and its value as JSON.
    fn read(
        &self,
        model: &ModelTables,
        value: &[u8],
    ) -> Result<Option<(Envelope, Box<RawValue>)>, LeftReason> {
        let (envelope, version) = read_entry(model, value)?;
        if envelope.is_expired(self.now) {
            return Ok(None);
        }
        let json = exact_json(model, version, envelope.payload()).map_err(LeftReason::Value)?;
        Ok(Some((envelope, json)))
    }

    /// Returns a signed record without a value in JSON, and its version, if signed versions are
    /// wanted.
    fn unread(&self, value: &[u8], reason: &LeftReason) -> Option<(Envelope, u32)> {
        let is_wanted =
            self.options.signed && matches!(reason, LeftReason::Newer { .. } | LeftReason::Value(_));
        let envelope = Envelope::parse(value).ok().filter(|envelope| is_wanted && envelope.is_signed())?;
        let version = payload_version(envelope.payload()).ok()?;
        Some((envelope, version)).filter(|(envelope, _)| !envelope.is_expired(self.now))
    }

    fn write(
        &mut self,
        model: &ModelTables,
        key: &[u8],
        envelope: &Envelope,
        version: u32,
        value: Option<&RawValue>,
    ) -> Result<(), StoreError> {
        self.report.records += 1;
        let key = model.schema.record_key(self.definition, key)?;
        let signed = Some(envelope.to_wire()).filter(|envelope| self.options.signed && envelope.is_signed());
        self.out.write(&RecordLine {
            model: model.schema.name,
            version,
            value,
            author: envelope.author().map(|author| author.to_string()),
            timestamp: envelope.timestamp().map(Timestamp::unix_millis),
            expires: envelope.expires(),
            key: signed.as_ref().map(|_| STANDARD.encode(key.as_bytes())),
            signed: signed.map(|envelope| STANDARD.encode(envelope.as_bytes())),
        })
    }

    /// Writes the last line, unless the callback stops even now.
    fn end(mut self) -> Result<ExportReport, StoreError> {
        if self.options.progress.report(self.progress).is_continue() {
            let left_out = self.report.newer + self.report.unreadable;
            self.out.write(&Trailer { records: self.report.records, left_out })?;
            self.report.complete = true;
        }
        self.finish()
    }

    fn finish(mut self) -> Result<ExportReport, StoreError> {
        self.out.writer.flush().map_err(output)?;
        Ok(ExportReport { bytes: self.out.bytes, left_out: self.left.into_vec(), ..self.report })
    }
}

/// A key and its value, unless that is damaged.
type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Returns the next entries of a model's records, from the key `start` on.
fn piece(snapshot: &Snapshot, model: &ModelTables, start: &[u8]) -> Result<Vec<Pair>, StoreError> {
    let (mut piece, mut bytes) = (Vec::new(), 0);
    for entry in snapshot.range(&model.records, Span { start, end: None })? {
        let (key, value) = match entry {
            Err(StoreError::Damage(DamageError::Entry { entry, .. })) => (entry, None),
            entry => entry.map(|entry| (entry.key().to_vec(), Some(entry.value().to_vec())))?,
        };
        bytes += value.as_ref().map_or(0, Vec::len);
        piece.push((key, value));
        if piece.len() >= PIECE_RECORDS || bytes >= PIECE_BYTES {
            break;
        }
    }
    Ok(piece)
}

/// Returns the value of a payload as JSON, if that reads back as the same value.
fn exact_json(model: &ModelTables, version: u32, payload: &[u8]) -> Result<Box<RawValue>, ValueError> {
    let schema = model.schema;
    schema.guarded(|codec| {
        let json = codec.to_json(payload)?;
        // The bytes may be in another order, as those of a hash map are; their number tells a value
        // that was left out, such as a NaN that became `null`.
        let again = codec.from_json(schema.version, &json).map_err(|_| ValueError::NotJson)?;
        let is_same = |len| again.payload.len() == len;
        // A payload of an earlier version or program may be longer than its present encoding.
        let is_exact = (version == schema.version && is_same(payload.len()))
            || is_same(codec.upgrade(payload)?.payload.len());
        if !is_exact {
            return Err(ValueError::NotJson);
        }
        RawValue::from_string(json).map_err(|error| ValueError::json(&error))
    })
}

/// Writes lines and counts their bytes.
struct Lines<W: Write> {
    writer: BufWriter<W>,
    bytes: u64,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, line: &impl Serialize) -> Result<(), StoreError> {
        let line = serde_json::to_string(line).map_err(|error| output(error.into()))?;
        let mut line = text::json(&line).into_owned();
        line.push('\n');
        self.bytes += u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.writer.write_all(line.as_bytes()).map_err(output)
    }
}

fn output(error: io::Error) -> StoreError {
    StoreError::Admin(AdminError::Output(Arc::new(error)))
}

//! Reading records from lines of JSON, as an export has them, from JSON arrays and from tables.
//! `docs/formats.md` describes the lines.

use std::collections::{HashSet, VecDeque};
use std::io::{self, BufRead};
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::admin::limits::{BATCH_BYTES, MAX_REPORTED};
use crate::error::{AdminError, SchemaError, StoreError, ValueError, WriteError};
use crate::model::schema::{DefinitionSchema, EncodedRecord, ModelSchema};
use crate::store::NetabaseStore;
use crate::version::admit::Refusal;
use crate::version::record_key::RecordKey;
use crate::write::apply::{Expected, Op};
use crate::write::planned_write::{Answers, PlannedWrite, is_refusal};

mod array;
mod content;
mod items;
mod lines;
mod options;
mod report;
mod source;
mod table;

use content::{Content, is_header};
use items::{Item, Items, Next, Place};

pub use options::{ImportFormat, ImportOptions, OnConflict};
pub use report::{BadLine, ImportEnd, ImportError, ImportProgress, ImportReport, LineError};

impl NetabaseStore {
    /// Stores the records of an input, as writes of this store's identity.
    ///
    /// The input is text in UTF-8, with or without a byte order mark: the lines of an export, lines
    /// that are records (`{"model":"Book","value":{..}}`) or, with [`ImportOptions::model`], values
    /// of one model; a JSON array of such objects; or a table in CSV whose first row names the
    /// model's fields. [`ImportFormat`] describes how the format is detected. Without a `version` a
    /// value is of the current version of its model.
    ///
    /// Blocks in proportion to the size of the database; in an async function use `spawn_blocking`.
    ///
    /// A line with the signed version of its record ([`ExportOptions::signed`]) gives that back,
    /// with its author, time and expiry, after every check of a record that a peer has sent. With
    /// [`OnConflict::Replace`] the newer of two versions stays.
    ///
    /// [`ExportOptions::signed`]: crate::export::ExportOptions::signed
    ///
    /// Values of earlier versions of a model are converted like those on the disk. A line that
    /// cannot be stored is reported with its number and error, and the import continues or stops as
    /// [`ImportOptions::stop_at_errors`] says. Importing a file once more gives its records new
    /// versions and changes nothing else.
    ///
    /// A reader that waits for more input may return [`WouldBlock`](io::ErrorKind::WouldBlock) once
    /// each time: the import then stores the lines read so far, and the next call waits.
    ///
    /// Fails with [`StoreError::Import`] before anything is stored if the input is empty, is no
    /// text in UTF-8, or is the export of another definition; and with
    /// [`AdminError::ImportFailed`](crate::admin::AdminError::ImportFailed), which has the line to
    /// begin again with, if the input or the database fails later. A file that was cut off is no
    /// failure: see [`ImportReport::end`].
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
    /// use netabase_store::import::{ImportEnd, ImportOptions};
    ///
    /// let file = r#"{"format":"netabase-export","version":1,"definition":"LibraryDefinition","time":0}
    /// {"model":"Book","version":1,"value":{"isbn":"0131103628","title":"C"}}
    /// {"model":"Book","version":1,"value":{"isbn":7}}
    /// "#;
    /// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
    /// let report = store.import_json(file.as_bytes(), ImportOptions::default())?;
    /// assert_eq!((report.records, report.bad, report.bad_lines[0].line), (1, 1, 3));
    /// assert_eq!(report.end, ImportEnd::CutOff, "the last line, with the number of records, is missing");
    ///
    /// // The lines that were added since.
    /// let file = format!("{file}{}\n", r#"{"model":"Book","version":1,"value":{"isbn":"1","title":"D"}}"#);
    /// let options = ImportOptions { first_line: report.last_line + 1, ..ImportOptions::default() };
    /// assert_eq!(store.import_json(file.as_bytes(), options)?.records, 1);
    /// assert_eq!(store.open_tree::<Book>()?.len()?, 2);
    /// # Ok::<(), netabase_store::StoreError>(())
    /// ```
    pub fn import_json(
        &self,
        reader: impl BufRead,
        options: ImportOptions<'_>,
    ) -> Result<ImportReport, StoreError> {
        self.check_not_in_callback()?;
        let definition = self.schema().ok_or(SchemaError::Missing)?;
        let model = options.model.as_deref().map(|name| {
            let unknown = || ImportError::UnknownModel { name: shorten(name) };
            definition.model(name).ok_or_else(unknown)
        });
        let model = model.transpose()?;
        let mut items = Items::new(reader, &options, model)?;
        let mut import = Import::new(self, definition, model, options);
        match import.run(&mut items) {
            Ok(end) => Ok(import.finish(&items, end)),
            // Nothing is stored before the first line is known not to be that of another export.
            Err(error @ StoreError::Import(_)) => Err(error),
            Err(error) => {
                let next_line = import.report.last_line + 1;
                Err(StoreError::Admin(AdminError::ImportFailed { next_line, source: Arc::new(error) }))
            }
        }
    }
}

/// An import on its way.
struct Import<'a> {
    store: &'a NetabaseStore,
    definition: &'static DefinitionSchema,
    /// The model of the values, if the options name it.
    model: Option<&'static ModelSchema>,
    options: ImportOptions<'a>,
    /// The writes of the next batch.
    pending: Vec<PlannedWrite>,
    /// The keys of `pending`, where a second record may not replace the first.
    pending_keys: HashSet<RecordKey>,
    pending_bytes: usize,
    /// The places of the array's elements in `pending`.
    places: VecDeque<Place>,
    /// Whether signed versions wait for the disk.
    has_admitted: bool,
    /// The lines since the last batch, good or bad.
    lines: usize,
    /// Whether no item was read yet.
    is_first: bool,
    /// Whether the input begins as an export does.
    is_export: bool,
    /// The lines with records, stored or not.
    found: u64,
    /// The number of records in the last line, once it was read.
    expected: Option<u64>,
    report: ImportReport,
}

/// Whether the import continues, or how it ends.
type Flow = ControlFlow<ImportEnd>;

impl<'a> Import<'a> {
    fn new(
        store: &'a NetabaseStore,
        definition: &'static DefinitionSchema,
        model: Option<&'static ModelSchema>,
        options: ImportOptions<'a>,
    ) -> Self {
        let report = ImportReport {
            lines: 0,
            bytes: 0,
            records: 0,
            skipped: 0,
            bad: 0,
            bad_lines: Vec::new(),
            last_line: options.first_line.saturating_sub(1),
            left_out: 0,
            end: ImportEnd::CutOff,
        };
        Self {
            store,
            definition,
            model,
            options,
            pending: Vec::new(),
            pending_keys: HashSet::new(),
            pending_bytes: 0,
            places: VecDeque::new(),
            has_admitted: false,
            lines: 0,
            is_first: true,
            is_export: false,
            found: 0,
            expected: None,
            report,
        }
    }

    fn run(&mut self, items: &mut Items<impl BufRead>) -> Result<ImportEnd, StoreError> {
        loop {
            let item = match items.next()? {
                Next::End => return self.end(items),
                // A slow sender may wait until the lines that it has sent are stored.
                Next::Idle if self.pending.is_empty() => continue,
                Next::Idle => {
                    if let ControlFlow::Break(end) = self.batch(items)? {
                        return Ok(end);
                    }
                    continue;
                }
                Next::Item(item) => item,
            };
            let was_export = self.is_export;
            if let ControlFlow::Break(end) = self.item(item)? {
                return Ok(end);
            }
            // The line that an export begins with is no part of a batch.
            self.lines += usize::from(was_export == self.is_export);
            if (self.lines >= self.options.batch || self.pending_bytes >= BATCH_BYTES)
                && let ControlFlow::Break(end) = self.batch(items)?
            {
                return Ok(end);
            }
        }
    }

    fn item(&mut self, Item { place, text }: Item<'_>) -> Result<Flow, StoreError> {
        let is_blank = |text: &[u8]| text.iter().all(u8::is_ascii_whitespace);
        if text.as_deref().is_ok_and(is_blank) {
            return Ok(Flow::Continue(()));
        }
        if mem::take(&mut self.is_first)
            && let Ok(text) = &text
            && is_header(text, self.definition)?
        {
            self.is_export = true;
            return Ok(Flow::Continue(()));
        }
        let content = match (&text, self.model) {
            (Err(error), _) => Err(error.clone()),
            (Ok(text), Some(model)) if !self.is_export => {
                Content::of_model(text, model.name, self.definition)
            }
            (Ok(text), _) => Content::exported(text),
        };
        if let Ok(Content::End { records, left_out }) = content
            && self.expected.is_none()
        {
            (self.expected, self.report.left_out) = (Some(records), left_out);
            return Ok(Flow::Continue(()));
        }
        if self.expected.is_some() {
            return self.bad(place, LineError::AfterEnd);
        }
        self.found += 1;
        if place.number() < self.options.first_line {
            return Ok(Flow::Continue(()));
        }
        match content {
            Ok(Content::Record { model, version, value }) => self.record(place, &model, version, value),
            Ok(Content::Signed { model, key, envelope }) => self.signed(place, &model, &key, &envelope),
            Ok(Content::End { .. }) => Ok(Flow::Continue(())),
            Err(error) => self.bad(place, error),
        }
    }

    fn record(
        &mut self,
        place: Place,
        model: &str,
        version: Option<u32>,
        value: &str,
    ) -> Result<Flow, StoreError> {
        let Some(schema) = self.definition.model(model) else {
            return self.bad(place, ValueError::UnknownModel { name: shorten(model) }.into());
        };
        match schema.read_json(version.unwrap_or(schema.version), value) {
            Ok(record) => self.plan(place, record),
            Err(error) => self.bad(place, LineError::Value(shorten_value(error))),
        }
    }

    /// Stores the version that the author of a record has signed, after every check of one that a
    /// peer has sent.
    fn signed(&mut self, place: Place, model: &str, key: &str, envelope: &str) -> Result<Flow, StoreError> {
        let key = STANDARD.decode(key).ok().and_then(|key| RecordKey::parse(&key).ok());
        let is_ours = |key: &RecordKey| key.definition() == self.definition.name && key.model() == model;
        let Some(key) = key.filter(is_ours) else {
            return self.bad(place, LineError::Signed(Refusal::InvalidKey));
        };
        let Ok(envelope) = STANDARD.decode(envelope) else {
            return self.bad(place, LineError::Signed(Refusal::InvalidEnvelope));
        };
        // An earlier line may have the same record.
        if !self.pending.is_empty()
            && let Flow::Break(end) = self.flush(place.number() - 1)?
        {
            return Ok(Flow::Break(end));
        }
        if self.options.on_conflict != OnConflict::Replace && self.is_taken(&key)? {
            return self.taken(place, StoreError::Write(WriteError::Exists { key }));
        }
        let replica = self.store.replica();
        let mut admitted = replica.admit_quietly(key.as_bytes(), &envelope);
        while admitted == Err(Refusal::Busy) {
            self.store.flush()?;
            admitted = replica.admit_quietly(key.as_bytes(), &envelope);
        }
        match admitted {
            Ok(true) => (self.report.records, self.has_admitted) = (self.report.records + 1, true),
            Ok(false) | Err(Refusal::Outdated | Refusal::Expired) => self.report.skipped += 1,
            Err(reason) => return self.bad(place, LineError::Signed(reason)),
        }
        Ok(Flow::Continue(()))
    }

    /// Puts a record into the next batch.
    fn plan(&mut self, place: Place, record: EncodedRecord) -> Result<Flow, StoreError> {
        let number = place.number();
        let (key, envelope, secondary, lease) = match self.store.core().put_op(record) {
            Ok(Op::Put { key, envelope, secondary, lease, .. }) => (key, envelope, secondary, lease),
            Ok(_) => return Ok(Flow::Continue(())),
            Err(error) if is_refusal(&error) => return self.bad(place, LineError::Refused(error.into())),
            Err(error) => return Err(error),
        };
        let mut expected = None;
        if self.options.on_conflict != OnConflict::Replace {
            // Whether the record before it can be stored decides.
            if self.pending_keys.contains(&key)
                && let Flow::Break(end) = self.flush(number - 1)?
            {
                return Ok(Flow::Break(end));
            }
            if self.is_taken(&key)? {
                return self.taken(place, StoreError::Write(WriteError::Exists { key }));
            }
            self.pending_keys.insert(key.clone());
            expected = Some(Expected::Absent);
        }
        let write = PlannedWrite { tag: number, key, envelope, secondary, lease, expected };
        self.pending_bytes += write.bytes();
        if place.item.is_some() {
            self.places.push_back(place);
        }
        self.pending.push(write);
        Ok(Flow::Continue(()))
    }

    fn is_taken(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let core = self.store.core();
        let now = core.options().clock.unix_millis();
        let current = core.replaceable(key)?;
        Ok(current.is_some_and(|current| !current.is_tombstone() && !current.is_expired(now)))
    }

    fn taken(&mut self, place: Place, error: StoreError) -> Result<Flow, StoreError> {
        if self.options.on_conflict == OnConflict::Fail {
            return self.bad(place, LineError::Refused(error.into()));
        }
        self.report.skipped += 1;
        Ok(Flow::Continue(()))
    }

    /// Reports a line, and stores the lines before it if the import stops at it.
    fn bad(&mut self, place: Place, error: LineError) -> Result<Flow, StoreError> {
        if self.is_last_error()
            && let Flow::Break(end) = self.flush(place.number() - 1)?
        {
            return Ok(Flow::Break(end));
        }
        Ok(self.count_bad(place, error))
    }

    fn is_last_error(&self) -> bool {
        self.patience() <= 1
    }

    fn count_bad(&mut self, Place { line, item }: Place, error: LineError) -> Flow {
        let last = self.is_last_error();
        self.report.bad += 1;
        if self.report.bad_lines.len() < MAX_REPORTED {
            self.report.bad_lines.push(BadLine { line, item, error });
        }
        if last { Flow::Break(ImportEnd::TooManyErrors) } else { Flow::Continue(()) }
    }

    /// Stores a batch and reports the progress.
    fn batch(&mut self, items: &Items<impl BufRead>) -> Result<Flow, StoreError> {
        self.lines = 0;
        if let Flow::Break(end) = self.flush(items.number())? {
            return Ok(Flow::Break(end));
        }
        let (records, last_line) = (self.report.records, self.report.last_line);
        let progress = ImportProgress { lines: items.number(), bytes: items.bytes(), records, last_line };
        Ok(match self.options.progress.report(progress) {
            ControlFlow::Continue(()) => Flow::Continue(()),
            ControlFlow::Break(()) => Flow::Break(ImportEnd::Stopped),
        })
    }

    /// Stores the pending writes; then every line up to `line` is done.
    fn flush(&mut self, line: u64) -> Result<Flow, StoreError> {
        let writes = mem::take(&mut self.pending);
        self.pending_keys.clear();
        self.pending_bytes = 0;
        let flow = self.store.commit_each(&writes, self)?;
        if mem::take(&mut self.has_admitted) {
            self.store.flush()?;
        }
        self.places.clear();
        if flow.is_break() {
            return Ok(Flow::Break(ImportEnd::TooManyErrors));
        }
        self.report.last_line = self.report.last_line.max(line);
        Ok(Flow::Continue(()))
    }

    fn end(&mut self, items: &Items<impl BufRead>) -> Result<ImportEnd, StoreError> {
        if let Flow::Break(end) = self.flush(items.number())? {
            return Ok(end);
        }
        let found = self.found;
        Ok(match self.expected {
            None if self.is_export || items.is_cut_off() => ImportEnd::CutOff,
            Some(expected) if expected != found => ImportEnd::Incomplete { expected, found },
            None | Some(_) => ImportEnd::Complete,
        })
    }

    fn finish(self, items: &Items<impl BufRead>, end: ImportEnd) -> ImportReport {
        let mut report = ImportReport { lines: items.number(), bytes: items.bytes(), end, ..self.report };
        report.bad_lines.sort_by_key(|bad| (bad.line, bad.item));
        report
    }

    /// Returns the place of a write's record in the input.
    fn place(&mut self, write: &PlannedWrite) -> Place {
        while self.places.front().is_some_and(|place| place.number() < write.tag) {
            self.places.pop_front();
        }
        let known = self.places.front().filter(|place| place.number() == write.tag);
        known.copied().unwrap_or(Place { line: write.tag, item: None })
    }
}

impl Answers for Import<'_> {
    fn patience(&self) -> usize {
        let bad = usize::try_from(self.report.bad).unwrap_or(usize::MAX);
        self.options.stop_at_errors.saturating_sub(bad)
    }

    fn answer(&mut self, write: &PlannedWrite, refusal: Option<StoreError>) -> ControlFlow<()> {
        let (line, place) = (write.tag, self.place(write));
        match refusal {
            None => self.report.records += 1,
            Some(StoreError::Write(WriteError::Exists { .. }))
                if self.options.on_conflict == OnConflict::Skip =>
            {
                self.report.skipped += 1;
            }
            Some(error) => {
                if self.count_bad(place, LineError::Refused(error.into())).is_break() {
                    return ControlFlow::Break(());
                }
            }
        }
        self.report.last_line = self.report.last_line.max(line);
        ControlFlow::Continue(())
    }
}

fn input(error: io::Error) -> StoreError {
    StoreError::Admin(AdminError::Input(Arc::new(error)))
}

/// Bounds a message that may quote a line.
fn shorten(message: &str) -> String {
    // A message may quote the line, which may be long.
    const MESSAGE_CHARS: usize = 200;
    message.chars().take(MESSAGE_CHARS).collect()
}

fn shorten_value(error: ValueError) -> ValueError {
    match error {
        ValueError::Json { message } => ValueError::Json { message: shorten(&message) },
        ValueError::Migration { from, to, message } => {
            ValueError::Migration { from, to, message: shorten(&message) }
        }
        other => other,
    }
}

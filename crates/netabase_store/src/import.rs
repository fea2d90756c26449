//! Reading records from lines of JSON, as an export has them. `docs/formats.md` describes the lines.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::BufRead;
use std::mem;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::apply::{Expected, Op};
use crate::error::{StoreError, ValueError};
use crate::export::{FORMAT_NAME, FORMAT_NUMBER};
use crate::left_record::MAX_REPORTED;
use crate::line_reader::{Line, LineReader};
use crate::planned_write::{Answers, PlannedWrite, is_refusal};
use crate::record_key::RecordKey;
use crate::schema::{DefinitionSchema, EncodedRecord};
use crate::store::NetabaseStore;

mod options;
mod report;

pub use options::{DEFAULT_IMPORT_BATCH, DEFAULT_MAX_LINE_BYTES, ImportOptions, OnConflict};
pub use report::{BadLine, ImportEnd, ImportError, ImportProgress, ImportReport, LineError};

/// The most bytes of records that are stored together, unless one record is larger.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest message about a line, in characters; it may quote the line.
const MESSAGE_CHARS: usize = 200;

#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
    definition: Option<String>,
}

/// A record or the last line.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    version: Option<u32>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    records: Option<u64>,
    left_out: Option<u64>,
}

/// What a line says.
enum Content<'a> {
    Record { model: Cow<'a, str>, version: u32, value: &'a str },
    End { records: u64, left_out: u64 },
}

impl<'a> Content<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, LineError> {
        let fields: Fields<'_> = serde_json::from_slice(text)
            .map_err(|error| LineError::Json { message: shorten(&error.to_string()) })?;
        match fields {
            Fields { model: Some(model), version: Some(version), value: Some(value), .. } => {
                Ok(Self::Record { model, version, value: value.get() })
            }
            Fields { model: None, value: None, records: Some(records), left_out, .. } => {
                Ok(Self::End { records, left_out: left_out.unwrap_or_default() })
            }
            _ => Err(LineError::Form),
        }
    }
}

impl NetabaseStore {
    /// Stores the records of an export, as writes of this store's identity.
    ///
    /// Values of earlier versions of a model are converted like those on the disk. A line that cannot be
    /// stored is reported, with its number and what is wrong, and the import goes on or stops as
    /// [`ImportOptions::stop_at_errors`] says. Importing a file once more gives its records new versions
    /// and changes nothing else.
    ///
    /// Fails with [`StoreError::Import`] before anything is stored if the input is no export, or one of
    /// another definition; and with [`StoreError::ImportFailed`], which says where to begin again, if
    /// the input or the database fails later. A file that was cut off is no failure: see
    /// [`ImportReport::end`].
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
    /// use netabase_store::{ImportEnd, ImportOptions};
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
        let definition = self.schema().ok_or(StoreError::NoSchema)?;
        let mut reader = LineReader::new(reader, options.max_line_bytes);
        check_header(&mut reader, definition)?;
        let mut import = Import::new(self, definition, options);
        match import.run(&mut reader) {
            Ok(end) => Ok(import.finish(&reader, end)),
            Err(error) => {
                let next_line = import.report.last_line + 1;
                Err(StoreError::ImportFailed { next_line, source: Arc::new(error) })
            }
        }
    }
}

fn check_header(
    reader: &mut LineReader<impl BufRead>,
    definition: &DefinitionSchema,
) -> Result<(), StoreError> {
    let no_header = |message: &str| ImportError::NoHeader { message: shorten(message) };
    let header: Header = match reader.next().map_err(|error| StoreError::Input(Arc::new(error)))? {
        None => return Err(ImportError::Empty.into()),
        Some(Line::TooLong) => return Err(no_header("it is too long").into()),
        Some(Line::Text(text)) => {
            serde_json::from_slice(text).map_err(|error| no_header(&error.to_string()))?
        }
    };
    if header.format != FORMAT_NAME {
        return Err(no_header(&format!("it says `{}`", header.format)).into());
    }
    let (found, known) = (header.version, FORMAT_NUMBER);
    if found != known {
        return Err(ImportError::UnknownFormat { found, known }.into());
    }
    match header.definition {
        Some(found) if found == definition.name => Ok(()),
        Some(found) => {
            Err(ImportError::OtherDefinition { found: shorten(&found), expected: definition.name }.into())
        }
        None => Err(no_header("it names no definition").into()),
    }
}

/// An import on its way.
struct Import<'a> {
    store: &'a NetabaseStore,
    definition: &'static DefinitionSchema,
    options: ImportOptions<'a>,
    /// What is stored with the next batch.
    pending: Vec<PlannedWrite>,
    /// The keys of `pending`, where a second record may not replace the first.
    pending_keys: HashSet<RecordKey>,
    pending_bytes: usize,
    /// The lines since the last batch, good or bad.
    lines: usize,
    /// The lines with records, stored or not.
    found: u64,
    /// The number of records in the last line, once it was met.
    expected: Option<u64>,
    report: ImportReport,
}

/// Goes on, or ends as it says.
type Flow = ControlFlow<ImportEnd>;

impl<'a> Import<'a> {
    fn new(
        store: &'a NetabaseStore,
        definition: &'static DefinitionSchema,
        options: ImportOptions<'a>,
    ) -> Self {
        let report = ImportReport {
            lines: 0,
            bytes: 0,
            records: 0,
            skipped: 0,
            bad: 0,
            bad_lines: Vec::new(),
            // The header, at least, is done.
            last_line: options.first_line.saturating_sub(1).max(1),
            left_out: 0,
            end: ImportEnd::CutOff,
        };
        Self {
            store,
            definition,
            options,
            pending: Vec::new(),
            pending_keys: HashSet::new(),
            pending_bytes: 0,
            lines: 0,
            found: 0,
            expected: None,
            report,
        }
    }

    fn run(&mut self, reader: &mut LineReader<impl BufRead>) -> Result<ImportEnd, StoreError> {
        loop {
            let number = reader.lines + 1;
            let Some(line) = reader.next().map_err(|error| StoreError::Input(Arc::new(error)))? else {
                return self.end(reader.lines);
            };
            if let ControlFlow::Break(end) = self.line(number, &line)? {
                return Ok(end);
            }
            self.lines += 1;
            if (self.lines >= self.options.batch || self.pending_bytes >= BATCH_BYTES)
                && let ControlFlow::Break(end) = self.batch(reader)?
            {
                return Ok(end);
            }
        }
    }

    fn line(&mut self, number: u64, line: &Line<'_>) -> Result<Flow, StoreError> {
        let content = match line {
            Line::Text(text) if text.iter().all(u8::is_ascii_whitespace) => {
                return Ok(Flow::Continue(()));
            }
            Line::Text(text) => Content::parse(text),
            Line::TooLong => Err(LineError::TooLong { limit: self.options.max_line_bytes }),
        };
        if let Ok(Content::End { records, left_out }) = content
            && self.expected.is_none()
        {
            (self.expected, self.report.left_out) = (Some(records), left_out);
            return Ok(Flow::Continue(()));
        }
        if self.expected.is_some() {
            return self.bad(number, LineError::AfterEnd);
        }
        self.found += 1;
        if number < self.options.first_line {
            return Ok(Flow::Continue(()));
        }
        match content {
            Ok(Content::Record { model, version, value }) => self.record(number, &model, version, value),
            Ok(Content::End { .. }) => Ok(Flow::Continue(())),
            Err(error) => self.bad(number, error),
        }
    }

    fn record(&mut self, number: u64, model: &str, version: u32, value: &str) -> Result<Flow, StoreError> {
        let Some(schema) = self.definition.model(model) else {
            return self.bad(number, ValueError::UnknownModel { name: shorten(model) }.into());
        };
        match schema.guarded(|codec| codec.from_json(version, value)) {
            Ok(record) => self.plan(number, record),
            Err(error) => self.bad(number, LineError::Value(shorten_value(error))),
        }
    }

    /// Puts a record into the next batch.
    fn plan(&mut self, number: u64, record: EncodedRecord) -> Result<Flow, StoreError> {
        let (key, envelope, secondary, lease) = match self.store.core().put_op(record) {
            Ok(Op::Put { key, envelope, secondary, lease, .. }) => (key, envelope, secondary, lease),
            Ok(_) => return Ok(Flow::Continue(())),
            Err(error) if is_refusal(&error) => return self.bad(number, LineError::Refused(error.into())),
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
                return self.taken(number, StoreError::Exists { key });
            }
            self.pending_keys.insert(key.clone());
            expected = Some(Expected::Absent);
        }
        let write = PlannedWrite { tag: number, key, envelope, secondary, lease, expected };
        self.pending_bytes += write.bytes();
        self.pending.push(write);
        Ok(Flow::Continue(()))
    }

    fn is_taken(&self, key: &RecordKey) -> Result<bool, StoreError> {
        let core = self.store.core();
        let now = core.options().clock.unix_millis();
        let current = core.replaceable(key)?;
        Ok(current.is_some_and(|current| !current.is_tombstone() && !current.is_expired(now)))
    }

    fn taken(&mut self, number: u64, error: StoreError) -> Result<Flow, StoreError> {
        if self.options.on_conflict == OnConflict::Fail {
            return self.bad(number, LineError::Refused(error.into()));
        }
        self.report.skipped += 1;
        Ok(Flow::Continue(()))
    }

    /// Reports a line, and stores what comes before it if the import is to stop at it.
    fn bad(&mut self, number: u64, error: LineError) -> Result<Flow, StoreError> {
        if self.is_last_error()
            && let Flow::Break(end) = self.flush(number - 1)?
        {
            return Ok(Flow::Break(end));
        }
        Ok(self.count_bad(number, error))
    }

    fn is_last_error(&self) -> bool {
        self.patience() <= 1
    }

    fn count_bad(&mut self, line: u64, error: LineError) -> Flow {
        let last = self.is_last_error();
        self.report.bad += 1;
        if self.report.bad_lines.len() < MAX_REPORTED {
            self.report.bad_lines.push(BadLine { line, error });
        }
        if last { Flow::Break(ImportEnd::TooManyErrors) } else { Flow::Continue(()) }
    }

    /// Stores a batch and tells how far the import is.
    fn batch(&mut self, reader: &LineReader<impl BufRead>) -> Result<Flow, StoreError> {
        self.lines = 0;
        if let Flow::Break(end) = self.flush(reader.lines)? {
            return Ok(Flow::Break(end));
        }
        let (records, last_line) = (self.report.records, self.report.last_line);
        let progress = ImportProgress { lines: reader.lines, bytes: reader.bytes, records, last_line };
        Ok(match self.options.progress.report(progress) {
            ControlFlow::Continue(()) => Flow::Continue(()),
            ControlFlow::Break(()) => Flow::Break(ImportEnd::Stopped),
        })
    }

    /// Stores what is pending; then every line up to `line` is done.
    fn flush(&mut self, line: u64) -> Result<Flow, StoreError> {
        let writes = mem::take(&mut self.pending);
        self.pending_keys.clear();
        self.pending_bytes = 0;
        let flow = self.store.commit_each(&writes, self)?;
        if flow.is_break() {
            return Ok(Flow::Break(ImportEnd::TooManyErrors));
        }
        self.report.last_line = self.report.last_line.max(line);
        Ok(Flow::Continue(()))
    }

    fn end(&mut self, lines: u64) -> Result<ImportEnd, StoreError> {
        if let Flow::Break(end) = self.flush(lines)? {
            return Ok(end);
        }
        let found = self.found;
        Ok(match self.expected {
            None => ImportEnd::CutOff,
            Some(expected) if expected != found => ImportEnd::Incomplete { expected, found },
            Some(_) => ImportEnd::Complete,
        })
    }

    fn finish(self, reader: &LineReader<impl BufRead>, end: ImportEnd) -> ImportReport {
        let mut report = ImportReport { lines: reader.lines, bytes: reader.bytes, end, ..self.report };
        report.bad_lines.sort_by_key(|bad| bad.line);
        report
    }
}

impl Answers for Import<'_> {
    fn patience(&self) -> usize {
        let bad = usize::try_from(self.report.bad).unwrap_or(usize::MAX);
        self.options.stop_at_errors.saturating_sub(bad)
    }

    fn answer(&mut self, write: &PlannedWrite, refusal: Option<StoreError>) -> ControlFlow<()> {
        let line = write.tag;
        match refusal {
            None => self.report.records += 1,
            Some(StoreError::Exists { .. }) if self.options.on_conflict == OnConflict::Skip => {
                self.report.skipped += 1;
            }
            Some(error) => {
                if self.count_bad(line, LineError::Refused(error.into())).is_break() {
                    return ControlFlow::Break(());
                }
            }
        }
        self.report.last_line = self.report.last_line.max(line);
        ControlFlow::Continue(())
    }
}

/// Bounds a message that may quote a line.
fn shorten(message: &str) -> String {
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

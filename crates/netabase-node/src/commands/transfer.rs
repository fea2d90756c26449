//! `netabase import` and `netabase export`: records as JSON or CSV.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use indicatif::ProgressBar;
use netabase::Node;
use netabase::netabase_store::NetabaseStore;
use netabase::netabase_store::admin::ProgressCallback;
use netabase::netabase_store::export::{ExportOptions, ExportProgress};
use netabase::netabase_store::import::{ImportFormat, ImportOptions, ImportProgress, OnConflict};
use netabase::netabase_store::text;
use netabase_client::Client;
use netabase_http::import_report;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::failure::{Failure, Outcome};
use crate::offline::{self, TargetArguments};
use crate::online::{self, failed, with};
use crate::output::note;
use crate::{output, progress};

/// The name of standard input and output on the command line.
const STANDARD: &str = "-";
/// The size of the pieces in which a file is sent.
const PIECE_BYTES: usize = 64 * 1024;
/// The most pieces that wait to be sent.
const PIECES: usize = 4;
/// How long an input may pause before the records so far are stored.
const LINGER: Duration = Duration::from_millis(100);
/// How long an input may pause before the node is sent a space as a keep-alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// The suffix of the file of an incomplete export, which is that of backups.
const PARTIAL: &str = ".partial";
/// The number of random characters in front of the suffix.
const RANDOM_CHARS: usize = 6;

/// The command line of `netabase import`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ImportArguments {
    /// The file, or - for standard input: an export, lines or an array of JSON, or a table in CSV
    input: PathBuf,
    /// The model of the values, for plain objects and tables, which do not name it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// The format of the file [default: csv for .csv and .tsv, otherwise detected from its
    /// beginning]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The action for a record whose key exists
    #[arg(long, value_enum, default_value = "replace")]
    on_conflict: Conflict,
    /// Begin with this line, or this element of an array: one more than the last one stored
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    first_line: u64,
    /// Stop after this many bad lines [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    stop_at_errors: Option<u32>,
    #[command(flatten)]
    target: TargetArguments,
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines of JSON objects, or an array of them
    Json,
    /// A table with commas, semicolons or tabs, whose first row names the fields
    Csv,
}

/// The action for a record whose key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Conflict {
    /// Replace the existing record
    Replace,
    /// Keep the existing record
    Skip,
    /// Keep the existing record, and count the line as bad
    Fail,
}

impl ImportArguments {
    fn format(&self) -> Option<Format> {
        let is_table =
            |end: &std::ffi::OsStr| end.eq_ignore_ascii_case("csv") || end.eq_ignore_ascii_case("tsv");
        self.format.or_else(|| self.input.extension().is_some_and(is_table).then_some(Format::Csv))
    }

    /// Returns the options for an import into a database that this program opens.
    fn options(&self) -> ImportOptions<'static> {
        ImportOptions {
            model: self.model.clone(),
            format: match self.format() {
                None => ImportFormat::Auto,
                Some(Format::Json) => ImportFormat::Json,
                Some(Format::Csv) => ImportFormat::Csv,
            },
            first_line: self.first_line,
            on_conflict: match self.on_conflict {
                Conflict::Replace => OnConflict::Replace,
                Conflict::Skip => OnConflict::Skip,
                Conflict::Fail => OnConflict::Fail,
            },
            stop_at_errors: self
                .stop_at_errors
                .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            ..ImportOptions::default()
        }
    }

    /// Returns the path and query string for an import into a node.
    fn path(&self) -> String {
        let name =
            |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let first_line = (self.first_line > 1).then(|| self.first_line.to_string());
        with(
            "/v1/import".to_owned(),
            &[
                ("model", self.model.clone()),
                ("format", self.format().and_then(|format| name(format.to_possible_value()))),
                ("on_conflict", name(self.on_conflict.to_possible_value())),
                ("first_line", first_line),
                ("stop_at_errors", self.stop_at_errors.map(|n| n.to_string())),
            ],
        )
    }
}

/// Imports the records of a file.
pub(crate) async fn import(file: Option<&Path>, arguments: &ImportArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let (input, bar) = open(&arguments.input)?;
    let report = if is_offline {
        let node = offline::open(&config, true)?;
        note!("importing into the database {}, which no node has open", offline::place(&node).display());
        let arguments = arguments.clone();
        offline::run(move |stop| import_here(&node, Ahead::new(input), arguments.options(), &bar, stop))
            .await?
    } else {
        let api = online::client(&config)?;
        note!("importing into the node at {}", api.url());
        api.get("/health/live").await.map_err(failed)?;
        let answer = import_there(&api, input, &arguments.path()).await;
        drop(bar);
        let report = answer?;
        note_refusals(&api).await;
        report
    };
    say_import(&report, arguments.target.api.json)
}

/// The kinds of warnings that mean that peers refuse the records of a node.
const NOT_SHARED: [&str; 4] = ["clock_skew", "refused_by_peers", "identity_shared", "banned"];

/// Notes the warnings of the node that mean that peers refuse the imported records.
async fn note_refusals(api: &Client) {
    // A failure of this request does not make the import fail.
    let Ok(answer) = api.get("/v1/status").await else { return };
    for warning in answer.json.get("warnings").and_then(Value::as_array).into_iter().flatten() {
        let [kind, message, advice] = ["kind", "message", "what_to_do"]
            .map(|name| warning.get(name).map(output::text).unwrap_or_default());
        if NOT_SHARED.contains(&kind.as_str()) {
            note!("warning: the records are stored on this node, but {message}; {advice}");
        }
    }
}

/// Opens the input, with a progress bar.
fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, ProgressBar), Failure> {
    if path == Path::new(STANDARD) {
        let bar = progress::bytes("import", None);
        return Ok((Box::new(BufReader::with_capacity(PIECE_BYTES, bar.wrap_read(io::stdin()))), bar));
    }
    if path.is_dir() {
        return Err(Failure::from(anyhow!(
            "{} is a directory; name a file, or - for standard input",
            path.display()
        )));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) = opened.with_context(|| {
        format!("cannot read {}; name a file that exists, or - for standard input", path.display())
    })?;
    let bar = progress::bytes("import", Some(len));
    Ok((Box::new(BufReader::with_capacity(PIECE_BYTES, bar.wrap_read(file))), bar))
}

/// Returns the next available bytes of the input, or `None` at its end.
fn piece(input: &mut impl BufRead) -> Option<io::Result<Vec<u8>>> {
    loop {
        match input.fill_buf() {
            Ok([]) => return None,
            Ok(bytes) => {
                let piece = bytes.to_vec();
                input.consume(piece.len());
                return Some(Ok(piece));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Sends the input to a node while it is read.
async fn import_there(
    api: &Client,
    mut input: Box<dyn BufRead + Send>,
    path: &str,
) -> Result<Value, Failure> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(PIECES);
    // The runtime would wait for a thread of its own, though a node may refuse the import long
    // before the input ends.
    std::thread::spawn(move || {
        while let Some(piece) = piece(&mut input) {
            let is_last = piece.is_err();
            if sender.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    });
    // The request begins with the first piece, so that the node does not wait for it.
    let first = receiver.recv().await;
    let begin = first.iter().flatten().flatten().find(|byte| !byte.is_ascii_whitespace());
    let is_json = matches!(begin, Some(b'{' | b'['));
    let state = (first, receiver, false);
    let pieces = futures::stream::unfold(state, move |(mut first, mut receiver, may_wait)| async move {
        let next = async {
            match first.take() {
                Some(first) => Some(first),
                None => receiver.recv().await,
            }
        };
        let piece = if may_wait {
            match tokio::time::timeout(SIGN_OF_LIFE, next).await {
                Ok(piece) => piece,
                // A space in front of a line has no meaning.
                Err(_) => return Some((Ok(b" ".to_vec()), (first, receiver, true))),
            }
        } else {
            next.await
        };
        let piece = piece?;
        let ends_line = |piece: &Vec<u8>| piece.last() == Some(&b'\n');
        let may_wait = is_json && piece.as_ref().is_ok_and(ends_line);
        Some((piece, (first, receiver, may_wait)))
    });
    Ok(api.post_lines(path, pieces).await.map_err(failed)?.json)
}

/// An input that is read ahead on a separate thread, so that records are stored while the input
/// pauses.
struct Ahead {
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    piece: Cursor<Vec<u8>>,
}

impl Ahead {
    fn new(mut input: Box<dyn BufRead + Send>) -> Self {
        let (sender, pieces) = mpsc::sync_channel(PIECES);
        std::thread::spawn(move || {
            while let Some(piece) = piece(&mut input) {
                if sender.send(piece).is_err() {
                    return;
                }
            }
        });
        Self { pieces, piece: Cursor::default() }
    }
}

impl Read for Ahead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            match self.pieces.recv_timeout(LINGER) {
                Ok(piece) => self.piece = Cursor::new(piece?),
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
    }
}

fn import_here(
    node: &Node,
    input: Ahead,
    options: ImportOptions<'_>,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Result<Value, Failure> {
    let go_on = |_: ImportProgress| {
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ImportOptions { progress: ProgressCallback::new(go_on), ..options };
    let report = node.store().import_json(BufReader::with_capacity(PIECE_BYTES, input), options)?;
    bar.finish_and_clear();
    Ok(import_report(&report))
}

fn say_import(report: &Value, json: bool) -> Outcome {
    let number = |name| report.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (records, bad) = (number("records"), number("bad"));
    if json {
        output::print_json(report)?;
    } else {
        output::print_line(&format!("{records} records stored, {bad} lines could not be"))?;
        for line in report.get("bad_lines").and_then(Value::as_array).into_iter().flatten() {
            let [number, item, error] =
                ["line", "item", "error"].map(|name| line.get(name).map(output::text).unwrap_or_default());
            match item.as_str() {
                "" | "-" => note!("line {number}: {error}"),
                item => note!("element {item}, on line {number}: {error}"),
            }
        }
    }
    let end = report.get("end").map(output::text).unwrap_or_default();
    if end == "complete" && bad == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let last = number("last_line");
    Err(Failure::from(match end.as_str() {
        "complete" => anyhow!("{bad} lines could not be stored; correct them and import them alone"),
        "cut_off" => {
            anyhow!(
                "the file was cut off; its complete lines are stored; get the whole file and import it again"
            )
        }
        "stopped" => anyhow!(
            "interrupted; everything up to line {last} is stored; continue with --first-line {}",
            last + 1
        ),
        end => anyhow!(
            "the import ended early ({end}) after line {last}; correct the next line and continue with --first-line {}",
            last + 1
        ),
    }))
}

/// The command line of `netabase export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArguments {
    /// The file to write [default: standard output]
    #[arg(default_value = STANDARD, hide_default_value = true)]
    output: PathBuf,
    /// Add the signed versions, so that an import restores records with their authors and times
    #[arg(long)]
    signed: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// Exports all records as lines of JSON.
pub(crate) async fn export(file: Option<&Path>, arguments: &ExportArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let mut target = Target::new(&arguments.output)?;
    let signed = arguments.signed;
    let exported = if is_offline {
        let (store, place) = offline::open_unchanged(&config)?;
        note!("exporting the database {}, which no node has open", place.display());
        let (written, exported) = offline::run(move |stop| {
            let exported = export_here(&store, &mut target, signed, stop)?;
            Ok((target, exported))
        })
        .await?;
        target = written;
        exported
    } else {
        let api = online::client(&config)?;
        note!("exporting the records of the node at {}", api.url());
        export_there(&api, &mut target, signed).await?
    };
    let Exported { lines, left_out, complete } = exported;
    if !complete {
        // The unfinished file is removed, and an earlier export stays.
        let message =
            format!("the export ended early after {lines} records, and replaces nothing; try again");
        return Err(Failure::from(anyhow!(message)));
    }
    target.finish()?;
    note!("{lines} records");
    if left_out > 0 {
        return Err(Failure::from(anyhow!("{left_out} records were left out; `netabase check` shows why")));
    }
    Ok(ExitCode::SUCCESS)
}

/// The outcome of an export.
#[derive(Debug)]
struct Exported {
    lines: u64,
    left_out: u64,
    complete: bool,
}

fn export_here(
    store: &NetabaseStore,
    target: &mut Target,
    signed: bool,
    stop: &AtomicBool,
) -> Result<Exported, Failure> {
    let bar = progress::bar("export", 0);
    let tell = |at: ExportProgress| progress::step(&bar, stop, at.done, at.total);
    let options = ExportOptions { progress: ProgressCallback::new(tell), signed, ..ExportOptions::default() };
    let report = store.export_json(&mut *target, options)?;
    Ok(Exported {
        lines: report.records,
        left_out: report.newer + report.unreadable,
        complete: report.complete,
    })
}

async fn export_there(api: &Client, target: &mut Target, signed: bool) -> Result<Exported, Failure> {
    let bar = progress::spinner("export");
    let mut lines =
        api.lines(if signed { "/v1/export?signed=true" } else { "/v1/export" }).await.map_err(failed)?;
    let mut exported = Exported { lines: 0, left_out: 0, complete: false };
    while let Some(line) = lines.next().await {
        let line = line.map_err(failed)?;
        target
            .write_all(text::json(&line).as_bytes())
            .and_then(|()| target.write_all(b"\n"))
            .context("cannot write the export")?;
        let line: Value = serde_json::from_str(&line)?;
        if line.get("model").is_some() {
            exported.lines += 1;
            bar.set_position(exported.lines);
        } else if line.get("records").is_some() {
            exported.left_out = line.get("left_out").and_then(Value::as_u64).unwrap_or_default();
            exported.complete = true;
        }
    }
    Ok(exported)
}

/// The target of an export. A file is written under a temporary name and renamed when it is
/// complete; anything else, such as a pipe, is written directly.
#[derive(Debug)]
enum Target {
    Standard(io::Stdout),
    Stream(File),
    File { file: NamedTempFile, path: PathBuf },
}

impl Target {
    fn new(path: &Path) -> Result<Self, Failure> {
        if path == Path::new(STANDARD) {
            return Ok(Self::Standard(io::stdout()));
        }
        if std::fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            let stream = File::options().write(true).open(path);
            return Ok(Self::Stream(stream.with_context(|| format!("cannot write {}", path.display()))?));
        }
        // A symbolic link is kept, and its target replaced.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let file = begin(offline::directory_of(path), path).with_context(|| {
            format!("cannot write {}; name a file in a directory that exists", path.display())
        })?;
        Ok(Self::File { file, path: path.to_owned() })
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Standard(mut out) => out.flush().context("cannot write to standard output")?,
            Self::Stream(mut out) => out.flush().context("cannot write the export")?,
            Self::File { file, path } => {
                let synced = file.as_file().sync_all();
                synced.with_context(|| format!("cannot write {}", path.display()))?;
                file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Creates the temporary file of an export, and removes those that killed exports to `path` left.
fn begin(directory: &Path, path: &Path) -> io::Result<NamedTempFile> {
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    for entry in directory.read_dir().into_iter().flatten().map_while(Result::ok) {
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        let random = rest.and_then(|rest| rest.strip_suffix(PARTIAL.as_bytes()));
        if random.is_some_and(|random| random.len() == RANDOM_CHARS)
            // An export in progress has its file locked.
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
            && std::fs::remove_file(entry.path()).is_ok()
        {
            note!("an export that was not completed was removed: {}", entry.path().display());
        }
    }
    let mut builder = tempfile::Builder::new();
    // An export is for others, as far as the umask or the file that it replaces lets them read.
    #[cfg(unix)]
    builder.permissions(
        path.metadata().map_or_else(
            |_| std::os::unix::fs::PermissionsExt::from_mode(0o666),
            |known| known.permissions(),
        ),
    );
    let file = builder.prefix(&prefix).rand_bytes(RANDOM_CHARS).suffix(PARTIAL).tempfile_in(directory)?;
    // Without file locks, leftover files cannot be told from those in progress and are kept.
    let _ = file.as_file().lock();
    Ok(file)
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(out) => out.write(bytes),
            Self::Stream(out) => out.write(bytes),
            Self::File { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(out) => out.flush(),
            Self::Stream(out) => out.flush(),
            Self::File { file, .. } => file.flush(),
        }
    }
}

//! Import, export, backup, check and compaction.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use futures::stream;
use http_body_util::BodyExt;
use netabase::netabase_store::admin::{CheckOptions, CheckReport, Compaction};
use netabase::netabase_store::export::ExportOptions;
use netabase::netabase_store::import::{ImportEnd, ImportFormat, ImportOptions, ImportReport, OnConflict};
use netabase_client::media::{JSON, NDJSON};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::app::{App, Shared};
use crate::body::{answer, blocking, json, ok, require_accept, require_type};
use crate::params::{self, Params};
use crate::problem::{Answer, Kind, Problem};

/// The capacity of the channel between an import or export and its connection, in pieces.
const PIECES: usize = 8;
/// The longest name of a backup, in bytes.
const MAX_BACKUP_NAME: usize = 100;
/// The longest line of an import in bytes, which the largest value fits into as JSON.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// How long an import waits for more before it stores the records that it has.
const LINGER: Duration = Duration::from_millis(100);
/// The media type of tables.
pub(crate) const CSV: &str = "text/csv";
/// The media types that an import accepts.
pub(crate) const IMPORTED: [&str; 4] = [NDJSON, "application/jsonl", JSON, CSV];

fn permit(places: &Arc<Semaphore>) -> Answer<OwnedSemaphorePermit> {
    let busy = |_| {
        let detail = "the limit of such operations in progress is reached; try again when one has ended";
        Problem::new(Kind::Underway, detail).retry_after(10)
    };
    Arc::clone(places).try_acquire_owned().map_err(busy)
}

/// Imports records from an export, lines of JSON, an array of JSON, or a table.
pub(crate) async fn import(State(app): State<Shared>, headers: HeaderMap, uri: Uri, body: Body) -> Answer {
    require_accept(&headers, JSON)?;
    require_type(&headers, &IMPORTED)?;
    let mut params = Params::of(&uri)?;
    let formats = [("json", ImportFormat::Json), ("csv", ImportFormat::Csv)];
    let is_csv = require_type(&headers, &[CSV]).is_ok();
    let told = if is_csv { ImportFormat::Csv } else { ImportFormat::Auto };
    let format = params.choice("format", &formats)?.unwrap_or(told);
    let model = params.take("model")?;
    let choices = [("replace", OnConflict::Replace), ("skip", OnConflict::Skip), ("fail", OnConflict::Fail)];
    let on_conflict = params.choice("on_conflict", &choices)?.unwrap_or_default();
    let first_line = params.parse::<u64>("first_line", "the number of a line")?.unwrap_or(1);
    let stop_at_errors = params.parse::<usize>("stop_at_errors", "a number")?.unwrap_or(usize::MAX);
    params.finish()?;
    let permit = permit(&app.imports)?;
    let (pieces, read) = mpsc::channel(PIECES);
    let store = app.node.store().clone();
    let runtime = tokio::runtime::Handle::current();
    let import = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let options = ImportOptions {
            model,
            format,
            on_conflict,
            first_line,
            stop_at_errors,
            max_line_bytes: MAX_LINE_BYTES,
            ..ImportOptions::default()
        };
        store.import_json(BufReader::new(Pieces { read, begun: Bytes::new(), runtime }), options)
    });
    let fed = feed(&app, body, pieces).await;
    let report = import.await.map_err(Problem::internal)?;
    fed?;
    ok(&import_report(&report?))
}

/// Passes a body to the import piece by piece. Each piece has a timeout, and the body has none.
async fn feed(app: &App, mut body: Body, pieces: mpsc::Sender<io::Result<Bytes>>) -> Answer<()> {
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(app.config.limits.import_timeout, body.frame()) => frame,
            // The import has ended early, and its report has the reason.
            () = pieces.closed() => return Ok(()),
            () = app.stopped() => return Err(Problem::new(Kind::Stopping, "the node is stopping")),
        };
        let piece = match frame {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let is_slow = piece.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        // The import may have ended early, and its report has the reason.
        let taken = pieces.send(piece).await.is_ok();
        if is_slow {
            let seconds = app.config.limits.import_timeout.as_secs_f32();
            let detail = format!("the client sent nothing for {seconds} s; the records before are stored");
            return Err(Problem::new(Kind::TooSlow, detail));
        }
        if !taken {
            return Ok(());
        }
    }
}

/// The pieces of a body as a `Read`, for a thread of its own.
struct Pieces {
    read: mpsc::Receiver<io::Result<Bytes>>,
    begun: Bytes,
    runtime: tokio::runtime::Handle,
}

impl Pieces {
    /// Waits for the next piece. Fails with `WouldBlock` after [`LINGER`], so that the import
    /// stores the records that it has.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Ok(piece) = self.read.try_recv() {
            return piece.map(Some);
        }
        let next = async { tokio::time::timeout(LINGER, self.read.recv()).await };
        self.runtime.block_on(next).map_or(Err(io::ErrorKind::WouldBlock.into()), Option::transpose)
    }
}

impl Read for Pieces {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.begun.is_empty() {
            match self.next()? {
                None => return Ok(0),
                Some(piece) => self.begun = piece,
            }
        }
        let piece = self.begun.split_to(self.begun.len().min(out.len()));
        out.iter_mut().zip(&piece).for_each(|(out, byte)| *out = *byte);
        Ok(piece.len())
    }
}

/// Returns the report of an import as JSON, in the form of `POST /v1/import`.
pub fn import_report(report: &ImportReport) -> Value {
    let end = match report.end {
        ImportEnd::Complete => "complete",
        ImportEnd::CutOff => "cut_off",
        ImportEnd::Incomplete { .. } => "incomplete",
        ImportEnd::Stopped => "stopped",
        ImportEnd::TooManyErrors => "too_many_errors",
        _ => "other",
    };
    let bad_lines: Vec<_> = report
        .bad_lines
        .iter()
        .map(|bad| json!({ "line": bad.line, "item": bad.item, "error": bad.error.to_string() }))
        .collect();
    json!({
        "lines": report.lines,
        "bytes": report.bytes,
        "records": report.records,
        "skipped": report.skipped,
        "bad": report.bad,
        "bad_lines": bad_lines,
        "last_line": report.last_line,
        "left_out": report.left_out,
        "end": end,
        "is_whole": report.is_whole(),
    })
}

/// Exports all records as lines of JSON.
pub(crate) async fn export(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    require_accept(&headers, NDJSON)?;
    let mut params = Params::of(&uri)?;
    let signed = params.flag("signed")?;
    params.finish()?;
    let permit = permit(&app.exports)?;
    let (pieces, read) = mpsc::channel(PIECES);
    let store = app.node.store().clone();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        if let Err(error) =
            store.export_json(Outlet(&pieces), ExportOptions { signed, ..ExportOptions::default() })
        {
            // The client notices the failure by the missing last line.
            let _ = pieces.blocking_send(Err(io::Error::other(error)));
        }
    });
    let lines = stream::unfold(read, |mut read| async move { Some((read.recv().await?, read)) });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    Ok(response)
}

/// A `Write` that passes bytes to a connection, and blocks while the client does not read. The
/// connection ends if the client reads too slowly.
struct Outlet<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    path: String,
}

/// Writes a backup to the configured directory, or beside the database.
pub(crate) async fn backup(State(app): State<Shared>, headers: HeaderMap, uri: Uri, body: Body) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let BackupRequest { path } = json(&app, &headers, body).await?;
    let path = backup_path(&app, &path)?;
    let permit = permit(&app.checks)?;
    let (store, target) = (app.node.store().clone(), path.clone());
    blocking(move || {
        let _permit = permit;
        store.backup(target)
    })
    .await??;
    answer(axum::http::StatusCode::CREATED, &json!({ "path": path.display().to_string() }))
}

/// Returns the path of a backup, which is always in the one directory of backups: a client must not
/// be able to write elsewhere.
fn backup_path(app: &App, given: &str) -> Answer<PathBuf> {
    let beside = || app.node.database_path().and_then(FilePath::parent).map(FilePath::to_owned);
    let Some(directory) = app.config.backup_directory.clone().or_else(beside) else {
        let detail = "the database is in memory: set `backup_directory` to make backups";
        return Err(Problem::new(Kind::Unsupported, detail));
    };
    let given = FilePath::new(given);
    let relative = given.strip_prefix(&directory).unwrap_or(given).to_str().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let begins = relative.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !begins || relative.len() > MAX_BACKUP_NAME || !relative.bytes().all(is_plain) {
        let detail = format!(
            "`path` must be a name of up to {MAX_BACKUP_NAME} ASCII letters, digits, `.`, `_` or `-`: backups are written \
             to {}",
            directory.display()
        );
        return Err(Problem::new(Kind::InvalidValue, detail));
    }
    Ok(directory.join(relative))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CheckRequest {
    signatures: bool,
    repair: bool,
}

impl Default for CheckRequest {
    fn default() -> Self {
        let CheckOptions { signatures, repair, .. } = CheckOptions::default();
        Self { signatures, repair }
    }
}

/// Checks the whole database.
pub(crate) async fn check(State(app): State<Shared>, headers: HeaderMap, uri: Uri, body: Body) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let CheckRequest { signatures, repair } = json(&app, &headers, body).await?;
    let permit = permit(&app.checks)?;
    let store = app.node.store().clone();
    let report = blocking(move || {
        let _permit = permit;
        store.check(CheckOptions { signatures, repair, ..CheckOptions::default() })
    });
    ok(&check_json(&report.await??))
}

/// Compacts the database, which returns unused space to the file system.
pub(crate) async fn compact(State(app): State<Shared>, headers: HeaderMap, uri: Uri) -> Answer {
    params::none(&uri)?;
    require_accept(&headers, JSON)?;
    let permit = permit(&app.checks)?;
    let store = app.node.store().clone();
    let compaction = blocking(move || {
        let _permit = permit;
        store.compact()
    });
    let Compaction { before_bytes, after_bytes } = compaction.await??;
    ok(&json!({ "before_bytes": before_bytes, "after_bytes": after_bytes }))
}

fn check_json(report: &CheckReport) -> Value {
    let texts = |problems: &[netabase::netabase_store::admin::Problem]| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    json!({
        "records": report.records,
        "newer": report.newer,
        "foreign": report.foreign,
        "tombstones": report.tombstones,
        "signatures": report.signatures,
        "unsigned": report.unsigned,
        "index_entries": report.index_entries,
        "changes": report.changes,
        "problems": texts(&report.problems),
        "total_problems": report.total_problems,
        "faults": report.faults,
        "repaired": texts(&report.repaired),
        "is_complete": report.is_complete,
        "is_clean": report.is_clean(),
    })
}

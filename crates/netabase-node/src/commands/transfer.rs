//! `netabase import` and `netabase export`: records as lines of JSON.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use indicatif::ProgressBar;
use netabase::Node;
use netabase::netabase_store::{
    ExportOptions, ExportProgress, ImportEnd, ImportOptions, ImportProgress, ImportReport, ProgressCallback,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::failure::{Failure, Outcome};
use crate::offline::{self, TargetArguments};
use crate::online::{self, failed};
use crate::output::note;
use crate::{output, progress};

/// Standard input and output on the command line.
const STANDARD: &str = "-";
/// How much of a file is sent at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// How many pieces wait to be sent.
const PIECES: usize = 4;
/// The most of the first line that is looked at.
const MAX_FIRST_LINE_BYTES: u64 = 32 * 1024 * 1024;

/// The command line of `netabase import`.
#[derive(Debug, clap::Args)]
pub(crate) struct ImportArguments {
    /// The file, or - for standard input: an export, or lines like {"model":"Message","version":1,"value":{..}}
    input: PathBuf,
    #[command(flatten)]
    target: TargetArguments,
}

/// Stores the records of a file.
pub(crate) async fn import(file: Option<&Path>, arguments: &ImportArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let (input, bar) = open(&arguments.input)?;
    let report = if is_offline {
        let node = offline::open(&config, true)?;
        note!("importing into the database {}, which no node has open", offline::place(&node).display());
        offline::run(move |stop| import_here(&node, input, &bar, stop)).await?
    } else {
        let api = online::client(&config)?;
        note!("importing into the node at {}", api.url());
        let definition = api.get("/v1/status").await.map_err(failed)?.json;
        let definition = definition.get("definition").map(output::text).unwrap_or_default();
        let (input, added) = with_header(input, &definition)?;
        let (sender, receiver) = tokio::sync::mpsc::channel(PIECES);
        let reading = tokio::task::spawn_blocking(move || send(input, &sender));
        let pieces = futures::stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        });
        let answer = api.post_lines("/v1/import", pieces).await;
        reading.await.map_err(|error| anyhow!("the input cannot be read: {error}"))?;
        drop(bar);
        let mut report = answer.map_err(failed)?.json;
        leave_out_header(&mut report, added);
        report
    };
    say_import(&report, arguments.target.api.json)
}

/// Opens the input, with a bar that says how much of it is read.
fn open(path: &Path) -> Result<(Box<dyn BufRead + Send>, ProgressBar), Failure> {
    if path == Path::new(STANDARD) {
        let bar = progress::bytes("import", None);
        return Ok((Box::new(BufReader::new(bar.wrap_read(io::stdin()))), bar));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, file) = opened.with_context(|| {
        format!("cannot read {}; name a file that exists, or - for standard input", path.display())
    })?;
    let bar = progress::bytes("import", Some(len));
    Ok((Box::new(BufReader::new(bar.wrap_read(file))), bar))
}

/// Sends the input piece by piece, as long as somebody takes them.
fn send(mut input: impl Read, pieces: &tokio::sync::mpsc::Sender<Result<Vec<u8>, io::Error>>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let limit = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX);
        let read = input.by_ref().take(limit).read_to_end(&mut piece);
        let is_last = !matches!(read, Ok(1..));
        if matches!(read, Ok(0)) || pieces.blocking_send(read.map(|_| piece)).is_err() || is_last {
            return;
        }
    }
}

fn import_here(
    node: &Node,
    input: Box<dyn BufRead + Send>,
    bar: &ProgressBar,
    stop: &AtomicBool,
) -> Result<Value, Failure> {
    let (input, added) = with_header(input, node.schema().name)?;
    let go_on = |_: ImportProgress| {
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let options = ImportOptions { progress: ProgressCallback::new(go_on), ..ImportOptions::default() };
    let report = node.store().import_json(input, options)?;
    bar.finish_and_clear();
    let mut report = describe(&report);
    leave_out_header(&mut report, added);
    Ok(report)
}

/// Puts the line in front that an export begins with, if the input is only records; returns how many lines were added.
fn with_header(
    mut input: Box<dyn BufRead + Send>,
    definition: &str,
) -> Result<(Box<dyn BufRead + Send>, u64), Failure> {
    let mut first = Vec::new();
    input
        .by_ref()
        .take(MAX_FIRST_LINE_BYTES)
        .read_until(b'\n', &mut first)
        .context("cannot read the input")?;
    let is_record = serde_json::from_slice::<Value>(&first).is_ok_and(|line| line.get("model").is_some());
    let header =
        json!({ "format": "netabase-export", "version": 1, "definition": definition }).to_string() + "\n";
    let (header, added) = if is_record { (header, 1) } else { (String::new(), 0) };
    Ok((Box::new(Cursor::new(header.into_bytes()).chain(Cursor::new(first)).chain(input)), added))
}

/// Says what an import has done, with the names that the API has.
fn describe(report: &ImportReport) -> Value {
    let end = match report.end {
        ImportEnd::Complete => "complete",
        ImportEnd::CutOff => "cut_off",
        ImportEnd::Incomplete { .. } => "incomplete",
        ImportEnd::Stopped => "stopped",
        ImportEnd::TooManyErrors => "too_many_errors",
        _ => "other",
    };
    let bad_lines = report.bad_lines.iter();
    let bad_lines = bad_lines.map(|bad| json!({ "line": bad.line, "error": bad.error.to_string() }));
    json!({
        "lines": report.lines,
        "bytes": report.bytes,
        "records": report.records,
        "skipped": report.skipped,
        "bad": report.bad,
        "bad_lines": bad_lines.collect::<Vec<_>>(),
        "last_line": report.last_line,
        "left_out": report.left_out,
        "end": end,
        "is_whole": report.is_whole(),
    })
}

/// Counts lines as the input has them, if a line was put in front; without it there is no last one, either.
fn leave_out_header(report: &mut Value, added: u64) {
    if added == 0 {
        return;
    }
    let less = |number: &mut Value| {
        *number = number.as_u64().map_or(Value::Null, |number| number.saturating_sub(added).into());
    };
    for name in ["lines", "last_line"] {
        report.get_mut(name).into_iter().for_each(less);
    }
    for bad in report.get_mut("bad_lines").and_then(Value::as_array_mut).into_iter().flatten() {
        bad.get_mut("line").into_iter().for_each(less);
    }
    if report.get("end").is_some_and(|end| end == "cut_off") {
        let is_whole = report.get("bad").is_some_and(|bad| bad == 0);
        if let Some(report) = report.as_object_mut() {
            report.insert("end".into(), "complete".into());
            report.insert("is_whole".into(), is_whole.into());
        }
    }
}

fn say_import(report: &Value, json: bool) -> Outcome {
    let number = |name| report.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (records, bad) = (number("records"), number("bad"));
    if json {
        output::print_json(report)?;
    } else {
        output::print_line(&format!("{records} records stored, {bad} lines could not be"))?;
        for line in report.get("bad_lines").and_then(Value::as_array).into_iter().flatten() {
            let [number, error] =
                ["line", "error"].map(|name| line.get(name).map(output::text).unwrap_or_default());
            note!("line {number}: {error}");
        }
    }
    let end = report.get("end").map(output::text).unwrap_or_default();
    if end == "complete" && bad == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::from(match end.as_str() {
        "complete" => anyhow!("{bad} lines could not be stored; mend them, and import them alone"),
        "cut_off" => {
            anyhow!("the file was cut off; everything before is stored, get the rest and import it again")
        }
        "stopped" => anyhow!("interrupted; everything up to line {} is stored", number("last_line")),
        end => anyhow!("the import ended early ({end}), at line {}", number("last_line")),
    }))
}

/// The command line of `netabase export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArguments {
    /// The file to write [default: standard output]
    #[arg(default_value = STANDARD, hide_default_value = true)]
    output: PathBuf,
    #[command(flatten)]
    target: TargetArguments,
}

/// Writes all records as lines of JSON.
pub(crate) async fn export(file: Option<&Path>, arguments: &ExportArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let mut target = Target::new(&arguments.output)?;
    let exported = if is_offline {
        let node = offline::open(&config, false)?;
        note!("exporting the database {}, which no node has open", offline::place(&node).display());
        let (written, exported) = offline::run(move |stop| {
            let exported = export_here(&node, &mut target, stop)?;
            Ok((target, exported))
        })
        .await?;
        target = written;
        exported
    } else {
        let api = online::client(&config)?;
        note!("exporting what the node at {} has", api.url());
        export_there(&api, &mut target).await?
    };
    let Exported { lines, left_out, complete } = exported;
    if !complete {
        // Without its name the file is removed, and an earlier export stays.
        let message =
            format!("the export broke off after {lines} records, and replaces nothing; try it again");
        return Err(Failure::from(anyhow!(message)));
    }
    target.finish()?;
    note!("{lines} records");
    if left_out > 0 {
        return Err(Failure::from(anyhow!(
            "{left_out} records were left out; `netabase check` says what is wrong"
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// What an export has written.
#[derive(Debug)]
struct Exported {
    lines: u64,
    left_out: u64,
    complete: bool,
}

fn export_here(node: &Node, target: &mut Target, stop: &AtomicBool) -> Result<Exported, Failure> {
    let bar = progress::bar("export", 0);
    let tell = |at: ExportProgress| progress::step(&bar, stop, at.done, at.total);
    let options = ExportOptions { progress: ProgressCallback::new(tell) };
    let report = node.store().export_json(&mut *target, options)?;
    Ok(Exported {
        lines: report.records,
        left_out: report.newer + report.unreadable,
        complete: report.complete,
    })
}

async fn export_there(api: &netabase_http::client::Client, target: &mut Target) -> Result<Exported, Failure> {
    let bar = progress::spinner("export");
    let mut lines = api.lines("/v1/export").await.map_err(failed)?;
    let mut exported = Exported { lines: 0, left_out: 0, complete: false };
    while let Some(line) = lines.next().await {
        let line = line.map_err(failed)?;
        target
            .write_all(line.as_bytes())
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

/// Where an export goes: a file gets its name when it is complete; what is no file, such as a pipe, gets it as it comes.
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
        // A link stays one.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(directory).with_context(|| {
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

//! `netabase check`, `netabase backup` and `netabase compact`: maintenance of a running node's
//! database, or of one that no node has open.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow};
use netabase::netabase_store::admin::AdminError;
use netabase::netabase_store::admin::{CheckOptions, CheckReport, Compaction, Problem};
use netabase::netabase_store::{NetabaseStore, StoreError};
use serde_json::{Value, json};

use crate::failure::{Code, Failure, Outcome};
use crate::offline::{self, TargetArguments};
use crate::online::{self, failed};
use crate::output::note;
use crate::{output, progress};

/// The timeout for a node to check, copy or compact its database.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// The command line of `netabase check`.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// Repair everything that can be derived from the records
    #[arg(long)]
    repair: bool,
    /// Skip the verification of signatures, which takes most of the time
    #[arg(long)]
    no_signatures: bool,
    #[command(flatten)]
    target: TargetArguments,
}

/// Checks a database.
pub(crate) async fn check(file: Option<&Path>, arguments: &CheckArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let options = CheckOptions {
        signatures: !arguments.no_signatures,
        repair: arguments.repair,
        ..CheckOptions::default()
    };
    let report = if is_offline {
        let (store, place) = offline::open_unchanged(&config)?;
        note!("checking the database {}, which no node has open", place.display());
        let looking = CheckOptions { repair: false, ..options };
        let report = examine(store, looking).await?;
        let is_readable =
            !report.problems.iter().any(|problem| matches!(problem, Problem::DamagedFile { .. }));
        // The database is opened for writing only if a repair is needed and cannot do harm.
        let report = if options.repair && !report.is_clean() && report.is_complete && is_readable {
            note!("repairing it");
            let node = offline::open(&config, false)?;
            examine(node.store().clone(), options).await?
        } else {
            report
        };
        describe(&report)
    } else {
        let api = online::client(&config)?.with_timeout(PATIENCE);
        note!("asking the node at {} to check its database", api.url());
        let _bar = waiting("check");
        let body = json!({ "signatures": options.signatures, "repair": options.repair });
        api.post("/v1/check", &body).await.map_err(failed)?.json
    };
    say_check(&report, arguments.target.api.json)
}

async fn examine(store: NetabaseStore, options: CheckOptions) -> Result<CheckReport, Failure> {
    offline::run(move |stop| {
        let bar = progress::bar("check", 0);
        Ok(store.check_with(options, |at| progress::step(&bar, stop, at.done, at.total))?)
    })
    .await
}

/// Returns the report of a check as JSON, in the form of the API.
fn describe(report: &CheckReport) -> Value {
    let texts = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "is_clean": report.is_clean(),
        "is_complete": report.is_complete,
        "records": report.records,
        "newer": report.newer,
        "foreign": report.foreign,
        "tombstones": report.tombstones,
        "signatures": report.signatures,
        "unsigned": report.unsigned,
        "index_entries": report.index_entries,
        "changes": report.changes,
        "total_problems": report.total_problems,
        "faults": report.faults,
        "problems": texts(&report.problems),
        "repaired": texts(&report.repaired),
    })
}

fn say_check(report: &Value, json: bool) -> Outcome {
    let flag = |name| report.get(name).and_then(Value::as_bool).unwrap_or_default();
    if json {
        output::print_json(report)?;
    } else {
        let mut facts = report.clone();
        let lists = ["repaired", "problems"]
            .map(|name| (name, facts.as_object_mut().and_then(|facts| facts.remove(name))));
        output::describe(&facts)?;
        for (name, list) in lists {
            for problem in list.as_ref().and_then(Value::as_array).into_iter().flatten() {
                let what = if name == "repaired" { "repaired" } else { "problem" };
                output::print_line(&format!("{what}: {}", output::text(problem)))?;
            }
        }
    }
    if flag("is_clean") {
        return Ok(ExitCode::SUCCESS);
    }
    let faults = report.get("faults").map(output::text).unwrap_or_default();
    Err(Failure::from(if flag("is_complete") {
        anyhow!(
            "the database has {faults} faults; `netabase check --repair` repairs everything that can be derived from \
             the records, and removes damaged entries"
        )
    } else {
        anyhow!("the check was interrupted; nothing was changed")
    }))
}

/// The command line of `netabase backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct BackupArguments {
    /// The file to write. A node writes it into the directory of its database, or into its
    /// `api.backup_directory`
    output: PathBuf,
    #[command(flatten)]
    target: TargetArguments,
}

/// Copies a snapshot of the database.
pub(crate) async fn backup(file: Option<&Path>, arguments: &BackupArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let path = arguments.output.clone();
    let outcome = if is_offline {
        let (store, place) = offline::open_unchanged(&config)?;
        note!("copying the database {}, which no node has open", place.display());
        offline::run(move |stop| back_up(&store, &path, stop)).await?
    } else {
        let api = online::client(&config)?.with_timeout(PATIENCE);
        note!("asking the node at {} to copy its database", api.url());
        let _bar = waiting("backup");
        let body = json!({ "path": path.display().to_string() });
        api.post("/v1/backup", &body).await.map_err(failed)?.json
    };
    if arguments.target.api.json {
        output::print_json(&outcome)?;
    } else {
        let path = outcome.get("path").map(output::text).unwrap_or_default();
        output::print_line(&format!("the copy is in {path}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn back_up(
    store: &NetabaseStore,
    path: &Path,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<Value, Failure> {
    let bar = progress::bar("backup", 0);
    store.remove_partial_backups(offline::directory_of(path));
    let copied = store.backup_with(path, |at| progress::step(&bar, stop, at.done, at.total));
    match copied {
        Err(StoreError::Admin(AdminError::Stopped)) if stop.load(Ordering::Relaxed) => {
            return Err(Failure { code: Code::Failed, error: anyhow!("interrupted; there is no backup") });
        }
        copied => copied.context("name a file that does not exist, in a directory that does")?,
    }
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    Ok(json!({ "path": path.display().to_string(), "bytes": bytes }))
}

/// The command line of `netabase compact`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompactArguments {
    #[command(flatten)]
    target: TargetArguments,
}

/// Compacts a database.
pub(crate) async fn compact(file: Option<&Path>, arguments: &CompactArguments) -> Outcome {
    let (config, is_offline) = arguments.target.load(file)?;
    let outcome = if is_offline {
        let node = offline::open(&config, false)?;
        note!("compacting the database {}, which no node has open", offline::place(&node).display());
        let _bar = waiting("compact");
        let compacted = offline::run(move |_| Ok(node.store().compact().context("nothing was changed")?));
        let Compaction { before_bytes, after_bytes } = compacted.await?;
        json!({ "before_bytes": before_bytes, "after_bytes": after_bytes })
    } else {
        let api = online::client(&config)?.with_timeout(PATIENCE);
        note!("asking the node at {} to compact its database", api.url());
        let _bar = waiting("compact");
        api.post("/v1/compact", &json!({})).await.map_err(failed)?.json
    };
    if arguments.target.api.json {
        output::print_json(&outcome)?;
    } else {
        let bytes = |name| outcome.get(name).map(output::text).unwrap_or_default();
        output::print_line(&format!("{} bytes, {} before", bytes("after_bytes"), bytes("before_bytes")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a spinner while a node works, since the API reports no progress.
fn waiting(what: &'static str) -> indicatif::ProgressBar {
    let bar = progress::spinner(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

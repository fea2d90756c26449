//! The program that measures iroh-docs, as a process of its own.
//!
//! It is no part of the workspace, so that nobody who builds Netabase builds iroh.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use crate::node::with_runtime;

const PROGRAM: &str = "iroh-docs-comparison";
/// Where it is built, seen from the root of the repository.
const BUILT: &str = "comparisons/iroh-docs/target/release";
/// How long it may take: some of its joins come to no end.
const PATIENCE: Duration = Duration::from_secs(300);
/// How it is built.
pub(super) const BUILD: &str = "cargo build --release --manifest-path comparisons/iroh-docs/Cargo.toml";

/// What it says of a case.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Said {
    /// `writes` or `join`.
    pub(super) case: String,
    /// `one caller` or `many callers`, or of what a join is measured.
    pub(super) metric: String,
    /// Records per second.
    pub(super) rate: f64,
}

/// Returns where it is: as it was told, beside this program, or where it is built.
pub(super) fn find(told: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = told {
        ensure!(path.is_file(), "there is no {}", path.display());
        return Ok(Some(path.to_owned()));
    }
    let beside = std::env::current_exe()?.with_file_name(PROGRAM);
    let built = Path::new(BUILT).join(PROGRAM);
    Ok([beside, built].into_iter().find(|path| path.is_file()))
}

/// Has it measure cases with so many records.
pub(super) fn measure(
    program: &Path,
    cases: &str,
    records: u64,
    directory: &Path,
) -> anyhow::Result<Vec<Said>> {
    let mut command = Command::new(program);
    command
        .args(["--records", &records.to_string(), "--cases", cases])
        .arg("--directory")
        .arg(directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = with_runtime(async move { Ok(timeout(PATIENCE, command.output()).await) })?;
    let output = output.with_context(|| format!("{} comes to no end", program.display()))?;
    let output = output.with_context(|| format!("{} does not run", program.display()))?;
    ensure!(output.status.success(), "{} ended with {}", program.display(), output.status);
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

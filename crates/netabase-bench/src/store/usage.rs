//! What a process and a database take.

use std::fs::Metadata;
use std::path::Path;

use anyhow::Context;

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Returns how much of the disk the files below a directory take.
pub(super) fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { file_bytes(&metadata) };
    }
    Ok(bytes)
}

/// Some systems make their files longer than what they have written.
#[cfg(unix)]
fn file_bytes(metadata: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;

    metadata.blocks() * 512
}

#[cfg(not(unix))]
fn file_bytes(metadata: &Metadata) -> u64 {
    metadata.len()
}

/// Returns the most memory that this process has had, where the system tells it.
pub(super) fn peak_memory() -> anyhow::Result<Option<u64>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak is told")?;
    let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok(Some(kibibytes * 1024))
}

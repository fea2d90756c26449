//! What a process and a database take.

use std::fs::Metadata;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Returns how much of the disk the files below a directory take.
pub(crate) fn disk_bytes(directory: &Path) -> anyhow::Result<u64> {
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
pub(crate) fn peak_memory() -> anyhow::Result<Option<u64>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    memory("self", "VmHWM:").map(Some)
}

/// Returns the memory that this process has; only Linux tells it.
pub(crate) fn resident_memory() -> anyhow::Result<u64> {
    memory("self", "VmRSS:")
}

/// Returns the memory that another process has; only Linux tells it.
pub(crate) fn resident_memory_of(process: u32) -> anyhow::Result<u64> {
    memory(&process.to_string(), "VmRSS:")
}

/// Returns the most memory that another process has had; only Linux tells it.
pub(crate) fn peak_memory_of(process: u32) -> anyhow::Result<u64> {
    memory(&process.to_string(), "VmHWM:")
}

/// Has [`peak_memory`] begin again with what the process has now; only Linux can.
pub(crate) fn forget_peak_memory() -> anyhow::Result<()> {
    forget_peak("self")
}

/// Has [`peak_memory_of`] begin again with what the process has now; only Linux can.
pub(crate) fn forget_peak_memory_of(process: u32) -> anyhow::Result<()> {
    forget_peak(&process.to_string())
}

fn forget_peak(process: &str) -> anyhow::Result<()> {
    let reset = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    reset.context("the peak of the memory cannot be reset")
}

fn memory(process: &str, field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.context("only Linux tells the memory")?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)).context("no memory is told")?;
    let kibibytes: u64 = value.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024)
}

/// Returns the time that processors have spent on all threads of this process, past ones too; only
/// Linux tells it, in hundredths of a second.
pub(crate) fn cpu_time() -> anyhow::Result<Duration> {
    cpu("self")
}

/// Returns the same of another process.
pub(crate) fn cpu_time_of(process: u32) -> anyhow::Result<Duration> {
    cpu(&process.to_string())
}

fn cpu(process: &str) -> anyhow::Result<Duration> {
    /// Linux's unit towards programs, whatever its own is.
    const TICK: Duration = Duration::from_millis(10);
    /// Where the times are, counted from the end of the program's name.
    const USER_TIME: usize = 11;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.context("only Linux tells the processor time")?;
    let (_, fields) = stat.rsplit_once(") ").context("no name is told")?;
    let ticks = fields.split(' ').skip(USER_TIME).take(2).map(str::parse::<u32>);
    Ok(TICK * ticks.sum::<Result<u32, _>>()?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_of_a_thread_that_has_ended_counts() {
        let before = cpu_time().unwrap();
        let busy =
            std::thread::spawn(move || while cpu_time().unwrap() < before + Duration::from_millis(50) {});
        busy.join().unwrap();
        assert!(cpu_time().unwrap() >= before + Duration::from_millis(50));
    }

    #[test]
    fn the_peak_of_the_memory_is_no_less_than_the_memory() {
        let memory = resident_memory().unwrap();
        assert!(memory > 0 && peak_memory().unwrap().unwrap() >= memory);
    }
}

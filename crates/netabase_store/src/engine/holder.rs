//! Finds the process that has a database open, as far as the system tells.

use std::path::Path;

#[cfg(target_os = "linux")]
use crate::platform::files;

/// `true` if the system tells.
pub(crate) const IS_KNOWN: bool = cfg!(target_os = "linux");

/// Returns the process that has the file at `path` open, or a file in it if it is a directory.
///
/// The system shows the files of processes of the same user.
#[cfg(target_os = "linux")]
pub(crate) fn holder(path: &Path) -> Option<u32> {
    let path = files::canonical(path).ok()?;
    let has_it = |pid: u32| {
        let files = files::entries(format!("/proc/{pid}/fd")).ok();
        let mut targets =
            files.into_iter().flatten().flatten().flat_map(|file| files::link_target(&file.path()));
        targets.any(|target| target.starts_with(&path))
    };
    let processes = files::entries("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.find(|pid| has_it(*pid))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn holder(_: &Path) -> Option<u32> {
    None
}

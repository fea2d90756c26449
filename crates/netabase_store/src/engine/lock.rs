//! Waits for a locked database, and names the process that has it open.

use std::path::Path;
use std::time::Duration;

use super::holder::holder;
use crate::admin::api_file::ApiFile;
use crate::engine::limits::LOCK_PAUSE;
use crate::error::{OpenError, StoreError};
use crate::platform;

/// Calls `open` until the database is not locked any more, or `timeout` is over.
pub(super) fn wait<T>(
    timeout: Duration,
    mut open: impl FnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let begun = platform::now();
    loop {
        let left = timeout.saturating_sub(platform::since(begun));
        match open() {
            Err(StoreError::Open(OpenError::Locked { path, .. })) if left.is_zero() => {
                return Err(locked(&path));
            }
            Err(StoreError::Open(OpenError::Locked { .. })) => platform::sleep(LOCK_PAUSE.min(left)),
            opened => return opened,
        }
    }
}

/// Says who has the database open, as far as that can be known.
fn locked(path: &Path) -> StoreError {
    let (holder, api) = (holder(path), ApiFile::read(path));
    // A file that another process has left behind does not concern the one that has the database
    // now.
    let api = api.filter(|api| holder.is_none_or(|holder| holder == api.pid));
    let pid = holder.or(api.as_ref().map(|api| api.pid));
    StoreError::Open(OpenError::Locked { path: path.to_owned(), pid, api: api.map(|api| api.url) })
}

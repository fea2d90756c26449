//! What is asked of a Netabase.

use std::path::Path;

use netabase::Netabase;

use super::super::model::SyncDefinition;

/// Keeps the bytes of a file; returns what names them.
#[expect(clippy::unused_async, reason = "there are no large values yet")]
pub(super) async fn add(netabase: &Netabase<SyncDefinition>, file: &Path) -> anyhow::Result<String> {
    anyhow::bail!("{} cannot keep {}", netabase.local_peer_id(), file.display())
}

/// Fetches a value from whoever has it; calls `half` when half of it is there. Returns how many peers were found
/// to corrupt it.
#[expect(clippy::unused_async, reason = "there are no large values yet")]
pub(super) async fn fetch(
    netabase: &Netabase<SyncDefinition>,
    value: &str,
    half: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    drop(half);
    anyhow::bail!("{} cannot fetch {value}", netabase.local_peer_id())
}

/// Writes a value that is here into a file.
pub(super) fn copy(netabase: &Netabase<SyncDefinition>, value: &str, out: &Path) -> anyhow::Result<()> {
    anyhow::bail!("{} cannot copy {value} to {}", netabase.local_peer_id(), out.display())
}

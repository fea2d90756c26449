//! What is asked of a Netabase.

use std::fs::File;
use std::future::IntoFuture;
use std::path::Path;

use anyhow::Context;
use netabase::blob::HolderConduct;
use netabase::{Blob, Netabase};
use tokio::sync::oneshot;

use super::super::model::SyncDefinition;

/// Keeps the bytes of a file; returns what names them.
pub(super) async fn add(netabase: &Netabase<SyncDefinition>, file: &Path) -> anyhow::Result<String> {
    let Blob { hash, size } = netabase.blobs().add_file(file).await?;
    Ok(format!("{hash}:{size}"))
}

/// Fetches a value from whoever has it; calls `half` when half of it is there. Returns how many
/// peers were found to corrupt it.
pub(super) async fn fetch(
    netabase: &Netabase<SyncDefinition>,
    value: &str,
    half: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u32> {
    let (sender, is_half) = oneshot::channel();
    let mut sender = Some(sender);
    let mut fetch = netabase.blobs().fetch(&parse(value)?).progress(move |progress| {
        if progress.present >= progress.size / 2
            && let Some(sender) = sender.take()
        {
            let _ = sender.send(());
        }
    });
    for peer in netabase.connected_peers().await? {
        fetch = fetch.from(peer);
    }
    let said = async {
        if is_half.await.is_ok() {
            half().await?;
        }
        anyhow::Ok(())
    };
    let (outcome, said) = tokio::join!(fetch.into_future(), said);
    said?;
    let outcome = outcome?;
    for holder in &outcome.holders {
        eprintln!(
            "{}: {} bytes in {} slices, {:?}",
            holder.peer, holder.bytes, holder.slices, holder.conduct
        );
    }
    let corrupting = outcome.holders.iter().filter(|holder| holder.conduct == HolderConduct::Corrupt);
    Ok(u32::try_from(corrupting.count())?)
}

/// Writes a value that is here into a file.
pub(super) fn copy(netabase: &Netabase<SyncDefinition>, value: &str, out: &Path) -> anyhow::Result<()> {
    Ok(netabase.blobs().store().copy_to(&parse(value)?, File::create(out)?)?)
}

fn parse(value: &str) -> anyhow::Result<Blob> {
    let (hash, size) = value.split_once(':').context("a value has a hash and a size")?;
    Ok(Blob { hash: hash.parse()?, size: size.parse()? })
}

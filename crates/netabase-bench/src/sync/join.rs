//! An empty node joins one that has everything.
//!
//! Both have been started; the time is that from the connection until every record can be read at
//! the one that joined, which is then proved by reading all of them.

use std::time::{Duration, Instant};

use anyhow::Context;
use netabase::Scope;
use tempfile::TempDir;
use tokio::time::timeout;

use super::model::{SyncDefinition, check, fill};
use super::node::{address, connect, open, quiet};
use super::{Effort, IROH, OURS, iroh, per_second};
use crate::node::with_runtime;
use crate::{Measurement, Table};

const CASE: &str = "join";
const METRIC: &str = "until readable";
/// How long a join may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Measures one join on each system.
pub(super) fn measure(effort: &Effort<'_>, table: &mut Table) -> anyhow::Result<()> {
    let n = usize::try_from(effort.records)?;
    let mut add = |system, value| {
        table.add(Measurement { case: CASE, system, metric: METRIC, value, unit: "records/s", n });
    };
    let directory = TempDir::new_in(effort.directory)?;
    let records = effort.records;
    let took = with_runtime(async move {
        let (here, there) = (directory.path().join("full"), directory.path().join("empty"));
        std::fs::create_dir(&here)?;
        std::fs::create_dir(&there)?;
        let full = open::<SyncDefinition>(&here, quiet())?;
        fill(full.store(), 0..records)?;
        full.start_swarm().await?;
        let empty = open::<SyncDefinition>(&there, quiet())?;
        empty.start_swarm().await?;
        let replication = empty.replicate(Scope::definition::<SyncDefinition>())?;
        let start = Instant::now();
        connect(&empty, address(&full)?).await?;
        timeout(PATIENCE, replication.caught_up()).await.context("not everything has come")??;
        let took = start.elapsed();
        check(empty.store(), records)?;
        Ok(took)
    })?;
    add(OURS, per_second(records, took));
    if let Some(program) = effort.iroh {
        let said = iroh::measure(program, "join", effort.records, effort.directory)?;
        let join = said.iter().find(|said| said.case == CASE).context("iroh-docs says nothing of a join")?;
        add(IROH, join.rate);
    }
    Ok(())
}

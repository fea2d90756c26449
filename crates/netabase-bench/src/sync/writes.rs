//! Signed records per second, until they are on the disk.
//!
//! `one caller` writes the next record when the last is written; `64 callers` do so at the same
//! time; `batch` has 1000 records to a transaction. `netabase` returns from a write when it is on
//! the disk, `netabase-interval` within 200 ms of it, as iroh-docs does within 500 ms: a crash may
//! take the last of both. Of these two the time until everything is on the disk counts. iroh-docs
//! has no transactions: `batch` compares with its better rate.

use std::thread;
use std::time::Instant;

use anyhow::{Context, ensure};
use netabase_store::{Durability, NetabaseStore};
use tempfile::TempDir;

use super::model::{Message, fill, message, open};
use super::{Effort, IROH, OURS, OURS_INTERVAL, iroh, per_second};
use crate::{Measurement, Table};

const CALLERS: u64 = 64;
/// A caller that waits for the disk each time takes long.
const MOST_OF_ONE_CALLER: u64 = 10_000;
const CASE: &str = "writes";

/// Measures each way to write once on each system.
pub(super) fn measure(effort: &Effort<'_>, table: &mut Table) -> anyhow::Result<()> {
    if let Some(program) = effort.iroh {
        let said = iroh::measure(program, "one,many", effort.records, effort.directory)?;
        let rate = |metric: &str| said.iter().find(|said| said.metric == metric).map(|said| said.rate);
        let one = rate("one caller").context("iroh-docs says nothing of one caller")?;
        let many = rate("many callers").context("iroh-docs says nothing of many callers")?;
        for (metric, rate) in [("one caller", one), ("64 callers", many), ("batch", one.max(many))] {
            add(table, IROH, metric, rate, effort.records)?;
        }
    }
    for (system, durability) in [(OURS, Durability::Immediate), (OURS_INTERVAL, Durability::Interval)] {
        let few = if durability == Durability::Immediate { MOST_OF_ONE_CALLER } else { u64::MAX };
        for (metric, records, write) in [
            ("one caller", effort.records.min(few), one_caller as Write),
            ("64 callers", effort.records, many_callers),
            ("batch", effort.records, batch),
        ] {
            let directory = TempDir::new_in(effort.directory)?;
            let store = open(directory.path(), durability)?;
            let start = Instant::now();
            write(&store, records)?;
            store.flush()?;
            let rate = per_second(records, start.elapsed());
            let stored = store.open_tree::<Message>()?.len()?;
            ensure!(stored == records, "{stored} of {records} records are there");
            add(table, system, metric, rate, records)?;
        }
    }
    Ok(())
}

type Write = fn(&NetabaseStore, u64) -> anyhow::Result<()>;

fn add(
    table: &mut Table,
    system: &'static str,
    metric: &'static str,
    value: f64,
    n: u64,
) -> anyhow::Result<()> {
    table.add(Measurement { case: CASE, system, metric, value, unit: "records/s", n: n.try_into()? });
    Ok(())
}

fn one_caller(store: &NetabaseStore, records: u64) -> anyhow::Result<()> {
    write(store, 0..records)
}

fn many_callers(store: &NetabaseStore, records: u64) -> anyhow::Result<()> {
    let step = usize::try_from(CALLERS)?;
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|first| scope.spawn(move || write(store, (first..records).step_by(step))))
            .collect();
        callers.into_iter().try_for_each(|caller| caller.join().ok().context("a caller panicked")?)
    })
}

fn batch(store: &NetabaseStore, records: u64) -> anyhow::Result<()> {
    fill(store, 0..records)
}

fn write(store: &NetabaseStore, ids: impl Iterator<Item = u64>) -> anyhow::Result<()> {
    let tree = store.open_tree::<Message>()?;
    for id in ids {
        tree.put(&message(id))?;
    }
    Ok(())
}

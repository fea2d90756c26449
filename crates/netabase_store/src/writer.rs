//! Group commit: one thread applies everybody's writes, many to a transaction.
//!
//! A commit costs one flush of the disk however many writes are in it, so while one group is being
//! committed the next one gathers. A batch is in one group whole, and a caller is answered after
//! the commit that made its batch durable.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::apply::{Applier, ApplyError};
use crate::change::{Change, StoreEvent};
use crate::coalesce::Coalesced;
use crate::core::Core;
use crate::engine::Sync;
use crate::error::StoreError;
use crate::history::{Position, Recorder};
use crate::members;
use crate::options::{Durability, FLUSH_INTERVAL};
use crate::sweep::{SWEEP_INTERVAL, Sweep};

mod queue;

pub(crate) use queue::{Batch, Done, Pause, Queue};

/// The most bytes of writes that may be lost in a crash, whatever the durability.
const UNSYNCED_BYTES: usize = 64 * 1024 * 1024;
/// How long a record of our own has to be published by whoever wrote it before the schedule does.
const FIRST_DUE: Duration = Duration::from_secs(30);

/// The writer's thread: runs until the store is closed and everything queued is written.
pub(crate) fn run(core: &Core, position: Position) {
    core.queue().serve_here();
    let mut writer = Writer {
        core,
        position,
        published: position.next,
        unsynced_since: None,
        unsynced_bytes: 0,
        sweep: Sweep::default(),
        members: members::Sweep::new(core),
    };
    while catch_unwind(AssertUnwindSafe(|| writer.serve())).is_err() {
        // Whoever is still waiting is told, or would wait for ever.
        core.poison(panicked());
    }
    core.feed().close();
}

fn panicked() -> StoreError {
    StoreError::backend(io::Error::other("the database panicked"))
}

/// What the writer's thread knows.
struct Writer<'a> {
    core: &'a Core,
    /// Where the history ends.
    position: Position,
    /// Up to which change followers have been told.
    published: u64,
    /// When the first write since the last flush was committed.
    unsynced_since: Option<Instant>,
    unsynced_bytes: usize,
    sweep: Sweep,
    /// Whether everything here is what the member list allows.
    members: members::Sweep,
}

impl Writer<'_> {
    fn serve(&mut self) {
        let mut idle = Duration::ZERO;
        while let Some(group) = self.core.queue().next_group(idle, || self.core.feed().is_followed()) {
            if !group.is_empty() {
                let start = Instant::now();
                self.commit_group(group);
                self.core.queue().note_group(start.elapsed());
            }
            idle = self.sweep().min(self.sweep_members()).min(self.flush_if_due());
        }
        if self.unsynced_since.is_some() {
            self.commit_group(vec![Batch { flush: true, ..Batch::default() }]);
        }
    }

    /// Commits a group and answers everybody in it.
    fn commit_group(&mut self, mut group: Vec<Batch>) {
        if let Some(pause) = group.first_mut().and_then(|batch| batch.pause.take()) {
            // It may take long, and those before were promised the disk soon.
            if self.unsynced_since.is_some() {
                self.commit_group(vec![Batch { flush: true, ..Batch::default() }]);
            }
            let mut ops = Vec::new();
            call_back(|| ops = pause(self.core));
            if !ops.is_empty() {
                self.commit_group(vec![Batch { ops, ..Batch::default() }]);
            }
            // It was alone, and has nothing else to write.
            return group.into_iter().for_each(|batch| call_back(|| batch.finish(Ok(Vec::new()))));
        }
        let core = self.core;
        let (writes, begun) = (group.iter().map(|batch| batch.ops.len()).sum(), Instant::now());
        let _span = tracing::debug_span!("store_commit", batches = group.len(), writes).entered();
        let outcome = match core.poisoned() {
            Some(error) => Err(error),
            None => catch_unwind(AssertUnwindSafe(|| self.write_group(&group)))
                .unwrap_or_else(|_| Err(panicked()))
                .map_err(|error| {
                    tracing::error!(%error, "a write failed; the store takes no more writes");
                    core.poison(error)
                }),
        };
        // What is written is read from the tables; what could not be written must not be shown.
        core.forget_pending(group.iter().flat_map(|batch| &batch.ops));
        match outcome {
            Ok(results) => {
                core.writer_counters().committed(writes, begun.elapsed());
                // A number that a follower has seen must not be given to another change after a crash.
                if self.unsynced_since.is_none() {
                    self.published = self.position.next;
                    core.feed().publish(self.published);
                }
                for (batch, result) in group.into_iter().zip(results) {
                    if core.is_observed() {
                        for change in result.iter().flatten().flatten() {
                            call_back(|| core.notify(StoreEvent::Changed(change.clone())));
                        }
                    }
                    call_back(|| batch.finish(result));
                }
            }
            Err(error) => {
                // There will be no more changes.
                core.feed().close();
                for batch in group {
                    call_back(|| batch.finish(Err(error.clone())));
                }
            }
        }
    }

    fn write_group(&mut self, group: &[Batch]) -> Result<Vec<BatchResult>, StoreError> {
        let options = self.core.options();
        let bytes = group.iter().map(Batch::bytes).sum::<usize>();
        let sync = self.sync(group, bytes);
        let coalesced = Coalesced::of(self.core, group);
        let first_due = options.clock.unix_millis().saturating_add(millis(FIRST_DUE));
        let (results, position, usage) = self.core.engine().write(sync, |tables| {
            let mut recorder = Recorder::new(self.position, options.history_bytes, self.published);
            let mut applier = Applier::new(self.core, first_due, tables);
            let mut results = Vec::with_capacity(group.len());
            for (place, batch) in group.iter().enumerate() {
                let ops = coalesced.ops_of(place, batch);
                let result = match applier.apply_batch(ops, &batch.expected, batch.resign) {
                    Ok(changes) => Ok(changes),
                    Err(ApplyError::Batch(error)) => Err(error),
                    Err(ApplyError::Store(error)) => return Err(error),
                };
                result.iter().flatten().flatten().for_each(|change| recorder.push(change));
                results.push(result);
            }
            let usage = applier.finish()?;
            Ok((results, recorder.write(tables)?, usage))
        })?;
        if let Some(usage) = usage {
            self.core.note_usage(&self.core.engine().snapshot()?, usage)?;
        }
        self.core.count_commit();
        self.position = position;
        match sync {
            Sync::Now => (self.unsynced_since, self.unsynced_bytes) = (None, 0),
            Sync::Later => {
                self.unsynced_since.get_or_insert_with(Instant::now);
                self.unsynced_bytes += bytes;
            }
        }
        Ok(results)
    }

    fn sync(&self, group: &[Batch], bytes: usize) -> Sync {
        let immediate = self.core.options().durability == Durability::Immediate;
        let full = self.unsynced_bytes + bytes >= UNSYNCED_BYTES;
        if immediate || full || group.iter().any(|batch| batch.flush) { Sync::Now } else { Sync::Later }
    }

    /// Flushes what has waited for long; returns how long the rest may wait.
    fn flush_if_due(&mut self) -> Duration {
        let Some(since) = self.unsynced_since else { return SWEEP_INTERVAL };
        if self.core.options().durability != Durability::Interval || self.core.poisoned().is_some() {
            return SWEEP_INTERVAL;
        }
        let rest = FLUSH_INTERVAL.saturating_sub(since.elapsed());
        if rest.is_zero() {
            self.commit_group(vec![Batch { flush: true, ..Batch::default() }]);
            return SWEEP_INTERVAL;
        }
        rest
    }

    /// Removes some of the records that a newer member list does not allow; returns how long to sleep.
    fn sweep_members(&mut self) -> Duration {
        if self.core.poisoned().is_some() {
            return SWEEP_INTERVAL;
        }
        match self.members.step(self.core) {
            Ok(None) => SWEEP_INTERVAL,
            Ok(Some(ops)) => {
                if !ops.is_empty() {
                    self.commit_group(vec![Batch { ops, ..Batch::default() }]);
                }
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, "cannot compare the records with the member list");
                SWEEP_INTERVAL
            }
        }
    }

    /// Deletes what is over, forgotten or for which there is no room; returns how long to sleep until the next.
    fn sweep(&mut self) -> Duration {
        if self.core.poisoned().is_some() {
            return SWEEP_INTERVAL;
        }
        match self.sweep.due(self.core) {
            Ok((ops, next)) if ops.is_empty() => next,
            Ok((ops, _)) => {
                self.commit_group(vec![Batch { ops, ..Batch::default() }]);
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for records that are to go");
                SWEEP_INTERVAL
            }
        }
    }
}

/// Calls code that is not ours, whose panics must not end the writer.
fn call_back(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback of the store panicked");
    }
}

/// What a batch was answered: its changes, or why none of it was done.
type BatchResult = Result<Vec<Option<Change>>, StoreError>;

/// Returns a duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Starts the writer's thread.
pub(crate) fn spawn(core: Arc<Core>, position: Position) -> Result<thread::JoinHandle<()>, StoreError> {
    let thread = thread::Builder::new().name("netabase-writer".into());
    thread.spawn(move || run(&core, position)).map_err(StoreError::backend)
}

//! Group commit: one writer applies everybody's writes, many to a transaction.
//!
//! A commit costs one flush of the disk however many writes are in it, so while one group is being
//! committed the next one gathers. A batch is in one group whole, and a caller is answered after
//! the commit that made its batch durable.
//!
//! The writer is a state machine that takes steps. [`WriterMode`](crate::WriterMode) decides
//! whether its own thread runs them, or the threads that wait for it.

use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::changes::change::{Change, StoreEvent};
use crate::changes::history::{Position, Recorder};
use crate::core::Core;
use crate::engine::Sync;
use crate::error::StoreError;
use crate::options::Durability;
use crate::platform;
use crate::replica::authors::RefusedAuthors;
use crate::replica::limits::SWEEP_INTERVAL;
use crate::replica::sweep::Sweep;
use crate::version::members::{self, Members};
use crate::write::apply::{Applier, ApplyError};
use crate::write::coalesce::Coalesced;
use crate::write::limits::{FLUSH_INTERVAL, RESUME_INTERVAL, UNSYNCED_BYTES};

mod queue;

use queue::Taken;
pub(crate) use queue::{Batch, Done, Pause, Queue};

/// The event for which a writer waits after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// For something that is queued, at most for so long.
    Wait(Duration),
    /// For nothing: the store is closed, and everything is written.
    Ended,
}

/// The writer of a store, which takes one step after another: on a thread of its own, or on those
/// that wait for it. Times are those of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The end of the history.
    position: Position,
    /// Up to which change followers have been told.
    published: u64,
    /// The time of the first commit since the last flush.
    unsynced_since: Option<Duration>,
    unsynced_bytes: usize,
    sweep: Sweep,
    /// The comparison of all records with the member list and the refused authors.
    members: members::Sweep,
    /// The time of the last attempt to write again after a failure.
    tried: Option<Duration>,
    /// Until when there is nothing to do but what is queued.
    idle_until: Duration,
    has_ended: bool,
}

/// The writer while a thread has it, which is the only one that writes, and calls the callbacks.
pub(crate) struct HeldWriter<'a> {
    core: &'a Core,
    writer: MutexGuard<'a, Writer>,
}

impl<'a> HeldWriter<'a> {
    /// Waits until no other thread has the writer.
    pub(crate) fn take(core: &'a Core, writer: &'a Mutex<Writer>) -> Self {
        let writer = writer.lock();
        core.queue().set_holder(Some(thread::current().id()));
        Self { core, writer }
    }

    /// Does what is due, and writes at most one group.
    pub(crate) fn step(&mut self) -> Next {
        let Self { core, writer } = self;
        catch_unwind(AssertUnwindSafe(|| writer.step(core))).unwrap_or_else(|_| {
            // Waiting callers get an error, or would wait for ever.
            core.poison(panicked());
            Next::Wait(Duration::ZERO)
        })
    }
}

impl Drop for HeldWriter<'_> {
    fn drop(&mut self) {
        self.core.queue().set_holder(None);
    }
}

/// Starts the writer's thread, which ends when the store is closed and everything queued is
/// written.
pub(crate) fn spawn(core: Arc<Core>) -> Result<JoinHandle<()>, StoreError> {
    platform::spawn("netabase-writer", move || run(&core)).map_err(StoreError::backend)
}

fn run(core: &Core) {
    loop {
        // Nobody else gets the writer before it is dropped.
        let next = core.take_writer().step();
        let Next::Wait(rest) = next else { return };
        core.queue().wait(&core.options().clock, rest, || core.feed().is_followed());
    }
}

fn panicked() -> StoreError {
    StoreError::backend(io::Error::other("the database panicked"))
}

impl Writer {
    /// Makes the writer of a store whose history ends at `position`.
    pub(crate) fn new(position: Position, members: Option<&Members>, refused: &RefusedAuthors) -> Self {
        Self {
            position,
            published: position.next,
            unsynced_since: None,
            unsynced_bytes: 0,
            sweep: Sweep::default(),
            members: members::Sweep::new(members, refused),
            tried: None,
            idle_until: Duration::ZERO,
            has_ended: false,
        }
    }

    fn step(&mut self, core: &Core) -> Next {
        if self.has_ended {
            return Next::Ended;
        }
        let clock = &core.options().clock;
        let group = match core.queue().take(clock.monotonic(), self.idle_until, core.feed().is_followed()) {
            Taken::Group(group) => group,
            Taken::Nothing(rest) => return Next::Wait(rest),
            Taken::Closed => {
                if self.unsynced_since.is_some() {
                    self.commit_group(core, vec![Batch { flush: true, ..Batch::default() }]);
                }
                self.has_ended = true;
                core.feed().close();
                return Next::Ended;
            }
        };
        if !group.is_empty() {
            let start = clock.monotonic();
            self.commit_group(core, group);
            core.queue().note_group(clock.monotonic().saturating_sub(start));
        }
        self.resume_if_due(core);
        let idle = self.sweep(core).min(self.sweep_members(core)).min(self.flush_if_due(core));
        self.idle_until = clock.monotonic().saturating_add(idle);
        Next::Wait(idle)
    }

    /// Commits a group and answers every caller in it.
    fn commit_group(&mut self, core: &Core, mut group: Vec<Batch>) {
        if let Some(pause) = group.first_mut().and_then(|batch| batch.pause.take()) {
            // The pause may take long, and earlier writes are due on the disk soon.
            if self.unsynced_since.is_some() {
                self.commit_group(core, vec![Batch { flush: true, ..Batch::default() }]);
            }
            let mut ops = Vec::new();
            call_back(|| ops = pause(core));
            if !ops.is_empty() {
                self.commit_group(core, vec![Batch { ops, ..Batch::default() }]);
            }
            // The pause was alone, and has nothing to write.
            return group.into_iter().for_each(|batch| call_back(|| batch.finish(Ok(Vec::new()))));
        }
        self.resume_if_due(core);
        let clock = &core.options().clock;
        let (writes, begun) = (group.iter().map(|batch| batch.ops.len()).sum(), clock.monotonic());
        let commits = core.commits();
        let _span = tracing::debug_span!("store_commit", batches = group.len(), writes).entered();
        let outcome = match core.poisoned() {
            Some(error) => Err(error),
            None => catch_unwind(AssertUnwindSafe(|| self.write_group(core, &group)))
                .unwrap_or_else(|_| Err(panicked()))
                .map_err(|error| {
                    let cause = error.source().map(tracing::field::display);
                    tracing::error!(%error, cause, "a write failed; the store takes no more writes");
                    core.suspend(error)
                }),
        };
        // Committed versions are read from the tables, and failed ones must not be shown.
        core.forget_pending(group.iter().flat_map(|batch| &batch.ops));
        match outcome {
            Ok(results) => {
                if core.commits() > commits {
                    core.writer_counters().committed(writes, clock.monotonic().saturating_sub(begun));
                }
                // A number that a follower has seen must not be given to another change after a
                // crash.
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

    /// Goes on after a failure whose cause is gone.
    fn resume_if_due(&mut self, core: &Core) {
        let now = core.options().clock.monotonic();
        let is_due = self.tried.is_none_or(|tried| now.saturating_sub(tried) >= RESUME_INTERVAL);
        if !is_due || core.poisoned().is_none() {
            return;
        }
        self.tried = Some(now);
        let resumed = core.resume().and_then(|()| Position::load(&core.engine().snapshot()?));
        match resumed {
            Ok(position) => {
                // Writes that were not on the disk yet are lost, as in a crash.
                (self.position, self.published) = (position, position.next);
                (self.unsynced_since, self.unsynced_bytes) = (None, 0);
                core.feed().reopen();
                core.feed().publish(self.published);
                tracing::info!("the cause of the failure is gone; the store takes writes again");
            }
            Err(error) => tracing::debug!(%error, "the store cannot be written yet"),
        }
    }

    fn write_group(&mut self, core: &Core, group: &[Batch]) -> Result<Vec<BatchResult>, StoreError> {
        // The time in which the caller publishes its own record before the schedule does.
        const FIRST_DUE: Duration = Duration::from_secs(30);
        let is_nothing = |batch: &Batch| batch.ops.is_empty() && batch.expected.is_empty() && !batch.flush;
        if group.iter().all(is_nothing) {
            // A caller waits for earlier writes, which are done.
            return Ok(group.iter().map(|_| Ok(Vec::new())).collect());
        }
        let options = core.options();
        let bytes = group.iter().map(Batch::bytes).sum::<usize>();
        let sync = self.sync(core, group, bytes);
        #[cfg(feature = "import-export")]
        core.long_reads().note_written(bytes);
        let coalesced = Coalesced::of(core, group);
        let now = options.clock.unix_millis();
        let first_due = now.saturating_add(millis(FIRST_DUE));
        let (results, position, usage) = core.engine().write(sync, |tables| {
            let mut recorder = Recorder::new(self.position, options.history_bytes, self.published);
            let mut applier = Applier::new(core, tables);
            let mut results = Vec::with_capacity(group.len());
            for (place, batch) in group.iter().enumerate() {
                let ops = coalesced.ops_of(place, batch);
                applier.set_first_due(if batch.unpublished { now } else { first_due });
                let result = match applier.apply_batch(ops, &batch.expected, batch.resign) {
                    Ok(changes) => Ok(changes),
                    Err(ApplyError::Batch(error)) => Err(error),
                    Err(ApplyError::Store(error)) => return Err(error),
                };
                result.iter().flatten().flatten().for_each(|change| recorder.push(change));
                results.push(result);
            }
            let usage = applier.finish()?;
            Ok((results, recorder.write(tables, now)?, usage))
        })?;
        if let Some(usage) = usage {
            core.note_usage(&core.engine().snapshot()?, usage)?;
        }
        core.count_commit();
        self.position = position;
        match sync {
            Sync::Now => (self.unsynced_since, self.unsynced_bytes) = (None, 0),
            Sync::Later => {
                self.unsynced_since.get_or_insert_with(|| options.clock.monotonic());
                self.unsynced_bytes += bytes;
            }
        }
        Ok(results)
    }

    fn sync(&self, core: &Core, group: &[Batch], bytes: usize) -> Sync {
        let immediate = core.options().durability == Durability::Immediate;
        let full = self.unsynced_bytes + bytes >= UNSYNCED_BYTES;
        if immediate || full || group.iter().any(|batch| batch.flush) { Sync::Now } else { Sync::Later }
    }

    /// Flushes what has waited for long; returns how long the rest may wait.
    fn flush_if_due(&mut self, core: &Core) -> Duration {
        if core.poisoned().is_some() {
            return RESUME_INTERVAL;
        }
        let Some(since) = self.unsynced_since else { return SWEEP_INTERVAL };
        if core.options().durability != Durability::Interval {
            return SWEEP_INTERVAL;
        }
        let rest = FLUSH_INTERVAL.saturating_sub(core.options().clock.monotonic().saturating_sub(since));
        if rest.is_zero() {
            self.commit_group(core, vec![Batch { flush: true, ..Batch::default() }]);
            return SWEEP_INTERVAL;
        }
        rest
    }

    /// Removes some of the records that a newer member list does not allow, or whose authors are
    /// refused; returns how long to sleep.
    fn sweep_members(&mut self, core: &Core) -> Duration {
        if core.poisoned().is_some() {
            return SWEEP_INTERVAL;
        }
        match self.members.step(core) {
            Ok(None) => SWEEP_INTERVAL,
            Ok(Some(ops)) => {
                if !ops.is_empty() {
                    self.commit_group(core, vec![Batch { ops, ..Batch::default() }]);
                }
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, "cannot compare the records with the member list");
                SWEEP_INTERVAL
            }
        }
    }

    /// Deletes expired records, old tombstones and records over the quota; returns how long to
    /// sleep until the next.
    fn sweep(&mut self, core: &Core) -> Duration {
        if core.poisoned().is_some() {
            return SWEEP_INTERVAL;
        }
        match self.sweep.due(core) {
            Ok((ops, next)) if ops.is_empty() => next,
            Ok((ops, _)) => {
                self.commit_group(core, vec![Batch { ops, ..Batch::default() }]);
                Duration::ZERO
            }
            Err(error) => {
                tracing::warn!(%error, "cannot look for records that are to go");
                SWEEP_INTERVAL
            }
        }
    }
}

/// Calls code of the application, whose panics must not end the writer.
fn call_back(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a callback of the store panicked");
    }
}

/// The result of a batch: its changes, or the error that has prevented all of it.
type BatchResult = Result<Vec<Option<Change>>, StoreError>;

/// Returns a duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

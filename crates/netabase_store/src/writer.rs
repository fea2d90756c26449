//! Group commit: one thread applies everybody's writes, many to a transaction.
//!
//! A commit costs one flush of the disk however many writes are in it, so while one group is being
//! committed the next one gathers. A batch is in one group whole, and a caller is answered after
//! the commit that made its batch durable.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::apply::{Applier, ApplyError, Expected, Op};
use crate::change::{Change, StoreEvent};
use crate::coalesce::Coalesced;
use crate::core::Core;
use crate::engine::Sync;
use crate::error::StoreError;
use crate::history::{Position, Recorder};
use crate::members;
use crate::options::{Durability, FLUSH_INTERVAL};
use crate::record_key::RecordKey;
use crate::sweep::{SWEEP_INTERVAL, Sweep};

/// The most writes that may wait; a local writer blocks beyond it.
const QUEUE_OPS: usize = 65_536;
/// The most bytes that may wait.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Of both, the share in percent that records from peers may fill; the rest is for local writers.
const NETWORK_SHARE: usize = 75;
/// The most writes in one transaction.
const GROUP_OPS: usize = 4096;
/// The most bytes in one transaction, unless one batch is larger.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// The most bytes of writes that may be lost in a crash, whatever the durability.
const UNSYNCED_BYTES: usize = 64 * 1024 * 1024;
/// How long lazy writes wait for company.
const LAZY_DELAY: Duration = Duration::from_millis(500);
/// How long a record of our own has to be published by whoever wrote it before the schedule does.
const FIRST_DUE: Duration = Duration::from_secs(30);

/// Writes that are applied together or not at all.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    /// What must be there, or the batch fails.
    pub(crate) expected: Vec<(RecordKey, Expected)>,
    /// Whether versions that were overtaken since they were signed are signed again, so that the whole
    /// batch comes after whatever it replaces. Only where nobody was given the versions yet.
    pub(crate) resign: bool,
    /// Whether this and everything before it is to be on the disk, whatever the durability.
    pub(crate) flush: bool,
    /// Is called on the writer's thread after everything before it, while nothing is written.
    pub(crate) pause: Option<Pause>,
    pub(crate) done: Option<Done>,
}

/// What is done while the writer pauses.
pub(crate) type Pause = Box<dyn FnOnce(&Core) + Send>;

/// Is called once, on the writer's thread, with the changes of the batch in the order of its writes.
pub(crate) type Done = Box<dyn FnOnce(Result<Vec<Option<Change>>, StoreError>) + Send>;

impl Batch {
    pub(crate) fn new(ops: Vec<Op>, done: Done) -> Self {
        Self { ops, done: Some(done), ..Self::default() }
    }

    fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    fn finish(mut self, result: Result<Vec<Option<Change>>, StoreError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("ops", &self.ops.len()).finish_non_exhaustive()
    }
}

/// The queue between writers and the writer's thread.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something was queued, or the store is closing.
    work: Condvar,
    /// Something was taken off the queue.
    room: Condvar,
    /// The thread that takes things off the queue, and calls the callbacks.
    writer: OnceLock<ThreadId>,
    /// The thread that the writer waits for, if it does.
    holder: Mutex<Option<ThreadId>>,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    ops: usize,
    bytes: usize,
    /// Whether every waiting batch is one that nobody waits for.
    lazy: bool,
    closing: bool,
}

impl State {
    fn fits(&self, ops: usize, bytes: usize, share: usize) -> bool {
        let ops_fit = self.ops + ops <= QUEUE_OPS / 100 * share;
        let bytes_fit = self.bytes + bytes <= QUEUE_BYTES / 100 * share;
        self.batches.is_empty() || (ops_fit && bytes_fit)
    }

    fn push(&mut self, batch: Batch, ops: usize, bytes: usize, lazy: bool) {
        self.lazy = lazy && (self.batches.is_empty() || self.lazy);
        self.ops += ops;
        self.bytes += bytes;
        self.batches.push_back(batch);
    }

    /// Takes whole batches up to the size of a group, at least one.
    fn take_group(&mut self) -> Vec<Batch> {
        let (mut group, mut ops, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = self.batches.front() {
            let alone = next.pause.is_some() || group.last().is_some_and(|last: &Batch| last.pause.is_some());
            if !group.is_empty()
                && (alone || ops + next.ops.len() > GROUP_OPS || bytes + next.bytes() > GROUP_BYTES)
            {
                break;
            }
            ops += next.ops.len();
            bytes += next.bytes();
            group.extend(self.batches.pop_front());
        }
        self.ops -= ops;
        self.bytes -= bytes;
        group
    }
}

impl Queue {
    /// Whether this is the writer's thread, or one that the writer waits for: neither can wait for a write.
    pub(crate) fn is_writer(&self) -> bool {
        let current = thread::current().id();
        self.writer.get() == Some(&current) || *self.holder.lock() == Some(current)
    }

    /// Returns once everything before is written; nothing else is until what it returns is dropped.
    pub(crate) fn hold(&self) -> Result<HeldWriter<'_>, StoreError> {
        if self.is_writer() {
            return Err(StoreError::InCallback);
        }
        let (held, is_held) = sync_channel(1);
        let (release, released) = sync_channel(1);
        let pause: Pause = Box::new(move |_| {
            // If nobody waits for it, then nobody holds it, and the second channel is closed.
            let _ = held.send(());
            let _ = released.recv();
        });
        self.push(Batch { pause: Some(pause), ..Batch::default() });
        is_held.recv().map_err(StoreError::backend)?;
        *self.holder.lock() = Some(thread::current().id());
        Ok(HeldWriter { queue: self, _release: release })
    }

    /// Queues a batch; waits while the queue is full, unless this is the writer's own thread.
    pub(crate) fn push(&self, batch: Batch) {
        let (ops, bytes) = (batch.ops.len(), batch.bytes());
        let mut state = self.state.lock();
        while !state.fits(ops, bytes, 100) && !self.is_writer() {
            self.room.wait(&mut state);
        }
        state.push(batch, ops, bytes, false);
        drop(state);
        self.work.notify_one();
    }

    /// Queues a batch from a peer, or gives it back if the peers' share of the queue is full.
    pub(crate) fn try_push(&self, batch: Batch) -> Result<(), Batch> {
        let (ops, bytes) = (batch.ops.len(), batch.bytes());
        let mut state = self.state.lock();
        if !state.fits(ops, bytes, NETWORK_SHARE) {
            return Err(batch);
        }
        state.push(batch, ops, bytes, false);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Queues a write that nobody waits for and that may join a later group.
    ///
    /// Such writes are hints that the store can do without: they are dropped if the queue is full.
    pub(crate) fn push_lazy(&self, op: Op) {
        // Dropped, as promised.
        let _ = self.try_push_lazy(op);
    }

    /// Does so, or gives the write back if the queue is full.
    pub(crate) fn try_push_lazy(&self, op: Op) -> Result<(), Op> {
        let (ops, bytes) = (1, op.bytes());
        let mut state = self.state.lock();
        if !state.fits(ops, bytes, NETWORK_SHARE) {
            return Err(op);
        }
        let sleeping = state.batches.is_empty();
        state.push(Batch { ops: vec![op], ..Batch::default() }, ops, bytes, true);
        if sleeping {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Lets the thread end once it has written what is waiting.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    /// Waits for work until `idle` has passed; `None` says that the store is closing.
    fn next_group(&self, idle: Duration) -> Option<Vec<Batch>> {
        let begin = Instant::now();
        let mut state = self.state.lock();
        if state.batches.is_empty() && !state.closing {
            self.work.wait_for(&mut state, idle);
        }
        if state.lazy && !state.batches.is_empty() && !state.closing {
            let rest = idle.saturating_sub(begin.elapsed());
            self.work.wait_for(&mut state, LAZY_DELAY.min(rest));
        }
        if state.batches.is_empty() && state.closing {
            return None;
        }
        let group = state.take_group();
        drop(state);
        self.room.notify_all();
        Some(group)
    }
}

/// The writer waits while this lives; see [`Queue::hold`].
#[derive(Debug)]
pub(crate) struct HeldWriter<'a> {
    queue: &'a Queue,
    /// The writer waits for the other end to see this one go, after the holder was forgotten.
    _release: SyncSender<()>,
}

impl Drop for HeldWriter<'_> {
    fn drop(&mut self) {
        *self.queue.holder.lock() = None;
    }
}

/// The writer's thread: runs until the store is closed and everything queued is written.
pub(crate) fn run(core: &Core, position: Position) {
    core.queue().writer.get_or_init(|| thread::current().id());
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
        while let Some(group) = self.core.queue().next_group(idle) {
            if !group.is_empty() {
                self.commit_group(group);
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
            call_back(|| pause(self.core));
            // It was alone, and has nothing to write.
            return group.into_iter().for_each(|batch| call_back(|| batch.finish(Ok(Vec::new()))));
        }
        let core = self.core;
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

//! The queue between callers and the writer, and the time that writes wait to share a commit.

use std::collections::VecDeque;
use std::fmt;
use std::thread::{self, ThreadId};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::changes::change::Change;
use crate::core::Core;
use crate::error::StoreError;
use crate::version::clock::Clock;
use crate::version::record_key::RecordKey;
use crate::write::apply::{Expected, Op};
use crate::write::limits::{
    GATHERED_BYTES, GATHERED_OPS, GROUP_BYTES, GROUP_OPS, LAZY_DELAY, MAX_PACE, MIN_PACE, NETWORK_SHARE,
    PACE_FACTOR, QUEUE_BYTES, QUEUE_OPS,
};

/// Writes that are applied together or not at all.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) ops: Vec<Op>,
    /// The conditions without which the batch fails.
    pub(crate) expected: Vec<(RecordKey, Expected)>,
    /// Whether versions that were overtaken since they were signed are signed again, so that the
    /// whole batch comes after the versions that it replaces. Only for versions that no peer was
    /// sent yet.
    pub(crate) resign: bool,
    /// Whether the caller does not publish the versions, so that they are due at once.
    pub(crate) unpublished: bool,
    /// Whether this and everything before it is to be on the disk, whatever the durability.
    pub(crate) flush: bool,
    /// Called by the writer after all earlier writes, while nothing is written.
    pub(crate) pause: Option<Pause>,
    pub(crate) done: Option<Done>,
}

/// A callback that runs while the writer pauses; returns the writes to carry out then.
pub(crate) type Pause = Box<dyn FnOnce(&Core) -> Vec<Op> + Send>;

/// Is called once, by the writer, with the changes of the batch in the order of its
/// writes.
pub(crate) type Done = Box<dyn FnOnce(Result<Vec<Option<Change>>, StoreError>) + Send>;

impl Batch {
    pub(crate) fn new(ops: Vec<Op>, done: Done) -> Self {
        Self { ops, done: Some(done), ..Self::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.ops.iter().map(Op::bytes).sum()
    }

    pub(super) fn finish(mut self, result: Result<Vec<Option<Change>>, StoreError>) {
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

/// The queue between callers and the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Something was queued, or the store is closing.
    work: Condvar,
    /// Something was taken off the queue.
    space: Condvar,
    /// The thread that has the writer.
    holder: Mutex<Option<ThreadId>>,
}

/// The time that a write may wait for others to share its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// No caller waits for it, and losing it is harmless.
    Lazy,
    /// No caller waits for it, but it should be on the disk soon.
    Soon,
    /// A caller waits.
    Now,
}

#[derive(Debug)]
struct Waiting {
    batch: Batch,
    bytes: usize,
    /// Whether it has records of peers alone, which cannot fail, so that others may join them.
    gathers: bool,
}

impl Waiting {
    /// Returns whether a peer's record of so many bytes may join.
    fn has_space(&self, bytes: usize) -> bool {
        self.gathers && self.batch.ops.len() < GATHERED_OPS && self.bytes + bytes <= GATHERED_BYTES
    }
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Waiting>,
    ops: usize,
    bytes: usize,
    /// The urgency of the most urgent batch, or `None` if none waits.
    urgency: Option<Urgency>,
    /// The time when the last group was taken, by the monotonic clock.
    taken: Option<Duration>,
    /// Until when lazy writes wait, if the writer has seen that there are some.
    lazy_until: Option<Duration>,
    /// The duration of its commit.
    took: Duration,
    /// Whether changes are followed.
    followed: bool,
    closing: bool,
}

impl State {
    fn fits(&self, ops: usize, bytes: usize, share: usize) -> bool {
        let ops_fit = self.ops + ops <= QUEUE_OPS / 100 * share;
        let bytes_fit = self.bytes + bytes <= QUEUE_BYTES / 100 * share;
        self.batches.is_empty() || (ops_fit && bytes_fit)
    }

    /// Queues a batch; returns whether the writer must be woken.
    fn push(&mut self, batch: Batch, bytes: usize, urgency: Urgency) -> bool {
        let ops = batch.ops.len();
        self.batches.push_back(Waiting { batch, bytes, gathers: false });
        self.added(ops, bytes, urgency)
    }

    /// Queues a peer's record, with those that came before it if it can.
    fn push_record(&mut self, op: Op, bytes: usize) -> bool {
        if let Some(last) = self.batches.back_mut().filter(|last| last.has_space(bytes)) {
            last.batch.ops.push(op);
            last.bytes += bytes;
        } else {
            let batch = Batch { ops: vec![op], ..Batch::default() };
            self.batches.push_back(Waiting { batch, bytes, gathers: true });
        }
        self.added(1, bytes, Urgency::Soon)
    }

    /// Counts what was queued; only what shortens the writer's wait needs to wake it.
    fn added(&mut self, ops: usize, bytes: usize, urgency: Urgency) -> bool {
        let (was_urgent, was_group) = (self.urgency, self.is_group());
        self.urgency = was_urgent.max(Some(urgency));
        self.ops += ops;
        self.bytes += bytes;
        self.urgency > was_urgent || self.is_group() != was_group
    }

    /// Returns whether there is enough for a group.
    fn is_group(&self) -> bool {
        self.ops >= GROUP_OPS || self.bytes >= GROUP_BYTES
    }

    /// Returns how long the writer may sleep, at most until `idle_until`.
    fn rest(&mut self, now: Duration, idle_until: Duration) -> Duration {
        let idle = idle_until.saturating_sub(now);
        if self.batches.is_empty() && !self.closing { idle } else { idle.min(self.patience(now)) }
    }

    /// Returns how long the waiting batches may wait for more.
    fn patience(&mut self, now: Duration) -> Duration {
        match self.urgency {
            None | Some(Urgency::Now) => Duration::ZERO,
            _ if self.closing || self.is_group() => Duration::ZERO,
            Some(Urgency::Soon) => {
                let pace = if self.followed {
                    self.took.min(MAX_PACE)
                } else {
                    self.took.saturating_mul(PACE_FACTOR).clamp(MIN_PACE, MAX_PACE)
                };
                self.taken.map_or(Duration::ZERO, |taken| pace.saturating_sub(now.saturating_sub(taken)))
            }
            Some(Urgency::Lazy) => {
                let until = *self.lazy_until.get_or_insert(now.saturating_add(LAZY_DELAY));
                until.saturating_sub(now)
            }
        }
    }

    /// Takes whole batches up to the size of a group, at least one.
    fn take_group(&mut self, now: Duration) -> Vec<Batch> {
        let (mut group, mut ops, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = self.batches.front() {
            let alone =
                next.batch.pause.is_some() || group.last().is_some_and(|last: &Batch| last.pause.is_some());
            if !group.is_empty()
                && (alone || ops + next.batch.ops.len() > GROUP_OPS || bytes + next.bytes > GROUP_BYTES)
            {
                break;
            }
            ops += next.batch.ops.len();
            bytes += next.bytes;
            group.extend(self.batches.pop_front().map(|next| next.batch));
        }
        self.ops -= ops;
        self.bytes -= bytes;
        if self.batches.is_empty() {
            (self.urgency, self.lazy_until) = (None, None);
        }
        if !group.is_empty() {
            self.taken = Some(now);
        }
        group
    }
}

impl Queue {
    /// Says which thread has the writer.
    pub(super) fn set_holder(&self, holder: Option<ThreadId>) {
        *self.holder.lock() = holder;
    }

    /// Returns whether this thread has the writer, so that it cannot wait for a write.
    pub(crate) fn is_writer(&self) -> bool {
        *self.holder.lock() == Some(thread::current().id())
    }

    /// Queues a batch; waits while the queue is full, unless this thread has the writer.
    pub(crate) fn push(&self, batch: Batch) {
        let (ops, bytes) = (batch.ops.len(), batch.bytes());
        let mut state = self.state.lock();
        while !state.fits(ops, bytes, 100) && !self.is_writer() {
            self.space.wait(&mut state);
        }
        let wake = state.push(batch, bytes, Urgency::Now);
        drop(state);
        self.wake(wake);
    }

    /// Queues a batch, or gives it back if the queue is full.
    pub(crate) fn try_push_local(&self, batch: Batch) -> Result<(), Batch> {
        let (ops, bytes) = (batch.ops.len(), batch.bytes());
        self.try_queue(ops, bytes, 100, batch, |state, batch| state.push(batch, bytes, Urgency::Now))
    }

    /// Queues a batch without waiting for it, or returns it if the peers' share of the queue is
    /// full.
    pub(crate) fn try_push(&self, batch: Batch) -> Result<(), Batch> {
        let bytes = batch.bytes();
        self.try_queue(batch.ops.len(), bytes, NETWORK_SHARE, batch, |state, batch| {
            state.push(batch, bytes, Urgency::Soon)
        })
    }

    /// Queues the write of a peer's record, which cannot fail, or gives it back likewise.
    pub(crate) fn try_push_record(&self, op: Op) -> Result<(), Op> {
        let bytes = op.bytes();
        self.try_queue(1, bytes, NETWORK_SHARE, op, |state, op| state.push_record(op, bytes))
    }

    /// Queues a write that may join a later group, without waiting for it.
    ///
    /// Such writes are hints that the store can do without: they are dropped if the queue is full.
    pub(crate) fn push_lazy(&self, op: Op) {
        // Dropped, as promised.
        let _ = self.try_push_lazy(op);
    }

    /// Does so, or gives the write back if the queue is full.
    pub(crate) fn try_push_lazy(&self, op: Op) -> Result<(), Op> {
        let bytes = op.bytes();
        self.try_queue(1, bytes, NETWORK_SHARE, op, |state, op| {
            state.push(Batch { ops: vec![op], ..Batch::default() }, bytes, Urgency::Lazy)
        })
    }

    fn try_queue<T>(
        &self,
        ops: usize,
        bytes: usize,
        share: usize,
        write: T,
        push: impl FnOnce(&mut State, T) -> bool,
    ) -> Result<(), T> {
        let mut state = self.state.lock();
        if !state.fits(ops, bytes, share) {
            return Err(write);
        }
        let wake = push(&mut state, write);
        drop(state);
        self.wake(wake);
        Ok(())
    }

    fn wake(&self, wake: bool) {
        if wake {
            self.work.notify_one();
        }
    }

    /// Returns how many writes wait, and how many bytes of them.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.ops, state.bytes)
    }

    /// Lets the thread end once it has written what is waiting.
    pub(crate) fn close(&self) {
        self.state.lock().closing = true;
        self.work.notify_all();
    }

    /// Says how long the last group took to write.
    pub(super) fn note_group(&self, took: Duration) {
        self.state.lock().took = took;
    }

    /// Takes a group, if one is to be written now; there is an empty one when the writer has been
    /// idle until `idle_until`. Peers' records wait less for others if changes are followed.
    pub(super) fn take(&self, now: Duration, idle_until: Duration, followed: bool) -> Taken {
        let mut state = self.state.lock();
        state.followed = followed;
        let rest = state.rest(now, idle_until);
        if !rest.is_zero() {
            return Taken::Nothing(rest);
        }
        if state.batches.is_empty() && state.closing {
            return Taken::Closed;
        }
        let group = state.take_group(now);
        drop(state);
        self.space.notify_all();
        Taken::Group(group)
    }

    /// Returns how long a writer that is idle for `idle` has nothing to do.
    pub(crate) fn rest(&self, now: Duration, idle: Duration, followed: bool) -> Duration {
        let mut state = self.state.lock();
        state.followed = followed;
        state.rest(now, now.saturating_add(idle))
    }

    /// Waits until there is something to do, at most for `idle`.
    pub(super) fn wait(&self, clock: &Clock, idle: Duration, is_followed: impl Fn() -> bool) {
        let mut state = self.state.lock();
        let idle_until = clock.monotonic().saturating_add(idle);
        loop {
            state.followed = is_followed();
            let rest = state.rest(clock.monotonic(), idle_until);
            if rest.is_zero() || self.work.wait_for(&mut state, rest).timed_out() {
                return;
            }
        }
    }
}

/// The writes that the writer has taken off its queue.
#[derive(Debug)]
pub(super) enum Taken {
    Group(Vec<Batch>),
    /// Nothing is to be written for so long.
    Nothing(Duration),
    /// Nothing will be written any more.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::change::Origin;
    use crate::model::schema::IndexKeys;
    use crate::version::envelope::Envelope;
    use crate::write::apply::Lease;

    fn record(id: u8, payload: &[u8]) -> Op {
        let key = RecordKey::new("Def", "Model", &[id]).unwrap();
        let (envelope, secondary) = (Envelope::unsigned(payload), IndexKeys::default());
        Op::Put { key, envelope, secondary, origin: Origin::Network, lease: Lease::None }
    }

    fn push_record(state: &mut State, payload: &[u8]) -> bool {
        let op = record(1, payload);
        let bytes = op.bytes();
        state.push_record(op, bytes)
    }

    /// The time of the tests.
    const NOW: Duration = Duration::from_secs(3600);

    /// A state whose last group was taken right now.
    fn busy() -> State {
        State { taken: Some(NOW), ..State::default() }
    }

    #[test]
    fn the_first_record_of_a_peer_waits_for_nothing() {
        let mut state = State::default();
        assert!(push_record(&mut state, b"first"), "the writer is woken");
        assert_eq!(state.patience(NOW), Duration::ZERO);
        assert_eq!(state.take_group(NOW).len(), 1);
    }

    #[test]
    fn those_after_it_gather_in_one_batch() {
        let mut state = busy();
        assert!(push_record(&mut state, b"first"));
        assert_eq!(state.patience(NOW), MIN_PACE);
        for _ in 1..GATHERED_OPS {
            assert!(!push_record(&mut state, b"next"), "the writer is not woken again");
        }
        assert_eq!((state.batches.len(), state.ops), (1, GATHERED_OPS));
        push_record(&mut state, b"one too many");
        assert_eq!(state.batches.len(), 2);
        push_record(&mut state, &vec![0; GATHERED_BYTES]);
        assert_eq!(state.batches.len(), 3, "a large one has a batch of its own");
        let ops: Vec<_> = state.take_group(NOW).iter().map(|batch| batch.ops.len()).collect();
        assert_eq!(ops, [GATHERED_OPS, 1, 1]);
        assert_eq!((state.ops, state.bytes, state.urgency), (0, 0, None));
    }

    #[test]
    fn where_commits_are_slow_more_is_gathered() {
        let mut state = busy();
        push_record(&mut state, b"first");
        let pace = |took| {
            state.took = Duration::from_millis(took);
            state.patience(NOW).as_millis()
        };
        assert_eq!([1, 10, 1000].map(pace), [20, 40, 100]);
    }

    #[test]
    fn those_who_follow_wait_no_longer_than_a_commit_takes() {
        let mut state = State { followed: true, ..busy() };
        push_record(&mut state, b"first");
        let pace = |took| {
            state.took = Duration::from_millis(took);
            state.patience(NOW).as_millis()
        };
        assert_eq!([0, 1, 10, 1000].map(pace), [0, 1, 10, 100]);
    }

    #[test]
    fn a_caller_who_waits_ends_the_wait() {
        let mut state = busy();
        push_record(&mut state, b"first");
        assert!(state.push(Batch::default(), 0, Urgency::Now), "the writer is woken");
        assert_eq!(state.patience(NOW), Duration::ZERO);
        assert_eq!(state.take_group(NOW).len(), 2, "the record shares the commit");
    }

    #[test]
    fn a_record_does_not_join_what_may_fail() {
        let mut state = busy();
        state.push(Batch { ops: vec![record(1, b"local")], ..Batch::default() }, 10, Urgency::Soon);
        push_record(&mut state, b"of a peer");
        assert_eq!(state.batches.len(), 2);
    }

    #[test]
    fn a_full_group_waits_no_longer() {
        let mut state = busy();
        let woken = (0..GROUP_OPS).filter(|_| push_record(&mut state, b"")).count();
        assert_eq!((woken, state.patience(NOW)), (2, Duration::ZERO), "for the first and the last");
    }

    #[test]
    fn a_record_ends_the_wait_of_lazy_writes() {
        let mut state = State::default();
        assert!(state.push(Batch::default(), 0, Urgency::Lazy));
        assert_eq!(state.patience(NOW), LAZY_DELAY);
        assert!(push_record(&mut state, b"first"));
        assert_eq!(state.patience(NOW), Duration::ZERO);
    }
}

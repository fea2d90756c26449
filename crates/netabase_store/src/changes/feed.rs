//! Wakes the followers of a store's changes.

use std::collections::HashMap;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::platform::{self, Instant};

/// The number of the last committed change, and the followers that wait for more.
///
/// Followers read the changes from the history, so a slow one delays no other and costs no memory.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    moved: Condvar,
    /// Held by a follower while it reads.
    reading: RwLock<()>,
}

#[derive(Debug)]
struct State {
    /// The sequence number of the next change.
    next: u64,
    closed: bool,
    /// One for each asynchronous follower that waits, by its number.
    wakers: HashMap<u64, Waker>,
    /// The number of followers so far, and of present ones.
    followers: u64,
    present: usize,
}

/// The state of the feed for a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FollowerState {
    /// There are changes to read.
    Ahead,
    /// Everything was read.
    Current,
    /// Everything was read, and the store is closed.
    Closed,
}

impl Feed {
    pub(crate) fn new(next: u64) -> Self {
        let state = State { next, closed: false, wakers: HashMap::new(), followers: 0, present: 0 };
        Self { state: Mutex::new(state), moved: Condvar::new(), reading: RwLock::new(()) }
    }

    /// Returns a number for a new follower.
    pub(crate) fn follow(&self) -> u64 {
        let mut state = self.state.lock();
        state.followers += 1;
        state.present += 1;
        state.followers
    }

    /// Returns whether anybody follows.
    pub(crate) fn is_followed(&self) -> bool {
        self.state.lock().present > 0
    }

    /// Is held while a follower has the database open.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.reading.read()
    }

    /// Waits until no follower has the database open.
    pub(crate) fn wait_for_readers(&self) {
        drop(self.reading.write());
    }

    /// Forgets a follower.
    pub(crate) fn leave(&self, follower: u64) {
        let mut state = self.state.lock();
        state.present = state.present.saturating_sub(1);
        let waker = state.wakers.remove(&follower);
        drop(state);
        // Not under the lock: it may be the last to hold a task, and a task may hold a follower.
        drop(waker);
    }

    /// Says that the changes before number `next` are committed.
    pub(crate) fn publish(&self, next: u64) {
        let mut state = self.state.lock();
        if state.next != next {
            state.next = next;
            self.wake(state);
        }
    }

    /// Says that there will be no more changes.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.wake(state);
    }

    /// Says that there will be changes again.
    pub(crate) fn reopen(&self) {
        self.state.lock().closed = false;
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakers = mem::take(&mut state.wakers);
        drop(state);
        self.moved.notify_all();
        for waker in wakers.into_values() {
            // A waker that panics must stop neither the writer nor the wakers after it.
            if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
                tracing::error!("the waker of a follower of the store panicked");
            }
        }
    }

    /// Waits until there is a change from number `next` on, at most until `deadline`.
    pub(crate) fn wait(&self, next: u64, deadline: Option<Instant>) -> FollowerState {
        let mut state = self.state.lock();
        while state.follower_state(next) == FollowerState::Current {
            match deadline {
                None => self.moved.wait(&mut state),
                Some(deadline) => {
                    let rest = deadline.saturating_duration_since(platform::now());
                    if rest.is_zero() || self.moved.wait_for(&mut state, rest).timed_out() {
                        break;
                    }
                }
            }
        }
        state.follower_state(next)
    }

    /// Returns at once; if there are no changes to read, `waker` is called for the next one.
    pub(crate) fn poll(&self, follower: u64, next: u64, waker: &Waker) -> FollowerState {
        let mut state = self.state.lock();
        let found = state.follower_state(next);
        if found == FollowerState::Current {
            let earlier = state.wakers.insert(follower, waker.clone());
            drop(state);
            drop(earlier);
        }
        found
    }
}

impl State {
    fn follower_state(&self, next: u64) -> FollowerState {
        match (next < self.next, self.closed) {
            (true, _) => FollowerState::Ahead,
            (false, false) => FollowerState::Current,
            (false, true) => FollowerState::Closed,
        }
    }
}

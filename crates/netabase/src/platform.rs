//! The seam to the outside world: clocks, timers, tasks, blocking work, randomness
//! and files.
//!
//! The node accesses them through this module alone; `clippy.toml` of the crate forbids the direct
//! calls.
#![expect(clippy::disallowed_methods, reason = "the only module that may call them")]

pub(crate) mod files;

use std::hash::RandomState;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use libp2p::PeerId;
use libp2p::identity::Keypair;

pub(crate) use tokio::task::{JoinHandle, JoinSet};
pub(crate) use tokio::time::{Instant, MissedTickBehavior, Sleep};
use tokio::time::{Interval, Timeout};

/// Returns the time of the monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns the time since `moment`, by the monotonic clock.
pub(crate) fn since(moment: Instant) -> Duration {
    now().saturating_duration_since(moment)
}

/// The time of work on one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch {
    begin: Instant,
    /// The processor time of the thread at the beginning, if only that counts.
    thread: Option<Duration>,
}

impl Stopwatch {
    /// Starts. With `is_exact`, only the time counts for which the thread has run, where the
    /// operating system tells it; that takes a system call.
    pub(crate) fn start(is_exact: bool) -> Self {
        Self { begin: now(), thread: if is_exact { thread_time() } else { None } }
    }

    /// Returns the time since the start, on the same thread.
    pub(crate) fn elapsed(self) -> Duration {
        let ran = self.thread.and_then(|begin| Some(thread_time()?.saturating_sub(begin)));
        ran.unwrap_or_else(|| since(self.begin))
    }
}

/// Returns the processor time that this thread has taken.
#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().ok()
}

#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}

/// Returns the time of the wall clock.
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Waits for `duration`.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    tokio::time::sleep(duration)
}

/// Waits until `time`.
pub(crate) fn sleep_until(time: Instant) -> Sleep {
    tokio::time::sleep_until(time)
}

/// Waits until `time`, or for ever if `time` is `None`.
pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for `future`, but at most for `duration`.
pub(crate) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    tokio::time::timeout(duration, future)
}

/// Waits for `future`, but at most until `time`.
pub(crate) fn timeout_at<F: Future>(time: Instant, future: F) -> Timeout<F> {
    tokio::time::timeout_at(time, future)
}

/// Ticks at once, and then every `period`.
pub(crate) fn interval(period: Duration) -> Interval {
    tokio::time::interval(period)
}

/// Starts a task.
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// Runs blocking work on a thread of its own.
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Returns the number of threads that can run in parallel, or `None` if it is unknown.
pub(crate) fn parallelism() -> Option<NonZeroUsize> {
    std::thread::available_parallelism().ok()
}

/// Returns a random number in `range`.
pub(crate) fn random(range: RangeInclusive<u32>) -> u32 {
    fastrand::u32(range)
}

/// Returns a hasher with random keys.
pub(crate) fn random_hasher() -> RandomState {
    RandomState::new()
}

/// Returns a random peer id, from the operating system's generator.
pub(crate) fn random_peer_id() -> PeerId {
    PeerId::random()
}

/// Generates the key pair of a new identity.
pub(crate) fn new_keypair() -> Keypair {
    Keypair::generate_ed25519()
}

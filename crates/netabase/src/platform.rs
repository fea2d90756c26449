//! The seam to the outside world: clocks, timers, tasks, blocking work, and files.
//!
//! The node accesses them through this module alone; `clippy.toml` of the crate forbids the direct
//! calls.
#![expect(clippy::disallowed_methods, reason = "the only module that may call them")]

pub(crate) mod files;

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

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

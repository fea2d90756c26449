//! The seam to the outside world: clocks, timers, tasks, work that blocks, and files.
//!
//! The node reaches them through this module alone, and `clippy.toml` of the crate forbids the
//! direct calls.
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

/// Returns how long ago a moment was, by the monotonic clock.
pub(crate) fn since(moment: Instant) -> Duration {
    now().saturating_duration_since(moment)
}

/// Returns the time of the wall clock.
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Waits for so long.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    tokio::time::sleep(duration)
}

/// Waits until `time`.
pub(crate) fn sleep_until(time: Instant) -> Sleep {
    tokio::time::sleep_until(time)
}

/// Waits until `time`, for ever if there is none.
pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits for `future`, but no longer than `duration`.
pub(crate) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    tokio::time::timeout(duration, future)
}

/// Waits for `future`, but not beyond `time`.
pub(crate) fn timeout_at<F: Future>(time: Instant, future: F) -> Timeout<F> {
    tokio::time::timeout_at(time, future)
}

/// Ticks now and whenever `period` has passed.
pub(crate) fn interval(period: Duration) -> Interval {
    tokio::time::interval(period)
}

/// Starts a task.
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

/// Does work that blocks, apart from the tasks.
pub(crate) fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Returns how many threads can run at a time, if that is known.
pub(crate) fn parallelism() -> Option<NonZeroUsize> {
    std::thread::available_parallelism().ok()
}

//! The seam between the store and the outside world: clocks, threads, randomness and files.
//!
//! The store reaches them through this module alone, and `clippy.toml` of the crate forbids the
//! direct calls. There are two implementations: that of the standard library, and that of a browser
//! (`wasm32-unknown-unknown`), which has no threads and no files, and clocks of its own.
#![expect(clippy::disallowed_methods, reason = "the only module that may call them")]

pub(crate) mod files;

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use std::time::Instant;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use std::time::{SystemTime, UNIX_EPOCH};
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use web_time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
use web_time::{SystemTime, UNIX_EPOCH};

/// Whether there are threads, so that one can wait for another.
pub(crate) const HAS_THREADS: bool = !cfg!(all(target_family = "wasm", target_os = "unknown"));

/// Returns the wall clock's time since the Unix epoch; zero for a time before it.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Returns the time of the monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Returns how long ago a moment was, by the monotonic clock.
pub(crate) fn since(moment: Instant) -> Duration {
    now() - moment
}

/// Starts a thread.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// Blocks the thread. Returns at once if there is only one thread, since no other could make
/// progress.
pub(crate) fn sleep(duration: Duration) {
    if HAS_THREADS {
        thread::sleep(duration);
    }
}

/// Returns the number of this process.
pub(crate) fn process_id() -> u32 {
    std::process::id()
}

/// Returns random bits.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};

    // The state is random; that of one thread differs from call to call.
    RandomState::new().hash_one(())
}

/// Returns random bits.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) fn random() -> u64 {
    // A browser without a source of randomness has nothing better to give.
    getrandom::u64().unwrap_or_default()
}

//! The seam to the outside world: time, tasks, and work that blocks.

use tokio::time::Instant;

/// Waits until `time`, for ever if there is none.
pub(crate) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

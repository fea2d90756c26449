//! Progress bars on standard error, if that is a terminal.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// Makes a bar for `total` items, which disappears when it is dropped.
pub(crate) fn bar(what: &'static str, total: u64) -> ProgressBar {
    styled(what, Some(total), "{msg:>8} [{bar:40}] {pos}/{len} ({per_sec}, {eta} left)")
}

/// Makes a bar for `total` bytes, or for an unknown number of them.
pub(crate) fn bytes(what: &'static str, total: Option<u64>) -> ProgressBar {
    match total {
        Some(_) => {
            styled(what, total, "{msg:>8} [{bar:40}] {bytes}/{total_bytes} ({bytes_per_sec}, {eta} left)")
        }
        None => styled(what, None, "{msg:>8} {spinner} {bytes} ({bytes_per_sec})"),
    }
}

/// Makes a spinner for work of unknown length.
pub(crate) fn spinner(what: &'static str) -> ProgressBar {
    styled(what, None, "{msg:>8} {spinner} {pos} ({elapsed})")
}

/// Moves a bar, and returns whether the work continues.
pub(crate) fn step(bar: &ProgressBar, stop: &AtomicBool, done: u64, total: u64) -> ControlFlow<()> {
    bar.set_length(total);
    bar.set_position(done);
    if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn styled(what: &'static str, total: Option<u64>, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr())
        .with_style(style.progress_chars("=> "))
        .with_message(what)
        .with_finish(ProgressFinish::AndClear)
}

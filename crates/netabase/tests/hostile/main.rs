//! A peer of bare libp2p does what it should not, while honest nodes go on with their work.
//!
//! Every attack prints a line that says what was attempted, and what became of it: run with
//! `--nocapture`.
#![allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test fails by panicking, and says what it has seen"
)]

#[path = "../suite/common/mod.rs"]
mod common;

mod conduct;
mod floods;
mod lies;
mod records;
mod scene;
mod strangers;
mod streams;

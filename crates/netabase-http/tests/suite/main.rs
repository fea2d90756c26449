//! The tests of the HTTP interface, in one program: each program compiles the node for its models.
#![allow(clippy::disallowed_methods, reason = "a test uses files, clocks, tasks and threads directly")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking, and shows its models to nobody"
)]

mod browser;
mod common;

mod dashboard;
mod door;
mod guard;
mod keys;
mod late;
mod records;
mod routes;

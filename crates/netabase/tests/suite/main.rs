//! The tests of nodes, in one program: each program of tests compiles the node for its models anew.
//!
//! What needs a process of its own is a program of its own beside this one, or runs this one again.
#![allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

mod authors;
mod blobs;
mod chat;
mod connections;
mod damage;
mod events;
mod examples;
mod find;
mod find_authors;
mod find_lies;
mod find_placements;
mod lifecycle;
mod live;
mod live_peers;
mod members;
mod metrics;
mod network;
mod node;
mod outcomes;
mod policies;
mod processes;
mod query_protocol;
mod record_protocol;
mod rejoin;
mod repair;
mod roots;
mod silent_peers;
mod sync;
mod trace;
mod updates;

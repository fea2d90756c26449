//! The tests of the store, in one program, since each program compiles the store for its models.
#![allow(clippy::disallowed_methods, reason = "a test uses files, clocks, tasks and threads directly")]
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking, and shows its models to nobody"
)]

mod common;

mod authors;
mod blobs;
mod canonical;
mod care;
mod conditional;
mod conformance;
mod contributions;
mod convergence;
mod crash;
mod damage;
mod driven_writer;
mod durability;
mod eviction;
mod evolution;
mod export;
mod formats;
mod generations;
mod keep;
mod keyspace;
mod lifecycle;
mod lifetimes;
mod members;
mod merged;
mod migrate;
mod model_based;
mod model_versions;
mod owned;
mod panicking_model;
mod queries;
mod record_store;
mod redate;
mod retention;
mod secondary_keys;
mod sync_set;
mod vectors;
mod watch;
mod writer;

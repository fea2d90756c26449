//! Measurements of Netabase against named baselines.
//!
//! A subject is a module that returns one or more [`Table`]s of [`Measurement`]s. It repeats every
//! case several times and alternates between the systems it compares, so that a change in the
//! machine's mood meets them all. To add a subject: add a module here and a subcommand in
//! `main.rs`.
//!
//! [`crash`] measures nothing: it kills a process and counts what is lost.
//!
//! ```
//! use netabase_bench::{Measurement, Table};
//!
//! let mut table = Table::new("store", "redb", &[]);
//! for (system, value) in [("redb", 2.0), ("netabase", 3.0)] {
//!     table.add(Measurement { case: "put", system, metric: "p50", value, unit: "us", n: 100 });
//! }
//! let rows = table.rows();
//! assert_eq!((rows[1].baseline, rows[1].ratio), (Some("redb"), Some(1.5)));
//! ```

pub mod churn;
pub mod crash;
mod dice;
pub mod footprint;
pub mod format;
pub mod http;
pub mod ingest;
pub mod node;
mod program;
mod report;
pub mod republish;
mod sample;
pub mod siege;
pub mod store;
pub mod sync;
mod usage;

pub use report::{Aim, Bound, Measurement, Row, Table};
pub use sample::Latencies;

//! Counts the instructions of the store's hot paths and compares them with `limits.txt`.
#![allow(clippy::print_stdout, reason = "a program that prints its findings")]
#![allow(clippy::disallowed_methods, reason = "a benchmark uses files, threads and clocks directly")]

mod harness;
mod operations;

use harness::{Outcome, Suite};

fn main() -> Outcome {
    let suite = Suite {
        package: "netabase_store",
        limits: concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/limits.txt"),
        // Runs of one program differ by less than 1 %, for the order of threads and the seeds of
        // hash maps.
        tolerance: 3.0,
        attempts: 1,
        operations: operations::all(),
    };
    suite.run()
}

//! Counts the instructions of what two nodes do for a put, a get and a query, in one process, and
//! compares them with `limits.txt`.
#![allow(clippy::disallowed_methods, reason = "a benchmark uses clocks, tasks and threads directly")]
#![allow(clippy::print_stdout, reason = "a program that prints its findings")]

#[path = "../../../netabase_store/benches/instructions/harness.rs"]
mod harness;
mod operations;

use harness::{Outcome, Suite};

fn main() -> Outcome {
    let suite = Suite {
        package: "netabase",
        limits: concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/limits.txt"),
        // Runs of one program differ by a tenth, and on a busy machine by a third, for the order
        // of threads and what timers do meanwhile.
        tolerance: 20.0,
        attempts: 4,
        operations: operations::all(),
    };
    suite.run()
}

//! The examples that end by themselves, run as users run them. The chat has a test of its own.
#![allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;

#[test]
fn every_example_prints_what_it_promises() {
    for (example, promises) in [
        ("quickstart", "found Some(Message { id: \"42\""),
        ("secondary_keys", "still open: 0"),
        ("events", "Removed from Local"),
        ("two_nodes", "removed at the second node, gone at the first"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(common::example(example)).env("TMPDIR", directory.path()).output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains(promises), "{example}: {printed}");
    }
}

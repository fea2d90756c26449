//! The examples that end by themselves, run as users run them. The chat has a test of its own.

use std::process::Command;

use crate::common;

#[test]
fn every_example_prints_what_it_promises() {
    for (example, promises) in [
        (
            "quickstart",
            "found Some(Message { id: \"42\", room: \"general\", text: \"hello\" })\n1 in general",
        ),
        ("secondary_keys", "still open: 0"),
        ("events", "Removed from Local"),
        ("two_nodes", "removed at the second node, gone at the first"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let mut program = Command::new(common::example(example));
        program.env("TMPDIR", directory.path()).current_dir(directory.path());
        let output = program.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{example}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(printed.contains(promises), "{example}: {printed}");
    }
}

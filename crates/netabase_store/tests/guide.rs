//! The guide in `docs/store.md` and the example, as readers meet them. Its blocks are doctests of
//! the crate.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")]

use std::process::Command;

#[test]
fn the_blocks_of_the_guide_use_the_models_that_it_shows() {
    let models = include_str!("guide/models.rs");
    let start = models.find("#[netabase_definition_module").unwrap();
    let (module, _) = models.get(start..).unwrap().split_once("use library::*;").unwrap();
    assert!(include_str!("../../../docs/store.md").contains(module));
}

#[test]
fn the_example_prints_what_it_promises() {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(2).unwrap();
    let example = target.join("examples").join("library");
    if !example.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--package", "netabase_store", "--example", "library", "--target-dir"]);
        assert!(build.arg(target.parent().unwrap()).status().unwrap().success());
    }
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(example).env("TMPDIR", directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout);
    let expected = [
        "by Austen: Emma",
        "by Austen: Pride and Prejudice",
        "lent: true",
        "lent again: false",
        "change 5: Inserted { record: Loan { reader: \"ada\", isbn: 2 } }",
        "in the backup: 3 books",
    ];
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

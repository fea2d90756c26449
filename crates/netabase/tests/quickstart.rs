//! The README's quick start, as a crate of its own with the dependencies that the README names.
#![allow(clippy::disallowed_methods, reason = "a test uses clocks, tasks and threads directly")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Command;

const README: &str = include_str!("../../../README.md");
const START: &str = include_str!("../../../docs/start.md");
const WORKSPACE: &str = include_str!("../../../Cargo.toml");

/// Returns how packages are built for development and the whole for release, as a manifest says.
/// The workspace says of one package what a program says of itself.
fn profiles(manifest: &str) -> [toml::Value; 2] {
    let mut manifest: toml::Table = manifest.parse().unwrap();
    let profiles = &mut manifest["profile"];
    let release = profiles["release"].as_table_mut().unwrap();
    if let Some(packages) = release.remove("package") {
        release.extend(packages["netabase-node"].as_table().unwrap().clone());
    }
    [profiles["dev"]["package"].clone(), profiles["release"].clone()]
}

#[test]
fn a_new_program_is_built_as_the_workspace_is() {
    let (_, quick_start) = README.split_once("## Quick start").unwrap();
    for text in [quick_start, START] {
        assert_eq!(profiles(block(text, "toml")), profiles(WORKSPACE));
    }
}

/// The program is that of the example `quickstart`, which `examples.rs` runs: another build of all
/// dependencies would take minutes.
#[test]
fn the_quick_start_needs_nothing_but_the_dependencies_that_it_names() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let (_, quick_start) = README.split_once("## Quick start").unwrap();
    let program = block(quick_start, "rust,no_run");
    assert!(include_str!("../examples/quickstart.rs").trim_end().ends_with(program));

    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let package = temporary.join("quickstart");
    std::fs::create_dir_all(package.join("src")).unwrap();
    let dependencies = block(quick_start, "toml").replace("../netabase", repository.to_str().unwrap());
    let manifest = "[package]\nname = \"hello\"\nedition = \"2024\"\n\n[workspace]\n\n\
                    [lints.rust]\nwarnings = \"deny\"\n\n";
    std::fs::write(package.join("Cargo.toml"), format!("{manifest}{dependencies}")).unwrap();
    std::fs::write(package.join("src/main.rs"), program).unwrap();
    // The versions that are here already, so that nothing is downloaded.
    std::fs::copy(repository.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    // What the workspace has built with the same features is not built again.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--offline", "--target-dir"]).arg(temporary.parent().unwrap());
    let output = cargo.current_dir(&package).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the first code block in `language`.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("\n```").unwrap().0
}

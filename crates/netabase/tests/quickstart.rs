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
fn profiles(manifest: &str) -> [toml::Value; 2] {
    let manifest: toml::Table = manifest.parse().unwrap();
    let profiles = &manifest["profile"];
    [profiles["dev"]["package"].clone(), profiles["release"].clone()]
}

#[test]
fn a_new_program_is_built_as_the_workspace_is() {
    let (_, quick_start) = README.split_once("## Quick start").unwrap();
    for text in [quick_start, START] {
        assert_eq!(profiles(block(text, "toml")), profiles(WORKSPACE));
    }
}

#[test]
fn the_quick_start_runs_as_a_crate_of_its_own() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quickstart");
    std::fs::create_dir_all(package.join("src")).unwrap();
    let (_, quick_start) = README.split_once("## Quick start").unwrap();
    let dependencies = block(quick_start, "toml").replace("../netabase", repository.to_str().unwrap());
    let manifest = "[package]\nname = \"hello\"\nedition = \"2024\"\n\n[workspace]\n\n";
    std::fs::write(package.join("Cargo.toml"), format!("{manifest}{dependencies}")).unwrap();
    std::fs::write(package.join("src/main.rs"), block(quick_start, "rust,no_run")).unwrap();
    // The versions that are here already, so that nothing is downloaded.
    std::fs::copy(repository.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
    let _ = std::fs::remove_file(package.join("chat.redb"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--offline", "--target-dir", "target"]).env("RUSTFLAGS", "-D warnings");
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "0");
    let output = cargo.current_dir(&package).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("found Some(Message { id: \"42\""), "{printed}");
    assert!(printed.contains("1 in general"), "{printed}");
}

/// Returns the first code block in `language`.
fn block<'a>(text: &'a str, language: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("\n```").unwrap().0
}

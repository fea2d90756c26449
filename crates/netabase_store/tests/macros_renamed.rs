//! The macros find the crate under the name that the user's `Cargo.toml` gives it.
#![allow(clippy::disallowed_methods, reason = "a test uses files, threads and clocks directly")]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// The crate to check. The test checks a copy beside the build, since cargo writes a lock file.
const RENAMED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/renamed");

#[test]
fn generated_code_follows_a_renamed_dependency() {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("renamed");
    fs::create_dir_all(copy.join("src")).unwrap();
    let manifest = fs::read_to_string(Path::new(RENAMED).join("Cargo.toml")).unwrap();
    // A literal string of TOML: the path may contain backslashes.
    let path = concat!("'", env!("CARGO_MANIFEST_DIR"), "'");
    fs::write(copy.join("Cargo.toml"), manifest.replace("\"../..\"", path)).unwrap();
    fs::copy(Path::new(RENAMED).join("src/lib.rs"), copy.join("src/lib.rs")).unwrap();
    // The versions that the workspace has downloaded.
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
    fs::copy(lock, copy.join("Cargo.lock")).unwrap();

    let output = Command::new(env::var_os("CARGO").unwrap())
        .args(["check", "--offline", "--quiet", "--target-dir", "target"])
        .current_dir(&copy)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! Nodes on disks that are full, and beside files that are damaged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Node, command, run, run_with};
use tempfile::TempDir;

mod support;

const CHAT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/chat.toml");

/// A small disk of its own, which ends with the test.
struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Mounts a disk of so many MiB; `None` where that is not allowed.
    fn mount(mib: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            eprintln!("skipped: no file system can be mounted here");
        }
        mounted.then_some(Self { directory })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn resize(&self, mib: u32) {
        let size = format!("remount,size={mib}m");
        let resized = Command::new("mount").args(["-o", &size]).arg(self.directory.path()).status().unwrap();
        assert!(resized.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a node that is being killed may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

fn start(path: &Path) -> (Node, String) {
    let node = Node::spawn(&mut command(path, &["--schema", CHAT, "--listen", "/ip4/127.0.0.1/tcp/0"]));
    let api = node.api();
    (node, api)
}

fn lines(from: usize, count: usize, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    let line = |id: usize| {
        format!(
            r#"{{"model":"Message","version":1,"value":{{"id":"{id}","room":"hall","text":"{text}","tags":[],"reply_to":null,"mood":"Calm"}}}}"#
        )
    };
    (from..from + count).map(|id| line(id) + "\n").collect()
}

fn status(api: &str) -> Value {
    run(&["status", "--json", "--api", api]).ok().json()
}

fn warns(status: &Value, kind: &str) -> bool {
    status["warnings"].as_array().unwrap().iter().any(|warning| warning["kind"] == kind)
}

#[test]
fn a_node_on_a_full_disk_answers_and_goes_on_once_there_is_room() {
    let Some(disk) = Disk::mount(12) else { return };
    let (mut node, api) = start(&disk.path());
    let mut stored = 0;
    let failed = loop {
        let import = run_with(&lines(stored, 50, 4000), &["import", "-", "--api", &api]);
        if import.code != Some(0) {
            break import;
        }
        stored += 50;
        assert!(stored < 10_000, "the disk is never full");
    };
    assert!(failed.err.contains("No space left on device"), "{failed:?}");
    assert!(stored >= 500, "{stored}");
    assert_eq!(status(&api)["store"]["takes_writes"], false);
    assert!(warns(&status(&api), "store_failed"));
    let listed = run(&["query", "Message", "--all", "--limit", "1000", "--json", "--api", &api]).ok();
    assert!(listed.lines().len() >= stored, "everything that was acknowledged is read");
    assert!(run(&["export", "-", "--api", &api]).ok().lines().len() >= stored + 2);
    run(&["backup", "copy.redb", "--api", &api]).failed(1, "No space left on device");
    let names = fs::read_dir(disk.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("copy")), "nothing half made");

    disk.resize(200);
    while status(&api)["store"]["takes_writes"] == false {}
    run_with(&lines(20_000, 1, 10), &["import", "-", "--api", &api]).ok();
    assert!(!warns(&status(&api), "store_failed"));
    node.signal("KILL");
    node.ended();
    let (_node, api) = start(&disk.path());
    let listed = run(&["query", "Message", "--all", "--limit", "1000", "--json", "--api", &api]).ok();
    assert!(listed.lines().len() > stored);
    run(&["check", "--api", &api]).ok();
}

#[test]
fn a_first_start_on_a_full_disk_leaves_nothing_in_the_way_of_the_next() {
    let Some(disk) = Disk::mount(1) else { return };
    let (fill, path) = (disk.path().join("fill"), disk.path().join("node"));
    for free in [0, 8] {
        fs::write(&fill, vec![0; (1024 - free) * 1024 - 4096 * usize::from(free > 0)]).unwrap();
        let output = command(&path, &["--schema", CHAT]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{free}: {message}");
        assert!(message.contains("No space left on device"), "{free}: {message}");
        for left in fs::read_dir(&path).into_iter().flatten().map(Result::unwrap) {
            assert!(left.metadata().unwrap().len() > 0, "{left:?} is left empty");
            assert!(!left.file_name().to_string_lossy().ends_with(".redb"), "{left:?}");
        }
    }
    fs::remove_file(&fill).unwrap();
    disk.resize(64);
    let (_node, api) = start(&path);
    assert!(!warns(&status(&api), "identity_changed"));
}

#[test]
fn a_damaged_identity_is_named_and_a_missing_one_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let identity = directory.path().join("chat.redb.identity");
    let (mut node, api) = start(directory.path());
    assert!(!warns(&status(&api), "identity_changed"));
    let author = status(&api)["author"].as_str().unwrap().to_owned();
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));

    let whole = fs::read(&identity).unwrap();
    for (bytes, says) in
        [(&b""[..], "it is empty"), (&whole[..30], "no Ed25519 key"), (b"text", "no Ed25519 key")]
    {
        fs::write(&identity, bytes).unwrap();
        let output = command(directory.path(), &["--schema", CHAT]).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(says) && message.contains("restore it from a copy"), "{message}");
        assert_eq!(fs::read(&identity).unwrap(), bytes);
    }

    fs::remove_file(&identity).unwrap();
    let (mut node, api) = start(directory.path());
    let with_another = status(&api);
    assert!(warns(&with_another, "identity_changed"), "{with_another}");
    assert!(with_another["warnings"].to_string().contains(&author), "the former author is named");
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
    fs::write(&identity, &whole).unwrap();
    let (_node, api) = start(directory.path());
    assert_eq!(status(&api)["author"], author);
}

#[test]
fn a_stored_record_is_no_line_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (mut node, api) = start(directory.path());
    run_with(&lines(0, 500, 10), &["import", "-", "--api", &api]).ok();
    node.terminate();
    let lines = node.rest_of_the_log();
    assert!(lines.len() < 10, "{lines:?}");
}

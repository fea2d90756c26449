//! The chat example, run as two people would: two processes that find each other by mDNS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Makes a network namespace, in which this program runs `two_people`.
#[test]
fn two_people_chat_and_a_late_one_reads_the_history() {
    let possible = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        eprintln!("skipped: network namespaces need root and util-linux's `unshare`");
        return;
    }
    if !example().exists() {
        build_example();
    }
    let setup = "ip link set lo up && ip link add veth0 type veth peer name veth1 && ip link set veth1 up \
                 && ip addr add 10.78.0.1/24 dev veth0 && ip link set veth0 up multicast on \
                 && exec \"$0\" two_people --exact --ignored --nocapture";
    let program = std::env::current_exe().unwrap();
    let within_deadline = ["--net", "timeout", "120", "sh", "-c", setup];
    let output = Command::new("unshare").args(within_deadline).arg(program).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "runs in the namespace that the test above makes"]
fn two_people() {
    let directory = tempfile::tempdir().unwrap();
    let mut ada = Person::join("ada", directory.path());
    ada.types("is anybody here?");
    ada.reads("[general] ada: is anybody here?");
    let mut grace = Person::join("grace", directory.path());
    grace.reads("[general] ada: is anybody here?");
    grace.types("hello ada");
    ada.reads("[general] grace: hello ada");
    ada.types("/peers");
    ada.reads("1 peers are connected");
    grace.types("/quit");
    grace.reads("grace has left");
    ada.types("gone already?");
    ada.reads("[general] ada: gone already?");
    let mut grace = Person::join("grace", directory.path());
    grace.reads("[general] ada: gone already?");
}

fn example() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().join("examples/simple_mdns_chat")
}

/// A run of all tests has built it already; a run of this file alone has not.
fn build_example() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--package", "netabase", "--example", "simple_mdns_chat"]);
    let target = example().ancestors().nth(3).unwrap().to_owned();
    assert!(build.arg("--target-dir").arg(target).status().unwrap().success());
}

struct Person {
    process: Child,
    keyboard: ChildStdin,
    screen: BufReader<ChildStdout>,
}

impl Person {
    fn join(name: &str, directory: &Path) -> Self {
        let database = directory.join(name);
        let mut chat = Command::new(example());
        chat.args([name, "general"]).arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = chat.spawn().unwrap();
        let (keyboard, screen) =
            (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        let mut person = Self { process, keyboard, screen };
        person.reads(&format!(
            "{name} is in general; type to talk, /peers to see who is there, /quit to leave"
        ));
        person
    }

    fn types(&mut self, line: &str) {
        writeln!(self.keyboard, "{line}").unwrap();
    }

    /// Reads on until `expected` is on the screen; a chat that ends first fails the test.
    fn reads(&mut self, expected: &str) {
        let mut line = String::new();
        while line.trim_end() != expected {
            line.clear();
            assert_ne!(
                self.screen.read_line(&mut line).unwrap(),
                0,
                "the chat has ended before {expected:?}"
            );
        }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // It may have left by itself.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

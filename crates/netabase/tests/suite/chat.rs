//! The chat example, run as two people would: two processes that find each other by mDNS.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::{example, run_in_network_namespace};

#[test]
fn two_people_chat_and_a_late_one_reads_the_history() {
    run_in_network_namespace("chat::two_people");
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
    grace.leaves();
    ada.types("gone already?");
    ada.reads("[general] ada: gone already?");
    let mut grace = Person::join("grace", directory.path());
    grace.reads("[general] ada: gone already?");
}

struct Person {
    process: Child,
    keyboard: ChildStdin,
    screen: BufReader<ChildStdout>,
}

impl Person {
    fn join(name: &str, directory: &Path) -> Self {
        let database = directory.join(name);
        let mut chat = Command::new(example("simple_mdns_chat"));
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

    /// Quits, and waits until the database is closed.
    fn leaves(mut self) {
        self.types("/quit");
        assert!(self.process.wait().unwrap().success());
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

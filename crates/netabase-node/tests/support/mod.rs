//! Running the program as users do.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a node may take to do what a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many lines of a node wait for the test.
const LINES: usize = 1000;

/// The program, without what the environment of the test has set, and in a directory without
/// settings.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase"));
    for (name, _) in std::env::vars() {
        if name.starts_with("NETABASE_") || ["RUST_LOG", "NOTIFY_SOCKET"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A node on ports of its own, which finds no others by itself.
pub(crate) fn command(path: &Path, arguments: &[&str]) -> Command {
    let mut command = program(&["serve", "--no-mdns", "--path"]);
    command.arg(path).args(arguments);
    if !arguments.contains(&"--no-api") {
        command.args(["--api-listen", "127.0.0.1:0"]);
    }
    command
}

/// The same command, in a shell under whose umask everybody may read new files.
pub(crate) fn readable(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    for (name, _) in command.get_envs() {
        shell.env_remove(name);
    }
    shell.args(["-c", "umask 022 && exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(env!("CARGO_TARGET_TMPDIR"));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

/// The outcome of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Fails unless the command has succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Fails unless the command has ended with `code` and one line that contains `says`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, says: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.lines().last().is_some_and(|line| line.starts_with("error: ")), "{self:?}");
        assert!(self.err.contains(says), "{self:?}");
        self
    }

    /// Returns what was printed as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Returns what was printed as lines of JSON.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    ended(program(arguments).output().unwrap())
}

/// Runs a command to its end, with this on its standard input.
pub(crate) fn run_with(input: &str, arguments: &[&str]) -> Ended {
    let mut process = program(arguments).stdin(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    ended(process.wait_with_output().unwrap())
}

fn ended(Output { status, stdout, stderr }: Output) -> Ended {
    let [out, err] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Ended { code: status.code(), out, err }
}

/// A running node, or another command that goes on; it is killed when it is dropped.
pub(crate) struct Node {
    process: Child,
    lines: Receiver<String>,
    log: Receiver<String>,
}

impl Node {
    /// Starts a node.
    pub(crate) fn start(path: &Path, arguments: &[&str]) -> Self {
        Self::spawn(&mut command(path, arguments))
    }

    /// Starts a command.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut process = command.spawn().unwrap();
        let lines = lines(process.stdout.take().unwrap());
        let log = lines_and_echo(process.stderr.take().unwrap());
        Self { process, lines, log }
    }

    /// Waits for a line on standard output that begins with `what`, and returns the rest of it.
    pub(crate) fn printed(&self, what: &str) -> String {
        let prefix = format!("{what} ");
        wait_for(&self.lines, |line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Waits for a line in the log that contains all of `parts`.
    pub(crate) fn logged(&self, parts: &[&str]) {
        wait_for(&self.log, |line| parts.iter().all(|part| line.contains(part)).then_some(()));
    }

    /// Waits for the line that says where the API is, which answers from then on.
    pub(crate) fn api(&self) -> String {
        self.printed("api")
    }

    /// Waits for a line on standard output.
    pub(crate) fn line(&self) -> String {
        wait_for(&self.lines, |line| Some(line.to_owned()))
    }

    /// Waits for a line of JSON that `find` makes something of.
    pub(crate) fn json_line<T>(&self, find: impl Fn(&Value) -> Option<T>) -> T {
        wait_for(&self.lines, |line| find(&serde_json::from_str(line).ok()?))
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of the log; returns the lines that nobody has read.
    pub(crate) fn rest_of_the_log(&mut self) -> Vec<String> {
        let start = Instant::now();
        let line = || self.log.recv_timeout(DEADLINE.saturating_sub(start.elapsed())).ok();
        std::iter::from_fn(line).collect()
    }

    /// Waits for the end, which the ends of both streams announce.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        for stream in [&self.lines, &self.log] {
            while stream.recv_timeout(DEADLINE.saturating_sub(start.elapsed())).is_ok() {}
        }
        assert!(start.elapsed() < DEADLINE, "the node does not end");
        self.process.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    forward(stream, |_| ())
}

/// Shows the lines too, for when a test fails.
fn lines_and_echo(stream: impl Read + Send + 'static) -> Receiver<String> {
    forward(stream, |line| eprintln!("{line}"))
}

fn forward(stream: impl Read + Send + 'static, see: impl Fn(&str) + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            see(&line);
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Returns what `find` makes of the first line that it wants.
fn wait_for<T>(lines: &Receiver<String>, find: impl Fn(&str) -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        let line = lines.recv_timeout(DEADLINE.saturating_sub(start.elapsed())).unwrap();
        if let Some(found) = find(&line) {
            return found;
        }
    }
}

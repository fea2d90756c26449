//! Nodes in processes of their own, on real sockets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a node may take to do what a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);
/// How many lines of a node wait for the test.
const LINES: usize = 1000;

fn command(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netabase"));
    command.args(["serve", "--no-mdns", "--path"]).arg(path).args(arguments);
    command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running node; it is killed when it is dropped.
struct Node {
    process: Child,
    lines: Receiver<String>,
    log: Receiver<String>,
}

impl Node {
    fn start(path: &Path, arguments: &[&str]) -> Self {
        let mut process = command(path, arguments).spawn().unwrap();
        let lines = lines(process.stdout.take().unwrap());
        let log = lines_and_echo(process.stderr.take().unwrap());
        Self { process, lines, log }
    }

    /// Waits for a line on standard output that begins with `what`, and returns the rest of it.
    fn printed(&self, what: &str) -> String {
        let prefix = format!("{what} ");
        wait_for(&self.lines, |line| line.strip_prefix(&prefix).map(str::to_owned))
    }

    /// Waits for a line in the log that contains all of `parts`.
    fn logged(&self, parts: &[&str]) {
        wait_for(&self.log, |line| parts.iter().all(|part| line.contains(part)).then_some(()));
    }

    /// Sends SIGTERM.
    fn terminate(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end, which the ends of both streams announce.
    fn ended(&mut self) -> ExitStatus {
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
        // It may have ended already.
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

/// Runs a node that does not start, and returns the one line that it says.
fn refusal(path: &Path, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = command(path, arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// Starts two nodes, the second with what the first has printed, and stops both.
fn two_nodes_connect(listen: &str) {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Node::start(&directory.path().join("first"), &["--listen", listen]);
    let first_peer = first.printed("peer");
    let address = first.printed("address");
    assert!(address.ends_with(&format!("/p2p/{first_peer}")), "{address}");

    let second_path = directory.path().join("second");
    let mut second =
        Node::start(&second_path, &["--listen", listen, "--peer", &address, "--backend", "sled"]);
    let second_peer = second.printed("peer");
    assert_eq!(second.printed("database"), second_path.join("packages.sled").display().to_string());
    second.logged(&["connected", &first_peer]);
    first.logged(&["connected", &second_peer]);

    second.terminate();
    assert_eq!(second.ended().code(), Some(0));
    first.logged(&["disconnected", &second_peer]);
    first.terminate();
    assert_eq!(first.ended().code(), Some(0));
}

#[test]
fn a_root_that_is_no_public_key_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let Output { status, stderr, .. } = command(directory.path(), &["--root", "0123"]).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{message}");
    assert!(message.contains("64 hexadecimal digits"), "{message}");
}

#[test]
fn two_nodes_connect_over_tcp_and_end_when_told() {
    two_nodes_connect("/ip4/127.0.0.1/tcp/0");
}

#[test]
fn two_nodes_connect_over_quic_and_end_when_told() {
    two_nodes_connect("/ip4/127.0.0.1/udp/0/quic-v1");
}

#[test]
fn a_node_is_the_same_peer_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let peer = |_| {
        let mut node = Node::start(directory.path(), &["--listen", "/ip4/127.0.0.1/tcp/0"]);
        let peer = node.printed("peer");
        node.printed("address");
        node.terminate();
        assert_eq!(node.ended().code(), Some(0));
        peer
    };
    let [first, second] = [1, 2].map(peer);
    assert_eq!(first, second);
}

#[test]
fn a_database_that_is_open_is_refused() {
    for backend in ["redb", "sled"] {
        let directory = tempfile::tempdir().unwrap();
        let arguments = ["--backend", backend, "--listen", "/ip4/127.0.0.1/tcp/0"];
        let node = Node::start(directory.path(), &arguments);
        node.printed("address");
        let message = refusal(directory.path(), &arguments);
        assert!(message.starts_with("error: the database "), "{message}");
        assert!(message.contains("is already open; close the other program"), "{message}");
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let node = Node::start(&directory.path().join("node"), &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let shared = node.printed("address");
    for address in [
        format!("/ip4/127.0.0.1/tcp/{}", tcp.local_addr().unwrap().port()),
        format!("/ip4/127.0.0.1/udp/{}/quic-v1", udp.local_addr().unwrap().port()),
        shared.split("/p2p/").next().unwrap().to_owned(),
    ] {
        let message = refusal(&directory.path().join("refused"), &["--listen", &address]);
        let says = format!("error: cannot listen on {address}: Address already in use");
        assert!(message.starts_with(&says), "{message}");
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, says) in [
        (["--listen", "localhost:80"], "--listen localhost:80 is not an address; write it like"),
        (["--peer", "/ip4/192.0.2.7/tcp/x"], "--peer /ip4/192.0.2.7/tcp/x is not an address; write it like"),
        (["--peer", "/ip4/192.0.2.7/tcp/1"], "must end with /p2p/<peer id>"),
        (["--network", "my chat"], "the network name `my chat` must be"),
    ] {
        let message = refusal(directory.path(), &arguments);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_option_that_does_not_exist_is_a_mistake_in_the_usage() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), &["--nonsense"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

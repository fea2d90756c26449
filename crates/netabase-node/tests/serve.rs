//! Nodes in separate processes, on real sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Output, Stdio};

use support::{Node, command, run};

mod support;

/// Runs a node that does not start, and returns the one line that it says.
fn refusal(path: &Path, code: i32, arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = command(path, arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{message}");
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
        let message = refusal(directory.path(), 1, &arguments);
        assert!(message.starts_with("error: cannot open "), "{message}");
        assert!(message.contains("another process has it open (pid "), "{message}");
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
        let message = refusal(&directory.path().join("refused"), 1, &["--listen", &address]);
        let says = format!("error: cannot listen on {address};");
        assert!(message.starts_with(&says) && message.contains(": Address already in use"), "{message}");
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
        let message = refusal(directory.path(), 2, &arguments);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn an_option_that_does_not_exist_is_a_mistake_in_the_usage() {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), &["--nonsense"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_node_is_ready_when_its_api_answers_and_tells_the_service_manager() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut node = command(&directory.path().join("node"), &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut node = Node::spawn(node.env("NOTIFY_SOCKET", &socket));
    let mut message = [0; 256];
    let received = |message: &mut [u8]| {
        let len = manager.recv(message).unwrap();
        String::from_utf8(message[..len].to_vec()).unwrap()
    };
    assert_eq!(received(&mut message), "READY=1\nSTATUS=serving\n");
    // The line was printed before, so this waits for nothing.
    let status = run(&["status", "--json", "--api", &node.api()]).ok().json();
    assert_eq!(status["running"], true);
    node.signal("INT");
    assert_eq!(received(&mut message), "STOPPING=1\nSTATUS=finishing writes\n");
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_second_signal_ends_a_node_that_waits() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(directory.path(), &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let api = node.api();
    // A request that is not complete is under way, and holds up the end.
    let mut half = std::net::TcpStream::connect(api.strip_prefix("http://").unwrap()).unwrap();
    let head = "POST /v1/models/Package/records HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
                Content-Length: 1000\r\n\r\n{";
    std::io::Write::write_all(&mut half, head.as_bytes()).unwrap();
    // An answer says that the node has come so far.
    run(&["status", "--api", &api]).ok();
    node.terminate();
    node.logged(&["stopping"]);
    node.signal("INT");
    assert_eq!(node.ended().code(), Some(1));
}

#[test]
fn a_node_without_an_api_is_a_node() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(directory.path(), &["--no-api", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.printed("address");
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn an_api_that_others_reach_needs_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--no-mdns", "--api-listen", "0.0.0.0:0", "--path"];
    let path = directory.path().display().to_string();
    run(&[&arguments[..], &[&path]].concat()).failed(1, "set a token, or bind the interface to 127.0.0.1");
    let token = directory.path().join("token");
    std::fs::write(&token, "short").unwrap();
    let token = token.display().to_string();
    run(&[&arguments[..], &[&path, "--token-file", &token]].concat()).failed(2, "openssl rand -hex 32");
}

#[test]
fn what_a_node_keeps_is_in_its_schema() {
    let directory = tempfile::tempdir().unwrap();
    for (scope, says) in [
        ("Packages", "the schema `packages` has no model `Packages`; write `all`, or some of Package"),
        ("Package.section", "write Package.key=value instead of Package.section"),
        ("Package.colour=red", "Package.colour=red names no value of a secondary key"),
    ] {
        let message = refusal(directory.path(), 2, &["--replicate", scope]);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_node_that_is_still_opening_ends_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let schema = directory.path().join("schema.toml");
    assert!(std::process::Command::new("mkfifo").arg(&schema).status().unwrap().success());
    let arguments = ["--schema", &schema.display().to_string()];
    let mut node = Node::start(&directory.path().join("node"), &arguments);
    // The node reads, and gets nothing.
    let _writer = std::fs::File::options().write(true).open(&schema).unwrap();
    node.terminate();
    assert_eq!(node.ended().code(), Some(0));
}

#[test]
fn a_directory_that_a_node_makes_is_its_own() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node");
    let node = Node::start(&path, &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    node.api();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_node_without_file_descriptors_says_so_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let node = command(directory.path(), &["--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(node.get_program()).args(node.get_args());
    limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    limited.current_dir(env!("CARGO_TARGET_TMPDIR"));
    let node = Node::spawn(&mut limited);
    let api = node.api();
    let address = api.strip_prefix("http://").unwrap();
    let idle: Vec<_> = (0..80).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    node.logged(&["the interface cannot accept connections"]);
    // The request is answered while the other connections are still open.
    let status = run(&["status", "--json", "--api", &api]).ok().json();
    let kinds: Vec<_> =
        status["warnings"].as_array().unwrap().iter().map(|warning| &warning["kind"]).collect();
    assert!(kinds.contains(&&serde_json::json!("connections_refused")), "{status}");
    drop(idle);
}

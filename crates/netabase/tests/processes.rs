//! Nodes in processes of their own: TCP and QUIC on loopback, mDNS in a network namespace.
//!
//! The other process is this test program again, running `other_process`, which is ignored where it
//! is not asked for. It prints its address, reads commands and ends with its standard input.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::*;
use netabase::{
    ConnectionConfig, DHTDiscoveryConfig, MDNSDiscoveryConfig, NetabaseConfig, NetabaseSwarmEvent, PeerId,
};

/// Where the other process listens.
const LISTEN: &str = "NETABASE_TEST_LISTEN";
/// Whether the other process uses mDNS.
const MDNS: &str = "NETABASE_TEST_MDNS";

#[tokio::test(flavor = "multi_thread")]
async fn records_travel_between_processes_over_tcp() {
    exchange_with_other_process("/ip4/127.0.0.1/tcp/0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_travel_between_processes_over_quic() {
    exchange_with_other_process("/ip4/127.0.0.1/udp/0/quic-v1").await;
}

async fn exchange_with_other_process(listen: &str) {
    let mut other = OtherProcess::start(Command::new(this_program()).env(LISTEN, listen));
    let dht = DHTDiscoveryConfig {
        bootstrap_peers: vec![other.expect("listening").parse().unwrap()],
        ..DHTDiscoveryConfig::default()
    };
    let listen_addresses = vec![listen.parse().unwrap()];
    let netabase = started(NetabaseConfig { listen_addresses, dht, ..memory_config() }).await;
    knows_peers(&netabase, 1).await;
    other.tell("put 1");
    other.expect("put");
    assert_eq!(
        netabase.get_record(NotePrimaryKey(1)).await.unwrap(),
        Some(note(1, "from the other process"))
    );
    let outcome = netabase.put_record(note(2, "from this process")).await.unwrap();
    assert_eq!(outcome.accepted.len(), 1);
    other.tell("get 2");
    assert_eq!(other.expect("got"), "from this process");
}

/// A process that is stopped keeps its connections open, as does a machine that sleeps.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_to_a_peer_without_a_sign_of_life_is_closed() {
    let mut other = OtherProcess::start(Command::new(this_program()).env(LISTEN, "/ip4/127.0.0.1/tcp/0"));
    let dht = DHTDiscoveryConfig {
        bootstrap_peers: vec![other.expect("listening").parse().unwrap()],
        ..DHTDiscoveryConfig::default()
    };
    let connections =
        ConnectionConfig { ping_interval: Duration::from_secs(1), ..ConnectionConfig::default() };
    let listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = NetabaseConfig { listen_addresses, dht, connections, ..memory_config() };
    let netabase = Notes::new_with_config(config).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.start_swarm().await.unwrap();
    let alive = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::RoundTrip { peer, .. } => Some(*peer),
        _ => None,
    })
    .await;
    other.signal("STOP");
    let closed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionClosed { peer, .. } => Some(*peer),
        _ => None,
    })
    .await;
    other.signal("CONT");
    assert_eq!(closed, alive);
}

#[test]
fn peers_find_each_other_by_mdns() {
    run_in_network_namespace("two_processes_with_mdns");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in the namespace that `peers_find_each_other_by_mdns` makes"]
async fn two_processes_with_mdns() {
    let listen = "/ip4/10.77.0.1/tcp/0";
    let mdns =
        MDNSDiscoveryConfig { query_interval: Duration::from_secs(1), ..MDNSDiscoveryConfig::default() };
    let listen_addresses = vec![listen.parse().unwrap()];
    let netabase =
        Notes::new_with_config(NetabaseConfig { listen_addresses, mdns, ..memory_config() }).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.start_swarm().await.unwrap();
    let mut other = OtherProcess::start(Command::new(this_program()).env(LISTEN, listen).env(MDNS, "on"));
    let address: netabase::Multiaddr = other.expect("listening").parse().unwrap();
    let other_peer = address.iter().find_map(peer_in).unwrap();
    let discovered = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Mdns(event) => match &**event {
            libp2p::mdns::Event::Discovered(found) => {
                found.iter().map(|(peer, _)| *peer).find(|peer| *peer == other_peer)
            }
            libp2p::mdns::Event::Expired(_) => None,
        },
        _ => None,
    })
    .await;
    assert_eq!(discovered, other_peer);
    knows_peers(&netabase, 1).await;
    let outcome = netabase.put_record(note(3, "found by mDNS")).await.unwrap();
    assert_eq!(outcome.accepted, [other_peer]);
    other.tell("get 3");
    assert_eq!(other.expect("got"), "found by mDNS");
}

#[expect(clippy::needless_pass_by_value, reason = "the iterator yields values")]
fn peer_in(part: libp2p::multiaddr::Protocol<'_>) -> Option<PeerId> {
    match part {
        libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}

struct OtherProcess {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl OtherProcess {
    fn start(command: &mut Command) -> Self {
        let arguments = ["other_process", "--exact", "--ignored", "--nocapture"];
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
    }

    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").arg("-c").arg(command).status().unwrap().success());
    }

    /// Returns the rest of the next line that starts with `answer`.
    fn expect(&mut self, answer: &str) -> String {
        let mut line = String::new();
        while self.answers.read_line(&mut line).unwrap() > 0 {
            // The test harness prints before the first line of ours, on the same line.
            if let Some((_, rest)) = line.split_once(&format!("> {answer} ")) {
                return rest.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("the other process has ended before `{answer}`");
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        drop(self.commands.take());
        if std::thread::panicking() {
            // It may be stopped.
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other process of the tests in this file"]
async fn other_process() {
    let Ok(listen) = std::env::var(LISTEN) else { return };
    let enabled = std::env::var(MDNS).is_ok();
    let mdns = MDNSDiscoveryConfig {
        enabled,
        query_interval: Duration::from_secs(1),
        ..MDNSDiscoveryConfig::default()
    };
    let listen_addresses = vec![listen.parse().unwrap()];
    let netabase = started(NetabaseConfig { listen_addresses, mdns, ..memory_config() }).await;
    say(&format!("listening {}", full_address(&netabase)));
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ').unwrap() {
            ("put", id) => {
                netabase.put_record(note(id.parse().unwrap(), "from the other process")).await.unwrap();
                say("put ");
            }
            ("get", id) => {
                let note = netabase.get_record(NotePrimaryKey(id.parse().unwrap())).await.unwrap();
                say(&format!("got {}", note.map_or_else(|| "nothing".into(), |note| note.text)));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Writes past the test harness, which captures `print!`.
fn say(answer: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {answer}").unwrap();
    out.flush().unwrap();
}

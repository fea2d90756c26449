//! Nodes in processes of their own: TCP and QUIC on loopback, mDNS in a network namespace.
//!
//! The other process is this test program again, running `other_process`, which is ignored where it
//! is not asked for. It prints its address, reads commands and ends with its standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use netabase::health::WriteAnswer;
use netabase::netabase_store::WriteError;
use netabase::{
    ConnectionConfig, DHTDiscoveryConfig, Keypair, MDNSDiscoveryConfig, NetabaseConfig, NetabaseError,
    NetabaseSwarmEvent, PeerId, StoreError,
};

use crate::common::*;

/// Where the other process listens.
const LISTEN: &str = "NETABASE_TEST_LISTEN";
/// Whether the other process uses mDNS: `default`, or anything else if it is to ask every second.
const MDNS: &str = "NETABASE_TEST_MDNS";
/// Whether the other process has the identity that several nodes have.
const IDENTITY: &str = "NETABASE_TEST_IDENTITY";
/// Where a node listens that changes its addresses.
const EVERYWHERE: &str = "/ip4/0.0.0.0/tcp/0";

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

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_is_not_waited_for_and_compared_with_when_it_goes_on() {
    let mut other = OtherProcess::start(Command::new(this_program()).env(LISTEN, "/ip4/127.0.0.1/tcp/0"));
    let dht = DHTDiscoveryConfig {
        bootstrap_peers: vec![other.expect("listening").parse().unwrap()],
        ..DHTDiscoveryConfig::default()
    };
    let listen_addresses = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let netabase =
        Notes::new_with_config(NetabaseConfig { listen_addresses, dht, ..memory_config() }).unwrap();
    let mut events = netabase.subscribe_to_broadcasts();
    netabase.start_swarm().await.unwrap();
    let repaired =
        |event: &NetabaseSwarmEvent| matches!(event, NetabaseSwarmEvent::Repaired(_)).then_some(());
    wait_for(&mut events, repaired).await;
    other.signal("STOP");
    let outcome = netabase.put_record(note(2, "while it was stopped")).await.unwrap();
    assert_eq!(outcome.peers[0].answer, WriteAnswer::Pending);
    // What was compared when they met has been told of by now.
    let mut events = netabase.subscribe_to_broadcasts();
    other.signal("CONT");
    wait_for(&mut events, repaired).await;
    other.tell("get 2");
    assert_eq!(other.expect("got"), "while it was stopped");
}

#[test]
fn peers_find_each_other_by_mdns() {
    run_in_network_namespace("processes::two_processes_with_mdns");
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

/// How often each of the following happens; 20 in a thorough run.
const ROUNDS: &str = "NETABASE_TEST_ROUNDS";
/// For how many seconds a peer is away. It has to be longer than a connection without a sign of
/// life is kept.
const AWAY: &str = "NETABASE_TEST_AWAY";

#[test]
fn peers_of_mdns_meet_again_after_a_link_was_down() {
    run_in_network_namespace("processes::link_down_and_up");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in the namespace that `peers_of_mdns_meet_again_after_a_link_was_down` makes"]
async fn link_down_and_up() {
    let mut pair = Pair::start().await;
    for round in 0..number(ROUNDS, 1) {
        shell("ip link set veth0 down");
        pair.apart().await;
        shell("ip link set veth0 up");
        pair.together(round).await;
    }
}

#[test]
fn peers_of_mdns_meet_again_after_one_was_suspended() {
    run_in_network_namespace("processes::stopped_and_continued");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in the namespace that `peers_of_mdns_meet_again_after_one_was_suspended` makes"]
async fn stopped_and_continued() {
    let mut pair = Pair::start().await;
    for round in 0..number(ROUNDS, 1) {
        pair.other.signal("STOP");
        pair.apart().await;
        pair.other.signal("CONT");
        pair.together(round).await;
        pair.other.tell("slept 0");
        assert_ne!(pair.other.expect("slept"), "0", "it has noticed that it was away");
    }
}

#[test]
fn peers_of_mdns_meet_again_after_an_address_has_changed() {
    run_in_network_namespace("processes::address_changed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in the namespace that `peers_of_mdns_meet_again_after_an_address_has_changed` makes"]
async fn address_changed() {
    let mut pair = Pair::start().await;
    for round in 0..number(ROUNDS, 2) {
        let (old, new) = (round + 2, round + 3);
        pair.other.in_its_namespace(&format!("ip addr del 10.77.0.{old}/24 dev veth1"));
        pair.other.in_its_namespace(&format!("ip addr add 10.77.0.{new}/24 dev veth1"));
        pair.together(round).await;
    }
}

#[test]
fn nodes_with_one_identity_find_each_other_by_mdns_and_write_nothing() {
    run_in_network_namespace("processes::two_with_one_identity");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in the namespace that `nodes_with_one_identity_find_each_other_by_mdns_and_write_nothing` makes"]
async fn two_with_one_identity() {
    let here = started(by_mdns(Some(twin()))).await;
    let mut events = here.subscribe_to_broadcasts();
    let mut other = OtherProcess::start_in_a_namespace(&[(IDENTITY, "twin")]);
    other.expect("listening");
    other.join_network();
    let shared = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::IdentityShared { peer } => Some(*peer),
        _ => None,
    })
    .await;
    assert_eq!((shared, here.standing().shared_identities), (here.local_peer_id(), vec![shared]));
    let refused = here.put_record(note(1, "of two")).await;
    assert!(
        matches!(refused, Err(NetabaseError::Store(StoreError::Write(WriteError::IdentityShared { .. })))),
        "{refused:?}"
    );
    other.tell("twin 0");
    assert_eq!(other.expect("refused"), "true");
    assert!(here.connected_peers().await.unwrap().is_empty(), "there is no common peer");
}

#[test]
fn a_node_that_hears_of_itself_by_mdns_is_no_twin() {
    run_in_network_namespace("processes::one_that_hears_of_itself");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in the namespace that `a_node_that_hears_of_itself_by_mdns_is_no_twin` makes"]
async fn one_that_hears_of_itself() {
    let node = started(by_mdns(None)).await;
    let mut events = node.subscribe_to_broadcasts();
    let port = node.listen_addresses()[0].iter().find_map(port_in).unwrap();
    // As a router would that sends packets back, or that repeats what was answered before an
    // address changed.
    let (elsewhere, former) =
        (format!("/ip4/127.0.0.2/tcp/{port}"), format!("/ip4/10.77.0.1/tcp/{}", port ^ 1));
    let peer = node.local_peer_id();
    let answers = [&former, &elsewhere].map(|address| format!("dnsaddr={address}/p2p/{peer}"));
    let socket = std::net::UdpSocket::bind("10.77.0.1:0").unwrap();
    for answer in answers {
        let packet = [&[u8::try_from(answer.len()).unwrap()][..], answer.as_bytes()].concat();
        socket.send_to(&packet, "224.0.0.251:5353").unwrap();
    }
    let (mut to_itself, mut failed) = (0, 0);
    while to_itself < 3 || failed < 1 {
        let is_to_itself = wait_for(&mut events, |event| match event {
            NetabaseSwarmEvent::OutgoingConnectionError { peer: of, .. } => Some(*of == Some(peer)),
            _ => None,
        })
        .await;
        *if is_to_itself { &mut to_itself } else { &mut failed } += 1;
    }
    assert_eq!(node.standing().shared_identities, []);
    // It is restarted with other ports, as soon as it has been stopped, and gets another address.
    node.stop_swarm().await.unwrap();
    node.start_swarm().await.unwrap();
    shell("ip addr del 10.77.0.1/24 dev veth0 && ip addr add 10.77.0.7/24 dev veth0");
    let mut other = OtherProcess::start_in_a_namespace(&[]);
    other.expect("listening");
    let mut events = node.subscribe_to_broadcasts();
    other.join_network();
    within_deadline("the peers to meet", async {
        while node.put_record(note(1, "by the only one")).await.unwrap().accepted.is_empty() {
            let _ = events.recv().await;
        }
    })
    .await;
    assert_eq!(node.standing().shared_identities, []);
}

/// The identity that several nodes have.
fn twin() -> Keypair {
    Keypair::ed25519_from_bytes([42; 32]).unwrap()
}

/// A node on every interface that asks by mDNS.
fn by_mdns(identity: Option<Keypair>) -> NetabaseConfig {
    let listen_addresses = vec![EVERYWHERE.parse().unwrap()];
    let mdns = MDNSDiscoveryConfig::default();
    NetabaseConfig { listen_addresses, mdns, identity, connections: impatient(), ..memory_config() }
}

/// This process and one in a namespace of its own, which know each other by mDNS alone.
struct Pair {
    here: Notes,
    events: netabase::Events,
    other: OtherProcess,
    other_peer: PeerId,
    puts: u64,
}

impl Pair {
    async fn start() -> Self {
        let here = started(by_mdns(None)).await;
        let events = here.subscribe_to_broadcasts();
        let mut other = OtherProcess::start_in_a_namespace(&[]);
        let address: netabase::Multiaddr = other.expect("listening").parse().unwrap();
        let other_peer = address.iter().find_map(peer_in).unwrap();
        other.join_network();
        let mut pair = Self { here, events, other, other_peer, puts: 0 };
        pair.together(0).await;
        pair
    }

    /// Waits until this node has given the other one up, and until it is away for long enough.
    async fn apart(&mut self) {
        let away = tokio::time::sleep(Duration::from_secs(number(AWAY, 0)));
        while !self.here.connected_peers().await.unwrap().is_empty() {
            let _ = self.events.recv().await;
        }
        away.await;
    }

    /// Waits until what is put here is at the other one.
    async fn together(&mut self, round: u64) {
        let begun = std::time::Instant::now();
        within_deadline("the peers to meet", async {
            loop {
                self.puts += 1;
                let outcome = self.here.put_record(note(self.puts, "together")).await.unwrap();
                if outcome.accepted.contains(&self.other_peer) {
                    break;
                }
                let _ = self.events.recv().await;
            }
        })
        .await;
        eprintln!("round {round}: together after {:?}", begun.elapsed());
        assert_eq!(self.here.standing().shared_identities, []);
    }
}

/// Connections without a sign of life are kept for 12 s.
fn impatient() -> ConnectionConfig {
    ConnectionConfig { ping_interval: Duration::from_secs(1), ..ConnectionConfig::default() }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |number| number.parse().unwrap())
}

fn shell(command: &str) {
    assert!(Command::new("sh").arg("-c").arg(command).status().unwrap().success(), "{command}");
}

#[expect(clippy::needless_pass_by_value, reason = "the iterator yields values")]
fn peer_in(part: libp2p::multiaddr::Protocol<'_>) -> Option<PeerId> {
    match part {
        libp2p::multiaddr::Protocol::P2p(peer) => Some(peer),
        _ => None,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the iterator yields values")]
fn port_in(protocol: libp2p::multiaddr::Protocol<'_>) -> Option<u16> {
    match protocol {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
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
        let arguments = ["processes::other_process", "--exact", "--ignored", "--nocapture"];
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    /// Starts one in a namespace of its own, on every interface and with mDNS.
    fn start_in_a_namespace(variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new("unshare");
        let setup = "ip link set lo up && exec \"$0\" \"$@\"";
        command.args(["--net", "sh", "-c", setup]).arg(this_program());
        command.env(LISTEN, EVERYWHERE).env(MDNS, "default").envs(variables.iter().copied());
        Self::start(&mut command)
    }

    /// Gives it an interface to this process.
    fn join_network(&self) {
        shell(&format!("ip link set veth1 netns {}", self.child.id()));
        self.in_its_namespace("ip addr add 10.77.0.2/24 dev veth1");
        self.in_its_namespace("ip link set veth1 up");
    }

    fn in_its_namespace(&self, command: &str) {
        shell(&format!("nsenter --net --target {} {command}", self.child.id()));
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
    let default = MDNSDiscoveryConfig::default();
    let mdns = match std::env::var(MDNS).as_deref() {
        Ok("default") => default,
        Ok(_) => MDNSDiscoveryConfig { query_interval: Duration::from_secs(1), ..default },
        Err(_) => MDNSDiscoveryConfig { enabled: false, ..default },
    };
    let listen_addresses = vec![listen.parse().unwrap()];
    let identity = std::env::var_os(IDENTITY).map(|_| twin());
    let config =
        NetabaseConfig { listen_addresses, mdns, identity, connections: impatient(), ..memory_config() };
    let netabase = started(config).await;
    let mut events = netabase.subscribe_to_broadcasts();
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
            ("twin", _) => {
                let shared = |event: &NetabaseSwarmEvent| {
                    matches!(event, NetabaseSwarmEvent::IdentityShared { .. }).then_some(())
                };
                wait_for(&mut events, shared).await;
                let put = netabase.put_record(note(2, "of two")).await;
                say(&format!(
                    "refused {}",
                    matches!(
                        put,
                        Err(NetabaseError::Store(StoreError::Write(WriteError::IdentityShared { .. })))
                    )
                ));
            }
            ("slept", _) => {
                let mut slept = 0;
                while let Ok(Some(event)) = events.try_recv() {
                    slept += u64::from(matches!(event, NetabaseSwarmEvent::Woke { .. }));
                }
                say(&format!("slept {slept}"));
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

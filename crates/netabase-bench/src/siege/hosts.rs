//! Hosts that strangers choose and the node dials: they count what it sends.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::ground::Ground;
use super::initial;
use super::target::Target;

/// How many dials over QUIC are told apart.
const MAX_DIALS: usize = 65_536;
/// A port on which nobody listens: that of a protocol that discards.
const CLOSED_PORT: u16 = 9;
const DATAGRAM_BYTES: usize = 65_536;

/// The ports that answer on every local address.
pub(super) struct Hosts {
    ground: Ground,
    tcp: u16,
    udp: u16,
}

impl Hosts {
    /// Names hosts that answer on these ports.
    pub(super) fn new(ground: Ground, tcp: u16, udp: u16) -> Self {
        Self { ground, tcp, udp }
    }

    /// Returns the addresses with the numbers from `first` on. Half of them, and in a namespace
    /// three of four, are of these hosts; the others lead nowhere.
    pub(super) fn made_up(&self, first: u32, count: u32) -> Vec<Multiaddr> {
        (first..first.saturating_add(count)).map(|number| self.address(number)).collect()
    }

    /// Returns addresses of a host where nobody is, and where ports accept and never answer.
    pub(super) fn of(&self, host: Ipv4Addr) -> Vec<Multiaddr> {
        let at = |transport| Multiaddr::from(host).with(transport);
        vec![
            at(Protocol::Tcp(CLOSED_PORT)),
            at(Protocol::Tcp(self.tcp)),
            at(Protocol::Udp(self.udp)).with(Protocol::QuicV1),
        ]
    }

    fn address(&self, number: u32) -> Multiaddr {
        let [_, high, middle, _] = (number / 4).to_be_bytes();
        let port = u16::from_be_bytes([0x40 | (high & 0x3f), middle]);
        let (host, nowhere) = (self.ground.host(number / 4), self.ground.nowhere(number / 4));
        let (ip, transport) = match (number % 4, self.ground) {
            (0, _) => (nowhere, Protocol::Tcp(port)),
            // What is sent over UDP is the same if nobody answers, and counted where it arrives.
            (1, Ground::Loopback) => (nowhere, Protocol::Udp(port)),
            (2, _) => (host, Protocol::Tcp(self.tcp)),
            _ => (host, Protocol::Udp(self.udp)),
        };
        let is_quic = matches!(transport, Protocol::Udp(_));
        let address = Multiaddr::from(ip).with(transport);
        if is_quic { address.with(Protocol::QuicV1) } else { address }
    }
}

/// Starts to listen and to count.
pub(super) async fn start(target: Arc<Target>) -> anyhow::Result<Hosts> {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let (tcp, udp) = (TcpListener::bind(everywhere).await?, UdpSocket::bind(everywhere).await?);
    let hosts = Hosts::new(target.ground, tcp.local_addr()?.port(), udp.local_addr()?.port());
    tokio::spawn(count_connections(tcp, Arc::clone(&target)));
    tokio::spawn(count_datagrams(udp, target));
    Ok(hosts)
}

/// Honest peers dial chosen hosts, too, which is not counted.
async fn count_connections(listener: TcpListener, target: Arc<Target>) {
    while let Ok((stream, from)) = listener.accept().await {
        if has_port(target.process, "tcp", from.port()).unwrap_or(false) {
            target.counts.dialled();
            tokio::spawn(count_bytes(stream, Arc::clone(&target)));
        }
    }
}

/// Never answers, so that the dial takes as long as the node lets it.
async fn count_bytes(mut stream: TcpStream, target: Arc<Target>) {
    let mut buffer = [0; 4096];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
        target.counts.sent_to_hosts(bytes);
    }
}

async fn count_datagrams(socket: UdpSocket, target: Arc<Target>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let (mut dials, mut senders) = (HashSet::new(), HashMap::new());
    while let Ok((bytes, from)) = socket.recv_from(&mut buffer).await {
        let sender = senders.entry(from.port());
        let is_node = || has_port(target.process, "udp", from.port()).unwrap_or(false);
        if !*sender.or_insert_with(is_node) {
            continue;
        }
        target.counts.sent_to_hosts(bytes);
        let Some(id) = buffer.get(..bytes).and_then(initial::connection_id) else { continue };
        if dials.len() < MAX_DIALS && dials.insert(id.to_vec()) {
            target.counts.dialled();
        }
    }
}

/// Returns whether a process has a socket with a local port.
fn has_port(process: u32, protocol: &str, port: u16) -> anyhow::Result<bool> {
    const LOCAL: usize = 1;
    const INODE: usize = 9;
    let sockets = std::fs::read_to_string(format!("/proc/{process}/net/{protocol}"))?;
    let end = format!(":{port:04X}");
    let found = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = found.filter(|fields| fields.get(LOCAL).is_some_and(|local| local.ends_with(&end)));
    let inodes: HashSet<String> =
        found.filter_map(|fields| Some(format!("socket:[{}]", fields.get(INODE)?))).collect();
    for file in std::fs::read_dir(format!("/proc/{process}/fd"))? {
        // It may be closed meanwhile.
        let Ok(file) = std::fs::read_link(file?.path()) else { continue };
        if file.to_str().is_some_and(|file| inodes.contains(file)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_a_process_are_known() {
        let process = std::process::id();
        let tcp = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert!(has_port(process, "tcp", port).unwrap());
        drop(tcp);
        assert!(!has_port(process, "tcp", port).unwrap());
        let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(has_port(process, "udp", udp.local_addr().unwrap().port()).unwrap());
    }
}

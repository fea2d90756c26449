//! Queries of the local network by multicast DNS, and their answers.
//!
//! libp2p's mDNS sends a query when an interface comes up and every few minutes after that; it
//! offers no way to send one. A node that has lost its peers sends its own query. Answers are
//! multicast, so libp2p's mDNS receives them. It does not report answers with this node's own id,
//! so this module receives answers as well.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use libp2p::Multiaddr;
use libp2p::identity::Keypair;
use libp2p::mdns::{self, IPV4_MDNS_MULTICAST_ADDRESS, IPV6_MDNS_MULTICAST_ADDRESS};
use libp2p::swarm::behaviour::toggle::Toggle;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::MDNSDiscoveryConfig;
use crate::dht::address::ip;
use crate::error::NetabaseError;
use crate::mdns::limits::{MAX_ANSWER_ADDRESSES, MAX_ANSWER_BYTES, MAX_INTERFACES};

/// The port of multicast DNS.
const PORT: u16 = 5353;
/// A query for the pointers of `_p2p._udp.local`, as libp2p sends it; multicast DNS has no ids.
const QUERY: &[u8] = b"\0\0\0\0\0\x01\0\0\0\0\0\0\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01";

/// The prefix of an address in an answer.
const ADDRESS: &[u8] = b"dnsaddr=";

/// libp2p's own mDNS, if this node uses it.
pub(crate) type Behaviour = Toggle<mdns::tokio::Behaviour>;

pub(crate) fn behaviour(
    identity: &Keypair,
    config: &MDNSDiscoveryConfig,
) -> Result<Behaviour, NetabaseError> {
    let MDNSDiscoveryConfig { enabled, query_interval, ttl, enable_ipv6, non_exhaustive: _ } = config.clone();
    let behaviour = enabled.then(|| {
        let config = mdns::Config { ttl, query_interval, enable_ipv6 };
        mdns::tokio::Behaviour::new(config, identity.public().to_peer_id())
    });
    behaviour.transpose().map(Toggle::from).map_err(NetabaseError::network)
}

/// A receiver of the answers of all nodes on the local network, this one included.
#[derive(Debug)]
pub(crate) struct Answers {
    /// `None` after an error.
    socket: Option<tokio::net::UdpSocket>,
    bytes: Box<[u8; MAX_ANSWER_BYTES]>,
}

impl Answers {
    /// Starts to listen. The port is shared with libp2p's mDNS, and with other programs.
    pub(crate) fn open(ipv6: bool) -> io::Result<Self> {
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let address = SocketAddr::new(any, PORT);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = tokio::net::UdpSocket::from_std(socket.into())?;
        Ok(Self { socket: Some(socket), bytes: Box::new([0; MAX_ANSWER_BYTES]) })
    }

    /// Listens on the interfaces of this node's listen addresses.
    pub(crate) fn join(&self, listening: &[Multiaddr]) {
        let Some(socket) = &self.socket else { return };
        for ip in listening.iter().filter_map(ip).filter(|ip| !ip.is_loopback()).take(MAX_INTERFACES) {
            // Joining twice is an error.
            let _ = match ip {
                IpAddr::V4(ip) => socket.join_multicast_v4(IPV4_MDNS_MULTICAST_ADDRESS, ip),
                IpAddr::V6(_) => socket.join_multicast_v6(&IPV6_MDNS_MULTICAST_ADDRESS, 0),
            };
        }
    }

    /// Returns the addresses in the next answer. This method is cancel safe.
    pub(crate) async fn next(&mut self) -> Vec<Multiaddr> {
        loop {
            let Some(socket) = &self.socket else { return std::future::pending().await };
            match socket.recv(self.bytes.as_mut_slice()).await {
                Ok(length) => {
                    let addresses = addresses_in(self.bytes.get(..length).unwrap_or_default());
                    if !addresses.is_empty() {
                        return addresses;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "mDNS answers can no longer be received");
                    self.socket = None;
                }
            }
        }
    }
}

/// Returns the addresses in an mDNS packet, each of which is a string of a text record.
fn addresses_in(packet: &[u8]) -> Vec<Multiaddr> {
    let marks = packet.windows(ADDRESS.len()).enumerate().filter(|(_, window)| *window == ADDRESS);
    let addresses = marks.filter_map(|(at, _)| {
        let length = usize::from(*packet.get(at.checked_sub(1)?)?);
        let text = packet.get(at + ADDRESS.len()..at + length)?;
        std::str::from_utf8(text).ok()?.parse().ok()
    });
    addresses.take(MAX_ANSWER_ADDRESSES).collect()
}

/// Sends a query on each interface of this node's listen addresses.
pub(crate) fn ask(listening: &[Multiaddr], ipv6: bool) {
    let ips = listening.iter().filter_map(ip).filter(|ip| ip.is_ipv6() == ipv6 && !ip.is_loopback());
    let ips: BTreeSet<IpAddr> = ips.collect();
    // IPv6 addresses do not tell interfaces apart, for libp2p's mDNS either.
    let ips = if ipv6 && !ips.is_empty() { BTreeSet::from([Ipv6Addr::UNSPECIFIED.into()]) } else { ips };
    for ip in ips.into_iter().take(MAX_INTERFACES) {
        if let Err(error) = ask_on(ip) {
            // The interface may be down, which may be the reason of the query.
            tracing::debug!(%error, %ip, "cannot send an mDNS query");
        }
    }
}

fn ask_on(ip: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((ip, 0))?;
    socket.set_nonblocking(true)?;
    let group: SocketAddr = match ip {
        IpAddr::V4(_) => (IPV4_MDNS_MULTICAST_ADDRESS, PORT).into(),
        IpAddr::V6(_) => (IPV6_MDNS_MULTICAST_ADDRESS, PORT).into(),
    };
    socket.send_to(QUERY, group).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_out_of_answers_whatever_else_is_in_them() {
        let address = "/ip4/10.0.0.1/tcp/4001";
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
        let good = text(&format!("dnsaddr={address}"));
        let packet = [b"dnsaddr=", &good[..], &text("dnsaddr=nonsense"), &good, &good[..20]];
        let expected: Multiaddr = address.parse().unwrap();
        assert_eq!(addresses_in(&packet.concat()), [expected.clone(), expected]);
        assert_eq!(addresses_in(QUERY), []);
        assert_eq!(addresses_in(&[2, b'd', b'n']), []);
        let many = good.repeat(MAX_ANSWER_ADDRESSES + 1);
        assert_eq!(addresses_in(&many).len(), MAX_ANSWER_ADDRESSES);
    }

    #[test]
    fn the_question_has_the_form_of_a_dns_message() {
        let labels = [b"_p2p".as_slice(), b"_udp", b"local"];
        let mut expected = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            expected.push(u8::try_from(label.len()).unwrap());
            expected.extend(label);
        }
        expected.extend([0, 0, 12, 0, 1]);
        assert_eq!(QUERY, expected);
        assert_eq!(QUERY.len(), 33, "as long as libp2p's");
    }

    #[test]
    fn nobody_is_asked_where_no_address_is_listened_on() {
        ask(&["/memory/1".parse().unwrap(), "/ip4/127.0.0.1/tcp/1".parse().unwrap()], false);
        ask(&[], true);
        assert!(ask_on(Ipv4Addr::new(192, 0, 2, 1).into()).is_err(), "it is none of this machine's");
    }
}

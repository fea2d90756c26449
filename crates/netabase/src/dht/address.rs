//! Properties of an address: how far it reaches, and its network prefix.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::dht::limits::{MAX_ADDRESS_BYTES_PER_PEER, MAX_ADDRESSES_PER_PEER};

/// The reach of an address, the narrowest first.
///
/// A peer may report addresses that reach as far as the one at which this node reaches the peer, or
/// farther: a remote peer knows nothing of this node's loopback interface or local network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// This process: libp2p's memory transport.
    Process,
    /// This machine.
    Machine,
    /// The local network: private, shared and link-local addresses.
    Network,
    /// Everywhere. DNS names count as reaching everywhere, since resolving them here would be a
    /// request of its own.
    Everywhere,
}

/// A range of addresses that one owner may have: an IPv4 /24 or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Prefix {
    V4([u8; 3]),
    V6([u8; 8]),
}

impl Prefix {
    /// Returns the prefix of an address that reaches everywhere. Other addresses have none, since
    /// all peers behind one router, or on one machine, share them.
    pub(crate) fn of(address: &Multiaddr) -> Option<Self> {
        if scope(address)? != Scope::Everywhere {
            return None;
        }
        match ip(address)? {
            IpAddr::V4(ip) => ip.octets().first_chunk().copied().map(Self::V4),
            IpAddr::V6(ip) => ip.octets().first_chunk().copied().map(Self::V6),
        }
    }
}

/// Returns the reach of an address, or `None` if it cannot be dialled at all.
pub(crate) fn scope(address: &Multiaddr) -> Option<Scope> {
    match address.iter().next()? {
        Protocol::Memory(_) => Some(Scope::Process),
        Protocol::Ip4(_) | Protocol::Ip6(_) => match ip(address)? {
            IpAddr::V4(ip) => scope_of_v4(ip),
            IpAddr::V6(ip) => scope_of_v6(ip),
        },
        Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => {
            Some(Scope::Everywhere)
        }
        _ => None,
    }
}

/// Returns whether a claimed address of a peer can be dialled and does not name another peer.
fn is_dialable(address: &Multiaddr, peer: PeerId) -> bool {
    let own = address.iter().all(|part| !matches!(part, Protocol::P2p(other) if other != peer));
    own && scope(address).is_some()
}

/// Returns whether a claimed address of a peer is plausible: it can be dialled, does not name
/// another peer, and reaches at least as far as `narrowest`.
///
/// A host name is never believed, since its owner decides where it leads when it is dialled: to
/// this machine, say. Users may name hosts.
pub(crate) fn is_believable(address: &Multiaddr, peer: PeerId, narrowest: Scope) -> bool {
    is_dialable(address, peer)
        && ip_or_process(address)
        && scope(address).is_some_and(|scope| scope >= narrowest)
}

fn ip_or_process(address: &Multiaddr) -> bool {
    matches!(address.iter().next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_) | Protocol::Memory(_)))
}

/// Returns as many of the addresses of one peer as the limits allow, in their order.
pub(crate) fn few(addresses: impl IntoIterator<Item = Multiaddr>) -> Vec<Multiaddr> {
    let mut room = MAX_ADDRESS_BYTES_PER_PEER;
    let fits = |address: &Multiaddr| {
        let left = room.checked_sub(address.len());
        room = left.unwrap_or(room);
        left.is_some()
    };
    addresses.into_iter().filter(fits).take(MAX_ADDRESSES_PER_PEER).collect()
}

/// Returns whether two addresses differ only in their ports.
pub(crate) fn is_other_port(one: &Multiaddr, other: &Multiaddr) -> bool {
    let is_port = |one: &Protocol<'_>, other: &Protocol<'_>| {
        matches!((one, other), (Protocol::Tcp(_), Protocol::Tcp(_)) | (Protocol::Udp(_), Protocol::Udp(_)))
    };
    one != other
        && one.iter().count() == other.iter().count()
        && one.iter().zip(other.iter()).all(|(one, other)| one == other || is_port(&one, &other))
}

/// Returns an address without the peer id at its end.
pub(crate) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// Returns the IP address at the front. An IPv4 address in the form of an IPv6 one is returned as
/// IPv4.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip).to_canonical()),
        _ => None,
    }
}

/// Returns the local address from which packets to `remote` would be sent, or `None` without a
/// route. Sends nothing.
pub(crate) fn local_towards(remote: IpAddr) -> Option<IpAddr> {
    /// The port does not matter.
    const PORT: u16 = 9;
    let unspecified: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((unspecified, 0)).ok()?;
    socket.connect((remote, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Returns whether this machine no longer has an address.
pub(crate) fn is_lost(local: IpAddr) -> bool {
    UdpSocket::bind((local, 0)).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

fn scope_of_v4(ip: Ipv4Addr) -> Option<Scope> {
    let [first, second, ..] = ip.octets();
    let is_shared = first == 100 && (64..128).contains(&second);
    if first == 0 || ip.is_multicast() || ip.is_broadcast() {
        None
    } else if ip.is_loopback() {
        Some(Scope::Machine)
    } else if ip.is_private() || ip.is_link_local() || is_shared {
        Some(Scope::Network)
    } else {
        Some(Scope::Everywhere)
    }
}

fn scope_of_v6(ip: Ipv6Addr) -> Option<Scope> {
    if ip.is_unspecified() || ip.is_multicast() {
        None
    } else if ip.is_loopback() {
        Some(Scope::Machine)
    } else if ip.is_unique_local() || ip.is_unicast_link_local() {
        Some(Scope::Network)
    } else {
        Some(Scope::Everywhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_cannot_be_dialled_are_left_out() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let dialable = |text: &str| is_dialable(&address(text), peer);
        assert!(dialable("/ip4/127.0.0.1/tcp/4001"));
        assert!(dialable("/dns4/example.org/tcp/4001"));
        assert!(dialable(&format!("/ip6/::1/udp/4001/quic-v1/p2p/{peer}")));
        assert!(!dialable("/ip4/0.0.0.0/tcp/4001"));
        assert!(!dialable("/ip4/224.0.0.251/udp/5353"));
        assert!(!dialable(&format!("/ip4/127.0.0.1/tcp/4001/p2p/{other}")));
        assert!(!dialable("/unix/%2Ftmp%2Fsocket"));
    }

    #[test]
    fn an_address_says_how_far_it_reaches() {
        let expected = [
            ("/memory/1", Scope::Process),
            ("/ip4/127.3.2.1/tcp/1", Scope::Machine),
            ("/ip6/::1/tcp/1", Scope::Machine),
            ("/ip6/::ffff:127.0.0.1/tcp/1", Scope::Machine),
            ("/ip4/192.168.7.7/tcp/1", Scope::Network),
            ("/ip4/100.64.0.1/tcp/1", Scope::Network),
            ("/ip4/169.254.1.1/tcp/1", Scope::Network),
            ("/ip6/fd00::1/tcp/1", Scope::Network),
            ("/ip6/fe80::1/tcp/1", Scope::Network),
            ("/ip4/192.0.2.7/tcp/1", Scope::Everywhere),
            ("/ip6/2001:db8::1/tcp/1", Scope::Everywhere),
            ("/dns/example.org/tcp/1", Scope::Everywhere),
        ];
        for (text, expected) in expected {
            assert_eq!(scope(&address(text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_peer_claims_no_address_that_reaches_less_far_than_its_own() {
        let peer = PeerId::random();
        let believable = |text: &str, narrowest| is_believable(&address(text), peer, narrowest);
        for narrow in ["/memory/1", "/ip4/127.0.0.1/tcp/1", "/ip4/192.168.0.1/tcp/1", "/ip6/fe80::1/tcp/1"] {
            assert!(!believable(narrow, Scope::Everywhere), "{narrow}");
            assert!(believable(narrow, Scope::Process), "{narrow}");
        }
        for name in ["/dns4/localhost/tcp/4998", "/dns/example.org/tcp/1", "/dnsaddr/example.org"] {
            assert!(!believable(name, Scope::Everywhere) && !believable(name, Scope::Process), "{name}");
        }
        assert!(believable("/ip4/192.0.2.7/tcp/1", Scope::Everywhere));
        assert!(believable("/ip4/192.168.0.1/tcp/1", Scope::Network));
        assert!(!believable("/ip4/127.0.0.1/tcp/1", Scope::Network));
    }

    #[test]
    fn an_address_of_an_earlier_start_differs_in_its_port_alone() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let named = |text: &str, peer| address(text).with_p2p(peer).unwrap();
        let is_other = |left: &str, right: &str| is_other_port(&named(left, one), &named(right, one));
        assert!(is_other("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/2"));
        assert!(is_other("/ip6/::1/udp/1/quic-v1", "/ip6/::1/udp/2/quic-v1"));
        for (left, right) in [
            ("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"),
            ("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/2"),
            ("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/udp/2"),
            ("/ip4/10.0.0.1/udp/1", "/ip4/10.0.0.1/udp/2/quic-v1"),
            ("/memory/1", "/memory/2"),
        ] {
            assert!(!is_other(left, right), "{left} {right}");
        }
        assert!(!is_other_port(&named("/ip4/10.0.0.1/tcp/1", one), &named("/ip4/10.0.0.1/tcp/2", other)));
    }

    #[test]
    fn an_address_that_this_machine_does_not_have_is_lost() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(local_towards(loopback), Some(loopback));
        assert!(!is_lost(loopback));
        assert!(is_lost(Ipv4Addr::new(192, 0, 2, 7).into()));
    }

    #[test]
    fn few_addresses_of_a_peer_are_kept_and_none_is_long() {
        let short = |port| address(&format!("/ip4/192.0.2.7/tcp/{port}"));
        assert_eq!(few((1..100).map(short)).len(), MAX_ADDRESSES_PER_PEER);
        let long = address(&format!("/dns4/{}/tcp/1", "x".repeat(600)));
        let kept = few([long.clone(), long.clone(), short(1)]);
        assert_eq!(kept, [long, short(1)]);
    }

    #[test]
    fn only_addresses_that_reach_everywhere_have_a_prefix() {
        let prefix = |text| Prefix::of(&address(text));
        assert_eq!(prefix("/ip4/192.0.2.7/tcp/1"), prefix("/ip6/::ffff:192.0.2.200/udp/2/quic-v1"));
        assert_ne!(prefix("/ip4/192.0.2.7/tcp/1"), prefix("/ip4/192.0.3.7/tcp/1"));
        assert_eq!(prefix("/ip6/2001:db8::1/tcp/1"), prefix("/ip6/2001:db8::ffff:1/tcp/1"));
        for local in ["/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1", "/memory/1", "/dns/example.org/tcp/1"] {
            assert_eq!(prefix(local), None, "{local}");
        }
    }
}

//! Where a node listens.

use std::collections::HashSet;
use std::net::{IpAddr, TcpListener, UdpSocket};

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, TransportError};

use super::NetabaseBehaviour;
use crate::error::NetabaseError;

/// Listens on every address; one that cannot be used is an error.
pub(super) fn listen(
    swarm: &mut Swarm<NetabaseBehaviour>,
    addresses: &[Multiaddr],
) -> Result<HashSet<ListenerId>, NetabaseError> {
    let listen = |address: &Multiaddr| {
        let failed = |reason| NetabaseError::Listen { address: address.clone(), reason };
        check_free(address).map_err(|error| failed(error.to_string()))?;
        swarm.listen_on(address.clone()).map_err(|error| failed(reason(&error)))
    };
    addresses.iter().map(listen).collect()
}

/// libp2p's own text leaves out what the operating system said.
fn reason(error: &TransportError<std::io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => "no transport for such an address".into(),
        TransportError::Other(error) => error.to_string(),
    }
}

/// Fails if another program has the port.
///
/// libp2p shares its TCP ports with any program that shares them too, such as another node, and then
/// each of them gets some of the connections.
fn check_free(address: &Multiaddr) -> std::io::Result<()> {
    match socket(address) {
        Some((ip, Protocol::Tcp(port))) => TcpListener::bind((ip, port)).map(drop),
        Some((ip, Protocol::Udp(port))) => UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    }
}

/// Takes the interface's address and the port out of an address.
fn socket(address: &Multiaddr) -> Option<(IpAddr, Protocol<'_>)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        // A socket that takes IPv4 as well would be in the way of programs that ours is not.
        Protocol::Ip6(ip) if !ip.is_unspecified() => ip.into(),
        _ => return None,
    };
    Some((ip, parts.next()?))
}

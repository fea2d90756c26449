//! Where a node listens.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, TransportError};
use parking_lot::RwLock;
use socket2::{Domain, Socket, Type};

use crate::error::NetabaseError;
use crate::event_loop::behaviour::NetabaseBehaviour;
use crate::event_loop::command::Reply;

/// Where the node is heard, and who waits for that.
#[derive(Debug)]
pub(crate) struct Listening {
    /// What the handle reads.
    pub(crate) addresses: Arc<RwLock<Vec<Multiaddr>>>,
    /// The listeners that the start waits for, and who waits.
    pub(crate) starting: Option<(HashSet<ListenerId>, Reply<()>)>,
    /// Whether addresses of this machine have come or gone in the last second: they come and go
    /// together.
    pub(crate) interfaces_changed: bool,
}

impl Listening {
    pub(crate) fn new(
        addresses: Arc<RwLock<Vec<Multiaddr>>>,
        listeners: HashSet<ListenerId>,
        ready: Reply<()>,
    ) -> Self {
        Self { addresses, starting: Some((listeners, ready)), interfaces_changed: false }
    }
}

/// Listens on every address; one that cannot be used is an error.
pub(crate) fn listen(
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
fn reason(error: &TransportError<io::Error>) -> String {
    match error {
        TransportError::MultiaddrNotSupported(_) => "no transport for such an address".into(),
        TransportError::Other(error) => error.to_string(),
    }
}

/// Fails if another program has the port.
///
/// libp2p shares its TCP ports with any program that shares them too, such as another node, and
/// then each of them gets some of the connections.
fn check_free(address: &Multiaddr) -> io::Result<()> {
    let Some((address, kind)) = socket_address(address) else { return Ok(()) };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // As libp2p does: IPv4 is another address, and may be another program's.
        socket.set_only_v6(true)?;
    }
    // On Unix, connections of an earlier program that are not quite over are not in the way then,
    // and listeners still are.
    if cfg!(unix) && kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    // Who shares the address of a TCP port is only in the way once both listen.
    if kind == Type::STREAM { socket.listen(1) } else { Ok(()) }
}

/// Takes the interface's address and the port out of an address, and whether it is one of TCP or of
/// UDP.
fn socket_address(address: &Multiaddr) -> Option<(SocketAddr, Type)> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(((ip, port).into(), Type::STREAM)),
        Protocol::Udp(port) => Some(((ip, port).into(), Type::DGRAM)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, transport: &str, port: u16) -> Multiaddr {
        let family = if ip.contains(':') { "ip6" } else { "ip4" };
        format!("/{family}/{ip}/{transport}/{port}").parse().unwrap()
    }

    /// A TCP listener that shares its port, as those of libp2p do.
    fn shared_listener(ip: &str) -> (Socket, u16) {
        let address: SocketAddr = (ip.parse::<IpAddr>().unwrap(), 0).into();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.set_reuse_address(true).unwrap();
        #[cfg(unix)]
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(1).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        (socket, port)
    }

    #[test]
    fn a_port_that_another_program_shares_is_taken_in_its_family() {
        for (has, wants) in [
            ("0.0.0.0", "0.0.0.0"),
            ("0.0.0.0", "127.0.0.1"),
            ("127.0.0.1", "0.0.0.0"),
            ("127.0.0.1", "127.0.0.1"),
            ("::", "::"),
            ("::", "::1"),
            ("::1", "::"),
            ("::1", "::1"),
        ] {
            let (_listener, port) = shared_listener(has);
            assert!(check_free(&address(wants, "tcp", port)).is_err(), "{wants} while another has {has}");
        }
    }

    #[test]
    fn both_families_may_have_one_port() {
        for (has, wants) in [("0.0.0.0", "::"), ("::", "0.0.0.0"), ("127.0.0.1", "::1"), ("::1", "127.0.0.1")]
        {
            let (_listener, port) = shared_listener(has);
            check_free(&address(wants, "tcp", port)).unwrap();
        }
        check_free(&address("::", "tcp", 0)).unwrap();
        check_free(&"/memory/1".parse().unwrap()).unwrap();
    }

    #[test]
    fn a_udp_port_that_another_program_has_is_taken() {
        for ip in ["0.0.0.0", "127.0.0.1", "::", "::1"] {
            let address_of: SocketAddr = (ip.parse::<IpAddr>().unwrap(), 0).into();
            let socket = Socket::new(Domain::for_address(address_of), Type::DGRAM, None).unwrap();
            socket.bind(&address_of.into()).unwrap();
            let port = socket.local_addr().unwrap().as_socket().unwrap().port();
            assert!(check_free(&address(ip, "udp", port)).is_err(), "{ip}");
        }
    }
}

//! The transport: TCP with noise and yamux, QUIC, and libp2p's memory transport for nodes in one
//! process, with DNS names in addresses.
//!
//! `transport/browser.rs` replaces it in a browser.

use std::io;
use std::net::{IpAddr, SocketAddr};

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, MemoryTransport};
use libp2p::core::upgrade;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Transport, dns, noise, quic, swarm, tcp};
use socket2::{Domain, Socket, Type};

use crate::connection::paced::Multiplexing;
use crate::connection::processor::Processor;
use crate::error::NetabaseError;
use crate::event_loop::limits::QUIC_IDLE_MILLIS;
use crate::platform;

/// Returns the configuration of the swarm, with the executor of connection tasks.
pub(super) fn swarm_config(processor: Processor) -> swarm::Config {
    // A task runs until its connection ends.
    swarm::Config::with_executor(move |task| drop(platform::spawn(processor.metered(task))))
}

pub(super) fn transport(identity: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NetabaseError> {
    let noise = || noise::Config::new(identity).map_err(NetabaseError::network);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default()).upgrade(upgrade::Version::V1Lazy);
    let tcp = tcp.authenticate(noise()?).multiplex(Multiplexing::default());
    let mut quic = quic::Config::new(identity);
    quic.max_idle_timeout = QUIC_IDLE_MILLIS;
    let quic = quic::tokio::Transport::new(quic);
    let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
    let memory = memory.authenticate(noise()?).multiplex(Multiplexing::default());
    let tcp = tcp.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));
    let both = tcp.or_transport(quic.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))));
    let both = both.map(|either, _| either.into_inner());
    let all = both.or_transport(memory.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))));
    let all = all.map(|either, _| either.into_inner());
    Ok(dns::tokio::Transport::system(all).map_err(NetabaseError::network)?.boxed())
}

/// Fails if another program has the port.
///
/// libp2p shares its TCP ports with any program that shares them too, such as another node; each of
/// the programs would then receive some of the connections.
pub(super) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let Some((address, kind)) = socket_address(address) else { return Ok(()) };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        // As libp2p does: the IPv4 port may be another program's.
        socket.set_only_v6(true)?;
    }
    // On Unix, lingering connections of an earlier program then do not block the port, while
    // listeners still do.
    if cfg!(unix) && kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    // A TCP port that is shared conflicts only when both sockets listen.
    if kind == Type::STREAM { socket.listen(1) } else { Ok(()) }
}

/// Splits an address into the interface's address with the port, and whether it is TCP or UDP.
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

    /// Returns a TCP listener that shares its port, as libp2p's listeners do.
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

//! What strangers do below the protocols: handshakes, streams, and claims about themselves.

use std::future::poll_fn;

use futures::AsyncWriteExt;
use libp2p::core::Endpoint;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::transport::{DialOpts, MemoryTransport, PortUse, Transport, upgrade};
use libp2p::identity::Keypair;
use libp2p::{kad, noise, yamux};
use netabase::{NetabaseConfig, NetabaseSwarmEvent};
use tokio::net::TcpStream;

use crate::common::bare::*;
use crate::common::*;
use crate::conduct::introduce;
use crate::scene::*;

/// More sockets than a node has handshakes.
const SOCKETS: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_say_nothing_keep_nobody_out() {
    let tcp =
        || NetabaseConfig { listen_addresses: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()], ..config() };
    let victim = started(tcp()).await;
    let mut incoming = victim.subscribe_to_broadcasts();
    let port = victim.listen_addresses()[0].iter().find_map(|part| match part {
        libp2p::multiaddr::Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let mut silent = Vec::new();
    for _ in 0..SOCKETS {
        silent.push(TcpStream::connect(("127.0.0.1", port.unwrap())).await.unwrap());
        let arrived = |event: &NetabaseSwarmEvent| {
            matches!(event, NetabaseSwarmEvent::IncomingConnection { .. }).then_some(())
        };
        wait_for(&mut incoming, arrived).await;
    }
    let mut honest = tcp();
    honest.dht.bootstrap_peers = vec![full_address(&victim)];
    let honest = started(honest).await;
    knows_peers(&honest, 1).await;
    let outcome = honest.put_record(note(1, "among the silent")).await.unwrap();
    assert_eq!(outcome.accepted, [victim.local_peer_id()]);
    println!("silent sockets: {} open, an honest peer connected and put", silent.len());
}

/// Connects to `victim` without a swarm.
async fn connection(victim: &Notes) -> StreamMuxerBox {
    let identity = Keypair::generate_ed25519();
    let memory = MemoryTransport::default().upgrade(upgrade::Version::V1);
    let memory = memory.authenticate(noise::Config::new(&identity).unwrap());
    let mut transport = memory.multiplex(yamux::Config::default()).boxed();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let (_, connection) = transport.dial(full_address(victim), options).unwrap().await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_streams_and_resets_them_is_disconnected() {
    let scene = Scene::new(config()).await;
    let mut attack = scene.begin("streams that are opened and reset");
    let mut events = scene.victim.subscribe_to_broadcasts();
    let mut connection = connection(&scene.victim).await;
    let flood = async {
        loop {
            let stream = poll_fn(|context| {
                // Whatever the victim says is read.
                let _ = connection.poll_unpin(context)?;
                connection.poll_outbound_unpin(context)
            });
            let Ok(mut stream) = stream.await else { return };
            attack.tally.sent += 1;
            if stream.write_all(&[0]).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    };
    within_deadline("the connection to be closed", flood).await;
    let closed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionClosed { cause: Some(cause), .. } => Some(cause.to_string()),
        _ => None,
    });
    let cause = closed.await;
    assert!(cause.contains("streams that it does not use"), "{cause}");
    scene.served().await;
    let sent = attack.tally.sent;
    scene.end(attack, &format!("{sent} streams, then disconnected"));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_hosts_that_a_peer_has_made_up() {
    const PEERS: usize = 30;
    let scene = Scene::new(config()).await;
    let attack = scene.begin("peers that claim addresses of others, and leave");
    let victim = &scene.victim;
    let mut events = victim.subscribe_to_broadcasts();
    let mut claimed = 0;
    for number in 1..=PEERS {
        let mut hostile = hostile_peer(victim).await;
        for host in 1..=16 {
            hostile.add_external_address(format!("/ip4/203.0.113.{host}/tcp/{number}").parse().unwrap());
        }
        for _ in 0..2 {
            introduce(&mut hostile, victim).await;
        }
        while let Some(event) = events.try_recv().unwrap() {
            if let NetabaseSwarmEvent::Kad(event) = event
                && let kad::Event::RoutingUpdated { addresses, .. } = &*event
            {
                let claims = addresses.iter().filter(|address| address.to_string().contains("/203.0.113."));
                claimed += usize::from(claims.count() > 0);
            }
        }
    }
    assert_eq!(claimed, 0, "claims that nothing has shown were believed");
    within_deadline("the claims to be forgotten", async {
        loop {
            let known = victim.bootstrap().await.unwrap_or(0);
            if known <= 1 {
                break;
            }
            let _ = events.recv().await;
        }
    })
    .await;
    scene.served().await;
    scene.end(attack, &format!("{PEERS} peers came and went, and the routing table has the honest one"));
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_told_of_at_another_host_once_it_was_reached_there() {
    let at = |host: &str| NetabaseConfig {
        listen_addresses: vec![format!("/ip4/{host}/tcp/0").parse().unwrap()],
        ..config()
    };
    let victim = started(at("127.0.0.1")).await;
    let mut events = victim.subscribe_to_broadcasts();
    // It comes from the host of the victim.
    let mut elsewhere = at("127.0.0.2");
    elsewhere.dht.bootstrap_peers = vec![full_address(&victim)];
    let elsewhere = started(elsewhere).await;
    let peer = elsewhere.local_peer_id();
    wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::ConnectionEstablished { peer: other, outgoing: true, .. } => {
            (*other == peer).then_some(())
        }
        _ => None,
    })
    .await;
    let routed = wait_for(&mut events, |event| match event {
        NetabaseSwarmEvent::Kad(event) => match &**event {
            kad::Event::RoutingUpdated { peer: other, addresses, .. } if *other == peer => {
                Some(addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
            }
            _ => None,
        },
        _ => None,
    })
    .await;
    assert!(routed[0].starts_with("/ip4/127.0.0.2/tcp/"), "{routed:?}");
}

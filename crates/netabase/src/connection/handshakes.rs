//! Handshakes of incoming connections: a bound on those that are running, which newcomers cannot
//! reach.
//!
//! A connection that sends nothing would hold its place for as long as its peer likes. So no
//! newcomer is refused: the oldest handshake of the address with the most of them ends instead.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use libp2p::Multiaddr;
use libp2p::core::transport::{Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use libp2p::multiaddr::Protocol;
use parking_lot::Mutex;
use thiserror::Error;

use crate::connection::limits::{HANDSHAKE_TIMEOUT, MAX_HANDSHAKES};
use crate::dht::address::{Prefix, ip};
use crate::platform::{Sleep, sleep};

/// A transport whose incoming handshakes are bounded in number and time.
pub(crate) struct Bounded<O> {
    transport: Boxed<O>,
    streams: Handshakes,
    datagrams: Handshakes,
}

impl<O> Bounded<O> {
    pub(crate) fn new(transport: Boxed<O>) -> Self {
        Self { transport, streams: Handshakes::default(), datagrams: Handshakes::default() }
    }
}

/// The running handshakes, in the order of their beginning.
#[derive(Debug, Clone, Default)]
struct Handshakes(Arc<Mutex<Running>>);

#[derive(Debug, Default)]
struct Running {
    began: u64,
    handshakes: BTreeMap<u64, Handshake>,
}

#[derive(Debug)]
struct Handshake {
    origin: Origin,
    waker: Option<Waker>,
}

/// Where a connection comes from. Those of one origin share what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    /// An address that reaches everywhere, by its prefix.
    Prefix(Prefix),
    /// A host of this machine or of the local network.
    Host(IpAddr),
    /// This process.
    Process,
}

impl Origin {
    fn of(address: &Multiaddr) -> Self {
        let prefix = Prefix::of(address).map(Self::Prefix);
        prefix.or_else(|| ip(address).map(Self::Host)).unwrap_or(Self::Process)
    }
}

/// The reason why a handshake has ended.
#[derive(Debug, Clone, Copy, Error)]
enum Ended {
    #[error("the handshake has ended, since others are waiting")]
    Overtaken,
    #[error("the handshake took longer than {} s", HANDSHAKE_TIMEOUT.as_secs())]
    TimedOut,
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        Self::new(io::ErrorKind::TimedOut, ended)
    }
}

impl Handshakes {
    /// Records a handshake that begins, and ends another one if there are too many.
    fn begin(&self, origin: Origin) -> Place {
        let mut running = self.0.lock();
        if running.handshakes.len() >= MAX_HANDSHAKES
            && let Some(oldest) = running.most_expendable()
            && let Some(Handshake { waker: Some(waker), .. }) = running.handshakes.remove(&oldest)
        {
            waker.wake();
        }
        running.began += 1;
        let number = running.began;
        running.handshakes.insert(number, Handshake { origin, waker: None });
        Place { running: self.clone(), number }
    }
}

impl Running {
    /// Returns the oldest handshake of the origin that has the most.
    fn most_expendable(&self) -> Option<u64> {
        let mut counts: HashMap<Origin, usize> = HashMap::new();
        for handshake in self.handshakes.values() {
            *counts.entry(handshake.origin).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let expendable = |handshake: &Handshake| counts.get(&handshake.origin) == Some(&most);
        self.handshakes.iter().find(|(_, handshake)| expendable(handshake)).map(|(number, _)| *number)
    }
}

/// The place of a running handshake, which is free when this is dropped.
#[derive(Debug)]
struct Place {
    running: Handshakes,
    number: u64,
}

impl Place {
    /// Returns whether the handshake may go on; otherwise another one has its place.
    fn is_kept(&self, context: &Context<'_>) -> bool {
        let mut running = self.running.0.lock();
        let handshake = running.handshakes.get_mut(&self.number);
        handshake.map(|handshake| handshake.waker = Some(context.waker().clone())).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.0.lock().handshakes.remove(&self.number);
    }
}

/// A handshake that ends in time.
pub(crate) struct Timed<H> {
    handshake: H,
    deadline: Pin<Box<Sleep>>,
}

impl<H> Timed<H> {
    fn new(handshake: H) -> Self {
        Self { handshake, deadline: Box::pin(sleep(HANDSHAKE_TIMEOUT)) }
    }
}

impl<O, H: Future<Output = io::Result<O>> + Unpin> Future for Timed<H> {
    type Output = io::Result<O>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<O>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(Ended::TimedOut.into()));
        }
        Pin::new(&mut self.handshake).poll(context)
    }
}

/// The handshake of an incoming connection.
pub(crate) struct Upgrade<O> {
    handshake: Timed<<Boxed<O> as Transport>::ListenerUpgrade>,
    place: Place,
}

impl<O> Future for Upgrade<O> {
    type Output = io::Result<O>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<O>> {
        if !self.place.is_kept(context) {
            return Poll::Ready(Err(Ended::Overtaken.into()));
        }
        Pin::new(&mut self.handshake).poll(context)
    }
}

impl<O> Transport for Bounded<O> {
    type Output = O;
    type Error = io::Error;
    type ListenerUpgrade = Upgrade<O>;
    type Dial = Timed<<Boxed<O> as Transport>::Dial>;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<io::Error>> {
        self.transport.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.transport.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        self.transport.dial(address, options).map(Timed::new)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Upgrade<O>, io::Error>> {
        let Self { transport, streams, datagrams } = &mut *self;
        Pin::new(transport).poll(context).map(|event| {
            let origin = match &event {
                TransportEvent::Incoming { send_back_addr, .. } => Some(send_back_addr.clone()),
                _ => None,
            };
            event.map_upgrade(|handshake| {
                let address = origin.unwrap_or_else(Multiaddr::empty);
                let is_datagram = address.iter().any(|part| matches!(part, Protocol::Udp(_)));
                let kind = if is_datagram { &*datagrams } else { &*streams };
                let place = kind.begin(Origin::of(&address));
                Upgrade { handshake: Timed::new(handshake), place }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;

    use super::*;

    fn from(address: &str) -> Origin {
        Origin::of(&address.parse().unwrap())
    }

    fn is_kept(place: &Place) -> bool {
        place.is_kept(&Context::from_waker(noop_waker_ref()))
    }

    #[test]
    fn a_newcomer_has_a_place_whatever_one_address_does() {
        let handshakes = Handshakes::default();
        let honest = handshakes.begin(from("/ip4/198.51.100.7/tcp/1"));
        let silent: Vec<Place> =
            (1..10_000).map(|port| handshakes.begin(from(&format!("/ip4/10.0.0.2/tcp/{port}")))).collect();
        let newcomer = handshakes.begin(from("/ip4/203.0.113.1/tcp/1"));
        assert!(is_kept(&honest) && is_kept(&newcomer));
        assert_eq!(silent.iter().filter(|place| is_kept(place)).count(), MAX_HANDSHAKES - 2);
        assert!(is_kept(silent.last().unwrap()) && !is_kept(&silent[0]), "the oldest makes room");
    }

    #[test]
    fn of_many_addresses_the_oldest_makes_room() {
        let handshakes = Handshakes::default();
        let spoofed =
            |host: usize| from(&format!("/ip4/{}.{}.1.1/udp/1/quic-v1", 11 + host / 256, host % 256));
        let places: Vec<Place> =
            (0..2 * MAX_HANDSHAKES).map(|host| handshakes.begin(spoofed(host))).collect();
        assert!(places[..MAX_HANDSHAKES].iter().all(|place| !is_kept(place)));
        assert!(places[MAX_HANDSHAKES..].iter().all(is_kept));
        drop(places);
        assert!(handshakes.0.lock().handshakes.is_empty());
    }

    #[test]
    fn hosts_of_one_prefix_share_and_those_of_the_local_network_do_not() {
        assert_eq!(from("/ip4/198.51.100.7/tcp/1"), from("/ip4/198.51.100.8/tcp/2"));
        assert_ne!(from("/ip4/10.0.0.7/tcp/1"), from("/ip4/10.0.0.8/tcp/1"));
        assert_eq!(from("/ip4/127.0.0.1/tcp/1"), from("/ip4/127.0.0.1/udp/2/quic-v1"));
    }
}

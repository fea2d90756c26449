//! The places of connections. A newcomer always gets one: it replaces a connection that has not
//! shown the token.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::guard::rate::bucket_address;
use crate::limits::{ADDRESS_SHARE, STRANGER_SHARE};

/// The places of a server, one for each connection.
///
/// A connection is a stranger until one of its requests is authorized. Authorized connections are
/// replaced only by others of their kind, and never while they have a request in progress.
#[derive(Debug)]
pub(crate) struct Places {
    limit: usize,
    /// The most authorized connections, so that some places are left to strangers.
    max_authorized: usize,
    /// The most strangers of one address.
    max_of_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// A counter of connections and answers, which orders connections by when they became idle.
    next: u64,
    /// The connections by number, of which the oldest has the least.
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// The address or the /64 of the client.
    address: IpAddr,
    is_authorized: bool,
    /// The number of requests in progress.
    requests: usize,
    /// The value of `Open::next` when the connection became idle.
    idle_since: u64,
    close: Arc<Notify>,
}

/// The place of a connection, which is free when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    close: Arc<Notify>,
    places: Arc<Places>,
}

impl Places {
    /// Makes places for `limit` connections, and for two at least.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let limit = limit.max(2);
        let max_authorized = limit - (limit / STRANGER_SHARE).max(1);
        let max_of_address = (limit / ADDRESS_SHARE).max(1);
        Arc::new(Self { limit, max_authorized, max_of_address, open: Mutex::default() })
    }

    /// Returns the most connections at the same time.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes a place for a new connection, and closes another connection if there are too many.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr) -> Place {
        let address = bucket_address(client);
        let mut open = self.open.lock();
        if open.strangers().filter(|(_, known)| known.address == address).count() >= self.max_of_address {
            open.close_stranger_of(address);
        } else if open.connections.len() >= self.limit {
            open.close_one();
        }
        let (id, close) = (open.tick(), Arc::new(Notify::new()));
        let connection = Connection {
            address,
            is_authorized: false,
            requests: 0,
            idle_since: id,
            close: Arc::clone(&close),
        };
        open.connections.insert(id, connection);
        Place { id, close, places: Arc::clone(self) }
    }

    /// Closes the connection that matters least, if there is one without an authorized request in
    /// progress.
    pub(super) fn close_one(&self) {
        self.open.lock().close_one();
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn strangers(&self) -> impl Iterator<Item = (&u64, &Connection)> {
        self.connections.iter().filter(|(_, known)| !known.is_authorized)
    }

    /// Closes the oldest stranger of the address that has the most of them, or else the authorized
    /// connection that has been idle for longest.
    fn close_one(&mut self) {
        let mut of_address = HashMap::<IpAddr, usize>::new();
        self.strangers().for_each(|(_, known)| *of_address.entry(known.address).or_default() += 1);
        // Of two addresses with as many strangers, the one with the oldest stranger gives way.
        let most = self.strangers().max_by_key(|(id, known)| (of_address.get(&known.address), Reverse(**id)));
        match most.map(|(id, _)| *id) {
            Some(stranger) => self.close(stranger),
            None => {
                self.close_idle();
            }
        }
    }

    fn close_stranger_of(&mut self, address: IpAddr) {
        let of_address = self.strangers().filter(|(_, known)| known.address == address);
        if let Some(oldest) = of_address.map(|(id, _)| *id).min() {
            self.close(oldest);
        }
    }

    /// Closes the authorized connection that has been idle for longest. Returns false if each has a
    /// request in progress.
    fn close_idle(&mut self) -> bool {
        let idle = self.connections.iter().filter(|(_, known)| known.is_authorized && known.requests == 0);
        let longest = idle.min_by_key(|(_, known)| known.idle_since).map(|(id, _)| *id);
        longest.inspect(|id| self.close(*id)).is_some()
    }

    fn close(&mut self, id: u64) {
        if let Some(closed) = self.connections.remove(&id) {
            closed.close.notify_one();
        }
    }
}

impl Place {
    /// Waits until another connection takes the place.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// Records that a request of the connection was authorized. Returns false if all places of such
    /// connections are taken, and each has a request in progress.
    pub(crate) fn authorize(&self) -> bool {
        let mut open = self.places.open.lock();
        let is_stranger = |known: &Connection| !known.is_authorized;
        if !open.connections.get(&self.id).is_some_and(is_stranger) {
            return true;
        }
        let authorized = open.connections.len() - open.strangers().count();
        if authorized >= self.places.max_authorized && !open.close_idle() {
            return false;
        }
        if let Some(connection) = open.connections.get_mut(&self.id) {
            connection.is_authorized = true;
        }
        true
    }

    /// Counts a request as in progress until the returned value is dropped.
    pub(super) fn request(&self) -> Request {
        if let Some(connection) = self.places.open.lock().connections.get_mut(&self.id) {
            connection.requests += 1;
        }
        Request { id: self.id, places: Arc::clone(&self.places) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.lock().connections.remove(&self.id);
    }
}

/// A request in progress.
#[derive(Debug)]
pub(super) struct Request {
    id: u64,
    places: Arc<Places>,
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut open = self.places.open.lock();
        let now = open.tick();
        if let Some(connection) = open.connections.get_mut(&self.id) {
            connection.requests = connection.requests.saturating_sub(1);
            connection.idle_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use futures::FutureExt;

    use super::*;

    fn is_closed(place: &Place) -> bool {
        !place.places.open.lock().connections.contains_key(&place.id)
    }

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_oldest_stranger_of_the_address_with_the_most_makes_room() {
        let places = Places::new(8);
        let one = places.take(address(1));
        let two = [(); 2].map(|()| places.take(address(2)));
        let rest = [3, 4, 5, 6, 7].map(|last| places.take(address(last)));
        // That it has a request in progress and that it was idle later makes no difference.
        let _request = two[0].request();
        drop(two[1].request());
        let newcomer = places.take(address(8));
        assert!(is_closed(&two[0]) && !is_closed(&two[1]) && !is_closed(&one));
        assert!(two[0].closed().now_or_never().is_some() && one.closed().now_or_never().is_none());
        let _another = places.take(address(9));
        assert!(is_closed(&one), "of all that are alone at their address it is the oldest");
        assert!(!rest.iter().any(is_closed) && !is_closed(&newcomer));
    }

    #[test]
    fn strangers_of_one_address_replace_each_other() {
        let places = Places::new(16);
        let theirs = |host: u64| IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(host)));
        let strangers: Vec<_> = (0..10).map(|host| places.take(theirs(host))).collect();
        assert_eq!(strangers.iter().filter(|place| !is_closed(place)).count(), 4, "a quarter of all");
        assert!(strangers.iter().rev().take(4).all(|place| !is_closed(place)), "the latest");
        let elsewhere = places.take(address(1));
        assert!(!is_closed(&elsewhere));
    }

    #[test]
    fn no_stranger_replaces_who_has_shown_the_token() {
        let places = Places::new(8);
        let authorized = [(); 6].map(|()| {
            let place = places.take(address(1));
            assert!(place.authorize());
            place
        });
        let strangers: Vec<_> = (0..100).map(|last| places.take(address(last))).collect();
        assert!(!authorized.iter().any(is_closed));
        assert_eq!(strangers.iter().filter(|place| !is_closed(place)).count(), 2);

        // One more that shows it replaces the one that is idle for longest.
        let requests = [0, 1, 2, 4, 5].map(|at| authorized[at].request());
        let last = strangers.last().unwrap();
        assert!(last.authorize() && last.authorize());
        assert!(is_closed(&authorized[3]) && !is_closed(last));
        let _request = last.request();
        let another = places.take(address(1));
        assert!(!another.authorize(), "each has a request in progress");
        assert!(!is_closed(&another), "it can be told so");
        drop(requests);
        assert!(another.authorize());
    }
}

//! The limit of connections: beyond it, a new one replaces the one that has been idle for longest.

use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The places of a server, one for each connection.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    open: Mutex<Open>,
    /// Notified when a place becomes free, or its connection idle.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    /// A counter of connections and answers, which orders connections by when they became idle.
    next: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// The number of requests in progress.
    requests: usize,
    /// The value of `Open::next` when the connection became idle.
    idle_since: u64,
    close: Arc<Notify>,
}

/// The place of a connection, which is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    close: Arc<Notify>,
    places: Arc<Places>,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), open: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a place for a new connection. Waits while every connection has a request in progress.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return place;
            }
            changed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open.lock();
        if open.connections.len() >= self.limit && !open.close_idle() {
            return None;
        }
        let (id, close) = (open.tick(), Arc::new(Notify::new()));
        open.connections.insert(id, Connection { requests: 0, idle_since: id, close: Arc::clone(&close) });
        Some(Place { id, close, places: Arc::clone(self) })
    }

    /// Closes the connection that has been idle for longest. Returns false if none is idle.
    pub(super) fn close_idle(&self) -> bool {
        self.open.lock().close_idle()
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn close_idle(&mut self) -> bool {
        let idle = self.connections.iter().filter(|(_, connection)| connection.requests == 0);
        let longest = idle.min_by_key(|(_, connection)| connection.idle_since).map(|(id, _)| *id);
        let Some(closed) = longest.and_then(|id| self.connections.remove(&id)) else { return false };
        closed.close.notify_one();
        true
    }
}

impl Place {
    /// Waits until another connection takes the place.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
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
        self.places.changed.notify_waiters();
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
        drop(open);
        self.places.changed.notify_waiters();
    }
}

/// The body of an answer. Its request is in progress until the body ends.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    _request: Request,
}

impl Answer {
    pub(super) fn new(body: Body, request: Request) -> Self {
        Self { body, _request: request }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_new_connection_takes_the_place_of_the_longest_idle_one() {
        let places = Places::new(3);
        let [busy, first, second] = [(); 3].map(|()| places.try_take().unwrap());
        let request = busy.request();
        // The first one becomes idle after the second one.
        drop(first.request());
        let third = places.try_take().unwrap();
        assert!(second.closed().now_or_never().is_some(), "it was idle for longest");
        assert!(first.closed().now_or_never().is_none() && busy.closed().now_or_never().is_none());
        drop(second);

        let requests = [first.request(), third.request()];
        assert!(
            places.try_take().is_none() && !places.close_idle(),
            "every connection has a request under way"
        );
        let mut waiting = pin!(places.take());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(request);
        let fourth = waiting.now_or_never().unwrap();
        assert!(busy.closed().now_or_never().is_some());
        drop((requests, fourth));
    }
}

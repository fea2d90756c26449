//! Streams of server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior};

use netabase_client::media::EVENT_STREAM;

use crate::app::App;
use crate::body::require_accept;
use crate::problem::Answer;

/// The shortest interval between two keep-alive events.
const MIN_KEEP_ALIVE: Duration = Duration::from_millis(10);

/// A source of events.
pub(crate) trait Source: Send + 'static {
    /// Waits for the next event; `None` ends the stream. Cancelling the call loses no event.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;

    /// Returns the event that shows, while there are no others, that the stream is alive.
    fn keep_alive(&self) -> Event {
        Event::default().comment("alive")
    }
}

/// Returns a permit for a stream, if the client accepts one.
pub(crate) fn admit(app: &App, headers: &HeaderMap) -> Answer<OwnedSemaphorePermit> {
    require_accept(headers, EVENT_STREAM)?;
    app.stream()
}

/// Returns a stream of events, which ends with the server.
pub(crate) fn stream_of(app: &App, permit: OwnedSemaphorePermit, source: impl Source) -> Response {
    let mut response = Sse::new(events(app, permit, source)).into_response();
    // axum's `no-cache` gives way to the `no-store` that every answer has.
    response.headers_mut().remove(header::CACHE_CONTROL);
    response
}

/// axum's own keep-alive repeats one event, where ours has the position of the stream.
fn events(
    app: &App,
    permit: OwnedSemaphorePermit,
    source: impl Source,
) -> impl Stream<Item = Result<Event, Infallible>> + Send + 'static {
    let period = app.config.limits.keep_alive.max(MIN_KEEP_ALIVE);
    let mut alive = tokio::time::interval(period);
    // The first tick is immediate, and the first event is sent without it.
    alive.reset();
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The client learns at once that it is connected, and the position of the stream.
    let first = stream::iter([Ok(source.keep_alive())]);
    let rest = stream::unfold((source, alive, permit), |(mut source, mut alive, permit)| async move {
        let event = next(&mut source, &mut alive).await?;
        Some((Ok(event), (source, alive, permit)))
    });
    first.chain(rest).take_until(Box::pin(app.stopped()))
}

async fn next(source: &mut impl Source, alive: &mut Interval) -> Option<Event> {
    tokio::select! {
        biased;
        event = source.next() => event,
        _ = alive.tick() => Some(source.keep_alive()),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    struct Silence;

    impl Source for Silence {
        async fn next(&mut self) -> Option<Event> {
            None
        }
    }

    #[tokio::test]
    async fn an_event_of_several_lines_is_one_event() {
        let events = [
            Event::default().id("42_7").event("put").data("a\nb"),
            Event::default().id("3"),
            Silence.keep_alive(),
        ];
        let response = Sse::new(stream::iter(events.map(Ok::<_, Infallible>))).into_response();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "id: 42_7\nevent: put\ndata: a\ndata: b\n\nid: 3\n\n: alive\n\n");
    }
}

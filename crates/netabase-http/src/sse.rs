//! Streams of server-sent events.

use std::convert::Infallible;
use std::fmt::Write;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures::{Stream, StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior};

use netabase::changes::ChangePosition;
use netabase_client::media::EVENT_STREAM;

use crate::app::App;
use crate::body::require_accept;
use crate::problem::Answer;

/// The shortest time between two signs of life.
const MIN_KEEP_ALIVE: Duration = Duration::from_millis(10);

/// One event; one without data only says where the client goes on after an interruption.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) id: Option<ChangePosition>,
    pub(crate) event: Option<&'static str>,
    pub(crate) data: Option<String>,
}

impl Frame {
    fn bytes(&self) -> Bytes {
        let mut text = String::new();
        // Writing to a string does not fail.
        if let Some(id) = self.id {
            let _ = writeln!(text, "id: {id}");
        }
        if let Some(event) = self.event {
            let _ = writeln!(text, "event: {event}");
        }
        for line in self.data.iter().flat_map(|data| data.split('\n')) {
            let _ = writeln!(text, "data: {line}");
        }
        if text.is_empty() {
            text.push_str(": alive\n");
        }
        text.push('\n');
        text.into()
    }
}

/// What events come from.
pub(crate) trait Source: Send + 'static {
    /// Waits for the next event; `None` ends the stream. Cancelling the call loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<Frame>> + Send;

    /// Returns what tells the client that the stream is alive, while there are no events.
    fn alive(&self) -> Frame {
        Frame::default()
    }
}

/// Returns the right to a stream, if the client takes one.
pub(crate) fn admit(app: &App, headers: &HeaderMap) -> Answer<OwnedSemaphorePermit> {
    require_accept(headers, EVENT_STREAM)?;
    app.stream()
}

/// Returns a stream of events, which ends with the server.
pub(crate) fn stream_of(app: &App, permit: OwnedSemaphorePermit, source: impl Source) -> Response {
    let mut response = Response::new(Body::from_stream(frames(app, permit, source)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    response
}

fn frames(
    app: &App,
    permit: OwnedSemaphorePermit,
    source: impl Source,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let period = app.config.limits.keep_alive.max(MIN_KEEP_ALIVE);
    let mut alive = tokio::time::interval(period);
    // The first tick is at once, and is not the first frame.
    alive.reset();
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The client learns at once that it is connected, and where it is.
    let first = stream::iter([Ok(source.alive().bytes())]);
    let rest = stream::unfold((source, alive, permit), |(mut source, mut alive, permit)| async move {
        let frame = next(&mut source, &mut alive).await?;
        Some((Ok(frame.bytes()), (source, alive, permit)))
    });
    first.chain(rest).take_until(Box::pin(app.stopped()))
}

async fn next(source: &mut impl Source, alive: &mut Interval) -> Option<Frame> {
    tokio::select! {
        biased;
        frame = source.next() => frame,
        _ = alive.tick() => Some(source.alive()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_several_lines_is_one_event() {
        let [three, seven] = ["3", "42_7"].map(|id| id.parse().ok());
        let frame = Frame { id: seven, event: Some("put"), data: Some("a\nb".into()) };
        assert_eq!(frame.bytes(), "id: 42_000000000000007\nevent: put\ndata: a\ndata: b\n\n");
        assert_eq!(Frame::default().bytes(), ": alive\n\n");
        assert_eq!(Frame { id: three, ..Frame::default() }.bytes(), "id: 3\n\n");
    }
}

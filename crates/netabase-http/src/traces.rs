//! The trace of whoever sends a request, which what it does goes on with.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use netabase::TraceContext;

/// Carries out a request in the trace that its `traceparent` header names. One that names none is no reason to
/// refuse it: its calls begin traces of their own.
pub(crate) async fn in_trace(request: Request, next: Next) -> Response {
    let header = request.headers().get("traceparent").and_then(|header| header.to_str().ok());
    match header.and_then(|header| TraceContext::parse(header).ok()) {
        Some(context) => context.scope(next.run(request)).await,
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::middleware;
    use axum::routing::get;
    use tower_service::Service;

    use super::*;

    async fn current() -> String {
        TraceContext::current().map(|context| context.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_request_goes_on_with_the_trace_of_its_sender() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (sent, expected) in [(header, header), ("nonsense", "")] {
            let mut router = Router::new().route("/", get(current)).layer(middleware::from_fn(in_trace));
            let request =
                Request::builder().uri("/").header("traceparent", sent).body(Body::empty()).unwrap();
            let response = router.call(request).await.unwrap();
            assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), expected);
        }
    }
}

//! The trace context of requests (`traceparent`).

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use netabase::TraceContext;
use tower_service::Service;

/// Answers a request in the trace of its `traceparent` header. Without a valid header, the calls of
/// the request begin traces of their own.
pub(crate) async fn in_trace(request: Request, mut router: Router) -> Response {
    let header = request.headers().get("traceparent").and_then(|header| header.to_str().ok());
    let context = header.and_then(|header| TraceContext::parse(header).ok());
    let answered = router.call(request);
    let answered = match context {
        Some(context) => context.scope(answered).await,
        None => answered.await,
    };
    answered.into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;

    use super::*;

    async fn current() -> String {
        TraceContext::current().map(|context| context.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn a_request_goes_on_with_the_trace_of_its_sender() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (sent, expected) in [(header, header), ("nonsense", "")] {
            let router = Router::new().route("/", get(current));
            let request =
                Request::builder().uri("/").header("traceparent", sent).body(Body::empty()).unwrap();
            let response = in_trace(request, router).await;
            assert_eq!(to_bytes(response.into_body(), 100).await.unwrap(), expected);
        }
    }
}

//! What HTTP costs by itself: a server that looks for nothing.

use std::convert::Infallible;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::model;

/// How much longer an answer of the API is than the value in it, about: key, author, version and
/// size.
const BESIDE_VALUE_BYTES: usize = 380;

/// Answers every request with the value that it names.
pub(super) async fn run(listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    let id = request.uri().path().rsplit('/').next().and_then(|id| id.parse().ok()).unwrap_or_default();
    let value = model::json(id).unwrap_or_default();
    let mut response =
        Response::new(format!(r#"{{"value":{value},"beside":"{:0>BESIDE_VALUE_BYTES$}"}}"#, 0));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

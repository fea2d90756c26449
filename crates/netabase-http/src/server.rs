//! Taking connections, and letting them end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use netabase::Node;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::app::App;
use crate::config::{ApiConfig, Limits};
use crate::guard::guard;
use crate::{routes, statistics};

mod patience;

use patience::Patient;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// The smallest limit of a request's head that the parser takes, in bytes.
const MIN_HEAD_BYTES: usize = 8 * 1024;
/// How long to wait after the system has refused to accept, as when there are too many open files.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// The HTTP interface of a node, which listens already.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StorageBackend, netabase_definition_module};
/// # #[netabase_definition_module(ChatDefinition, ChatKeys)]
/// # mod chat {
/// #     use netabase::NetabaseModel;
/// #     use serde::{Deserialize, Serialize};
/// #     #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
/// #     #[netabase(ChatDefinition)]
/// #     pub struct Message { #[primary_key] pub id: String }
/// # }
/// # use chat::*;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let config = NetabaseConfig { backend: StorageBackend::Memory, ..NetabaseConfig::default() };
/// # let netabase = Netabase::<ChatDefinition>::new_with_config(config)?;
/// use netabase_http::{ApiConfig, Server};
///
/// let config = ApiConfig { bind: ([127, 0, 0, 1], 0).into(), ..ApiConfig::default() };
/// let server = Server::bind(netabase.node().clone(), config).await?;
/// println!("http://{}/docs", server.local_addr());
/// server.run(async { /* until this is done */ }).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    stop: watch::Sender<bool>,
}

/// Why a node cannot be served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Others than this machine could use the node, and there is no token.
    #[error("{address} can be reached from other machines: set a token, or bind the interface to 127.0.0.1")]
    NoToken {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The address is in use, or is none of this machine.
    #[error("cannot listen on {address}; end the other program, or choose another address or port")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Server {
    /// Listens where `config` says; connections wait until [`run`](Self::run).
    pub async fn bind(node: Node, config: ApiConfig) -> Result<Self, ServeError> {
        let address = config.bind;
        if config.token.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::NoToken { address });
        }
        let failed = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, stopping) = watch::channel(false);
        let app = Arc::new(App::new(node, config, stopping));
        Ok(Self { listener, address, app, stop })
    }

    /// Returns where it listens, with the port that the system has chosen where none was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done; then takes no more connections, ends streams of events, and lets requests
    /// under way end for [`shutdown_grace`](Limits::shutdown_grace).
    ///
    /// The node goes on. Dropping the future ends everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, address: _, app, stop } = self;
        let mut workers = JoinSet::new();
        workers.spawn(statistics::sample(Arc::clone(&app)));
        let router = routes::router(&app);
        let places = Arc::new(Semaphore::new(app.config.limits.max_connections));
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, client, place) = accepted;
            connections.spawn(serve(stream, client, router.clone(), Arc::clone(&app), place));
        }
        drop(listener);
        // All receivers may be gone, if there are no connections.
        let _ = stop.send(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(app.config.limits.shutdown_grace, ended).await.is_err() {
            tracing::warn!("requests were still under way when the time to end them was over");
        }
    }
}

/// Waits for a place, and then for a connection.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // It is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, client)) => return (stream, client, place),
            Err(error) => {
                tracing::debug!(%error, "a connection to the interface could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection until it or the server ends.
async fn serve(
    stream: TcpStream,
    client: SocketAddr,
    router: Router,
    app: Arc<App>,
    _place: Option<OwnedSemaphorePermit>,
) {
    let Limits { head_timeout, max_head_bytes, write_timeout, .. } = app.config.limits;
    // Answers are small, and are written whole.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let answered = guard(&app, client, request.map(Body::new), router.clone());
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(max_head_bytes.max(MIN_HEAD_BYTES))
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, write_timeout)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = app.stopped() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %client, "a connection to the interface ended");
    }
}

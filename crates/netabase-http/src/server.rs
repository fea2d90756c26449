//! The server: accepts connections, serves them and shuts down.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use netabase::netabase_store::admin::{ApiFile, PublishedApi};
use netabase::{Identity, Node};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::App;
use crate::body::Holding;
use crate::config::{ApiConfig, Limits};
use crate::guard::guard;
use crate::limits::{MAX_CLOSING, MAX_HEADERS, MIN_HEAD_BYTES};
use crate::{floods, routes, statistics};

mod patience;
pub(crate) mod places;

use patience::Patient;
use places::{Place, Places};

/// The pause after `accept` has failed, for example because too many files are open.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// The HTTP interface of a node, bound to its address.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, StoreOptions, netabase_definition_module};
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
/// # let config = NetabaseConfig { store: StoreOptions::in_memory(), ..NetabaseConfig::default() };
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

/// An error of starting the interface.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Other machines could use the node, and no token is configured.
    #[error("{address} can be reached from other machines: set a token, or bind the interface to 127.0.0.1")]
    NoToken {
        /// The configured address.
        address: SocketAddr,
    },
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address}; end the other program, or choose another address or port")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

impl Server {
    /// Listens at the address of `config`. Connections wait until [`run`](Self::run) is called.
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

    /// Returns the address at which the server listens. The system chooses the port if the
    /// configured one is 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes. Then accepts no more connections, ends streams of events,
    /// and waits for requests in progress for [`shutdown_grace`](Limits::shutdown_grace).
    ///
    /// While the server runs, an [`ApiFile`] beside the database tells commands its address. The
    /// node keeps running afterwards. Dropping the future closes all connections at once.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, address, app, stop } = self;
        let _published = publish(&app, address).await;
        let mut workers = JoinSet::new();
        workers.spawn(statistics::sample(Arc::clone(&app)));
        workers.spawn(floods::watch(Arc::clone(&app)));
        let router = routes::router(&app);
        let places = Places::new(app.config.limits.max_connections);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            if connections.len() >= places.limit() + MAX_CLOSING {
                // Most of them were told to close, and one does so as soon as it runs.
                connections.join_next().await;
            }
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = accept(&listener, &places, &app) => accepted,
            };
            let (stream, client, place) = accepted;
            connections.spawn(answer(stream, client, router.clone(), Arc::clone(&app), place));
            // A request that came with the connection is read before the next one is accepted,
            // which might replace it.
            tokio::task::yield_now().await;
        }
        drop(listener);
        // Without connections there are no receivers.
        let _ = stop.send(true);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(app.config.limits.shutdown_grace, ended).await.is_err() {
            tracing::warn!("requests were still in progress at the end of the shutdown grace period");
        }
    }
}

/// Writes an [`ApiFile`] beside the database, by which the user's other programs find the server.
/// Returns `None` for a database in memory.
async fn publish(app: &App, address: SocketAddr) -> Option<PublishedApi> {
    let database = app.node.database_path()?.to_owned();
    let token = app.config.token.as_ref().map(|token| token.as_str().to_owned());
    let api = ApiFile { url: url_of(address), pid: std::process::id(), token };
    let path = ApiFile::path_beside(&database);
    let published = tokio::task::spawn_blocking(move || api.publish(&database)).await.ok()?;
    published
        .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "cannot write the file by which commands find this interface"))
        .ok()
}

/// Returns the URL at which this machine reaches a server that listens at `address`.
fn url_of(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// The interface of a node that runs in the background; see [`serve`].
///
/// Dropping the value shuts the interface down as [`stop`](Self::stop) does, without waiting.
#[derive(Debug)]
#[must_use = "the interface ends when this is dropped"]
pub struct Serving {
    url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Returns the URL of the interface.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Accepts no more connections, and waits for requests in progress, at most for
    /// [`shutdown_grace`](Limits::shutdown_grace). The database can be closed afterwards.
    pub async fn stop(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::warn!("the task of the interface panicked");
        }
    }
}

/// Serves a node in the background to programs of the same user.
///
/// The interface listens on a port of 127.0.0.1 that the system chooses. Its random token is
/// written only to the private [`ApiFile`] beside the database. The commands of the program
/// `netabase` find it by `--path`. Must be called inside a tokio runtime.
///
/// ```
/// # use netabase::{Netabase, NetabaseConfig, netabase_definition_module};
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
/// # let directory = tempfile::tempdir().unwrap();
/// # let database = directory.path().join("chat.redb");
/// let netabase = Netabase::<ChatDefinition>::new_with_path(&database)?;
/// let api = netabase_http::serve(netabase.node().clone()).await?;
/// println!("`netabase status --path {}` asks {}", database.display(), api.url());
///
/// api.stop().await;
/// # Ok(())
/// # }
/// ```
pub async fn serve(node: Node) -> Result<Serving, ServeError> {
    // The public key of a new key pair is as good as any other random text.
    let token = Identity::generate().author().to_string().parse().ok();
    let config =
        ApiConfig { bind: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), token, ..ApiConfig::default() };
    let server = Server::bind(node, config).await?;
    let url = url_of(server.local_addr());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(server.run(async {
        // A dropped sender ends the interface as well.
        let _ = stopped.await;
    }));
    Ok(Serving { url, stop, task })
}

/// Accepts a connection, which replaces another one if there are too many.
async fn accept(listener: &TcpListener, places: &Arc<Places>, app: &App) -> (TcpStream, SocketAddr, Place) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => return (stream, client, places.take(client.ip())),
            Err(error) => {
                app.accepting.failed(&error);
                // If file descriptors are exhausted, another connection frees one.
                places.close_one();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection until the client closes it or the server ends.
async fn answer(stream: TcpStream, client: SocketAddr, router: Router, app: Arc<App>, place: Place) {
    let Limits { head_timeout, max_head_bytes, write_timeout, .. } = app.config.limits;
    // Answers are small and written at once, so Nagle's algorithm would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let under_way = place.request();
        let answered = guard(&app, client, &place, request.map(Body::new), router.clone());
        async { Ok::<_, Infallible>(answered.await.map(|body| Holding::new(body, under_way))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(max_head_bytes.max(MIN_HEAD_BYTES))
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient::new(stream, write_timeout)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        // A connection that is to close begins no further request.
        biased;
        () = place.closed() => {
            tracing::debug!(%client, "a connection to the interface is closed for another one");
            return;
        }
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

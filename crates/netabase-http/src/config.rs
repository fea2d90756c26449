//! The settings and limits of the interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use netabase::__private::NonExhaustive;
use netabase_client::Token;

/// The address at which the interface listens by default: `127.0.0.1:4080`.
pub const DEFAULT_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4080);

/// The settings of a [`Server`](crate::Server).
///
/// ```
/// use netabase_http::ApiConfig;
///
/// let config = ApiConfig {
///     bind: ([0, 0, 0, 0], 4080).into(),
///     token: Some("b7f1c2d3a4958677".parse()?),
///     allow_origins: vec!["https://example.org".into()],
///     ..ApiConfig::default()
/// };
/// # let _ = config;
/// # Ok::<(), netabase_http::TokenError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The address to listen at. Default: [`DEFAULT_BIND`]. Addresses other than loopback need a
    /// token. The interface does not encrypt: on a network that others can read, put a proxy with
    /// TLS in front of it.
    pub bind: SocketAddr,
    /// The token that clients have to send. Default: `None`, which needs a loopback address.
    pub token: Option<Token>,
    /// Origins whose pages may use the interface, such as `https://example.org`, besides its own.
    /// Default: empty.
    pub allow_origins: Vec<String>,
    /// Host names that requests may name, besides those of loopback, such as `node.example.org`.
    /// Ports do not matter. Default: empty. If the interface listens at another address than
    /// loopback, requests may also name any IP address, and any host name while the list is empty.
    pub allow_hosts: Vec<String>,
    /// The directory of backups. Default: `None`, which means the directory of the database.
    pub backup_directory: Option<PathBuf>,
    /// The limits of the interface.
    pub limits: Limits,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            bind: DEFAULT_BIND,
            token: None,
            allow_origins: Vec::new(),
            allow_hosts: Vec::new(),
            backup_directory: None,
            limits: Limits::default(),
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

/// The rate at which a client may send requests: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The requests a second that a client may send continuously.
    pub per_second: NonZeroU32,
    /// The requests that a client may send at once after a pause.
    pub burst: NonZeroU32,
}

/// The limits of the interface.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most connections at the same time, at least 2. A further connection replaces one that
    /// has not shown the token. At most a quarter of the connections can be of one address without
    /// the token. A quarter is never of clients that have shown it: beyond that they replace the
    /// one of them that has been idle for longest, or are refused if each has a request in
    /// progress. Without a token, every request that is not refused counts as if it had shown it.
    /// Default: 256.
    pub max_connections: usize,
    /// The most streams of events at the same time. Further ones are refused. Default: 64.
    pub max_streams: usize,
    /// The largest body of a request in bytes, except that of an import, which is read line by
    /// line. Default: 2 MiB.
    pub max_body_bytes: usize,
    /// The largest request line and header together in bytes, at least 8 KiB. Default: 32 KiB.
    pub max_head_bytes: usize,
    /// How long a client may take to send the request line and header, and how long a connection
    /// may be idle. Default: 10 s.
    pub head_timeout: Duration,
    /// How long a client may take to send a body, except that of an import. Default: 30 s.
    pub body_timeout: Duration,
    /// How long a client may send nothing of such a body. Default: 10 s.
    pub piece_timeout: Duration,
    /// How long the client of an import may send nothing. The import as a whole may take any time.
    /// Default: 10 minutes.
    pub import_timeout: Duration,
    /// How long a client may read nothing of an answer. A client that reads more slowly than 16 KiB
    /// a second is disconnected after ten minutes more. Default: 30 s.
    pub write_timeout: Duration,
    /// The request rate of each client address, or of each /64 of IPv6. Default: 500 a second, and
    /// 1000 at once.
    pub rate: Rate,
    /// Whether [`rate`](Self::rate) also applies to clients on this machine. Default: no.
    pub limit_loopback: bool,
    /// How long requests in progress may continue during shutdown. Default: 5 s.
    pub shutdown_grace: Duration,
    /// The interval of keep-alive events in a stream without other events. Default: 15 s.
    pub keep_alive: Duration,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for Limits {
    fn default() -> Self {
        const TEN_SECONDS: Duration = Duration::from_secs(10);
        const HALF_A_MINUTE: Duration = Duration::from_secs(30);
        Self {
            max_connections: 256,
            max_streams: 64,
            max_body_bytes: 2 * 1024 * 1024,
            max_head_bytes: 32 * 1024,
            head_timeout: TEN_SECONDS,
            body_timeout: HALF_A_MINUTE,
            piece_timeout: TEN_SECONDS,
            import_timeout: Duration::from_secs(600),
            write_timeout: HALF_A_MINUTE,
            rate: Rate {
                per_second: NonZeroU32::MIN.saturating_add(499),
                burst: NonZeroU32::MIN.saturating_add(999),
            },
            limit_loopback: false,
            shutdown_grace: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            non_exhaustive: NonExhaustive::default(),
        }
    }
}

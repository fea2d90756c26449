//! How the interface is set up, and what it bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use netabase::__private::NonExhaustive;
use netabase_client::Token;

/// Where the interface listens by default: `127.0.0.1:4080`.
pub const DEFAULT_BIND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4080);

/// How to serve a node.
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
    /// Where to listen. Default: [`DEFAULT_BIND`]. Other addresses than loopback need a token.
    /// There is no encryption: put a proxy in front that has it, where others can listen on the
    /// way.
    pub bind: SocketAddr,
    /// What clients have to send. Default: none, which only loopback may have.
    pub token: Option<Token>,
    /// Origins whose pages may use the interface, such as `https://example.org`. Default: none but
    /// its own.
    pub allow_origins: Vec<String>,
    /// Names by which the node may be asked for, besides those of loopback, such as
    /// `node.example.org`; ports do not matter. Default: none. On another address than loopback
    /// addresses are good as well, and every name unless there are some here.
    pub allow_hosts: Vec<String>,
    /// Where backups may be written. Default: none, which means the directory of the database.
    pub backup_directory: Option<PathBuf>,
    /// What it bounds.
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

/// How often somebody may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many requests a second, for ever.
    pub per_second: NonZeroU32,
    /// How many at once, after a while without any.
    pub burst: NonZeroU32,
}

/// What the interface bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most connections at the same time. A further one takes the place of the one that has
    /// been idle for longest, or waits if each has a request under way. Default: 256.
    pub max_connections: usize,
    /// The most streams of events at the same time; further ones are refused. Default: 64.
    pub max_streams: usize,
    /// The largest body of a request in bytes, imports excepted, which are read line by line.
    /// Default: 2 MiB.
    pub max_body_bytes: usize,
    /// The largest request line and header together in bytes; 8 KiB at least. Default: 32 KiB.
    pub max_head_bytes: usize,
    /// How long a client may take to send the request line and header, and how long a connection
    /// may be idle. Default: 30 s.
    pub head_timeout: Duration,
    /// How long a client may take to send the body, imports excepted. Default: 30 s.
    pub body_timeout: Duration,
    /// How long an import may bring nothing; it may take any time in all. Default: 10 minutes.
    pub import_timeout: Duration,
    /// How long a client may take to read a piece of an answer. Default: 30 s.
    pub write_timeout: Duration,
    /// How often each client address may ask, or each /64 of IPv6. Default: 500 a second, 1000 at
    /// once.
    pub rate: Rate,
    /// Whether [`rate`](Self::rate) is also for clients on this machine. Default: no.
    pub limit_loopback: bool,
    /// How long requests under way may go on when the server is to end. Default: 5 s.
    pub shutdown_grace: Duration,
    /// After how long a stream of events without any says that it is alive. Default: 15 s.
    pub keep_alive: Duration,
    #[doc(hidden)]
    pub non_exhaustive: NonExhaustive,
}

impl Default for Limits {
    fn default() -> Self {
        const HALF_A_MINUTE: Duration = Duration::from_secs(30);
        Self {
            max_connections: 256,
            max_streams: 64,
            max_body_bytes: 2 * 1024 * 1024,
            max_head_bytes: 32 * 1024,
            head_timeout: HALF_A_MINUTE,
            body_timeout: HALF_A_MINUTE,
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

//! The state that all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use netabase::Node;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::ApiConfig;
use crate::floods::Floods;
use crate::guard::rate::Buckets;
use crate::keys::Keys;
use crate::limits::{ANSWERS_KIB, MAX_CHECKS, MAX_EXPORTS, MAX_IMPORTS, MAX_PAGES, RECENT};
use crate::network::Network;
use crate::problem::{Answer, Kind, Problem};
use crate::statistics::Ring;

/// The state of a server.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) config: ApiConfig,
    pub(crate) keys: Keys,
    pub(crate) network: Network,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) counters: Counters,
    pub(crate) ring: Ring,
    pub(crate) floods: Floods,
    pub(crate) buckets: Buckets,
    pub(crate) imports: Arc<Semaphore>,
    pub(crate) exports: Arc<Semaphore>,
    /// Permits for checks and backups, which read the whole database.
    pub(crate) checks: Arc<Semaphore>,
    /// Locked while a request measures the store.
    pub(crate) measuring: Arc<tokio::sync::Mutex<()>>,
    /// Permits for reading pages of records.
    pub(crate) pages: Arc<Semaphore>,
    /// The memory for answers that clients have not read yet, in KiB.
    pub(crate) answers: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Whether connections could be accepted.
    pub(crate) accepting: Accepting,
    /// Becomes true when the server shuts down.
    stopping: watch::Receiver<bool>,
}

/// The state as handlers receive it.
pub(crate) type Shared = Arc<App>;

impl App {
    pub(crate) fn new(node: Node, config: ApiConfig, stopping: watch::Receiver<bool>) -> Self {
        if let Some(directory) = &config.backup_directory {
            node.store().remove_partial_backups(directory);
        }
        Self {
            keys: Keys::new(node.schema()),
            network: Network::default(),
            started: Instant::now(),
            started_at: SystemTime::now(),
            counters: Counters::default(),
            ring: Ring::default(),
            floods: Floods::default(),
            imports: Arc::new(Semaphore::new(MAX_IMPORTS)),
            exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
            checks: Arc::new(Semaphore::new(MAX_CHECKS)),
            measuring: Arc::default(),
            pages: Arc::new(Semaphore::new(MAX_PAGES)),
            buckets: Buckets::new(config.limits.rate),
            answers: Arc::new(Semaphore::new(ANSWERS_KIB as usize)),
            accepting: Accepting::default(),
            streams: Arc::new(Semaphore::new(config.limits.max_streams)),
            stopping,
            node,
            config,
        }
    }

    /// Returns whether the server is shutting down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until the server shuts down.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stopping.clone();
        async move {
            // A dropped sender means the same.
            drop(stopping.wait_for(|stopping| *stopping).await);
        }
    }

    /// Returns a permit for a stream of events, or a problem if all are taken.
    pub(crate) fn stream(&self) -> Answer<OwnedSemaphorePermit> {
        let refused = |_| {
            let most = self.config.limits.max_streams;
            let detail = format!(
                "{most} streams of events are open, which is the limit; end one, such as a `netabase watch` or a tab \
                 with the dashboard, and try again"
            );
            Problem::new(Kind::TooManyStreams, detail).retry_after(10)
        };
        Arc::clone(&self.streams).try_acquire_owned().map_err(refused)
    }

    /// Returns the number of open streams of events.
    pub(crate) fn open_streams(&self) -> usize {
        self.config.limits.max_streams.saturating_sub(self.streams.available_permits())
    }
}

/// The last failure to accept a connection.
#[derive(Debug, Default)]
pub(crate) struct Accepting(Mutex<Option<(Instant, String)>>);

impl Accepting {
    /// Stores a failure, and logs it unless one was logged recently.
    pub(crate) fn failed(&self, error: &std::io::Error) {
        let before = self.0.lock().replace((Instant::now(), error.to_string()));
        if before.is_none_or(|(at, _)| at.elapsed() > RECENT) {
            tracing::warn!(
                %error,
                "the interface cannot accept connections; it closes idle ones and tries again; raise the limit of open \
                 files if too many are open"
            );
        }
    }

    /// Returns the last failure if it is recent.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed = self.0.lock();
        failed.as_ref().filter(|(at, _)| at.elapsed() <= RECENT).map(|(_, error)| error.clone())
    }
}

/// The counters of the interface.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) requests: Counter,
    pub(crate) queries: Counter,
    /// Answers with the status of an error.
    pub(crate) problems: Counter,
    /// Requests beyond the rate of their client.
    pub(crate) limited: Counter,
}

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

//! The errors of a Netabase.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libp2p::kad::store;
use libp2p::{Multiaddr, PeerId};
use netabase_store::blob::BlobError;
use netabase_store::query::QueryError;
use netabase_store::{Blob, RecordKeyError, StoreError, ValueError};
use thiserror::Error;
use tokio::task::JoinError;

use crate::blobs::BlobHolder;

/// An error of a [`Netabase`](crate::Netabase).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum NetabaseError {
    /// A configuration value is invalid.
    #[error("the configuration is invalid: {0}")]
    Config(#[from] ConfigError),
    /// The local store failed or refused the operation.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity file cannot be read or written, or is damaged.
    #[error("the identity file {} cannot be used: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The call needs the network, and the swarm is not running.
    #[error("the swarm is not running; call `start_swarm` first")]
    NotRunning,
    /// The swarm was stopped while the call was in flight. Written records are stored locally and
    /// are published after the next start.
    #[error("the swarm was stopped while the call was in flight")]
    Closed,
    /// The network did not answer in time. Written records are stored locally and are published
    /// later.
    #[error("the network did not answer within {} s", after.as_secs_f32())]
    Timeout {
        /// The deadline of the call.
        after: Duration,
    },
    /// A peer that was asked did not answer.
    #[error("the peer {peer} did not answer")]
    Unreachable {
        /// The peer.
        peer: PeerId,
    },
    /// The connection to a peer failed.
    #[error("cannot connect to {peer}: {reason}")]
    NotReached {
        /// The peer.
        peer: PeerId,
        /// The failure of each address.
        reason: Arc<str>,
    },
    /// An address is this node's own, or names this node.
    #[error("{address} is an address of this node; give the address of another one")]
    OwnAddress {
        /// The address.
        address: Multiaddr,
    },
    /// A local operation on a large value failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A fetch of a large value is incomplete: its holders are gone, or there are none. Received
    /// parts are stored, and the next fetch resumes.
    #[error(
        "{missing} bytes of the blob {blob} are missing, and no peer delivers them; fetch it again later"
    )]
    BlobIncomplete {
        /// The blob.
        blob: Blob,
        /// The number of bytes that are missing.
        missing: u64,
        /// The peers that were asked, and what each has sent.
        holders: Arc<[BlobHolder]>,
    },
    /// No peer is known.
    #[error("no peers are known; add one with `add_address`, configure bootstrap peers or enable mDNS")]
    NoKnownPeers,
    /// A listen address cannot be used.
    #[error("cannot listen on {address}; choose another address, or port 0 for one that is free")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// The operating system's error.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The swarm cannot be set up.
    #[error("the network cannot be set up")]
    Network(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// A task of the node has panicked.
    #[error("a task of the node has panicked; please report the panic message")]
    Task(#[source] Arc<JoinError>),
    /// A query names a model, index or field that the definition does not have.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The provider record cannot be stored.
    #[error("cannot store the provider record: the node advertises too many keys, or the key is too long")]
    Provider(#[source] Arc<store::Error>),
}

impl NetabaseError {
    pub(crate) fn network(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Network(Arc::from(error.into()))
    }

    /// Converts the error of a task, which has panicked or whose runtime has ended.
    pub(crate) fn task(error: JoinError) -> Self {
        if error.is_cancelled() { Self::Closed } else { Self::Task(Arc::new(error)) }
    }
}

/// An infallible conversion has no error.
impl From<std::convert::Infallible> for NetabaseError {
    fn from(error: std::convert::Infallible) -> Self {
        match error {}
    }
}

impl From<ValueError> for NetabaseError {
    fn from(error: ValueError) -> Self {
        Self::Store(error.into())
    }
}

impl From<RecordKeyError> for NetabaseError {
    fn from(error: RecordKeyError) -> Self {
        Self::Store(error.into())
    }
}

/// An invalid configuration value, with the expected form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The network's name cannot be part of a protocol name.
    #[error("the network name `{name}` must be 1 to 64 ASCII letters, digits, `_`, `.` or `-`")]
    NetworkName {
        /// The name.
        name: String,
    },
    /// The identity's key type cannot sign records.
    #[error("the identity must be an ed25519 key")]
    IdentityKind,
    /// A settings file has an unknown name or an invalid value.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error and its place.
        reason: String,
    },
    /// A bootstrap address does not end with the peer's id.
    #[error("the bootstrap address {address} must end with /p2p/<peer id>")]
    BootstrapAddress {
        /// The address.
        address: Multiaddr,
    },
    /// A number or duration is out of range.
    #[error("`{field}` must be {expected}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// The range.
        expected: &'static str,
    },
}

/// Wraps an I/O error, with its path, in an error that can be cloned.
pub(crate) fn file_error(path: PathBuf, source: std::io::Error) -> NetabaseError {
    NetabaseError::Store(StoreError::File { path, source: Arc::new(source) })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::platform;

    #[tokio::test]
    async fn a_task_that_has_panicked_is_not_the_networks_setup() {
        let panicked = platform::spawn(async { assert!(std::hint::black_box(false), "on purpose") }).await;
        let error = panicked.map_err(NetabaseError::task).unwrap_err();
        assert!(matches!(error, NetabaseError::Task(_)), "{error}");
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("on purpose"), "{cause}");
    }

    #[tokio::test]
    async fn a_task_whose_runtime_has_ended_says_closed() {
        let waiting = platform::spawn(std::future::pending::<()>());
        waiting.abort();
        let error = waiting.await.map_err(NetabaseError::task).unwrap_err();
        assert!(matches!(error, NetabaseError::Closed), "{error}");
    }

    #[test]
    fn the_cause_of_an_error_is_its_source_and_not_in_its_text() {
        let error = NetabaseError::network("no such interface");
        assert_eq!(error.to_string(), "the network cannot be set up");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("no such interface"));
    }
}

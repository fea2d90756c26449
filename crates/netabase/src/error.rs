//! What can go wrong in a Netabase.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use netabase_store::{Blob, BlobError, RecordKeyError, StoreError, ValueError};
use thiserror::Error;

use crate::blobs::BlobHolder;

/// What can go wrong in a [`Netabase`](crate::Netabase).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum NetabaseError {
    /// A configuration value makes no sense.
    #[error("the configuration is not valid: {0}")]
    Config(#[from] ConfigError),
    /// The local store failed or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity file cannot be read or written, or is damaged.
    #[error("the identity file {} cannot be used: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The call needs the network, and the swarm is not running.
    #[error("the swarm is not running; call `start_swarm` first")]
    NotRunning,
    /// The swarm was stopped while the call was in flight. What was put is kept locally and is
    /// published after the next start.
    #[error("the swarm was stopped while the call was in flight")]
    Closed,
    /// The network did not answer in time. What was put is kept locally and is published later.
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
    /// A large value failed here.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Not all of a blob that was to be fetched could be: its holders are gone, or there are none. What was received
    /// is kept, and the next fetch goes on there.
    #[error(
        "{missing} bytes of the blob {blob} are missing, and no peer delivers them; fetch it again later"
    )]
    BlobIncomplete {
        /// The blob.
        blob: Blob,
        /// How many bytes of it are missing.
        missing: u64,
        /// The peers that were asked, and what each has done.
        holders: Arc<[BlobHolder]>,
    },
    /// No peer is known to start from.
    #[error("no peers are known; add one with `add_address`, configure bootstrap peers or enable mDNS")]
    NoKnownPeers,
    /// A listen address cannot be used.
    #[error("cannot listen on {address}: {reason}; choose another address, or port 0 for one that is free")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the transport said.
        reason: String,
    },
    /// The swarm cannot be set up.
    #[error("the network cannot be set up: {reason}")]
    Network {
        /// What libp2p said.
        reason: String,
    },
    /// The provider record cannot be stored.
    #[error("the provider record cannot be stored: {reason}")]
    Provider {
        /// What the store said.
        reason: String,
    },
}

impl NetabaseError {
    pub(crate) fn network(error: impl std::fmt::Display) -> Self {
        Self::Network { reason: error.to_string() }
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

/// Which configuration value makes no sense, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The network's name cannot be part of a protocol name.
    #[error("the network name `{name}` must be 1 to 64 ASCII letters, digits, `_`, `.` or `-`")]
    NetworkName {
        /// The name.
        name: String,
    },
    /// The identity is of a kind that cannot sign records.
    #[error("the identity must be an ed25519 key")]
    IdentityKind,
    /// A bootstrap peer's address does not say which peer it is.
    #[error("the bootstrap address {address} must end with /p2p/<peer id>")]
    BootstrapAddress {
        /// The address.
        address: Multiaddr,
    },
    /// A number or duration is outside of its range.
    #[error("`{field}` must be {expected}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// The range.
        expected: &'static str,
    },
}

/// An error of the operating system that can be cloned.
pub(crate) fn file_error(path: PathBuf, source: std::io::Error) -> NetabaseError {
    NetabaseError::Store(StoreError::File { path, source: Arc::new(source) })
}

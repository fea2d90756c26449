//! The systems, behind one face.

use std::ops::Range;
use std::path::Path;

use clap::ValueEnum;
use libp2p::Multiaddr;
use libp2p::kad::Mode;
use netabase::StorageBackend;

use super::bare::Bare;
use super::ours::Ours;

/// What is measured, or what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// A bare libp2p Kademlia node
    Bare,
    /// A Netabase on disk
    Netabase,
    /// A Netabase in memory
    NetabaseMemory,
    /// The disk alone
    Disk,
}

impl System {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bare => super::BARE,
            Self::Netabase => super::OURS,
            Self::NetabaseMemory => "netabase-memory",
            Self::Disk => "fdatasync",
        }
    }
}

/// A running node of one of the systems.
pub(crate) enum Node {
    Ours(Ours),
    Bare(Box<Bare>),
}

impl Node {
    /// Starts a node that holds the records `stored` already, without telling anybody.
    pub(crate) async fn start(
        system: System,
        mode: Mode,
        directory: &Path,
        stored: Range<u64>,
    ) -> anyhow::Result<Self> {
        Ok(match system {
            System::Bare => Self::Bare(Box::new(Bare::start(mode, stored).await?)),
            System::Netabase => Self::Ours(Ours::start(StorageBackend::Redb, mode, directory, stored).await?),
            System::NetabaseMemory => {
                Self::Ours(Ours::start(StorageBackend::Memory, mode, directory, stored).await?)
            }
            System::Disk => anyhow::bail!("the disk alone has no node"),
        })
    }

    /// Returns where the node listens, and who it is.
    pub(super) fn address(&self) -> anyhow::Result<Multiaddr> {
        match self {
            Self::Ours(ours) => ours.address(),
            Self::Bare(bare) => bare.address(),
        }
    }

    /// Connects to another node and waits until both know what the other speaks.
    pub(crate) async fn connect(&mut self, peer: Multiaddr) -> anyhow::Result<()> {
        match self {
            Self::Ours(ours) => ours.connect(peer).await,
            Self::Bare(bare) => bare.connect(peer).await,
        }
    }

    /// Puts a record; fails unless exactly one peer has accepted it.
    pub(super) async fn put(&mut self, id: u64) -> anyhow::Result<()> {
        match self {
            Self::Ours(ours) => ours.put(id).await,
            Self::Bare(bare) => bare.put(id).await,
        }
    }

    /// Puts records, `callers` at a time.
    pub(super) async fn put_all(&mut self, ids: Range<u64>, callers: u64) -> anyhow::Result<()> {
        match self {
            Self::Ours(ours) => ours.put_all(ids, callers).await,
            Self::Bare(bare) => bare.put_all(ids, callers).await,
        }
    }

    /// Fails if the record is here already, so that a get would not need the peer.
    pub(super) fn ensure_absent(&mut self, id: u64) -> anyhow::Result<()> {
        match self {
            Self::Ours(ours) => ours.ensure_absent(id),
            Self::Bare(bare) => bare.ensure_absent(id),
        }
    }

    /// Gets a record from the peer; fails if it is not there.
    pub(super) async fn get(&mut self, id: u64) -> anyhow::Result<()> {
        match self {
            Self::Ours(ours) => ours.get(id).await,
            Self::Bare(bare) => bare.get(id).await,
        }
    }

    /// Serves the other node for ever.
    pub(super) async fn serve(&mut self) {
        match self {
            // Its own task does it.
            Self::Ours(_) => std::future::pending().await,
            Self::Bare(bare) => bare.serve().await,
        }
    }
}

//! The limits of multicast DNS.

use std::time::Duration;

/// The most remembered peers of the local network. The latest announcements are kept.
pub(crate) const MAX_LOCAL_PEERS: usize = 256;

/// The most interfaces on which a query is sent.
pub(crate) const MAX_INTERFACES: usize = 16;
/// The most bytes of an answer, the same as libp2p's limit.
pub(crate) const MAX_ANSWER_BYTES: usize = 4096;
/// The most addresses that are read from an answer.
pub(crate) const MAX_ANSWER_ADDRESSES: usize = 64;

/// The most addresses that claim this node's peer id and are dialled in sequence. Further ones are
/// ignored.
pub(crate) const MAX_CLAIMS: usize = 8;
/// The most dials of such an address without a conclusion, because connections came in meanwhile.
pub(crate) const MAX_CLAIM_ATTEMPTS: u32 = 8;
/// The least time between two such dials. The actual time is up to twice as long, so that two nodes
/// do not dial each other simultaneously again and again.
pub(crate) const CLAIM_PAUSE: Duration = Duration::from_secs(2);
/// The time between two proofs that two nodes have the same identity.
pub(crate) const CLAIM_RENEWAL: Duration = Duration::from_secs(60);
/// The most incoming connections that are remembered as having come while no dial was pending.
pub(crate) const MAX_INCOMING: usize = 256;

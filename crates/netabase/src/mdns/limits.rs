//! The limits of the local network.

use std::time::Duration;

/// The most peers of the local network that are remembered; the ones that were told of last are
/// kept.
pub(crate) const MAX_LOCAL_PEERS: usize = 256;

/// The most interfaces on which one question is asked.
pub(crate) const MAX_INTERFACES: usize = 16;
/// The longest answer that is read, as long as libp2p's.
pub(crate) const MAX_ANSWER_BYTES: usize = 4096;
/// The most addresses that are taken out of one answer.
pub(crate) const MAX_ANSWER_ADDRESSES: usize = 64;

/// The most addresses under our name that are dialled one after the other; further ones are passed
/// over.
pub(crate) const MAX_CLAIMS: usize = 8;
/// How often an address is dialled from which nothing can be told, since connections have come in
/// meanwhile.
pub(crate) const MAX_CLAIM_ATTEMPTS: u32 = 8;
/// The least time between two dials; up to twice as much, so that two nodes do not dial each other
/// at once for ever.
pub(crate) const CLAIM_PAUSE: Duration = Duration::from_secs(2);
/// How often it is proved anew that there are two.
pub(crate) const CLAIM_RENEWAL: Duration = Duration::from_secs(60);
/// Of how many incoming connections it is remembered that nobody was dialled when they came.
pub(crate) const MAX_INCOMING: usize = 256;

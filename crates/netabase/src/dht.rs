//! The distributed hash table: Kademlia and its queries in flight, addresses, the peers to dial and
//! when.
//!
//! Only the event loop calls what is here.

pub(crate) mod address;
pub(crate) mod backoff;
pub(crate) mod dials;
pub(crate) mod kademlia;
pub(crate) mod known_peers;
pub(crate) mod queries;
pub(crate) mod rejoin;

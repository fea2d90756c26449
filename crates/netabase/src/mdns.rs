//! Peers on the local network by multicast DNS: those that it has told of, those that are asked
//! for, and another running node with our identity.

pub(crate) mod peers;
pub(crate) mod query;
pub(crate) mod twins;

//! Operations on records that ask several peers and are answered once.
//!
//! A put, a get, a survey and a provide are state machines: each takes events and returns the next
//! actions. They have no swarm, clock or channel. `event_loop::calls` carries out the actions of
//! the first three, and the advertiser those of a provide. `respond` answers the requests of peers,
//! and `answers` decodes the answers of peers.

pub(crate) mod answers;
pub(crate) mod get;
pub(crate) mod provide;
pub(crate) mod put;
pub(crate) mod respond;
pub(crate) mod survey;

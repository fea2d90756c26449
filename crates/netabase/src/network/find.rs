//! Finding records at other peers: who holds what, and what they have of what is asked for.

pub(super) mod advertise;
mod cache;
mod confirm;
pub(super) mod holders;
mod intake;
pub(super) mod keys;
pub(super) mod link;
mod merge;
pub(super) mod respond;
mod run;
pub(super) mod wire;

pub(crate) use cache::{Cached, FoundPage, FoundPages};
pub(crate) use holders::Holders;
pub(crate) use merge::FoundRecord;
pub(crate) use run::{Asker, Run, RunEnd};

/// The most questions for records of one node under way, each of whose answers is as long as a frame at most.
pub(crate) const MAX_PAGES_IN_FLIGHT: usize = 64;

//! Finding records at other peers: who holds what.

pub(super) mod holders;
pub(super) mod keys;

pub(crate) use holders::Holders;

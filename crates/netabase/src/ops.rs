//! Operations on the records of the network that ask several peers and are answered once.

pub(crate) mod respond;
pub(crate) mod survey;

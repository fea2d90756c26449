//! The bytes of each protocol, and nothing else: messages, how they are written and how they are
//! read. `docs/formats.md` specifies them, and `vectors` holds them against the files that other
//! implementations read.

pub(crate) mod blob;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod query;
pub(crate) mod record;
pub(crate) mod sync;
#[cfg(test)]
mod vectors;

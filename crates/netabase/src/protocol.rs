//! The encoding of each protocol's messages. `docs/formats.md` is the specification, and `vectors`
//! tests it against the files that other implementations read.

pub(crate) mod blob;
pub(crate) mod limits;
pub(crate) mod live;
pub(crate) mod query;
pub(crate) mod record;
pub(crate) mod sync;
#[cfg(test)]
mod vectors;

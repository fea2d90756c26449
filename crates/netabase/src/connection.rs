//! What a connection may cost: its handshake, the streams that its peer opens, the memory that
//! unread answers and unfinished messages hold, and the processor's time.
//!
//! libp2p has no such bounds. They stand around its transport, so that they hold for every
//! protocol, and know peers, addresses and bytes alone: what a message means is judged elsewhere.

pub(crate) mod delegate;
pub(crate) mod handshakes;
pub(crate) mod identify;
pub(crate) mod limits;
pub(crate) mod muxer;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) mod paced;
pub(crate) mod processor;
pub(crate) mod streams;

//! Requests and answers between two nodes: frames of a bounded length, the memory that they may
//! take, what was asked and is not answered yet, and the threads that answer.
//!
//! No protocol is known here: what is in a frame is in `protocol`. Subjects send by `outbox`, or by
//! a command of the event loop, and are called by `serve`.

pub(crate) mod backoff;
pub(crate) mod behaviour;
pub(crate) mod budget;
pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod outbox;
pub(crate) mod pool;
pub(crate) mod serve;
pub(crate) mod serving;
pub(crate) mod token_bucket;

/// The protocols of requests and responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Records,
    Query,
    Sync,
    Blobs,
}

impl Protocol {
    /// Returns the word for it in metrics, traces and messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Records => "record",
            Self::Query => "query",
            Self::Sync => "sync",
            Self::Blobs => "blob",
        }
    }

    /// Whether nobody waits for a peer that gives no sign of life. A slice of a blob may fill a
    /// slow link, and whoever fetches it has a patience of its own.
    pub(crate) const fn gives_up_on_silence(self) -> bool {
        !matches!(self, Self::Blobs)
    }
}

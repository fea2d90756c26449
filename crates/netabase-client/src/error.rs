//! What can go wrong between a client and a node.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// What can go wrong between a client and a node.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is none.
    #[error("`{url}` is no address of a node; write it as http://127.0.0.1:4080")]
    Url {
        /// The address as given.
        url: String,
    },
    /// Nothing listens there.
    #[error(
        "no node runs at {url} ({reason}); start one with `netabase serve`, or say where it is with `--api`"
    )]
    NoNode {
        /// Where it was looked for.
        url: String,
        /// The cause, as the system says it.
        reason: String,
    },
    /// The node did not begin to answer in time.
    #[error("the node at {url} did not answer within {} s", after.as_secs_f32())]
    TimedOut {
        /// Where it is.
        url: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The node takes connections and says nothing, not even whether it is alive.
    #[error("the node at {url} does not answer: it has said nothing for {} s", after.as_secs_f32())]
    Silent {
        /// Where it is.
        url: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The node has refused, and says why.
    #[error(transparent)]
    Problem(Box<ProblemDocument>),
    /// The answer is none of this interface: something else may listen there, or the connection
    /// broke.
    #[error("the answer of {url} is not that of a node: {reason}")]
    Broken {
        /// Where it came from.
        url: String,
        /// The fault of the answer.
        reason: String,
    },
}

impl ClientError {
    /// Returns the last part of the type of a problem, such as `no-record`, if it is one.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(problem.slug()),
            _ => None,
        }
    }
}

/// Why a node has refused, as it says itself (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
#[error("{title}: {detail}")]
pub struct ProblemDocument {
    /// Which kind of problem it is, such as `/problems/no-record`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence, in words.
    #[serde(default)]
    pub detail: String,
    /// Further members of the document.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ProblemDocument {
    /// Returns the last part of the type, such as `no-record`.
    pub fn slug(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }
}

/// Returns an error with its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

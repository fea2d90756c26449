//! Errors of a client.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// An error of a call to a node.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is invalid.
    #[error("`{url}` is not the address of a node; write it as http://127.0.0.1:4080")]
    Url {
        /// The address as given.
        url: String,
    },
    /// No program listens at the address.
    #[error(
        "no node runs at {url} ({reason}); start one with `netabase serve`, or say where it is with `--api`"
    )]
    NoNode {
        /// The address of the node.
        url: String,
        /// The cause, in the words of the system.
        reason: String,
    },
    /// The node did not begin to answer in time.
    #[error("the node at {url} did not answer within {} s", after.as_secs_f32())]
    TimedOut {
        /// The address of the node.
        url: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The node accepts connections but answers nothing, not even whether it is alive.
    #[error("the node at {url} does not answer: it has said nothing for {} s", after.as_secs_f32())]
    Silent {
        /// The address of the node.
        url: String,
        /// How long the node has been silent.
        after: Duration,
    },
    /// The node refused the request.
    #[error(transparent)]
    Problem(Box<ProblemDocument>),
    /// The answer is not one of a node: another program may listen at the address, or the
    /// connection broke.
    #[error("the answer of {url} is not that of a node: {reason}")]
    Broken {
        /// The address of the node.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ClientError {
    /// Returns the last part of a problem's type, such as `no-record`, or `None` for other errors.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(problem.slug()),
            _ => None,
        }
    }
}

/// A problem document (RFC 9457), with which a node refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
#[error("{title}: {detail}")]
pub struct ProblemDocument {
    /// The kind of the problem, such as `/problems/no-record`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The title of the kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The explanation of this occurrence.
    #[serde(default)]
    pub detail: String,
    /// The other members of the document.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl ProblemDocument {
    /// Returns the last part of the type, such as `no-record`.
    pub fn slug(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }
}

/// Returns the messages of an error and its causes in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

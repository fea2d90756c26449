//! How a command fails: with a message that says what to do, and a code for scripts.

use std::process::ExitCode;

/// What a command comes to.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// The exit codes beside 0, which are part of the program's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The command was tried, and failed.
    Failed = 1,
    /// The command line, the environment or a configuration file makes no sense.
    Usage = 2,
    /// No node answers.
    NoNode = 3,
    /// There is no such record, model or peer.
    NotFound = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command has failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// A mistake in what the user has written.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: Code::Usage, error: error.into() }
    }

    /// Something that does not exist.
    pub(crate) fn not_found(message: String) -> Self {
        Self { code: Code::NotFound, error: anyhow::Error::msg(message) }
    }

    /// Returns whether a reader of the output has gone away, which is no failure: `netabase query
    /// .. | head`.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.error.chain().any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
        })
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: Code::Failed, error: error.into() }
    }
}

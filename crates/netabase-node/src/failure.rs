//! The failure of a command: a message that says what to do, and an exit code for scripts.

use std::process::ExitCode;

/// The result of a command.
pub(crate) type Outcome = Result<ExitCode, Failure>;

/// The exit codes other than 0, which are part of the program's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The command failed.
    Failed = 1,
    /// The command line, the environment or a configuration file is invalid.
    Usage = 2,
    /// No node answers.
    NoNode = 3,
    /// The record, model, peer or database does not exist.
    NotFound = 4,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// The failure of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    /// Makes the failure of an invalid command line or configuration.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: Code::Usage, error: error.into() }
    }

    /// Makes the failure of a command about something that does not exist.
    pub(crate) fn not_found(message: String) -> Self {
        Self { code: Code::NotFound, error: anyhow::Error::msg(message) }
    }

    /// Returns whether the reader of the output closed the pipe, as in `netabase query .. | head`.
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

//! The token by which a client proves that it may use the interface.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// The shortest token, in bytes. Shorter ones could be guessed.
pub const MIN_TOKEN_BYTES: usize = 16;
/// The longest token, in bytes, which still fits into a header.
const MAX_TOKEN_BYTES: usize = 512;

/// A secret that clients send as `Authorization: Bearer <token>`. `Debug` does not print it.
///
/// ```
/// use netabase_client::Token;
///
/// let token: Token = "a-long-random-secret".parse()?;
/// assert!(token.matches(b"a-long-random-secret"));
/// assert!("short".parse::<Token>().is_err());
/// # Ok::<(), netabase_client::TokenError>(())
/// ```
#[derive(Clone)]
pub struct Token(Arc<str>);

/// An error of parsing or reading a token.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is too short, too long, or has characters that a header cannot have.
    #[error(
        "a token has {MIN_TOKEN_BYTES} to {MAX_TOKEN_BYTES} visible ASCII characters without spaces; make one with \
         `openssl rand -hex 32`"
    )]
    Form,
    /// The file cannot be read.
    #[error("the token file {} cannot be read", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause, in the words of the system.
        #[source]
        source: Arc<io::Error>,
    },
}

impl Token {
    /// Reads a token from a file, and trims white space.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TokenError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenError::File { path: path.to_owned(), source: Arc::new(source) })?;
        text.trim().parse()
    }

    /// Returns whether `given` is the token. The time that this takes does not depend on how much
    /// of `given` is right.
    pub fn matches(&self, given: &[u8]) -> bool {
        let token = self.0.as_bytes();
        let differs =
            token.iter().zip(given).fold(0, |differs, (one, other)| black_box(differs | (one ^ other)));
        differs == 0 && token.len() == given.len()
    }

    /// Returns the secret, for a request or a private file.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let fits = (MIN_TOKEN_BYTES..=MAX_TOKEN_BYTES).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(TokenError::Form)
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

//! A client of the HTTP interface of a running Netabase node.
//!
//! The crate depends on no other crate of Netabase. `docs/http.md` is the guide to the interface,
//! and the crate `netabase-http` serves it.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), netabase_client::ClientError> {
//! use netabase_client::{Client, ClientError, record_path};
//!
//! // No program listens at port 1.
//! let client = Client::new("http://127.0.0.1:1")?;
//! let error = client.get(&record_path("Message", "42", None)).await.unwrap_err();
//! assert!(matches!(error, ClientError::NoNode { .. }));
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod lines;
mod token;

pub mod media;

pub use client::{Answer, Client, Condition, DEFAULT_URL, escape, record_path};
pub use error::{ClientError, ProblemDocument, error_chain};
pub use lines::{EventStream, Lines, MAX_LINE_BYTES, ServerEvent};
pub use token::{MIN_TOKEN_BYTES, Token, TokenError};

//! Versions of records: key, content, time and author, and the check of the author's right to
//! write.
//!
//! Bytes of peers become [`envelope::Envelope`]s here; `admit` decides whether a version is taken.

pub(crate) mod admit;
pub(crate) mod clock;
pub(crate) mod envelope;
pub(crate) mod limits;
pub(crate) mod members;
pub(crate) mod record_key;

pub use crate::replica::lease::Lifetime;
pub use clock::{Clock, Timestamp};
pub use ed25519_dalek::SigningKey;
pub use envelope::{Author, ContentHash, Envelope, EnvelopeError, ParseAuthorError, Version};

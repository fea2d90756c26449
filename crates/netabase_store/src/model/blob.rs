//! References of records to large values.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The length of a [`BlobHash`].
pub(crate) const BLOB_HASH_BYTES: usize = 32;

/// The BLAKE3 hash of a large value: the root of its tree of hashes.
///
/// Text is 64 hexadecimal digits.
///
/// ```
/// use netabase_store::blob::BlobHash;
///
/// let hash = BlobHash::of(b"hello");
/// assert_eq!(hash.to_string().parse(), Ok(hash));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; BLOB_HASH_BYTES]);

/// The error of a text that is not a [`BlobHash`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a blob's hash is 64 hexadecimal digits")]
pub struct ParseBlobHashError;

impl BlobHash {
    /// The length of a hash, in bytes.
    pub const BYTES: usize = BLOB_HASH_BYTES;

    /// Makes a hash of its bytes.
    pub const fn from_bytes(bytes: [u8; BLOB_HASH_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; BLOB_HASH_BYTES] {
        &self.0
    }

    /// Hashes a value that is in memory.
    pub fn of(value: &[u8]) -> Self {
        Self(*blake3::hash(value).as_bytes())
    }
}

impl FromStr for BlobHash {
    type Err = ParseBlobHashError;

    fn from_str(text: &str) -> Result<Self, ParseBlobHashError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ParseBlobHashError)?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// Hexadecimal digits where people read it, and 32 bytes elsewhere.
impl Serialize for BlobHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for BlobHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; BLOB_HASH_BYTES]>::deserialize(deserializer).map(Self)
        }
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobHash({self})")
    }
}

/// The name of a large value: its hash and its size.
///
/// A `Blob` is a field of a model, marked `#[blob]`, and takes 33 to 42 bytes of the record. The
/// value is in a file beside the database, stored once for all records that name it; see
/// [`BlobStore`](crate::blob::BlobStore). In JSON a `Blob` is an object with `hash` and `size`.
///
/// ```
/// # use netabase_store::{NetabaseStore, netabase_definition_module};
/// #[netabase_definition_module(LibraryDefinition, LibraryKeys)]
/// mod library {
///     use netabase_store::{Blob, NetabaseModel};
///     use serde::{Deserialize, Serialize};
///
///     #[derive(NetabaseModel, Clone, Debug, PartialEq, Serialize, Deserialize)]
///     #[netabase(LibraryDefinition)]
///     pub struct Book {
///         #[primary_key]
///         pub isbn: String,
///         #[blob]
///         pub scan: Blob,
///     }
/// }
/// use library::*;
///
/// let store = NetabaseStore::in_memory::<LibraryDefinition>()?;
/// let scan = store.blobs().add_bytes(b"a large file")?;
/// let isbn = "978-0-13-110362-7".to_owned();
/// store.open_tree()?.put(&Book { isbn, scan })?;
/// assert_eq!(store.blobs().read(&scan, 2..7)?, b"large");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Blob {
    /// The hash of the value.
    pub hash: BlobHash,
    /// The size of the value, in bytes.
    pub size: u64,
}

impl Blob {
    /// Names a value that is in memory, whether it is in any store or not.
    pub fn of(value: &[u8]) -> Self {
        Self { hash: BlobHash::of(value), size: u64::try_from(value.len()).unwrap_or(u64::MAX) }
    }
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.hash, self.size)
    }
}

/// The type of a field with `#[blob]`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "a field with `#[blob]` is a `Blob`, an `Option<Blob>` or a `Vec<Blob>`, and not `{Self}`",
    label = "names no blobs",
    note = "make the field a `Blob`, and add the value with `blobs().add_bytes(..)`; or remove `#[blob]`"
)]
pub trait BlobField {
    fn list(&self, found: &mut Vec<Blob>);
}

impl BlobField for Blob {
    fn list(&self, found: &mut Vec<Blob>) {
        found.push(*self);
    }
}

impl BlobField for Option<Blob> {
    fn list(&self, found: &mut Vec<Blob>) {
        found.extend(self);
    }
}

impl BlobField for Vec<Blob> {
    fn list(&self, found: &mut Vec<Blob>) {
        found.extend(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_32_bytes_and_a_varint_or_an_object_of_json() {
        let blob = Blob { hash: BlobHash::from_bytes([0xab; 32]), size: 300 };
        let bytes = postcard::to_stdvec(&blob).unwrap();
        assert_eq!(bytes, [&[0xab; 32][..], &[0xac, 0x02]].concat());
        assert_eq!(postcard::from_bytes::<Blob>(&bytes), Ok(blob));
        let json = serde_json::to_string(&blob).unwrap();
        assert_eq!(json, format!("{{\"hash\":\"{}\",\"size\":300}}", "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob);
        assert!(serde_json::from_str::<Blob>(r#"{"hash":"ab","size":1}"#).is_err());
    }
}

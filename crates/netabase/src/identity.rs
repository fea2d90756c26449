//! The key pair that names a peer and signs its records, kept beside the database.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use libp2p::identity::Keypair;
use netabase_store::SigningKey;

use crate::error::{ConfigError, NetabaseError, file_error};

/// The largest identity file that is read.
const MAX_FILE_BYTES: u64 = 4096;

/// Reads the identity at `path`, or makes one and saves it there for its owner only.
pub(crate) fn load_or_create(path: &Path) -> Result<Keypair, NetabaseError> {
    match read(path)? {
        Some(bytes) => Keypair::from_protobuf_encoding(&bytes).map_err(|error| damaged(path, &error)),
        None => create(path),
    }
}

/// Returns where the identity of the database at `database` is kept.
pub(crate) fn path_beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".identity");
    path.into()
}

/// Returns the key that signs records.
pub(crate) fn signing_key(identity: &Keypair) -> Result<SigningKey, NetabaseError> {
    let keypair = identity.clone().try_into_ed25519().map_err(|_| ConfigError::IdentityKind)?;
    let secret: [u8; 32] = keypair.secret().as_ref().try_into().map_err(|_| ConfigError::IdentityKind)?;
    Ok(SigningKey::from_bytes(&secret))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, NetabaseError> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path.to_owned(), error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(|error| file_error(path.to_owned(), error))?;
    Ok(Some(bytes))
}

fn create(path: &Path) -> Result<Keypair, NetabaseError> {
    let identity = Keypair::generate_ed25519();
    let bytes = identity.to_protobuf_encoding().map_err(|error| damaged(path, &error))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let saved = options.open(path).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    saved.map_err(|error| file_error(path.to_owned(), error))?;
    Ok(identity)
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> NetabaseError {
    let reason = format!("{error}; restore the file, or delete it to become a new peer");
    NetabaseError::Identity { path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_same_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_beside(&directory.path().join("db.redb"));
        let first = load_or_create(&path).unwrap();
        let second = load_or_create(&path).unwrap();
        assert_eq!(first.public(), second.public());
        assert_eq!(
            signing_key(&first).unwrap().verifying_key().as_bytes(),
            &first.public().try_into_ed25519().unwrap().to_bytes()
        );
    }

    #[test]
    fn a_damaged_identity_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        std::fs::write(&path, b"not a key").unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, NetabaseError::Identity { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"not a key");
    }
}

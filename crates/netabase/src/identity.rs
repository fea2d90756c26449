//! The key pair that names a peer and signs its records, in a file beside the database.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use netabase_store::{Author, SigningKey};

use crate::error::{ConfigError, NetabaseError, file_error};
use crate::limits::MAX_IDENTITY_FILE_BYTES;
use crate::platform::{self, files};

/// The prefix of an Ed25519 key in libp2p's encoding.
const ED25519_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x40];
const ENCODED_BYTES: usize = 68;
/// The prefix of the name of an incomplete file.
const TEMPORARY_PREFIX: &str = ".identity-";

/// A key pair that names a peer and signs its records, or the root key of a closed network.
///
/// A private file holds the key pair. The key pair converts into libp2p's [`Keypair`] and the
/// store's [`SigningKey`]. The root key's file has the same format as the identity file beside a
/// database.
///
/// ```
/// use netabase::{Identity, NetabaseConfig, StoreOptions};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("club.root");
/// // The operator's machine: created at the first start, the same at every later one.
/// let root = Identity::load_or_create(&path)?;
/// println!("the root of the club is {}", root.author());
///
/// // The public key is in the settings of every node.
/// let config = NetabaseConfig {
///     store: StoreOptions { root: Some(root.author()), ..StoreOptions::default() },
///     ..NetabaseConfig::default()
/// };
/// # assert_eq!(Identity::load(&path)?, root);
/// # let _ = config;
/// # Ok::<(), netabase::NetabaseError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(SigningKey);

impl Identity {
    /// Generates a key pair.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the key is of the kind that was asked for"
    )]
    pub fn generate() -> Self {
        Self::try_from(platform::new_keypair()).expect("an ed25519 key")
    }

    /// Reads the key pair in the file at `path`.
    ///
    /// Blocks on the disk.
    ///
    /// Fails with [`NetabaseError::Identity`] if the file holds no ed25519 key, and with
    /// [`StoreError::File`](crate::StoreError::File) if it cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NetabaseError> {
        let path = path.as_ref();
        let missing = || file_error(path.to_owned(), ErrorKind::NotFound.into());
        let keypair = load(path)?.ok_or_else(missing)?;
        Self::try_from(keypair).map_err(|error| unusable(path, &error.to_string()))
    }

    /// Reads the key pair in the file at `path`, or generates one and saves it there, readable by
    /// its owner only.
    ///
    /// Blocks on the disk.
    ///
    /// Fails as [`load`](Self::load) does. A damaged file is never replaced.
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, NetabaseError> {
        let path = path.as_ref();
        let keypair = load_or_create(path)?.keypair;
        Self::try_from(keypair).map_err(|error| unusable(path, &error.to_string()))
    }

    /// Returns the public key, which is the author of what this key pair signs.
    pub fn author(&self) -> Author {
        Author::of(&self.0)
    }

    /// Returns the peer id of this key pair.
    pub fn peer_id(&self) -> PeerId {
        self.keypair().public().to_peer_id()
    }

    /// Returns the key pair as the store's type, for
    /// [`MemberList::sign`](crate::members::MemberList::sign) and
    /// [`StoreOptions`](netabase_store::StoreOptions).
    pub fn signing_key(&self) -> &SigningKey {
        &self.0
    }

    /// Returns the key pair as libp2p's type, for
    /// [`NetabaseConfig::identity`](crate::NetabaseConfig::identity).
    #[expect(clippy::expect_used, clippy::missing_panics_doc, reason = "any 32 bytes are a secret key")]
    pub fn keypair(&self) -> Keypair {
        Keypair::ed25519_from_bytes(self.0.to_bytes()).expect("32 bytes")
    }
}

impl From<SigningKey> for Identity {
    fn from(key: SigningKey) -> Self {
        Self(key)
    }
}

impl From<&SigningKey> for Identity {
    fn from(key: &SigningKey) -> Self {
        Self(key.clone())
    }
}

impl From<&Self> for Identity {
    fn from(identity: &Self) -> Self {
        identity.clone()
    }
}

impl From<Identity> for Keypair {
    fn from(identity: Identity) -> Self {
        identity.keypair()
    }
}

/// Fails with [`ConfigError::IdentityKind`] if the key is not an ed25519 key.
impl TryFrom<&Keypair> for Identity {
    type Error = ConfigError;

    fn try_from(keypair: &Keypair) -> Result<Self, ConfigError> {
        let keypair = keypair.clone().try_into_ed25519().map_err(|_| ConfigError::IdentityKind)?;
        let secret: [u8; 32] = keypair.secret().as_ref().try_into().map_err(|_| ConfigError::IdentityKind)?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }
}

impl TryFrom<Keypair> for Identity {
    type Error = ConfigError;

    fn try_from(keypair: Keypair) -> Result<Self, ConfigError> {
        Self::try_from(&keypair)
    }
}

/// Shows only the public key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.author()).finish()
    }
}

/// An identity, and whether it is new.
pub(crate) struct Loaded {
    pub(crate) keypair: Keypair,
    pub(crate) is_new: bool,
}

/// Reads the identity at `path`, or generates one and saves it there, readable by its owner only.
pub(crate) fn load_or_create(path: &Path) -> Result<Loaded, NetabaseError> {
    if let Some(keypair) = load(path)? {
        return Ok(Loaded { keypair, is_new: false });
    }
    if let Some(keypair) = create(path)? {
        return Ok(Loaded { keypair, is_new: true });
    }
    // Another program has created the file first.
    let keypair = load(path)?.ok_or_else(|| file_error(path.to_owned(), ErrorKind::NotFound.into()))?;
    Ok(Loaded { keypair, is_new: false })
}

/// Returns the path of the identity file of the database at `database`.
pub(crate) fn path_beside(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(".identity");
    path.into()
}

/// Reads the identity at `path`, or returns `None` if there is no file.
fn load(path: &Path) -> Result<Option<Keypair>, NetabaseError> {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file_error(path.to_owned(), error)),
    };
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(unusable(
            path,
            "it is a directory; move the directory away, and put the identity file in its place",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_IDENTITY_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| file_error(path.to_owned(), error))?;
    parse(&bytes).map(Some).map_err(|reason| unusable(path, &reason))
}

/// Parses a key. The error describes the bytes and the remedy.
fn parse(bytes: &[u8]) -> Result<Keypair, String> {
    if bytes.is_empty() {
        let mend = "restore it from a copy; if the node never ran with it, delete it, and a new one is made";
        return Err(format!("it is empty; {mend}"));
    }
    // libp2p's own message lists the key types that it was built without.
    let keypair = bytes.starts_with(&ED25519_PREFIX).then(|| Keypair::from_protobuf_encoding(bytes).ok());
    keypair.flatten().ok_or_else(|| {
        format!(
            "its {} bytes are no Ed25519 key in libp2p's encoding, which has {ENCODED_BYTES}; restore it from a \
             copy, or move it away to become a new peer, which cannot change what this one has written in owned \
             models",
            bytes.len()
        )
    })
}

/// Saves a new identity atomically, or returns `None` if the file exists already.
fn create(path: &Path) -> Result<Option<Keypair>, NetabaseError> {
    let identity = platform::new_keypair();
    let bytes = identity.to_protobuf_encoding().map_err(|error| unusable(path, &error.to_string()))?;
    match save(path, &bytes) {
        Ok(()) => Ok(Some(identity)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(file_error(path.to_owned(), error)),
    }
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // On Unix the file is its owner's alone from the beginning.
    let mut file = files::create_temporary(directory, TEMPORARY_PREFIX)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    if cfg!(unix) {
        files::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn unusable(path: &Path, reason: &str) -> NetabaseError {
    NetabaseError::Identity { path: path.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use netabase_store::StoreError;

    use super::*;

    #[test]
    fn an_identity_is_the_same_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = path_beside(&directory.path().join("db.redb"));
        let first = load_or_create(&path).unwrap();
        let second = load_or_create(&path).unwrap();
        assert_eq!([first.is_new, second.is_new], [true, false]);
        let (first, second) = (first.keypair, second.keypair);
        assert_eq!(first.public(), second.public());
        let identity = Identity::load(&path).unwrap();
        assert_eq!(identity.author().as_bytes(), &first.public().try_into_ed25519().unwrap().to_bytes());
        assert_eq!(identity.peer_id(), first.public().to_peer_id());
        assert_eq!(Identity::try_from(identity.keypair()).unwrap(), identity);
        assert_eq!(Identity::load_or_create(&path).unwrap(), identity);
    }

    #[cfg(unix)]
    #[test]
    fn an_identity_is_for_its_owner_alone_and_is_made_only_where_asked() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("club.root");
        let error = Identity::load(&path).unwrap_err();
        assert!(
            matches!(&error, NetabaseError::Store(StoreError::File { path: named, .. }) if *named == path),
            "{error}"
        );
        let root = Identity::load_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{root:?}").contains(&format!("{:?}", root.signing_key().to_bytes())));
    }

    #[test]
    fn a_damaged_identity_is_named_with_its_mend_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        let whole = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
        assert_eq!(whole.len(), ENCODED_BYTES);
        let rsa = [0x08, 0x00, 0x12, 0x02, 1, 2];
        let damaged: [(&[u8], &str); 5] = [
            (b"", "it is empty; restore it from a copy"),
            (b"not a key", "its 9 bytes are no Ed25519 key"),
            (&whole[..40], "its 40 bytes are no Ed25519 key"),
            (&rsa, "its 6 bytes are no Ed25519 key"),
            (&[0; 68], "its 68 bytes are no Ed25519 key"),
        ];
        for (bytes, says) in damaged {
            std::fs::write(&path, bytes).unwrap();
            let error = load_or_create(&path).map(|loaded| loaded.is_new).unwrap_err();
            assert!(matches!(error, NetabaseError::Identity { .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.to_string().contains("restore it from a copy"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let error = load_or_create(&path).map(|loaded| loaded.is_new).unwrap_err();
        assert!(error.to_string().contains("it is a directory"), "{error}");
    }

    #[test]
    fn an_identity_that_cannot_be_saved_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity");
        let bytes = vec![7; 100];
        std::fs::write(&path, &bytes).unwrap();
        let error = save(&path, b"another").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

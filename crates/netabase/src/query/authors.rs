//! Queries that are limited to authors.

use std::collections::BTreeSet;
use std::sync::Arc;

use netabase_store::members::SignedMembers;
use netabase_store::{Author, Envelope, NetabaseStore, Timestamp};

use crate::error::NetabaseError;

/// The authors whose records a query finds.
///
/// Versions of other authors count as absent, also those that have replaced or deleted a version of
/// one of these, as far as a node that is asked still has it. A merged record counts if one of the
/// authors has contributed to it.
///
/// ```
/// use netabase::query::Authors;
/// use netabase::Author;
///
/// let ada = Author::from_bytes([1; 32]);
/// assert_eq!(Authors::from([ada]), Authors::Of([ada].into()));
/// assert_eq!(Authors::default(), Authors::All);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Authors {
    /// All authors. The default.
    #[default]
    All,
    /// These authors.
    Of(BTreeSet<Author>),
    /// The root and the members of this closed network that may write now, by this node's member
    /// list.
    Members,
}

impl<const COUNT: usize> From<[Author; COUNT]> for Authors {
    fn from(authors: [Author; COUNT]) -> Self {
        Self::Of(authors.into())
    }
}

/// The records of [`Authors`], by the member list of the time when the filter was made.
#[derive(Debug, Clone, Default)]
pub struct AuthorFilter(Option<Arc<BTreeSet<Author>>>);

impl Authors {
    /// Looks up the members, if they are asked for.
    ///
    /// Fails with [`MembersError::OpenNetwork`](netabase_store::members::MembersError::OpenNetwork)
    /// if the network has none.
    pub fn filter(&self, store: &NetabaseStore) -> Result<AuthorFilter, NetabaseError> {
        let authors = match self {
            Self::All => None,
            Self::Of(authors) => Some(authors.clone()),
            Self::Members => Some(members(store)?),
        };
        Ok(AuthorFilter(authors.map(Arc::new)))
    }
}

fn members(store: &NetabaseStore) -> Result<BTreeSet<Author>, NetabaseError> {
    let replica = store.replica();
    let signed = replica.members()?;
    let now = Timestamp::from_unix_millis(replica.clock().unix_millis());
    let members = signed.iter().flat_map(|signed| signed.members().iter());
    let members = members.filter(|(_, membership)| membership.allows(now)).map(|(author, _)| author);
    Ok(members.chain(signed.as_ref().map(SignedMembers::signer)).collect())
}

impl AuthorFilter {
    /// Returns whether all records pass.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Returns whether a version passes: it, or a contribution to it, names one of the authors.
    /// Nothing is verified.
    pub fn passes(&self, envelope: &Envelope) -> bool {
        let Some(authors) = &self.0 else { return true };
        if envelope.is_bundle() {
            let of_them = |part: &Envelope| part.author().is_some_and(|author| authors.contains(&author));
            return envelope.contributions().iter().any(of_them);
        }
        envelope.author().is_some_and(|author| authors.contains(&author))
    }
}

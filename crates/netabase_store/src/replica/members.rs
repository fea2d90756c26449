//! The interface to the member list.

use super::Replica;
use crate::changes::change::{ChangeKind, Origin};
use crate::error::StoreError;
use crate::version::admit::{self, Admitted, Refusal, VerifiedRecord};
use crate::version::envelope::{Author, Envelope};
use crate::version::members::{MemberList, Members, MembersError, SignedMembers};
use crate::version::record_key::RecordKey;
use crate::write::apply::{Lease, Op};

use ed25519_dalek::SigningKey;

impl<'a> Replica<'a> {
    /// Returns the current member list with its signature, or `None` if the store has none yet.
    ///
    /// Fails with [`MembersError::OpenNetwork`] if the
    /// store was opened without a [`root`](crate::StoreOptions::root).
    pub fn members(self) -> Result<Option<SignedMembers>, StoreError> {
        self.closed().map(Members::current)
    }

    /// Returns the record key of the member list, or `None` in an open network.
    pub fn members_key(self) -> Option<&'a RecordKey> {
        self.core().members().map(Members::key)
    }

    /// Signs a list as the successor of the current one; fails unless `root` is the network's root
    /// key.
    pub fn sign_members(self, list: &MemberList, root: &SigningKey) -> Result<SignedMembers, StoreError> {
        let members = self.closed()?;
        let signer = Author::of(root);
        if signer != members.root() {
            return Err(MembersError::NotRoot { signer, root: members.root() }.into());
        }
        let after = members.current().map(|current| current.timestamp());
        Ok(list.sign_at(root, members.key(), self.clock().tick(after)))
    }

    /// Checks a member list that the root key has signed and queues it, without waiting for the
    /// disk.
    ///
    /// Blocks only while the queue of writes is full.
    ///
    /// The list is enforced at once. `done` is called as in [`Replica::submit`], with `None` for
    /// the list that is already here. Records that the list does not allow are removed afterwards,
    /// in the background; followers of changes see each as a removal by the network.
    ///
    /// Fails with [`StoreError::Members`] if the list is not the root's or not newer than the
    /// current one.
    pub fn submit_members(
        self,
        signed: &SignedMembers,
        done: impl FnOnce(Result<Option<ChangeKind>, StoreError>) + Send + 'static,
    ) -> Result<(RecordKey, Envelope), StoreError> {
        let members = self.closed()?;
        let key = members.key().clone();
        if signed.signer() != members.root() {
            return Err(MembersError::NotRoot { signer: signed.signer(), root: members.root() }.into());
        }
        let current = members.current();
        match (admit::admit(self.core(), &key, signed.as_bytes(), None), current) {
            (Ok(Admitted::New { record, .. }), _) => {
                let VerifiedRecord { key, envelope, secondary, .. } = record;
                self.store.submit_op(
                    Op::Put { key, envelope, secondary, origin: Origin::Local, lease: Lease::None },
                    done,
                );
            }
            (Ok(Admitted::Known), _) => self.store.submit_nothing(done),
            (Err(Refusal::Outdated), Some(current)) => {
                return Err(MembersError::Outdated { current: current.timestamp() }.into());
            }
            (Err(refusal), _) => return Err(MembersError::Refused(refusal).into()),
        }
        Ok((key, signed.envelope().clone()))
    }

    fn closed(self) -> Result<&'a Members, StoreError> {
        self.core().members().ok_or(StoreError::Members(MembersError::OpenNetwork))
    }
}

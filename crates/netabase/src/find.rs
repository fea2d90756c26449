//! Finding records at other peers: the typed side of it.

use libp2p::PeerId;
use netabase_store::{NetabaseDefinition, Scope};

use crate::error::NetabaseError;
use crate::netabase::Netabase;
use crate::network::Command;

impl<D: NetabaseDefinition> Netabase<D> {
    /// Returns the peers that may hold records of a scope: those that say so in the distributed hash table, and
    /// in a small network everybody. This node is not among them, and none is for a scope of another definition.
    ///
    /// Takes 5 s at most, and what was found is used again for as long. Peers say what they hold within minutes
    /// of having it.
    pub async fn holders(&self, scope: Scope) -> Result<Vec<PeerId>, NetabaseError> {
        let holders = self.node()?.call(|reply| Command::FindHolders { scope, reply }).await?;
        Ok(holders.peers)
    }
}

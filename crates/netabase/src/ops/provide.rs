//! Provide: adds this node to the list of a key's providers, so that peers find it.
//!
//! A peer keeps no more than [`MAX_LISTED_PROVIDERS`](crate::query::holders::MAX_LISTED_PROVIDERS)
//! providers of a list. If a list may be full, this node is added to one of its shards as well,
//! which depends on its peer id, and so on until a list has space.

use libp2p::PeerId;

use crate::query::keys::{ProviderKey, shard_of};
use crate::query::limits::MAX_SHARD_DEPTH;

/// The state of an announcement of a key.
#[derive(Debug)]
pub(crate) struct Provide {
    local: PeerId,
    /// The list, or the shard of it, whose turn it is.
    list: ProviderKey,
    depth: usize,
    may_be_full: bool,
    is_full: bool,
}

/// An action of a provide, which its owner carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProvideAction {
    /// Read the list, and report whether it is full of other peers.
    Read(ProviderKey),
    /// Announce this node to the peers that keep the list, and report whether there were any.
    Announce(ProviderKey),
    /// Withdraw the announcement, which has reached no peer; it is repeated later.
    Withdraw(ProviderKey),
    /// Stop: every peer that looks for this node finds it.
    Finish,
}

impl Provide {
    /// Creates the announcement of a key. `may_be_full` tells that there are so many peers that the
    /// key's list may be full.
    pub(crate) fn new(local: PeerId, key: ProviderKey, may_be_full: bool) -> Self {
        Self { local, list: key, depth: 0, may_be_full, is_full: false }
    }

    /// Starts with the list of the key.
    pub(crate) fn begin(&mut self) -> ProvideAction {
        self.is_full = false;
        if self.may_be_full && self.depth < MAX_SHARD_DEPTH {
            ProvideAction::Read(self.list)
        } else {
            ProvideAction::Announce(self.list)
        }
    }

    /// Handles the read list.
    pub(crate) fn on_list(&mut self, is_full: bool) -> ProvideAction {
        self.is_full = is_full;
        ProvideAction::Announce(self.list)
    }

    /// Handles the announcement; `to_anybody` tells whether it has reached a peer.
    pub(crate) fn on_announced(&mut self, to_anybody: bool) -> ProvideAction {
        if !to_anybody {
            return ProvideAction::Withdraw(self.list);
        }
        if !self.is_full {
            return ProvideAction::Finish;
        }
        self.list = self.list.shard(shard_of(self.local, self.depth));
        self.depth += 1;
        self.begin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_room_is_enough() {
        let key = ProviderKey::FIRST;
        let mut provide = Provide::new(PeerId::random(), key, true);
        assert_eq!(provide.begin(), ProvideAction::Read(key));
        assert_eq!(provide.on_list(false), ProvideAction::Announce(key));
        assert_eq!(provide.on_announced(true), ProvideAction::Finish);
    }

    #[test]
    fn few_peers_fill_no_list() {
        let key = ProviderKey::FIRST;
        assert_eq!(Provide::new(PeerId::random(), key, false).begin(), ProvideAction::Announce(key));
    }

    #[test]
    fn full_lists_lead_to_their_shards_and_not_without_end() {
        let (local, key) = (PeerId::random(), ProviderKey::FIRST);
        let mut provide = Provide::new(local, key, true);
        let (mut action, mut lists) = (provide.begin(), Vec::new());
        while action != ProvideAction::Finish {
            action = match action {
                ProvideAction::Read(_) => provide.on_list(true),
                ProvideAction::Announce(list) => {
                    lists.push(list);
                    provide.on_announced(true)
                }
                ProvideAction::Withdraw(_) | ProvideAction::Finish => panic!("{action:?}"),
            };
        }
        assert_eq!(lists.len(), MAX_SHARD_DEPTH + 1);
        assert_eq!(lists[1], key.shard(shard_of(local, 0)));
    }

    #[test]
    fn what_nobody_was_told_is_withdrawn() {
        let key = ProviderKey::FIRST;
        let mut provide = Provide::new(PeerId::random(), key, false);
        provide.begin();
        assert_eq!(provide.on_announced(false), ProvideAction::Withdraw(key));
    }
}

//! Refused versions, which are not fetched again.

use std::collections::{HashMap, HashSet, VecDeque};

use netabase_store::replica::SyncItem;

use crate::platform::Instant;
use crate::replication::sync::limits::{MAX_REFUSED_IDS, NO_ROOM_FOR};

type Id = [u8; SyncItem::ID_BYTES];

/// The ids of refused versions of all peers. The oldest are dropped.
#[derive(Debug, Default)]
pub(super) struct Refused {
    ids: HashSet<Id>,
    order: VecDeque<Id>,
    /// The ids refused for lack of space, with the time until which they are remembered.
    for_a_while: HashMap<Id, Instant>,
    /// The same ids in the order of those times.
    ends: VecDeque<(Instant, Id)>,
}

impl Refused {
    pub(super) fn add(&mut self, ids: impl IntoIterator<Item = Id>) {
        for id in ids {
            if self.ids.insert(id) {
                self.order.push_back(id);
            }
            if self.order.len() > MAX_REFUSED_IDS
                && let Some(first) = self.order.pop_front()
            {
                self.ids.remove(&first);
            }
        }
    }

    pub(super) fn add_for_a_while(&mut self, ids: impl IntoIterator<Item = Id>, now: Instant) {
        let until = now + NO_ROOM_FOR;
        for id in ids {
            self.for_a_while.insert(id, until);
            self.ends.push_back((until, id));
            if self.ends.len() > MAX_REFUSED_IDS {
                self.forget_first();
            }
        }
    }

    /// Forgets the versions that were refused for a while only.
    pub(super) fn forget_for_a_while(&mut self) {
        self.for_a_while.clear();
        self.ends.clear();
    }

    /// Returns whether a version was recently refused for lack of space.
    pub(super) fn lacks_room(&mut self, now: Instant) -> bool {
        while self.ends.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
        !self.ends.is_empty()
    }

    pub(super) fn contains(&mut self, id: &Id, now: Instant) -> bool {
        self.lacks_room(now);
        self.ids.contains(id) || self.for_a_while.contains_key(id)
    }

    fn forget_first(&mut self) {
        if let Some((until, id)) = self.ends.pop_front()
            && self.for_a_while.get(&id) == Some(&until)
        {
            self.for_a_while.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform;

    fn id(number: usize) -> Id {
        let mut id = [0; SyncItem::ID_BYTES];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn what_had_no_room_is_asked_for_again_after_a_while_and_what_was_wrong_is_not() {
        let (mut refused, now) = (Refused::default(), platform::now());
        refused.add([id(1)]);
        assert!(!refused.lacks_room(now));
        refused.add_for_a_while([id(2)], now);
        refused.add_for_a_while([id(2), id(3)], now + NO_ROOM_FOR / 2);
        let known =
            |refused: &mut Refused, now| [1, 2, 3, 4].map(|number| refused.contains(&id(number), now));
        assert_eq!(known(&mut refused, now), [true, true, true, false]);
        assert_eq!(known(&mut refused, now + NO_ROOM_FOR), [true, true, true, false]);
        assert!(refused.lacks_room(now + NO_ROOM_FOR));
        assert_eq!(known(&mut refused, now + NO_ROOM_FOR * 2), [true, false, false, false]);
        assert!(!refused.lacks_room(now + NO_ROOM_FOR * 2));
        assert!(refused.ends.is_empty() && refused.for_a_while.is_empty());
        refused.add_for_a_while([id(4)], now);
        refused.forget_for_a_while();
        assert_eq!(known(&mut refused, now), [true, false, false, false]);
        assert!(!refused.lacks_room(now));
    }

    #[test]
    fn the_first_are_forgotten_beyond_a_bound() {
        let (mut refused, now) = (Refused::default(), platform::now());
        refused.add((0..=MAX_REFUSED_IDS).map(id));
        refused.add_for_a_while((0..=MAX_REFUSED_IDS).map(|number| id(number + 1_000_000)), now);
        let known = |refused: &mut Refused, number| refused.contains(&id(number), now);
        assert!(!known(&mut refused, 0) && known(&mut refused, 1) && known(&mut refused, MAX_REFUSED_IDS));
        assert!(!known(&mut refused, 1_000_000) && known(&mut refused, 1_000_001));
        assert_eq!([refused.ids.len(), refused.for_a_while.len()], [MAX_REFUSED_IDS; 2]);
    }
}

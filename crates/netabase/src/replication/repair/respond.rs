//! The responder of repair. It reads the store, so it runs on a blocking thread.

use libp2p::PeerId;
use netabase_store::{NetabaseStore, StoreError};

use crate::dht::holders::{Position, View};
use crate::protocol::record::RecordsResponse;
use crate::replication::repair::compare::{Brief, Comparison, Item, Range};
use crate::replication::repair::limits::{MAX_SCANNED, READ_AT_ONCE, SCANNED_PER_RECORD};

/// Compares ranges with the records that this node shares with `peer`; returns the cost for the
/// peer, in records, too.
pub(crate) fn compare(
    store: &NetabaseStore,
    view: &View,
    peer: PeerId,
    ranges: &[Range],
) -> Result<(Vec<Comparison>, usize), StoreError> {
    let mut left = MAX_SCANNED;
    let compared = ranges.iter().map(|range| compare_range(store, view, peer, range, &mut left));
    let compared = compared.collect::<Result<_, _>>()?;
    Ok((compared, (MAX_SCANNED - left) / SCANNED_PER_RECORD))
}

fn compare_range(
    store: &NetabaseStore,
    view: &View,
    peer: PeerId,
    range: &Range,
    left: &mut usize,
) -> Result<Comparison, StoreError> {
    if !range.is_valid() {
        return Ok(Comparison::Equal);
    }
    let (mut items, mut next) = (Vec::new(), Some(range.from));
    while let Some(from) = next.filter(|_| *left > 0) {
        let mut placed = store.replica().positions(&from, READ_AT_ONCE + 1)?;
        next = placed.get(READ_AT_ONCE).map(|placed| placed.position);
        next = next.filter(|next| range.to.is_none_or(|to| *next < to));
        placed.truncate(READ_AT_ONCE);
        placed.truncate(placed.partition_point(|placed| range.to.is_none_or(|to| placed.position < to)));
        *left = left.saturating_sub(placed.len());
        let shared = placed.iter().filter(|placed| view.is_shared(peer, &placed.position));
        items.extend(shared.map(Item::of));
    }
    Ok(Comparison::of(range, &items, next))
}

/// Returns the indices of the offered versions that this node lacks.
pub(crate) fn wanted(store: &NetabaseStore, offered: &[Brief]) -> Result<Vec<u16>, StoreError> {
    let mut wanted = Vec::new();
    for (index, brief) in (0..).zip(offered) {
        let placed = store.replica().positions(&start(brief.position), 1)?.pop();
        let placed = placed.filter(|placed| placed.position.starts_with(&brief.position));
        if placed.is_none_or(|placed| !placed.fingerprint.starts_with(&brief.fingerprint)) {
            wanted.push(index);
        }
    }
    Ok(wanted)
}

/// Writes the records at these positions into `response`, in their order and as many as fit, with
/// `None` for missing ones.
pub(crate) fn fetch(
    store: &NetabaseStore,
    positions: &[[u8; 16]],
    response: &mut RecordsResponse,
) -> Result<(), StoreError> {
    for position in positions {
        let placed = store.replica().positions(&start(*position), 1)?.pop();
        let placed = placed.filter(|placed| placed.position.starts_with(position));
        let record = match &placed {
            Some(placed) => store
                .replica()
                .version_for_peers(&placed.key)?
                .map(|envelope| (&placed.key, envelope.to_wire())),
            None => None,
        };
        let record = record.as_ref().map(|(key, envelope)| (key.as_bytes(), envelope.as_bytes()));
        if !response.push(record) {
            break;
        }
    }
    Ok(())
}

fn start(position: [u8; 16]) -> Position {
    let mut start = Position::default();
    start.iter_mut().zip(position).for_each(|(byte, first)| *byte = first);
    start
}

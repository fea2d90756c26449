//! Repair: every record has a replica on as many of its closest peers as it should.
//!
//! A node runs passes over its records in the order of the keyspace, each at a pace that takes one
//! [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval). It compares each slice with the
//! peers that share records of the slice, sends them the versions that they lack, and fetches those
//! that it lacks itself. Where this node is no longer a holder, it sends the holders what they
//! lack, and then drops its own copy.
//!
//! A pass continues after a restart. A peer that connects or returns is compared with at once, and
//! so are all peers after this node itself was away. A peer that disconnects makes the next pass
//! start sooner.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use libp2p::PeerId;
use netabase_store::replica::Placed;
use netabase_store::{NetabaseStore, RecordKey, Refusal, StoreError};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::admission::{Admission, Offence, Refused, Source};
use crate::dht::holders::{Position, View};
use crate::event::NetabaseSwarmEvent;
use crate::event_loop::command::{Command, Commands};
use crate::outcome::WriteAnswer;
use crate::peers::presence::discard_unvouched;
use crate::platform::{self, Instant, timeout};
use crate::protocol::record as wire;
use crate::protocol::record::{PutAnswer, PutRequest, Response};
use crate::replication::repair::limits::{
    CONCURRENT_PEERS, MAX_SOURCES, MAX_VIEWS, SLICE_PATIENCE, SLICE_RECORDS,
};
use crate::replication::republish::{next_due, soon};
use crate::rpc::frame::{Frame, max_frame_bytes};
use crate::swarm::Parts;
use crate::telemetry::metrics::Meters;
use crate::telemetry::trace_context::TraceContext;
use compare::{Brief, Comparison, Difference, Item, Range, first, within};

pub(crate) mod backlog;
pub(crate) mod compare;
mod exchange;
pub(crate) mod limits;
pub(crate) mod news;
pub(crate) mod respond;
#[cfg(test)]
mod tests;
mod walk;

pub(crate) use walk::{Order, Repairer};

/// The name of the stored position of the pass.
const CURSOR: &str = "repair";

/// The report of a repair pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// The records that were compared.
    pub records: u64,
    /// The comparisons with a peer.
    pub comparisons: u64,
    /// The comparisons that found no difference.
    pub equal: u64,
    /// The records that were sent to peers that lacked them.
    pub sent: u64,
    /// The records that this node lacked and has fetched and stored.
    pub received: u64,
    /// The copies that were dropped, because enough closer peers have them.
    pub released: u64,
    /// The peers that did not answer.
    pub unreachable: u64,
    /// The messages that were exchanged, requests and responses.
    pub messages: u64,
    /// The bytes that were sent.
    pub bytes_sent: u64,
    /// The bytes that were received.
    pub bytes_received: u64,
}

impl RepairReport {
    fn add(&mut self, other: &Self) {
        let Self {
            records,
            comparisons,
            equal,
            sent,
            received,
            released,
            unreachable,
            messages,
            bytes_sent,
            bytes_received,
        } = other;
        self.records += records;
        self.comparisons += comparisons;
        self.equal += equal;
        self.sent += sent;
        self.received += received;
        self.released += released;
        self.unreachable += unreachable;
        self.messages += messages;
        self.bytes_sent += bytes_sent;
        self.bytes_received += bytes_received;
    }
}

/// The error that the swarm has stopped.
struct Gone;

/// The store, and the means to ask peers.
struct Peers {
    store: NetabaseStore,
    admission: Admission,
    /// A sender that does not keep the swarm running.
    commands: Commands,
    max_frame_bytes: usize,
    republish_interval: Duration,
}

/// A part of the keyspace, and this node's records in it.
#[derive(Clone)]
struct Slice {
    from: Position,
    to: Option<Position>,
    placed: Arc<[Placed]>,
    claims: Arc<Mutex<Claims>>,
}

/// The result of the repair of a slice.
struct Repaired {
    /// The start of the next slice.
    next: Option<Position>,
    /// Whether all records of the slice that this node holds for others were compared with another
    /// holder.
    is_heard: bool,
}

/// The records that peers claim to have and this node lacks. Each record is fetched from one peer,
/// and from the next one only if that peer does not deliver.
#[derive(Default)]
struct Claims {
    /// The further claimants of each record that is being fetched.
    fetching: HashMap<[u8; 16], Vec<PeerId>>,
    received: HashSet<[u8; 16]>,
}

impl Claims {
    /// Returns the records to fetch from `peer` of those that it claims to have.
    fn claim(&mut self, peer: PeerId, mut positions: Vec<[u8; 16]>) -> Vec<[u8; 16]> {
        positions.retain(|position| match self.fetching.entry(*position) {
            Entry::Vacant(first) => {
                first.insert(Vec::new());
                true
            }
            Entry::Occupied(mut others) => {
                others.get_mut().push(peer);
                false
            }
        });
        positions
    }

    /// Returns the records that no peer has delivered yet, for each further claimant.
    fn undelivered(&mut self) -> BTreeMap<PeerId, Vec<[u8; 16]>> {
        let mut undelivered: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (position, others) in &mut self.fetching {
            if !self.received.contains(position)
                && let Some(peer) = others.pop()
            {
                undelivered.entry(peer).or_default().push(*position);
            }
        }
        undelivered
    }
}

/// The plan of a slice: the peers and the records to compare with each.
#[derive(Default)]
struct Plan {
    /// The records that this node and each peer both hold, in order.
    shared: BTreeMap<PeerId, Vec<Item>>,
    /// The records that peers hold, and not this node.
    beyond: BTreeMap<PeerId, Vec<Item>>,
    /// The number of peers that hold each record that this node should not.
    holders: HashMap<Position, usize>,
}

impl Plan {
    /// Assigns the records to their holders, which takes some time for each record.
    fn new(view: &View, slice: &Slice, local: &NetabaseStore) -> Self {
        let mut plan = Self::default();
        for peer in view.neighbours() {
            // A peer may have records of which this node has not heard.
            plan.shared.entry(peer).or_default();
        }
        for placed in slice.placed.iter() {
            let (holders, held) = view.holders(&placed.position);
            let item = Item::of(placed);
            if held {
                for peer in holders {
                    plan.shared.entry(peer).or_default().push(item);
                }
            } else if !view.is_near(&placed.position)
                && local.replica().is_replica(&placed.key).unwrap_or(false)
            {
                plan.holders.insert(placed.position, holders.len());
                for peer in holders {
                    plan.beyond.entry(peer).or_default().push(item);
                }
            }
        }
        plan
    }

    /// Removes what was compared already.
    fn leave_out(&mut self, before: &Self) {
        self.shared.retain(|peer, items| before.shared.get(peer) != Some(items));
    }

    /// Returns the positions of the records that this node and peers hold.
    fn places(&self) -> HashSet<Position> {
        self.shared.values().flatten().map(|item| item.position).collect()
    }

    fn keep_only(&mut self, peers: &[PeerId]) {
        self.shared.retain(|peer, _| peers.contains(peer));
        self.beyond.clear();
        self.holders.clear();
    }
}

/// The result of carrying out a plan.
struct Carried {
    /// The peers that did not answer.
    unreachable: Vec<PeerId>,
    /// The peers whose comparison was completed.
    compared: Vec<PeerId>,
}

/// The reason why a comparison with a peer was given up.
enum Failed {
    Unreachable,
    Gone,
}

impl From<Gone> for Failed {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl Peers {
    /// Repairs a slice with its holders, or with those in `only`; returns the start of the next
    /// slice.
    async fn repair_slice(
        &self,
        from: Position,
        only: Option<&[PeerId]>,
        report: &mut RepairReport,
    ) -> Result<Repaired, Gone> {
        if !self.is_current().await {
            return Ok(Repaired { next: None, is_heard: false });
        }
        let slice = self.read_slice(from).await;
        report.records += u64::try_from(slice.placed.len()).unwrap_or(u64::MAX);
        let (mut gone, mut before) = (Vec::new(), Plan::default());
        let (mut unheard, mut heard, mut any_heard) = (HashSet::new(), HashSet::new(), false);
        for _ in 0..MAX_VIEWS {
            let view = self.view().await?.without(&gone);
            let (planned, store) = (slice.clone(), self.store.clone());
            let plan = blocking(move || Plan::new(&view, &planned, &store)).await;
            let mut plan = plan.unwrap_or_default();
            unheard = plan.places();
            if let Some(only) = only {
                plan.keep_only(only);
            }
            plan.leave_out(&before);
            let Carried { unreachable, compared } = self.carry_out(&plan, &slice, report).await?;
            for items in compared.iter().filter_map(|peer| plan.shared.get(peer)) {
                any_heard = true;
                heard.extend(items.iter().map(|item| item.position));
            }
            report.unreachable += u64::try_from(unreachable.len()).unwrap_or(u64::MAX);
            if unreachable.is_empty() {
                break;
            }
            gone.extend(unreachable);
            before.shared.append(&mut plan.shared);
        }
        Ok(Repaired { next: slice.to, is_heard: any_heard && unheard.is_subset(&heard) })
    }

    /// Returns whether local records may be sent to peers. Records that may have been deleted while
    /// this node was away, suspended or among silent peers, are discarded first, once peers have
    /// sent their clocks.
    async fn is_current(&self) -> bool {
        if !self.store.replica().was_away() {
            return true;
        }
        let store = self.store.clone();
        if let Some(Err(error)) = blocking(move || discard_unvouched(&store)).await {
            tracing::warn!(%error, "cannot discard records that peers may have deleted");
        }
        !self.store.replica().was_away()
    }

    /// Compares with every peer of a plan.
    async fn carry_out(
        &self,
        plan: &Plan,
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<Carried, Gone> {
        let (mut unreachable, mut whole) = (Vec::new(), Vec::new());
        let mut compared = stream::iter(plan.shared.clone())
            .map(|(peer, items)| self.even_out(peer, items, slice))
            .buffer_unordered(CONCURRENT_PEERS);
        while let Some((peer, part, outcome)) = compared.next().await {
            report.add(&part);
            match outcome {
                Ok(is_whole) => whole.extend(is_whole.then_some(peer)),
                Err(Failed::Unreachable) => unreachable.push(peer),
                Err(Failed::Gone) => return Err(Gone),
            }
        }
        drop(compared);
        for _ in 0..MAX_SOURCES {
            let undelivered = slice.claims.lock().undelivered();
            for (peer, positions) in undelivered {
                match timeout(SLICE_PATIENCE, self.fetch(peer, &positions, slice, report)).await {
                    Ok(Ok(_) | Err(Failed::Unreachable)) | Err(_) => {}
                    Ok(Err(Failed::Gone)) => return Err(Gone),
                }
            }
        }
        let mut have: HashMap<Position, usize> = HashMap::new();
        let mut handed_over = stream::iter(plan.beyond.clone())
            .map(|(peer, items)| self.hand_over(peer, items, slice))
            .buffer_unordered(CONCURRENT_PEERS);
        while let Some((peer, part, outcome)) = handed_over.next().await {
            report.add(&part);
            match outcome {
                Ok(there) => there.iter().for_each(|item| *have.entry(item.position).or_default() += 1),
                Err(Failed::Unreachable) => unreachable.push(peer),
                Err(Failed::Gone) => return Err(Gone),
            }
        }
        let given_up = slice.placed.iter().filter(|placed| {
            plan.holders
                .get(&placed.position)
                .is_some_and(|holders| have.get(&placed.position) == Some(holders))
        });
        for placed in given_up {
            // The pass does not wait for the removal; one that a crash loses is repeated next time.
            match self.store.replica().release(placed) {
                Ok(released) => report.released += u64::from(released),
                Err(error) => tracing::warn!(%error, key = %placed.key, "cannot drop a copy"),
            }
        }
        unreachable.sort_unstable();
        unreachable.dedup();
        Ok(Carried { unreachable, compared: whole })
    }

    /// Sends `peer` the records of a slice that it lacks, and fetches those that this node lacks;
    /// returns whether the comparison was completed.
    async fn even_out(
        &self,
        peer: PeerId,
        items: Vec<Item>,
        slice: &Slice,
    ) -> (PeerId, RepairReport, Result<bool, Failed>) {
        let mut report = RepairReport { comparisons: 1, ..RepairReport::default() };
        let outcome = timeout(SLICE_PATIENCE, self.even_out_with(peer, &items, slice, &mut report)).await;
        let outcome = outcome.unwrap_or(Err(Failed::Unreachable));
        (peer, report, outcome)
    }

    async fn even_out_with(
        &self,
        peer: PeerId,
        items: &[Item],
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<bool, Failed> {
        let (difference, is_whole) = self.compare(peer, items, slice, report).await?;
        if difference == Difference::default() {
            report.equal += 1;
            return Ok(is_whole);
        }
        let (_, mut missing) = self.offer(peer, &difference.offers, slice, report).await?;
        missing.extend(difference.missing);
        let missing = slice.claims.lock().claim(peer, missing);
        Ok(self.fetch(peer, &missing, slice, report).await? && is_whole)
    }

    /// Sends `peer` the records that it should hold and lacks; returns those that it then has, in
    /// the same or a later version.
    async fn hand_over(
        &self,
        peer: PeerId,
        items: Vec<Item>,
        slice: &Slice,
    ) -> (PeerId, RepairReport, Result<Vec<Item>, Failed>) {
        let mut report = RepairReport::default();
        let offered = timeout(SLICE_PATIENCE, self.offer(peer, &items, slice, &mut report)).await;
        let there = offered.unwrap_or(Err(Failed::Unreachable)).map(|(there, _)| there);
        (peer, report, there)
    }

    async fn view(&self) -> Result<View, Gone> {
        self.commands.call(|reply| Command::View { reply }).await.map_err(|_| Gone)
    }

    async fn read_slice(&self, from: Position) -> Slice {
        let store = self.store.clone();
        let placed = blocking(move || store.replica().positions(&from, SLICE_RECORDS + 1)).await;
        let mut placed = placed.unwrap_or_else(|| Ok(Vec::new())).unwrap_or_else(|error: StoreError| {
            tracing::warn!(%error, "cannot read the records to compare");
            Vec::new()
        });
        let to = placed.get(SLICE_RECORDS).map(|placed| placed.position);
        placed.truncate(SLICE_RECORDS);
        Slice { from, to, placed: placed.into(), claims: Arc::default() }
    }

    /// Returns the approximate number of slices.
    async fn slices(&self) -> u32 {
        let store = self.store.clone();
        let records =
            blocking(move || store.replica().positions_len()).await.and_then(Result::ok).unwrap_or(0);
        let slice = u64::try_from(SLICE_RECORDS).unwrap_or(u64::MAX);
        u32::try_from(records.div_ceil(slice)).unwrap_or(u32::MAX).max(1)
    }
}

/// Runs work on a blocking thread; `None` if it panicked.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = platform::blocking(act).await;
    done.inspect_err(|error| tracing::error!(%error, "a repair has failed")).ok()
}

/// Returns the record of the slice whose position starts with `position`.
fn find<'a>(slice: &'a Slice, position: &[u8; 16]) -> Option<&'a Placed> {
    let start = slice.placed.partition_point(|placed| placed.position.as_slice() < position.as_slice());
    slice.placed.get(start).filter(|placed| placed.position.starts_with(position))
}

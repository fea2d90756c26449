//! Repair: every record is kept by as many of its closest peers as there should be.
//!
//! A node walks over what it holds in the order of the keyspace, at a pace that takes one
//! [`repair_interval`](crate::DHTDiscoveryConfig::repair_interval) for all of it. It compares each slice with the
//! peers that it shares records of the slice with, sends them what they lack, and fetches what it lacks itself.
//! Where this node is no holder any more, the holders are given what they lack, and its own copy goes.
//!
//! The walk goes on where it was after a restart. A peer that appears is compared with at once; one that is
//! gone makes the next walk begin sooner.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use libp2p::PeerId;
use netabase_store::{NetabaseStore, Placed, RecordKey, Refusal, StoreError};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::record_protocol::wire::{self, PutAnswer, PutRequest, Response};
use super::record_protocol::{Frame, max_frame_bytes};
use super::republish::next_due;
use super::sanctions::Offence;
use super::{Command, Parts, Reply};
use crate::error::NetabaseError;
use crate::event::NetabaseSwarmEvent;
use crate::outcome::WriteAnswer;
use compare::{Brief, Comparison, Difference, Item, Range, first, within};
use view::{Position, View};

pub(super) mod compare;
pub(super) mod respond;
#[cfg(test)]
mod tests;
pub(super) mod view;

/// How many records are compared at a time.
const SLICE: usize = 4096;
/// How many peers a slice is compared with at a time.
const CONCURRENT_PEERS: usize = 4;
/// How often the peers of a slice are chosen anew because some of them were gone.
const MAX_VIEWS: usize = 3;
/// How long one peer may take with one slice; what is left is found by the next walk.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most records that are fetched from one peer in one slice.
const MAX_MISSING: usize = 16 * MAX_ITEMS;
/// From how many more peers a record is fetched that the first one did not deliver.
const MAX_SOURCES: usize = 3;
/// The most messages that one comparison with one peer takes.
const MAX_MESSAGES: usize = 64;
/// The most ranges in one message.
pub(super) const MAX_RANGES: usize = 32;
/// The most records that are offered or fetched in one message.
pub(super) const MAX_ITEMS: usize = 1024;
/// How long to wait for further changes after the routing table has changed.
const SETTLING_TIME: Duration = Duration::from_secs(1);
/// How soon everything is compared after peers are gone, as a part of the interval.
const HURRY: u32 = 16;
/// How far a walk strays from its pace, in percent, so that nodes that started together do not stay together.
const JITTER_PERCENT: u32 = 20;
/// Under which name the store keeps how far the walk is.
const CURSOR: &str = "repair";

/// What a walk over the records of a node has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairReport {
    /// How many records were looked at.
    pub records: u64,
    /// How many comparisons with a peer there were.
    pub comparisons: u64,
    /// How many of them found no difference.
    pub equal: u64,
    /// How many records were sent to peers that lacked them.
    pub sent: u64,
    /// How many records that this node lacked were fetched and stored.
    pub received: u64,
    /// How many copies were given up, because enough closer peers have them.
    pub released: u64,
    /// How many peers did not answer.
    pub unreachable: u64,
    /// How many messages were exchanged, requests and answers.
    pub messages: u64,
    /// How many bytes were sent.
    pub bytes_sent: u64,
    /// How many bytes were received.
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

/// Who waits for a walk that was asked for.
pub(super) type Order = oneshot::Sender<RepairReport>;

/// Walks until the swarm is gone.
pub(super) struct Repairer {
    peers: Peers,
    /// None where the walk is only made when it is asked for.
    interval: Option<Duration>,
    view_changed: Arc<Notify>,
    stop: Arc<Notify>,
    orders: mpsc::Receiver<Order>,
    events: broadcast::Sender<NetabaseSwarmEvent>,
}

/// How far the present walk is.
struct Walk {
    from: Position,
    /// When it began at the start of the keyspace, in milliseconds since the Unix epoch, if all since was compared.
    heard: Option<u64>,
    /// None where there is no interval.
    next: Option<Instant>,
    report: RepairReport,
}

/// Waits until a time, for ever if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The swarm has ended.
struct Gone;

impl Repairer {
    pub(super) fn new(
        parts: &Parts,
        commands: mpsc::WeakSender<Command>,
        view_changed: Arc<Notify>,
        stop: Arc<Notify>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            peers: Peers {
                store: parts.store.clone(),
                commands,
                max_frame_bytes: max_frame_bytes(parts.config.max_value_bytes),
                republish_interval: parts.config.dht.republish_interval,
            },
            interval: parts.config.dht.repair_interval,
            view_changed,
            stop,
            orders,
            events: parts.events.clone(),
        }
    }

    /// It is never cancelled in the middle, so that no read of the store outlives it.
    pub(super) async fn run(mut self) {
        let from = self.peers.store.mark(CURSOR);
        let from = from.and_then(|cursor| cursor.try_into().ok()).unwrap_or_default();
        let mut walk = Walk { from, heard: None, next: self.after_pause(1), report: RepairReport::default() };
        let mut known: Vec<PeerId> = Vec::new();
        loop {
            let done = tokio::select! {
                () = self.stop.notified() => return,
                order = self.orders.recv() => match order {
                    Some(order) => self.walk_now(order).await,
                    None => return,
                },
                () = self.view_changed.notified(), if self.interval.is_some() => self.on_view_changed(&mut known, &mut walk).await,
                () = at(walk.next) => self.go_on(&mut walk).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Compares the next slice; at the end of the keyspace the walk begins anew.
    async fn go_on(&self, walk: &mut Walk) -> Result<(), Gone> {
        if walk.from == Position::default() {
            walk.heard = Some(self.peers.store.clock().unix_millis());
        }
        let Repaired { next, is_heard } = self.peers.repair_slice(walk.from, None, &mut walk.report).await?;
        walk.heard = walk.heard.filter(|_| is_heard);
        walk.from = next.unwrap_or_default();
        if let Err(error) = self.peers.store.set_mark(CURSOR, &walk.from) {
            tracing::warn!(%error, "how far the repair is cannot be kept");
        }
        let slices = self.peers.slices().await;
        walk.next = self.after_pause(slices);
        if next.is_none() {
            self.peers.note_online(walk.heard.take());
            self.tell(std::mem::take(&mut walk.report));
        }
        Ok(())
    }

    /// Walks over everything without pauses, for somebody who waits for it.
    async fn walk_now(&self, order: Order) -> Result<(), Gone> {
        let (store, mut report) = (self.peers.store.clone(), RepairReport::default());
        // What has come before counts, though it may still wait for the disk.
        if let Some(Err(error)) = blocking(move || store.flush()).await {
            tracing::warn!(%error, "cannot write what waits");
        }
        self.walk_over(None, &mut report).await?;
        self.tell(report);
        // Whoever has gone away needs no answer.
        let _ = order.send(report);
        Ok(())
    }

    /// Compares everything with peers that have appeared, and everything sooner if some have gone.
    async fn on_view_changed(&self, known: &mut Vec<PeerId>, walk: &mut Walk) -> Result<(), Gone> {
        tokio::select! {
            () = self.stop.notified() => return Err(Gone),
            () = tokio::time::sleep(SETTLING_TIME) => {}
        }
        let peers = self.peers.view().await?.peers();
        let new: Vec<PeerId> = peers.iter().copied().filter(|peer| !known.contains(peer)).collect();
        if known.iter().any(|peer| !peers.contains(peer)) {
            walk.next = walk.next.min(self.after_pause(HURRY));
        }
        *known = peers;
        if new.is_empty() { Ok(()) } else { self.walk_over(Some(&new), &mut walk.report).await }
    }

    async fn walk_over(&self, only: Option<&[PeerId]>, report: &mut RepairReport) -> Result<(), Gone> {
        let mut from = Position::default();
        let mut heard = Some(self.peers.store.clock().unix_millis());
        loop {
            let Repaired { next, is_heard } = self.peers.repair_slice(from, only, report).await?;
            heard = heard.filter(|_| is_heard);
            let Some(next) = next else {
                self.peers.note_online(heard);
                return Ok(());
            };
            from = next;
        }
    }

    /// Returns when the next of `slices` is due, about.
    fn after_pause(&self, slices: u32) -> Option<Instant> {
        let jitter = RandomState::new().hash_one(slices) % u64::from(2 * JITTER_PERCENT + 1);
        let percent = 100 - JITTER_PERCENT + u32::try_from(jitter).unwrap_or(JITTER_PERCENT);
        self.interval.map(|interval| Instant::now() + interval / slices.max(1) * percent / 100)
    }

    fn tell(&self, report: RepairReport) {
        // Without subscribers there is nobody to miss it.
        let _ = self.events.send(NetabaseSwarmEvent::Repaired(report));
    }
}

/// The store, and a way to the peers.
struct Peers {
    store: NetabaseStore,
    /// Does not keep the swarm running.
    commands: mpsc::WeakSender<Command>,
    max_frame_bytes: usize,
    republish_interval: Duration,
}

/// A part of the keyspace, and what this node has there.
#[derive(Clone)]
struct Slice {
    from: Position,
    to: Option<Position>,
    placed: Arc<[Placed]>,
    claims: Arc<Mutex<Claims>>,
}

/// What has come of a slice.
struct Repaired {
    /// Where the next one begins.
    next: Option<Position>,
    /// Whether everything in it that this node holds for others was compared with somebody who holds it, too.
    is_heard: bool,
}

/// What peers say to have that this node lacks. Each record is fetched from one of them, and from the next one
/// only if that one does not deliver.
#[derive(Default)]
struct Claims {
    /// Who else says to have what is being fetched.
    fetching: HashMap<[u8; 16], Vec<PeerId>>,
    received: HashSet<[u8; 16]>,
}

impl Claims {
    /// Returns what is to be fetched from `peer` of what it says to have.
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

    /// Returns what nobody has delivered yet, and who else says to have it.
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

/// Who is to be compared with about what.
#[derive(Default)]
struct Plan {
    /// What this node and each peer both hold, in order.
    shared: BTreeMap<PeerId, Vec<Item>>,
    /// What others hold, and not this node.
    beyond: BTreeMap<PeerId, Vec<Item>>,
    /// How many peers hold what this node should not.
    holders: HashMap<Position, usize>,
}

impl Plan {
    /// Decides who holds what; costs some time for each record.
    fn new(view: &View, slice: &Slice, local: &NetabaseStore) -> Self {
        let mut plan = Self::default();
        for peer in view.neighbours() {
            // They may have what this node has never heard of.
            plan.shared.entry(peer).or_default();
        }
        for placed in slice.placed.iter() {
            let (holders, held) = view.holders(&placed.position);
            let item = Item::of(placed);
            if held {
                for peer in holders {
                    plan.shared.entry(peer).or_default().push(item);
                }
            } else if !view.is_near(&placed.position) && local.is_replica(&placed.key).unwrap_or(false) {
                plan.holders.insert(placed.position, holders.len());
                for peer in holders {
                    plan.beyond.entry(peer).or_default().push(item);
                }
            }
        }
        plan
    }

    /// Leaves out what was compared already.
    fn leave_out(&mut self, before: &Self) {
        self.shared.retain(|peer, items| before.shared.get(peer) != Some(items));
    }

    /// Where the records are that others hold as well as this node.
    fn places(&self) -> HashSet<Position> {
        self.shared.values().flatten().map(|item| item.position).collect()
    }

    fn keep_only(&mut self, peers: &[PeerId]) {
        self.shared.retain(|peer, _| peers.contains(peer));
        self.beyond.clear();
        self.holders.clear();
    }
}

/// What has come of a plan.
struct Carried {
    /// Who did not answer.
    unreachable: Vec<PeerId>,
    /// Who was compared with to the end.
    compared: Vec<PeerId>,
}

/// Why a comparison with a peer was given up.
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
    /// Evens out a slice with its holders, or with `only` some of them; returns where the next one begins.
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

    /// Whether what is here may be given to others. What may have been deleted while this node was away, on a
    /// machine that slept or among peers that did not answer, is discarded first.
    async fn is_current(&self) -> bool {
        if !self.store.was_away() {
            return true;
        }
        let store = self.store.clone();
        if let Some(Err(error)) = blocking(move || store.discard_unvouched()).await {
            tracing::warn!(%error, "cannot discard what may have been deleted");
        }
        !self.store.was_away()
    }

    /// Notes that everything was compared with others since `heard`, if it was.
    fn note_online(&self, heard: Option<u64>) {
        if let Some(heard) = heard {
            self.store.note_online_at(heard);
        }
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
                match timeout(PATIENCE, self.fetch(peer, &positions, slice, report)).await {
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
            // The walk does not wait for it; what is lost in a crash is given up next time.
            match self.store.release(placed) {
                Ok(released) => report.released += u64::from(released),
                Err(error) => tracing::warn!(%error, key = %placed.key, "cannot give up a record"),
            }
        }
        unreachable.sort_unstable();
        unreachable.dedup();
        Ok(Carried { unreachable, compared: whole })
    }

    /// Sends `peer` what it lacks of a slice and fetches what this node lacks; returns whether that was all.
    async fn even_out(
        &self,
        peer: PeerId,
        items: Vec<Item>,
        slice: &Slice,
    ) -> (PeerId, RepairReport, Result<bool, Failed>) {
        let mut report = RepairReport { comparisons: 1, ..RepairReport::default() };
        let outcome = timeout(PATIENCE, self.even_out_with(peer, &items, slice, &mut report)).await;
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

    /// Gives `peer` what it lacks of what it should hold; returns what it has then, in the same or a later version.
    async fn hand_over(
        &self,
        peer: PeerId,
        items: Vec<Item>,
        slice: &Slice,
    ) -> (PeerId, RepairReport, Result<Vec<Item>, Failed>) {
        let mut report = RepairReport::default();
        let offered = timeout(PATIENCE, self.offer(peer, &items, slice, &mut report)).await;
        let there = offered.unwrap_or(Err(Failed::Unreachable)).map(|(there, _)| there);
        (peer, report, there)
    }

    /// Finds out what differs, and whether that is all.
    async fn compare(
        &self,
        peer: PeerId,
        items: &[Item],
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<(Difference, bool), Failed> {
        let (mut difference, mut are_answered) = (Difference::default(), true);
        let mut ranges = vec![Range::new(slice.from, slice.to, items)];
        for _ in 0..MAX_MESSAGES {
            if ranges.is_empty() {
                break;
            }
            let asked = ranges.split_off(ranges.len().saturating_sub(MAX_RANGES));
            let frame = self.ask(peer, wire::compare_request(&asked), report).await?;
            let Some(Response::Compared(answers)) = decode(&frame) else { return Err(Failed::Unreachable) };
            let is_valid = |(range, answer): &(&Range, &Comparison)| answer.is_valid_for(range);
            are_answered &=
                answers.len() == asked.len() && asked.iter().zip(&answers).all(|pair| is_valid(&pair));
            for (range, answer) in asked.iter().zip(&answers).filter(is_valid) {
                let here = range.select(items);
                match answer {
                    Comparison::Equal => {}
                    Comparison::Split => ranges.extend(range.split(here)),
                    Comparison::Listed { items: theirs, until } => {
                        let end = until.as_ref().or(range.to.as_ref());
                        difference.add(within(here, &range.from, end), theirs);
                        ranges.extend(until.map(|until| range.rest(until, here)));
                    }
                }
            }
        }
        // What this node has as well, though it would not share it with this peer, is not missing.
        difference.missing.retain(|position| find(slice, position).is_none());
        let is_whole = are_answered && ranges.is_empty() && difference.missing.len() <= MAX_MISSING;
        difference.missing.truncate(MAX_MISSING);
        Ok((difference, is_whole))
    }

    /// Offers records, and sends those that are wanted. Returns which of them the peer has then, and the
    /// positions where it has a later version.
    async fn offer(
        &self,
        peer: PeerId,
        items: &[Item],
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<(Vec<Item>, Vec<[u8; 16]>), Failed> {
        let (mut there, mut later) = (Vec::new(), Vec::new());
        for chunk in items.chunks(MAX_ITEMS) {
            let briefs: Vec<Brief> = chunk.iter().map(Item::brief).collect();
            let frame = self.ask(peer, wire::offer_request(&briefs), report).await?;
            let Some(Response::Wanted(wanted)) = decode(&frame) else { return Err(Failed::Unreachable) };
            let is_wanted = |index: usize| u16::try_from(index).is_ok_and(|index| wanted.contains(&index));
            let (wanted, known): (Vec<_>, Vec<_>) =
                chunk.iter().enumerate().partition(|(index, _)| is_wanted(*index));
            there.extend(known.into_iter().map(|(_, item)| *item));
            let wanted = wanted.into_iter().map(|(_, item)| *item).collect();
            for (item, outcome) in self.send(peer, wanted, slice, report).await? {
                match outcome {
                    PutAnswer::Stored | PutAnswer::Known => there.push(item),
                    PutAnswer::Refused(Refusal::Outdated) => {
                        there.push(item);
                        later.push(item.brief().position);
                    }
                    PutAnswer::Refused(reason) => {
                        tracing::debug!(%peer, %reason, "a peer refused a record that it should hold");
                    }
                }
            }
        }
        Ok((there, later))
    }

    /// Sends records; returns what became of each.
    async fn send(
        &self,
        peer: PeerId,
        items: Vec<Item>,
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<Vec<(Item, PutAnswer)>, Failed> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut rest = items;
        while !rest.is_empty() {
            let (store, part, limit) = (self.store.clone(), slice.clone(), self.max_frame_bytes);
            let read = blocking(move || Parcel::read(&store, &part, rest, limit)).await;
            let Some(parcel) = read else { break };
            rest = parcel.rest;
            if parcel.items.is_empty() {
                continue;
            }
            let frame = self.ask(peer, parcel.request, report).await?;
            let Some(Response::Put(answers)) = decode(&frame) else { return Err(Failed::Unreachable) };
            let stored = answers.iter().filter(|answer| **answer == PutAnswer::Stored).count();
            report.sent += u64::try_from(stored).unwrap_or(u64::MAX);
            let answered = parcel.items.iter().copied().zip(answers.iter().copied());
            self.is_published(answered.collect(), slice).await;
            outcomes.extend(parcel.items.into_iter().zip(answers));
        }
        Ok(outcomes)
    }

    /// A peer has heard of these: those of our own that were due need not be published as well.
    async fn is_published(&self, answered: Vec<(Item, PutAnswer)>, slice: &Slice) {
        let (store, slice, interval) = (self.store.clone(), slice.clone(), self.republish_interval);
        let reschedule = move || {
            for (item, answer) in answered {
                let Some(placed) = find(&slice, &item.brief().position) else { continue };
                let Ok(Some(due)) = store.publication_due(&placed.key) else { continue };
                let Ok(Some(envelope)) = store.envelope(&placed.key) else { continue };
                let is_sent = envelope.fingerprint() == item.fingerprint;
                if !is_sent || !WriteAnswer::from(answer).is_heard(&envelope) {
                    continue;
                }
                store.note_heard(&placed.key, &envelope);
                if due <= store.clock().unix_millis() {
                    store.schedule(&placed.key, &envelope, Some(next_due(&store, interval, true)));
                }
            }
        };
        blocking(reschedule).await;
    }

    /// Fetches records that this node lacks, and stores them once they are checked; returns whether all were asked
    /// for.
    async fn fetch(
        &self,
        peer: PeerId,
        positions: &[[u8; 16]],
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<bool, Failed> {
        let mut rest = positions;
        for _ in 0..MAX_MESSAGES {
            if rest.is_empty() {
                break;
            }
            let (now, _) = rest.split_at(rest.len().min(MAX_ITEMS));
            let frame = self.ask(peer, wire::fetch_request(now), report).await?;
            let store = self.store.clone();
            let admitted = blocking(move || admit_all(&store, peer, &frame)).await.unwrap_or_default();
            let Admitted { answered, received, news, refused } = admitted;
            slice.claims.lock().received.extend(received);
            // The answer has as many as fit, from the front; the first alone may be larger than what this node takes,
            // and must not be in the way of the others.
            rest = rest.split_at(answered.clamp(1, now.len())).1;
            report.received += news;
            if !refused.is_empty() {
                let commands = self.commands.upgrade().ok_or(Gone)?;
                commands.send(Command::Refused { peer, refused }).await.map_err(|_| Gone)?;
            }
        }
        Ok(rest.is_empty())
    }

    async fn ask(&self, peer: PeerId, request: Vec<u8>, report: &mut RepairReport) -> Result<Frame, Failed> {
        let (reply, answer) = Reply::new(None);
        report.messages += 1;
        report.bytes_sent += u64::try_from(request.len()).unwrap_or(u64::MAX);
        let commands = self.commands.upgrade().ok_or(Gone)?;
        let request = Frame::new(request);
        commands.send(Command::Ask { peer, request, reply }).await.map_err(|_| Gone)?;
        drop(commands);
        match answer.await {
            Ok(Ok(frame)) => {
                report.messages += 1;
                report.bytes_received +=
                    frame.bytes().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(0));
                Ok(frame)
            }
            Ok(Err(NetabaseError::Closed)) | Err(_) => Err(Failed::Gone),
            Ok(Err(_)) => Err(Failed::Unreachable),
        }
    }

    async fn view(&self) -> Result<View, Gone> {
        let (reply, answer) = Reply::new(None);
        let commands = self.commands.upgrade().ok_or(Gone)?;
        commands.send(Command::View { reply }).await.map_err(|_| Gone)?;
        drop(commands);
        answer.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    async fn read_slice(&self, from: Position) -> Slice {
        let store = self.store.clone();
        let placed = blocking(move || store.positions(&from, SLICE + 1)).await;
        let mut placed = placed.unwrap_or_else(|| Ok(Vec::new())).unwrap_or_else(|error: StoreError| {
            tracing::warn!(%error, "cannot read what is to be compared");
            Vec::new()
        });
        let to = placed.get(SLICE).map(|placed| placed.position);
        placed.truncate(SLICE);
        Slice { from, to, placed: placed.into(), claims: Arc::default() }
    }

    /// Returns how many slices there are, about.
    async fn slices(&self) -> u32 {
        let store = self.store.clone();
        let records = blocking(move || store.positions_len()).await.and_then(Result::ok).unwrap_or(0);
        let slice = u64::try_from(SLICE).unwrap_or(u64::MAX);
        u32::try_from(records.div_ceil(slice)).unwrap_or(u32::MAX).max(1)
    }
}

/// Does on another thread what takes a while; `None` if it panicked.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let done = tokio::task::spawn_blocking(act).await;
    done.inspect_err(|error| tracing::error!(%error, "a repair has failed")).ok()
}

/// Finds a record of the slice by the start of its position.
fn find<'a>(slice: &'a Slice, position: &[u8; 16]) -> Option<&'a Placed> {
    let start = slice.placed.partition_point(|placed| placed.position.as_slice() < position.as_slice());
    slice.placed.get(start).filter(|placed| placed.position.starts_with(position))
}

/// Returns what a peer said, if that can be read.
fn decode(frame: &Frame) -> Option<Response<'_>> {
    frame.bytes().ok().and_then(|bytes| Response::decode(bytes).ok())
}

/// Records that go in one message.
struct Parcel {
    request: Vec<u8>,
    items: Vec<Item>,
    /// What did not fit.
    rest: Vec<Item>,
}

impl Parcel {
    /// Reads as many of `items` as fit into `limit` bytes; what is not here any more is left out.
    fn read(store: &NetabaseStore, slice: &Slice, items: Vec<Item>, limit: usize) -> Self {
        let mut request = PutRequest::new(limit);
        let mut sent = Vec::new();
        // What may have been deleted while this node was away is given to nobody.
        let mut items = items.into_iter().filter(|_| !store.was_away());
        while let Some(item) = items.next() {
            let Some(placed) = find(slice, &item.brief().position) else { continue };
            let Ok(Some(envelope)) = store.envelope(&placed.key) else { continue };
            if !request.push((placed.key.as_bytes(), envelope.to_wire().as_bytes())) {
                let rest = std::iter::once(item).chain(items).collect();
                return Self { request: request.finish(), items: sent, rest };
            }
            sent.push(item);
        }
        Self { request: request.finish(), items: sent, rest: Vec::new() }
    }
}

/// What a peer has sent.
#[derive(Default)]
struct Admitted {
    /// How many answers there were.
    answered: usize,
    /// Where the records are that this node has now.
    received: Vec<[u8; 16]>,
    /// How many of them it did not have.
    news: u64,
    /// What it should not have sent.
    refused: Vec<Offence>,
}

/// Checks and stores what a peer has sent.
fn admit_all(store: &NetabaseStore, peer: PeerId, frame: &Frame) -> Admitted {
    let mut admitted = Admitted::default();
    let Some(Response::Records(records)) = decode(frame) else { return admitted };
    admitted.answered = records.len();
    for (key, value) in records.iter().flatten() {
        let parsed = RecordKey::parse(key).ok();
        match store.admit_quietly(key, value) {
            Ok(news) => {
                admitted.news += u64::from(news);
                admitted.received.extend(parsed.map(|key| first(&key.position())));
            }
            // What is here is newer, or another peer's copy would be refused just the same.
            Err(
                Refusal::Outdated
                | Refusal::Expired
                | Refusal::NotMember
                | Refusal::OverQuota
                | Refusal::Full
                | Refusal::TooLarge,
            ) => admitted.received.extend(parsed.map(|key| first(&key.position()))),
            Err(reason) => admitted.refused.push(Offence::of(&peer, key, value, reason)),
        }
    }
    admitted
}

//! The messages of a repair with one peer: comparisons, offers, puts and fetches.

use futures::future::join_all;

use crate::replication::repair::limits::{MAX_ITEMS, MAX_MESSAGES, MAX_MISSING, MAX_RANGES};
use crate::replication::repair::*;
use crate::rpc::Protocol;
use crate::rpc::outbox::Silence;

impl Peers {
    /// Compares with a peer; returns the difference, and whether the comparison was completed.
    ///
    /// All ranges that follow from one answer are compared at once: a comparison takes as many
    /// round trips as ranges are split one after the other.
    pub(super) async fn compare(
        &self,
        peer: PeerId,
        items: &[Item],
        slice: &Slice,
        report: &mut RepairReport,
    ) -> Result<(Difference, bool), Failed> {
        let (mut difference, mut are_answered) = (Difference::default(), true);
        let mut ranges = vec![Range::new(slice.from, slice.to, items)];
        let mut messages = MAX_MESSAGES;
        while !ranges.is_empty() && messages > 0 {
            let next = ranges.split_off(ranges.len().min(messages * MAX_RANGES));
            let level = std::mem::replace(&mut ranges, next);
            let asked: Vec<&[Range]> = level.chunks(MAX_RANGES).collect();
            messages -= asked.len();
            let requests = asked.iter().map(|ranges| wire::compare_request(ranges)).collect();
            for (asked, frame) in asked.into_iter().zip(self.ask_all(peer, requests, report).await?) {
                let Some(Response::Compared(answers)) = decode(&frame) else {
                    return Err(Failed::Unreachable);
                };
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
        }
        // A record that this node has, though the peer should not, is not missing.
        difference.missing.retain(|position| find(slice, position).is_none());
        let is_whole = are_answered && ranges.is_empty() && difference.missing.len() <= MAX_MISSING;
        difference.missing.truncate(MAX_MISSING);
        Ok((difference, is_whole))
    }

    /// Offers records, and sends those that the peer wants. Returns the records that the peer then
    /// has, and the positions where the peer has a later version.
    pub(super) async fn offer(
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

    /// Sends records; returns the outcome of each.
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
            let read = blocking(move || Batch::read(&store, &part, rest, limit)).await;
            let Some(batch) = read else { break };
            rest = batch.rest;
            if batch.items.is_empty() {
                continue;
            }
            let frame = self.ask(peer, batch.request, report).await?;
            let Some(Response::Put(answers)) = decode(&frame) else { return Err(Failed::Unreachable) };
            let stored = answers.iter().filter(|answer| **answer == PutAnswer::Stored).count();
            report.sent += u64::try_from(stored).unwrap_or(u64::MAX);
            let answered = batch.items.iter().copied().zip(answers.iter().copied());
            self.is_published(answered.collect(), slice).await;
            outcomes.extend(batch.items.into_iter().zip(answers));
        }
        Ok(outcomes)
    }

    /// Reschedules this node's own records that were due, since the peer has them now.
    async fn is_published(&self, answered: Vec<(Item, PutAnswer)>, slice: &Slice) {
        let (store, slice, interval) = (self.store.clone(), slice.clone(), self.republish_interval);
        let reschedule = move || {
            for (item, answer) in answered {
                let Some(placed) = find(&slice, &item.brief().position) else { continue };
                let Ok(Some(due)) = store.replica().publication_due(&placed.key) else { continue };
                let Ok(Some(envelope)) = store.replica().version_for_peers(&placed.key) else { continue };
                let is_sent = envelope.fingerprint() == item.fingerprint;
                if !is_sent || !WriteAnswer::from(answer).is_heard(&envelope) {
                    continue;
                }
                store.replica().note_heard(&placed.key, &envelope);
                if due <= store.replica().clock().unix_millis().saturating_add(soon(interval)) {
                    store.replica().schedule(&placed.key, &envelope, Some(next_due(&store, interval, true)));
                }
            }
        };
        blocking(reschedule).await;
    }

    /// Fetches missing records, and stores the valid ones; returns whether all were requested.
    pub(super) async fn fetch(
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
            let admission = self.admission.clone();
            let admitted = blocking(move || admit_all(&admission, peer, &frame)).await.unwrap_or_default();
            let Admitted { answered, received, news, refused } = admitted;
            slice.claims.lock().received.extend(received);
            // The response has as many as fit, in order. The first alone may exceed this node's
            // limit, and must not block the others.
            rest = rest.split_at(answered.clamp(1, now.len())).1;
            report.received += news;
            self.commands.refuse(peer, refused).await.map_err(|_| Gone)?;
        }
        Ok(rest.is_empty())
    }

    async fn ask(&self, peer: PeerId, request: Vec<u8>, report: &mut RepairReport) -> Result<Frame, Failed> {
        let mut frames = self.ask_all(peer, vec![request], report).await?;
        frames.pop().ok_or(Failed::Unreachable)
    }

    /// Sends requests at the same time and returns the answers in their order. Fails if one of them
    /// is not answered.
    async fn ask_all(
        &self,
        peer: PeerId,
        requests: Vec<Vec<u8>>,
        report: &mut RepairReport,
    ) -> Result<Vec<Frame>, Failed> {
        let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        report.messages += number(requests.len());
        report.bytes_sent += number(requests.iter().map(Vec::len).sum());
        let ask = |request| self.commands.ask(Protocol::Records, peer, Frame::new(request));
        let answers = join_all(requests.into_iter().map(ask)).await;
        let received = answers.iter().flatten().filter_map(|frame| frame.bytes().ok()).map(<[u8]>::len);
        report.messages += number(answers.iter().flatten().count());
        report.bytes_received += number(received.sum());
        let answers = answers.into_iter().map(|answer| {
            answer.map_err(|silence| match silence {
                Silence::Stopped => Failed::Gone,
                Silence::TimedOut | Silence::Unreachable(_) => Failed::Unreachable,
            })
        });
        answers.collect()
    }
}

/// Returns the peer's response, or `None` if it is malformed.
fn decode(frame: &Frame) -> Option<Response<'_>> {
    frame.bytes().ok().and_then(|bytes| Response::decode(bytes).ok())
}

/// The records of one message.
struct Batch {
    request: Vec<u8>,
    items: Vec<Item>,
    /// The records that did not fit.
    rest: Vec<Item>,
}

impl Batch {
    /// Reads as many of `items` as fit into `limit` bytes; records that were removed meanwhile are
    /// left out.
    fn read(store: &NetabaseStore, slice: &Slice, items: Vec<Item>, limit: usize) -> Self {
        let mut request = PutRequest::new(limit);
        let mut sent = Vec::new();
        // Records that may have been deleted while this node was away are not sent.
        let mut items = items.into_iter().filter(|_| !store.replica().was_away());
        while let Some(item) = items.next() {
            let Some(placed) = find(slice, &item.brief().position) else { continue };
            let Ok(Some(envelope)) = store.replica().version_for_peers(&placed.key) else { continue };
            if !request.push((placed.key.as_bytes(), envelope.to_wire().as_bytes())) {
                let rest = std::iter::once(item).chain(items).collect();
                return Self { request: request.finish(), items: sent, rest };
            }
            sent.push(item);
        }
        Self { request: request.finish(), items: sent, rest: Vec::new() }
    }
}

/// The outcome of a peer's records.
#[derive(Default)]
pub(super) struct Admitted {
    /// The number of answers.
    pub(super) answered: usize,
    /// The positions of the records that this node has now.
    pub(super) received: Vec<[u8; 16]>,
    /// The number of records that were new.
    pub(super) news: u64,
    /// The records that were refused.
    pub(super) refused: Vec<Offence>,
}

/// Checks and stores a peer's records.
pub(super) fn admit_all(admission: &Admission, peer: PeerId, frame: &Frame) -> Admitted {
    let mut admitted = Admitted::default();
    let Some(Response::Records(records)) = decode(frame) else { return admitted };
    admitted.answered = records.len();
    for (key, value) in records.iter().flatten() {
        match admission.admit(Source::Repair, peer, key, value) {
            Ok(news) => admitted.news += u64::from(news),
            Err(Refused { offence: Some(offence), .. }) => {
                admitted.refused.push(offence);
                continue;
            }
            // The store may accept it later.
            Err(Refused { reason: Refusal::Busy | Refusal::StoreFailed, .. }) => continue,
            // Another peer's copy would be refused, too.
            Err(Refused { offence: None, .. }) => {}
        }
        admitted.received.extend(RecordKey::parse(key).ok().map(|key| first(&key.position())));
    }
    admitted
}

//! Fetching of the records that a peer has and this node lacks.

use crate::platform::{self, JoinSet};
use crate::protocol::limits::{MAX_NEED_IDS, MAX_NEEDS};
use crate::replication::sync::limits::{MAX_FULL, MAX_IDLE_PAGES, MAX_IDS_PER_FETCH, PAGES_AHEAD};
use crate::replication::sync::session::*;

impl Session<'_> {
    /// Fetches the missing records.
    pub(super) async fn fetch(&mut self, needs: Vec<SyncNeed>) -> Result<(), SyncFailure> {
        let mut needs = self.without_refused(needs);
        let mut wanted: HashSet<_> = needs.iter().flat_map(|need| need.ids.iter().copied()).collect();
        let claimed = wanted.len();
        let (many, mut few): (Vec<_>, Vec<_>) =
            needs.drain(..).partition(|need| need.ids.len() > MAX_NEED_IDS);
        for need in many {
            self.stream(need.from, need.to, &mut wanted).await?;
        }
        let mut answered = 0;
        while !few.is_empty() && self.full < MAX_FULL {
            let mut ids = 0;
            let fits = |need: &&SyncNeed| {
                ids += need.ids.len();
                ids <= MAX_IDS_PER_FETCH
            };
            let asked: Vec<Need> = few.iter().take(MAX_NEEDS).take_while(fits).map(need).collect();
            let frame = self.ask(wire::fetch(&self.wire, &asked)).await?;
            let Response::Fetched { needs, records } = decode(&frame)? else {
                return Err(SyncFailure::Nonsense);
            };
            let (done, count) = (usize::from(needs).min(asked.len()), records.len());
            if done == 0 && count == 0 {
                return Err(SyncFailure::Nonsense);
            }
            answered += count;
            if answered > 2 * claimed + MAX_IDLE_PAGES {
                return Err(SyncFailure::Endless);
            }
            let before = wanted.len();
            let admitted = self.admit(Page::Fetched(frame), count).await?;
            self.take(admitted, &mut wanted).await?;
            self.check_progress()?;
            few.drain(..done);
            if let Some(need) = few.first_mut() {
                need.ids.retain(|id| wanted.contains(id));
            }
            if done == 0 && wanted.len() == before {
                // The peer sends other records than requested.
                return Err(SyncFailure::Nonsense);
            }
            few.retain(|need| !need.ids.is_empty());
        }
        if self.full >= MAX_FULL {
            return Ok(());
        }
        self.report.withheld += number(wanted.len());
        if !wanted.is_empty() && wanted.len() == claimed {
            return Err(SyncFailure::Withheld);
        }
        Ok(())
    }

    fn without_refused(&self, mut needs: Vec<SyncNeed>) -> Vec<SyncNeed> {
        for need in &mut needs {
            self.entry.retain_takeable(&mut need.ids, platform::now());
        }
        needs.retain(|need| !need.ids.is_empty());
        needs
    }

    /// Fetches all records of a range, in the order of time. The next page is requested while
    /// earlier ones are verified.
    pub(super) async fn stream(
        &mut self,
        from: SyncBound,
        to: SyncBound,
        wanted: &mut HashSet<[u8; SyncItem::ID_BYTES]>,
    ) -> Result<(), SyncFailure> {
        let mut pages = JoinSet::new();
        let mut outcome = self.stream_pages(from, to, wanted, &mut pages).await;
        // Received records count, however the stream has ended.
        while let Some(admitted) = pages.join_next().await {
            let taken = match admitted {
                Ok(admitted) => self.take(admitted, wanted).await,
                Err(_) => Err(SyncFailure::Store),
            };
            outcome = outcome.and(taken);
        }
        outcome
    }

    async fn stream_pages(
        &mut self,
        from: SyncBound,
        to: SyncBound,
        wanted: &mut HashSet<[u8; SyncItem::ID_BYTES]>,
        pages: &mut JoinSet<Admitted>,
    ) -> Result<(), SyncFailure> {
        let mut next = Some(from);
        while let Some(from) = next.filter(|_| self.full < MAX_FULL) {
            let frame = self.ask(wire::range(&self.wire, &from, &to)).await?;
            let Response::Ranged { next: after, records } = decode(&frame)? else {
                return Err(SyncFailure::Nonsense);
            };
            let count = records.len();
            self.report.streamed += number(count);
            let goes_on = |after: &SyncBound| after.item() > from.item() && after.item() < to.item();
            if after.as_ref().is_some_and(|after| !goes_on(after)) {
                return Err(SyncFailure::Nonsense);
            }
            next = after;
            pages.spawn(admit::admit(self.context, self.peer, self.scope, Page::Ranged(frame), count));
            while pages.len() >= PAGES_AHEAD
                && let Some(admitted) = pages.join_next().await
            {
                self.take(admitted.map_err(|_| SyncFailure::Store)?, wanted).await?;
                self.check_progress()?;
            }
        }
        Ok(())
    }
}

fn need(need: &SyncNeed) -> Need {
    let prefix = |id: &[u8; SyncItem::ID_BYTES]| id.first_chunk().copied().unwrap_or_default();
    Need { from: need.from, to: need.to, ids: need.ids.iter().map(prefix).collect() }
}

//! Authors that write most of what a node has stored lately.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netabase::Author;
use netabase::netabase_store::replica::Usage;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use crate::app::App;
use crate::routes::authors;

/// The time between two looks at the largest authors.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The number of looks that are kept: those of three hours.
const LOOKS: usize = 36;
/// The share of the records stored since the first look, in percent, from which one author floods.
const FLOOD_PERCENT: u64 = 50;
/// The least growth of one author that is a flood, in records.
const FLOOD_RECORDS: u64 = 10_000;

/// The growth of the largest authors.
#[derive(Debug, Default)]
pub(crate) struct Floods(Mutex<VecDeque<Look>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    /// The records and tombstones of all authors.
    all: u64,
    authors: Vec<(Author, u64)>,
}

/// An author that has written most of the new records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flood {
    pub(crate) author: Author,
    /// The records and tombstones by which the author has grown.
    pub(crate) records: u64,
    /// Their share of the growth of all authors, in percent.
    pub(crate) percent: u64,
    pub(crate) since: Instant,
}

fn count(usage: &Usage) -> u64 {
    usage.records.saturating_add(usage.tombstones)
}

impl Floods {
    /// Records the present state. The oldest look is dropped.
    pub(crate) fn note(&self, at: Instant, all: &Usage, authors: &[(Author, Usage)]) {
        let mut looks = self.0.lock();
        while looks.len() >= LOOKS {
            looks.pop_front();
        }
        let authors = authors.iter().map(|(author, usage)| (*author, count(usage))).collect();
        looks.push_back(Look { at, all: count(all), authors });
    }

    /// Returns the author that has grown by most of what all authors have, if it has grown by much.
    pub(crate) fn find(&self, all: &Usage, authors: &[(Author, Usage)]) -> Option<Flood> {
        let looks = self.0.lock();
        let first = looks.front()?;
        let grown_by_all = count(all).saturating_sub(first.all);
        let growth = |(author, usage): &(Author, Usage)| {
            let before = first.authors.iter().find(|(known, _)| known == author);
            // An author that was not among the largest had fewer records than each of those.
            let unknown = || first.authors.iter().map(|(_, records)| *records).min().unwrap_or(0);
            let before = before.map_or_else(unknown, |(_, records)| *records);
            (*author, count(usage).saturating_sub(before))
        };
        let (author, records) = authors.iter().map(growth).max_by_key(|(_, records)| *records)?;
        let percent = (records.saturating_mul(100) / grown_by_all.max(1)).min(100);
        let is_flood = records >= FLOOD_RECORDS && percent >= FLOOD_PERCENT;
        is_flood.then_some(Flood { author, records, percent, since: first.at })
    }
}

/// Looks at the largest authors now and then.
pub(crate) async fn watch(app: Arc<App>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        match authors::largest(&app).await {
            Ok(largest) => app.floods.note(Instant::now(), &app.node.store().counters().usage, &largest),
            Err(problem) => tracing::warn!(detail = problem.detail, "cannot read the usage of the authors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(records: u64) -> Usage {
        let mut usage = Usage::default();
        usage.records = records;
        usage
    }

    fn author(seed: u8) -> Author {
        Author::from_bytes([seed; 32])
    }

    #[test]
    fn an_author_floods_that_wrote_most_of_what_is_new() {
        let (floods, now) = (Floods::default(), Instant::now());
        let of = |one: u64, two: u64| [(author(1), usage(one)), (author(2), usage(two))];
        let find = |one, two| floods.find(&usage(one + two), &of(one, two));
        assert_eq!(find(50_000, 0), None, "nothing is known of the time before");
        floods.note(now, &usage(41_000), &of(1000, 40_000));
        assert_eq!(find(1000 + 9999, 40_000), None, "too few");
        let flood = Flood { author: author(1), records: 30_000, percent: 75, since: now };
        assert_eq!(find(31_000, 50_000), Some(flood));
        assert_eq!(find(31_000, 90_000).map(|flood| flood.author), Some(author(2)));
        // Later looks do not shorten the time before the oldest is dropped.
        for _ in 0..LOOKS - 1 {
            floods.note(now, &usage(81_000), &of(31_000, 50_000));
        }
        assert_eq!(find(31_000, 50_000), Some(flood));
        floods.note(now, &usage(81_000), &of(31_000, 50_000));
        assert_eq!(find(31_000, 50_000), None, "it is over");
    }

    #[test]
    fn a_newcomer_counts_from_what_the_smallest_known_author_had() {
        let floods = Floods::default();
        floods.note(Instant::now(), &usage(5000), &[(author(1), usage(5000))]);
        let now = [(author(2), usage(20_000)), (author(1), usage(5000))];
        let flood = floods.find(&usage(25_000), &now).unwrap();
        assert_eq!((flood.author, flood.records, flood.percent), (author(2), 15_000, 75));
    }
}

//! The rate of new records of each author that peers send.
//!
//! A record counts if no version of it is stored, whichever peer has sent it. Records that this
//! node has asked for, to catch up with its peers, do not count: see `docs/design.md`.

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use hashlink::LruCache;
use netabase_store::Author;
use netabase_store::replica::AuthorLimit;
use parking_lot::Mutex;

use crate::config::NetabaseConfig;
use crate::peers::limits::{AUTHOR_REFUSED_FOR, MAX_TRACKED_AUTHORS, MIN_AUTHOR_BURST};
use crate::platform::{self, Instant};
use crate::rpc::token_bucket::{TokenBucket, amount};

/// The rates of all authors, shared by the sources of records. They outlive the swarm.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuthorRates(Option<Arc<Rates>>);

#[derive(Debug)]
struct Rates {
    per_second: u32,
    burst: u32,
    authors: Mutex<Authors>,
}

#[derive(Debug)]
struct Authors {
    /// The latest authors, the one without news for longest first.
    rates: LruCache<Author, Rate, RandomState>,
    /// Authors that have used more than the smallest share of a burst, as many as there are shares.
    busy: Vec<Author>,
}

#[derive(Debug)]
struct Rate {
    bucket: TokenBucket,
    /// The refused records, until none was refused for [`AUTHOR_REFUSED_FOR`].
    refused: u64,
    /// The time of the last refusal.
    last: Instant,
}

impl AuthorRates {
    /// Makes the rates of a node; without a rate in the settings nothing is limited.
    pub(crate) fn new(config: &NetabaseConfig) -> Self {
        let (per_second, burst) = (config.author_records_per_second, config.author_record_burst);
        let rates = LruCache::with_hasher(MAX_TRACKED_AUTHORS, platform::random_hasher());
        let authors = Mutex::new(Authors { rates, busy: Vec::new() });
        Self((per_second > 0).then(|| Arc::new(Rates { per_second, burst, authors })))
    }

    /// Returns the limit for records that peers send unasked, or `None` if there is none.
    pub(crate) fn limit(&self) -> Option<&dyn AuthorLimit> {
        self.0.as_deref().map(|rates| rates as &dyn AuthorLimit)
    }

    /// Returns the authors of whom a record was refused lately, with the number of refused records,
    /// the largest first.
    pub(crate) fn refused(&self) -> Vec<(Author, u64)> {
        let Some(rates) = &self.0 else { return Vec::new() };
        let (authors, now) = (rates.authors.lock(), platform::now());
        let refused = authors.rates.iter().filter(|(_, rate)| rate.is_refused(now));
        let mut refused: Vec<_> = refused.map(|(author, rate)| (*author, rate.refused)).collect();
        refused.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        refused
    }
}

impl Rates {
    fn of<T>(&self, author: Author, act: impl FnOnce(&mut Rate, Instant) -> T) -> T {
        let mut authors = self.authors.lock();
        let now = platform::now();
        act(self.rate(&mut authors, author, now), now)
    }

    fn rate<'a>(&self, authors: &'a mut Authors, author: Author, now: Instant) -> &'a mut Rate {
        let full = || Rate {
            bucket: TokenBucket::new(self.per_second.into(), self.burst.into(), now),
            refused: 0,
            last: now,
        };
        authors.rates.entry(author).or_insert_with(full)
    }

    /// The part of a burst that every author has, however many write much at the same time.
    fn smallest_share(&self) -> f64 {
        f64::from(self.burst.min(MIN_AUTHOR_BURST))
    }

    /// Returns whether an author has used more than the smallest share of a burst.
    fn is_busy(&self, rate: &mut Rate, now: Instant) -> bool {
        f64::from(self.burst) - rate.bucket.left(now) > self.smallest_share()
    }

    /// Returns the burst of an author: authors that write much at the same time share one.
    fn share(&self, authors: &mut Authors, now: Instant) -> f64 {
        let Authors { rates, busy } = authors;
        busy.retain(|author| rates.peek_mut(author).is_some_and(|rate| self.is_busy(rate, now)));
        (f64::from(self.burst) / amount(busy.len().max(1))).max(self.smallest_share())
    }
}

impl AuthorLimit for Rates {
    fn allows(&self, author: Author) -> bool {
        let mut authors = self.authors.lock();
        let now = platform::now();
        let kept = f64::from(self.burst) - self.share(&mut authors, now);
        self.rate(&mut authors, author, now).bucket.has(kept + 1.0, now)
    }

    fn count(&self, author: Author) {
        let mut authors = self.authors.lock();
        let now = platform::now();
        let rate = self.rate(&mut authors, author, now);
        rate.bucket.spend(1.0, now);
        let is_busy = self.is_busy(rate, now);
        let shares = usize::try_from(self.burst / self.burst.min(MIN_AUTHOR_BURST)).unwrap_or(usize::MAX);
        if is_busy && authors.busy.len() < shares && !authors.busy.contains(&author) {
            authors.busy.push(author);
        }
    }

    fn note_refused(&self, author: Author) {
        self.of(author, |rate, now| {
            rate.refused = if rate.is_refused(now) { rate.refused.saturating_add(1) } else { 1 };
            rate.last = now;
        });
    }
}

impl Rate {
    fn is_refused(&self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.last);
        self.refused > 0 && since < AUTHOR_REFUSED_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(number: usize) -> Author {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Author::from_bytes(bytes)
    }

    fn rates(author_records_per_second: u32, author_record_burst: u32) -> AuthorRates {
        let config = NetabaseConfig { author_records_per_second, author_record_burst, ..Default::default() };
        AuthorRates::new(&config)
    }

    #[test]
    fn each_author_has_a_burst_of_its_own() {
        let rates = rates(1, 3);
        let limit = rates.limit().unwrap();
        for _ in 0..3 {
            assert!(limit.allows(author(1)));
            limit.count(author(1));
        }
        assert!(!limit.allows(author(1)) && limit.allows(author(2)));
        assert_eq!(rates.refused(), []);
        limit.note_refused(author(1));
        limit.note_refused(author(1));
        limit.note_refused(author(2));
        assert_eq!(rates.refused(), [(author(1), 2), (author(2), 1)]);
    }

    #[test]
    fn authors_that_write_much_at_the_same_time_share_a_burst() {
        const BURST: u32 = 8 * MIN_AUTHOR_BURST;
        let rates = rates(1, BURST);
        let limit = rates.limit().unwrap();
        let write = |author, most: u32| {
            let allowed = |_: &u32| limit.allows(author);
            (0..most).take_while(allowed).inspect(|_| limit.count(author)).count()
        };
        // Alone, an author has all of it.
        assert!(write(author(1), u32::MAX) >= BURST as usize);
        // The second one has half, and the ninth no less than everybody has.
        assert_eq!(write(author(2), u32::MAX), BURST as usize / 2);
        (3..9).for_each(|number| assert!(write(author(number), u32::MAX) < BURST as usize / 2));
        assert!(
            (MIN_AUTHOR_BURST as usize..MIN_AUTHOR_BURST as usize + 10).contains(&write(author(9), u32::MAX))
        );
        // An author that writes little is not affected.
        assert_eq!(write(author(10), 100), 100);
    }

    #[test]
    fn a_rate_of_zero_limits_nobody() {
        assert!(rates(0, 1).limit().is_none() && AuthorRates::default().limit().is_none());
    }

    #[test]
    fn the_author_without_news_for_longest_is_forgotten() {
        let rates = rates(1, 1);
        let limit = rates.limit().unwrap();
        (0..MAX_TRACKED_AUTHORS).for_each(|number| limit.count(author(number)));
        assert!(!limit.allows(author(0)), "it is the last that was heard of now");
        limit.count(author(MAX_TRACKED_AUTHORS));
        assert!(!limit.allows(author(0)) && limit.allows(author(1)));
    }
}

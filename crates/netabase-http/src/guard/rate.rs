//! How often each client may ask.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::Rate;

/// The most clients that are remembered; of those that have asked the least of late, one is
/// forgotten.
const MAX_CLIENTS: usize = 4096;

/// A bucket of tokens for each client address.
#[derive(Debug)]
pub(crate) struct Buckets {
    rate: Rate,
    clients: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, clients: Mutex::default() }
    }

    /// Takes a token of the client; otherwise returns when there will be one.
    pub(crate) fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let (per_second, burst) = (f64::from(self.rate.per_second.get()), f64::from(self.rate.burst.get()));
        let client = household(client);
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            forget(&mut clients, per_second, burst, now);
        }
        let bucket = clients.entry(client).or_insert(Bucket { tokens: burst, at: now });
        bucket.tokens = bucket.tokens_at(now, per_second).min(burst);
        bucket.at = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - bucket.tokens) / per_second))
    }
}

impl Bucket {
    fn tokens_at(&self, now: Instant, per_second: f64) -> f64 {
        self.tokens + now.saturating_duration_since(self.at).as_secs_f64() * per_second
    }
}

/// Forgets those whose buckets are full, who lose nothing by it, or else the one that is the
/// fullest.
fn forget(clients: &mut HashMap<IpAddr, Bucket>, per_second: f64, burst: f64, now: Instant) {
    clients.retain(|_, bucket| bucket.tokens_at(now, per_second) < burst);
    if clients.len() < MAX_CLIENTS {
        return;
    }
    let tokens = |bucket: &Bucket| bucket.tokens_at(now, per_second);
    let fullest = clients.iter().max_by(|(_, one), (_, other)| tokens(one).total_cmp(&tokens(other)));
    if let Some(client) = fullest.map(|(client, _)| *client) {
        clients.remove(&client);
    }
}

/// Returns what stands for all addresses that one client has: its /64 of IPv6.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn buckets(per_second: u32, burst: u32) -> Buckets {
        let rate =
            Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() };
        Buckets::new(rate)
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let (buckets, now) = (buckets(10, 3), Instant::now());
        let client = IpAddr::from([192, 0, 2, 1]);
        assert_eq!((0..5).filter(|_| buckets.take(client, now).is_ok()).count(), 3);
        assert!(buckets.take(client, now).unwrap_err() <= Duration::from_millis(100));
        assert!(buckets.take(IpAddr::from([192, 0, 2, 2]), now).is_ok(), "another client has its own");
        let later = now + Duration::from_millis(250);
        assert_eq!((0..5).filter(|_| buckets.take(client, later).is_ok()).count(), 2);
    }

    #[test]
    fn addresses_of_one_household_share_a_bucket() {
        let (buckets, now) = (buckets(1, 1), Instant::now());
        assert!(buckets.take("2001:db8::1".parse().unwrap(), now).is_ok());
        assert!(buckets.take("2001:db8::2".parse().unwrap(), now).is_err());
        assert!(buckets.take("2001:db8:0:1::1".parse().unwrap(), now).is_ok());
    }

    #[test]
    fn only_so_many_clients_are_remembered_and_a_limited_one_is_among_them() {
        let (buckets, now) = (buckets(1, 2), Instant::now());
        let limited = IpAddr::from([192, 0, 2, 1]);
        while buckets.take(limited, now).is_ok() {}
        for client in 0..u32::try_from(2 * MAX_CLIENTS).unwrap() {
            let _ = buckets.take(IpAddr::from(client.to_be_bytes()), now);
        }
        assert!(buckets.clients.lock().len() <= MAX_CLIENTS);
        assert!(buckets.take(limited, now).is_err());
    }
}

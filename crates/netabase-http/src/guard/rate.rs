//! The rate limit of each client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use netabase::units::TokenBucket;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::config::Rate;
use crate::limits::MAX_CLIENTS;

/// A token bucket for each client address.
#[derive(Debug)]
pub(crate) struct Buckets {
    per_second: f64,
    burst: f64,
    clients: Mutex<HashMap<IpAddr, TokenBucket>>,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        let [per_second, burst] = [rate.per_second, rate.burst].map(|rate| f64::from(rate.get()));
        Self { per_second, burst, clients: Mutex::default() }
    }

    /// Takes a token of the client, or returns how long it takes to get one.
    pub(crate) fn take(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let client = bucket_address(client);
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            self.forget(&mut clients, now);
        }
        let bucket =
            clients.entry(client).or_insert_with(|| TokenBucket::new(self.per_second, self.burst, now));
        if bucket.take(1.0, now) { Ok(()) } else { Err(bucket.time_until(1.0, now)) }
    }

    /// Forgets the clients whose buckets are full, for whom nothing changes by it, or else the one
    /// with the fullest bucket.
    fn forget(&self, clients: &mut HashMap<IpAddr, TokenBucket>, now: Instant) {
        clients.retain(|_, bucket| !bucket.has(self.burst, now));
        if clients.len() < MAX_CLIENTS {
            return;
        }
        let left = clients.iter_mut().map(|(client, bucket)| (*client, bucket.left(now)));
        let fullest = left.max_by(|(_, one), (_, other)| one.total_cmp(other));
        if let Some((client, _)) = fullest {
            clients.remove(&client);
        }
    }
}

/// Returns the address under which a client is counted: of IPv6 its /64, all of which one client
/// may have.
pub(crate) fn bucket_address(address: IpAddr) -> IpAddr {
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
    fn addresses_of_one_prefix_share_a_bucket() {
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

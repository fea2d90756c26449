//! Times in the format of RFC 3339.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netabase::Timestamp;

/// The largest time that a [`Timestamp`] can have. It is shown as the end of the year 9999.
const MAX_MILLIS: u64 = (1 << 48) - 1;

/// Formats milliseconds since the Unix epoch in the format of RFC 3339, with milliseconds, in UTC.
pub(crate) fn rfc3339(millis: u64) -> String {
    Timestamp::from_unix_millis(millis.min(MAX_MILLIS)).to_string()
}

/// Formats a system time in the format of RFC 3339.
pub(crate) fn rfc3339_of(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(millis(since))
}

/// Returns a duration in whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written_as_everybody_writes_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}

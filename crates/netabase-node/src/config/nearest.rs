//! Suggestions for misspelt names.

/// The largest edit distance of a suggestion.
const MAX_DISTANCE: usize = 4;

/// Returns the known name with the smallest edit distance to `name`, if that is small enough.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The last part may be right, but in another table.
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let measured = known.into_iter().map(|candidate| {
        let whole = strsim::osa_distance(name, candidate);
        let moved = if last(name) == last(candidate) { 1 } else { whole };
        (whole.min(moved), candidate)
    });
    let (distance, candidate) = measured.min_by_key(|(distance, _)| *distance)?;
    (distance <= MAX_DISTANCE.min(name.len() / 2)).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KNOWN: [&str; 4] = ["path", "api.listen", "listen", "store.cache_bytes"];

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        for (slip, meant) in [
            ("paht", "path"),
            ("lisen", "listen"),
            ("api.lissten", "api.listen"),
            ("cache_bytes", "store.cache_bytes"),
        ] {
            assert_eq!(nearest(slip, KNOWN), Some(meant));
        }
        for nonsense in ["", "x", "colour"] {
            assert_eq!(nearest(nonsense, KNOWN), None);
        }
    }
}

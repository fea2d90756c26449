//! The name that was probably meant.

/// The most differences of a name that is still suggested.
const MAX_DISTANCE: usize = 4;

/// Returns the known name that is closest to `name`, if one is close.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The last part alone may be right, in another table.
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let measured = known.into_iter().map(|candidate| {
        let whole = distance(name, candidate);
        let moved = if last(name) == last(candidate) { 1 } else { whole };
        (whole.min(moved), candidate)
    });
    let (distance, candidate) = measured.min_by_key(|(distance, _)| *distance)?;
    (distance <= MAX_DISTANCE.min(name.len() / 2)).then_some(candidate)
}

/// Returns how many letters are to be put in, left out, changed or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut line = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let [corner, over] =
                [column, column + 1].map(|at| above.get(at).copied().unwrap_or(usize::MAX / 2));
            let left = line.last().copied().unwrap_or(usize::MAX / 2);
            line.push((corner + usize::from(letter != *other)).min(over + 1).min(left + 1));
        }
        above = line;
    }
    above.last().copied().unwrap_or_default()
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

//! What the measurements of a case should come to.

use super::{ATTACKED, IDLE};
use crate::Measurement;

/// The latency up to which a put or get of the honest peer is served well, and how many times the
/// idle one it may be, if that is more.
const LATENCY_MILLIS: f64 = 50.0;
const LATENCY_FACTOR: f64 = 5.0;

/// How a value is judged.
enum Aim {
    /// At most [`LATENCY_MILLIS`] or [`LATENCY_FACTOR`] times the idle value.
    Latency,
    Below(f64),
    AtMost(f64),
    AtLeast(f64),
}

const AIMS: [(&str, Aim); 7] = [
    ("put p99", Aim::Latency),
    ("get p99", Aim::Latency),
    ("API get p99", Aim::Below(100.0)),
    ("newcomers connected", Aim::AtLeast(20.0)),
    ("memory over idle", Aim::AtMost(128.0)),
    ("amplification", Aim::Below(1.0)),
    ("strangers' share", Aim::AtMost(50.0)),
];

/// Returns a line for each aim that a case misses.
pub(super) fn missed(case: &[Measurement]) -> Vec<String> {
    let find = |system, metric| case.iter().find(|found| (found.system, found.metric) == (system, metric));
    let judge = |(metric, aim): &(&'static str, Aim)| {
        let attacked = find(ATTACKED, *metric)?;
        let (met, wanted) = match aim {
            Aim::Latency => {
                let idle = find(IDLE, *metric)?;
                let most = LATENCY_MILLIS.max(LATENCY_FACTOR * idle.value);
                (attacked.value <= most, format!("at most {most:.0}"))
            }
            Aim::Below(end) => (attacked.value < *end, format!("below {end}")),
            Aim::AtMost(most) => (attacked.value <= *most, format!("at most {most}")),
            Aim::AtLeast(least) => (attacked.value >= *least, format!("at least {least}")),
        };
        let Measurement { case, value, unit, .. } = attacked;
        (!met).then(|| format!("{case}: {metric} is {value:.2} {unit}, and should be {wanted}"))
    };
    AIMS.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(system: &'static str, metric: &'static str, value: f64) -> Measurement {
        Measurement { case: "kad", system, metric, value, unit: "units", n: 1 }
    }

    #[test]
    fn a_latency_may_be_five_times_the_idle_one_or_50_ms() {
        let missed = |idle, attacked| {
            missed(&[measurement(IDLE, "put p99", idle), measurement(ATTACKED, "put p99", attacked)])
        };
        assert!(missed(2.0, 49.0).is_empty() && missed(20.0, 99.0).is_empty());
        assert_eq!(missed(2.0, 51.0), ["kad: put p99 is 51.00 units, and should be at most 50"]);
        assert_eq!(missed(20.0, 101.0).len(), 1);
    }

    #[test]
    fn every_other_aim_has_its_bound() {
        let missed = |metric, value| !missed(&[measurement(ATTACKED, metric, value)]).is_empty();
        for (metric, met, over) in [
            ("API get p99", 99.0, 100.0),
            ("newcomers connected", 20.0, 19.0),
            ("memory over idle", 128.0, 129.0),
            ("amplification", 0.9, 1.0),
            ("strangers' share", 50.0, 51.0),
        ] {
            assert!(!missed(metric, met) && missed(metric, over), "{metric}");
        }
    }
}

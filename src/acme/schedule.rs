//! When a certificate is renewed, and how long a failure keeps us away. No clock here.

use std::time::{Duration, SystemTime};

use crate::{config::model::Pace, net::certificates::Validity};

/// How long this certificate needs no other; zero when it is due.
///
/// Due at two thirds of its life: a failing CA has the last third to be mended in.
pub(super) fn until_due(validity: &Validity, now: SystemTime) -> Duration {
    let life = validity.not_after.duration_since(validity.not_before).unwrap_or_default();
    let due = validity.not_before + life / 3 * 2;
    due.duration_since(now).unwrap_or_default()
}

/// What the last attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// How many there were in a row, this one counted.
    pub(super) count: u32,
    /// Whether a CA said no.
    pub(super) refusal: bool,
    /// How long it told us to stay away.
    pub(super) told: Option<Duration>,
    /// From 0 to 255: so many replicas do not come back at once.
    pub(super) chance: u8,
}

/// How long to stay away after it.
pub(super) fn pause(pace: &Pace, failure: Failure) -> Duration {
    let first = if failure.refusal { pace.after_refusal } else { pace.after_fault };
    let doubled = first.saturating_mul(1_u32.checked_shl(failure.count.saturating_sub(1)).unwrap_or(u32::MAX));
    let told = failure.told.unwrap_or_default().min(pace.longest_told);
    let pause = doubled.min(pace.longest).max(told);
    pause + pause / 4 * u32::from(failure.chance) / 255
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::UNIX_EPOCH};

    use super::*;

    #[test]
    fn two_thirds_of_a_life_pass_before_the_renewal() {
        let day = Duration::from_secs(86_400);
        let begin = UNIX_EPOCH + day * 1000;
        let of = |days| Validity {
            certificate: PathBuf::new(),
            names: Vec::new(),
            not_before: begin,
            not_after: begin + day * days,
        };
        assert_eq!(until_due(&of(90), begin), day * 60);
        assert_eq!(until_due(&of(90), begin + day * 59), day);
        assert_eq!(until_due(&of(6), begin + day * 3), day);
        assert!(until_due(&of(90), begin + day * 60).is_zero());
        assert!(until_due(&of(90), begin + day * 365).is_zero());
        let upside_down = Validity { not_after: begin - day, ..of(1) };
        assert!(until_due(&upside_down, begin).is_zero());
    }

    #[test]
    fn every_failure_doubles_the_pause_within_its_bounds() {
        let pace = Pace::default();
        let of = |count, refusal, told, chance| pause(&pace, Failure { count, refusal, told, chance }).as_secs();
        assert_eq!([1, 2, 3, 4].map(|count| of(count, true, None, 0)), [300, 600, 1200, 2400]);
        assert_eq!([1, 2, 3].map(|count| of(count, false, None, 0)), [10, 20, 40]);
        for count in [13, 33, 40, u32::MAX] {
            assert_eq!(of(count, true, None, 0), 6 * 3600);
            assert_eq!(of(count, false, None, 255), 6 * 3600 * 5 / 4);
        }
        let hour = Duration::from_secs(3600);
        assert_eq!(of(1, true, Some(hour), 0), 3600, "what the CA asks for");
        assert_eq!(of(5, true, Some(hour), 0), 4800, "no sooner because it asks for less");
        assert_eq!(of(1, true, Some(hour * 24 * 365), 0), 7 * 24 * 3600);
    }
}

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

/// A pause as another process left it, in whole seconds, the moment counted from 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Failures in a row before it.
    pub(super) failures: u32,
    pub(super) pause_s: u64,
    /// Not before this is anything tried.
    pub(super) until_s: u64,
}

impl Kept {
    /// The pause that begins now, never shorter for the rounding.
    pub(super) fn new(failures: u32, pause: Duration, now: Duration) -> Self {
        let until_s = now.saturating_add(pause).as_secs().saturating_add(1);
        Self { failures, pause_s: until_s.saturating_sub(now.as_secs()), until_s }
    }
}

/// What is left of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) rest: Duration,
    /// Failures that still count.
    pub(super) failures: u32,
    /// Whether its end was too far away to be believed: a clock was set back, or the file is not ours.
    pub(super) cut: bool,
}

/// What is left of it at `now`, counted from 1970 too; never more than it was, nor than any pause may be.
pub(super) fn left(pace: &Pace, kept: Kept, now: Duration) -> Left {
    let longest = pace.longest.max(pace.longest_told);
    let most = Duration::from_secs(kept.pause_s).min(longest + longest / 4);
    let until = Duration::from_secs(kept.until_s);
    // Rounded down like the moment it was written at.
    let ahead = until.saturating_sub(Duration::from_secs(now.as_secs()));
    // What failed so long ago says nothing of the next attempt.
    let forgotten = now.saturating_sub(until) > pace.longest;
    let failures = if forgotten { 0 } else { kept.failures };
    Left { rest: ahead.min(most), failures, cut: ahead > most }
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

    #[test]
    fn a_pause_goes_on_where_another_process_left_it() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let pace = Pace::default();
        let begun = Duration::from_millis(1_000_000_900);
        let kept = Kept::new(3, Duration::from_millis(1_200_500), begun);
        assert_eq!(kept, Kept { failures: 3, pause_s: 1202, until_s: 1_001_202 });
        let of = |now| left(&pace, kept, now);
        let rest = |seconds| Left { rest: second * seconds, failures: 3, cut: false };
        assert_eq!(of(begun), rest(1202));
        assert_eq!(of(begun + second * 1000), rest(202));
        assert_eq!(of(Duration::from_secs(kept.until_s)), rest(0));
        // The next failure is still one more in the row, until so long has passed that it is the first of another.
        assert_eq!(of(Duration::from_secs(kept.until_s) + pace.longest), rest(0));
        assert_eq!(of(begun + second * 1202 + pace.longest).failures, 0);
        // The clock was set back: no more than the whole pause again.
        for now in [begun - hour, begun - 100 * hour, Duration::ZERO] {
            assert_eq!(of(now), Left { rest: second * 1202, failures: 3, cut: true }, "{now:?}");
        }
    }

    #[test]
    fn no_file_keeps_us_away_longer_than_a_pause_may_be() {
        let pace = Pace::default();
        let week = pace.longest_told;
        for (pause_s, until_s) in [(u64::MAX, u64::MAX), (u64::MAX, 4_000_000_000), (week.as_secs() * 2, u64::MAX)] {
            let kept = Kept { failures: u32::MAX, pause_s, until_s };
            let left = left(&pace, kept, Duration::from_secs(2_000_000_000));
            assert_eq!(left, Left { rest: week + week / 4, failures: u32::MAX, cut: true });
        }
        let none = Kept { failures: 1, pause_s: 0, until_s: u64::MAX };
        assert!(left(&pace, none, Duration::ZERO).rest.is_zero());
        let fast = Pace { longest: Duration::MAX / 2, ..pace };
        left(&fast, Kept::new(1, Duration::MAX, Duration::MAX), Duration::MAX);
    }
}

//! The clock that all processes of one machine share: a time stamped by one can be read by another.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some fixed moment before this machine started.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or_default();
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// The value below which `share` of them lie; 0 where there are none. Sorts them.
pub(crate) fn percentile(values: &mut [u64], per_cent: usize) -> u64 {
    values.sort_unstable();
    let at = values.len().saturating_sub(1) * per_cent / 100;
    values.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut values: Vec<u64> = (0..=100).rev().collect();
        assert_eq!(percentile(&mut values, 50), 50);
        assert_eq!(percentile(&mut values, 99), 99);
        assert_eq!(percentile(&mut [], 50), 0);
    }

    #[test]
    fn time_goes_on() {
        let before = now();
        assert!(before > 0 && now() >= before);
    }
}

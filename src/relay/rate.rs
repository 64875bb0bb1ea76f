//! How much a client may send: a bucket that refills with time.

use std::time::Duration;

use super::moment::Moment;
use crate::config::relay_policy::Rate;

/// A bucket for bytes and one for messages, each a second's worth deep.
///
/// What was read cannot be unread, so a bucket may go below nothing; it is then waited for.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    bytes: f64,
    messages: f64,
    filled_at: Moment,
}

impl Bucket {
    pub(super) fn new(rate: Rate, now: Moment) -> Self {
        Self { rate, bytes: depth(rate.bytes), messages: depth(rate.messages), filled_at: now }
    }

    pub(super) fn take(&mut self, bytes: u64, messages: u64) {
        if self.rate.bytes.is_some() {
            self.bytes -= to_f64(bytes);
        }
        if self.rate.messages.is_some() {
            self.messages -= to_f64(messages);
        }
    }

    /// When something may be read again; `None` is now.
    pub(super) fn held_until(&mut self, now: Moment) -> Option<Moment> {
        let passed = now.since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        let mut wait = 0.0_f64;
        for (rate, level) in [(self.rate.bytes, &mut self.bytes), (self.rate.messages, &mut self.messages)] {
            let Some(rate) = rate.map(to_f64) else { continue };
            *level = (*level + rate * passed).min(rate);
            if *level < 0.0 {
                wait = wait.max(-*level / rate);
            }
        }
        // A day is for ever here, and bounds what a tiny rate and a big read can add up to.
        (wait > 0.0).then(|| now + Duration::from_secs_f64(wait.min(86_400.0)) + Duration::from_millis(1))
    }
}

fn depth(rate: Option<u64>) -> f64 {
    rate.map_or(0.0, to_f64)
}

/// Exact up to 2^53, far beyond any rate.
#[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relay_policy::Excess;

    #[test]
    fn what_is_beyond_the_rate_is_waited_for() {
        let now = Moment::default() + Duration::from_secs(3);
        let mut bucket = Bucket::new(Rate { bytes: Some(1000), messages: Some(10), excess: Excess::Hold }, now);
        bucket.take(1000, 10);
        assert_eq!(bucket.held_until(now), None, "a second's worth may come at once");
        bucket.take(500, 0);
        assert_eq!(bucket.held_until(now), Some(now + Duration::from_millis(501)));
        let later = now + Duration::from_millis(501);
        assert_eq!(bucket.held_until(later), None);
        bucket.take(0, 20);
        assert!(bucket.held_until(later).is_some());
    }
}

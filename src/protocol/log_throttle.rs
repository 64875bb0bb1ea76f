//! Limits log lines that a peer can cause at will. The time is passed in.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Minimum time between two lines of one kind: long enough that an attack cannot fill a disk, short enough for
/// operators.
pub const PAUSE: Duration = Duration::from_secs(10);

/// Maximum keys of one [`LogThrottles`]. Keys are names from the config and fixed words; further ones share one
/// throttle.
const MAX_KEYS: usize = 4096;

/// Counts events of one kind and decides which of them are logged.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    suppressed: u64,
    logged_at: Option<Instant>,
}

impl State {
    fn note(&mut self, now: Instant) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl LogThrottle {
    /// Counts an event. Returns the number of events since the last one that was logged, if this one is to be logged.
    pub fn note(&self, now: Instant) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).note(now)
    }
}

/// Kind of a warning about requests: its rule, and its route if it has one.
pub type WarningKey = (&'static str, Box<str>);

/// A throttle for each key.
#[derive(Debug)]
pub struct LogThrottles<K>(Mutex<Keyed<K>>);

#[derive(Debug)]
struct Keyed<K> {
    states: HashMap<K, State>,
    overflow: State,
}

impl<K> Default for LogThrottles<K> {
    fn default() -> Self {
        Self(Mutex::new(Keyed { states: HashMap::new(), overflow: State::default() }))
    }
}

impl<K: Eq + Hash> LogThrottles<K> {
    /// See [`LogThrottle::note`].
    pub fn note(&self, key: K, now: Instant) -> Option<u64> {
        let mut keyed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keyed.states.len() >= MAX_KEYS && !keyed.states.contains_key(&key) {
            return keyed.overflow.note(now);
        }
        keyed.states.entry(key).or_default().note(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a beginning to count from; no time passes here")]
    fn begin() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_first_event_is_logged_and_then_one_in_each_pause_with_the_number_of_the_others() {
        let (throttle, begin) = (LogThrottle::default(), begin());
        let logged: Vec<u64> = (0..10_000).filter_map(|_| throttle.note(begin)).collect();
        assert_eq!(logged, [0]);
        assert_eq!(throttle.note(begin + PAUSE - Duration::from_millis(1)), None);
        assert_eq!(throttle.note(begin + PAUSE), Some(10_000));
        assert_eq!(throttle.note(begin + PAUSE), None);
        // A clock of another thread may be read a little earlier.
        assert_eq!(throttle.note(begin), None);
    }

    #[test]
    fn keys_have_throttles_of_their_own_up_to_a_bound() {
        let (throttles, begin) = (LogThrottles::default(), begin());
        let logged = |range: std::ops::Range<usize>| range.filter(|key| throttles.note(*key, begin).is_some()).count();
        assert_eq!(logged(0..MAX_KEYS), MAX_KEYS);
        assert_eq!(logged(0..MAX_KEYS), 0);
        assert_eq!(logged(MAX_KEYS..2 * MAX_KEYS), 1);
    }
}

//! How many are alive, by key.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts what is alive; clones share one. A key that has nothing alive takes no room, so that the whole is bounded by
/// what it counts.
#[derive(Clone, Debug)]
pub(super) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// One of those that are counted; the count moves back when it is dropped.
#[derive(Debug)]
pub(super) struct Counted<K: Eq + Hash> {
    counts: Counts<K>,
    key: K,
}

impl<K> Counts<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // Nothing under the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Counts<K> {
    /// Counts one more, unless there are `most` already.
    pub(super) fn enter(&self, key: K, most: usize) -> Option<Counted<K>> {
        let mut alive = self.lock();
        let count = alive.entry(key).or_insert(0);
        // With `most` at least 1, a key that was just put in is never left behind at 0.
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        drop(alive);
        Some(Counted { counts: self.clone(), key })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut alive = self.counts.lock();
        if let Some(count) = alive.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                alive.remove(&self.key);
            }
        }
        give_back(&mut alive);
    }
}

/// A crowd that has left leaves its room behind; gives back what is far more than the rest needs.
pub(super) fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 1024 && map.len() < map.capacity() / 8 {
        map.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_move_back_and_leave_nothing() {
        let counts = Counts::default();
        let first = counts.enter("a", 2).unwrap();
        let second = counts.enter("a", 2).unwrap();
        assert!(counts.enter("a", 2).is_none());
        assert!(counts.enter("b", 1).is_some(), "another key has a count of its own");
        drop(first);
        let third = counts.enter("a", 2).unwrap();
        drop((second, third));
        assert!(counts.lock().is_empty());
    }

    #[test]
    fn a_crowd_that_has_left_takes_no_room() {
        let counts = Counts::default();
        let crowd: Vec<_> = (0..100_000).map(|key| counts.enter(key, 1).unwrap()).collect();
        assert_eq!(counts.lock().len(), 100_000);
        drop(crowd);
        let alive = counts.lock();
        assert!(alive.is_empty() && alive.capacity() <= 1024, "{}", alive.capacity());
    }

    #[test]
    fn threads_do_not_lose_count() {
        let counts = Counts::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let held = (counts.enter(1u8, 2), counts.enter(1, 2), counts.enter(1, 2));
                        assert!(held.0.is_none() || held.1.is_none() || held.2.is_none());
                    }
                });
            }
        });
        assert!(counts.lock().is_empty());
    }
}

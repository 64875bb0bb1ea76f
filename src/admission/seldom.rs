//! Telling now and then of what happens all the time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Least time between two tellings: an attack fills no disk with them, and nobody has to wait long for the first.
const LEAST: Duration = Duration::from_secs(10);

/// Counts events, and says which of them are to be told.
#[derive(Debug, Default)]
pub struct Seldom {
    untold: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Counts one; answers how many there were since the last telling when it is time for one.
    pub fn note(&self) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|at| at.elapsed() < LEAST) {
            return None;
        }
        *told = Some(Instant::now());
        Some(self.untold.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_then_one_for_many() {
        let seldom = Seldom::default();
        let told: Vec<_> = (0..10_000).filter_map(|_| seldom.note()).collect();
        assert_eq!(told, [1]);
        tokio::time::advance(LEAST).await;
        assert_eq!(seldom.note(), Some(10_000));
        assert_eq!(seldom.note(), None);
    }
}

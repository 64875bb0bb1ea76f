//! A throttle of log lines with the clock of this process.

use tokio::time::Instant;

use crate::protocol::log_throttle::LogThrottle;

/// Counts events of one kind and decides which of them are logged.
#[derive(Debug, Default)]
pub struct Seldom(LogThrottle);

impl Seldom {
    /// Counts an event. Returns how many there were since the last one that was logged, this one included, if it is to be
    /// logged.
    pub fn note(&self) -> Option<u64> {
        self.0.note(Instant::now().into_std()).map(|suppressed| suppressed.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::log_throttle::PAUSE;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_then_one_for_many() {
        let seldom = Seldom::default();
        let told: Vec<_> = (0..10_000).filter_map(|_| seldom.note()).collect();
        assert_eq!(told, [1]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.note(), Some(10_000));
        assert_eq!(seldom.note(), None);
    }
}

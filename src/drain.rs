//! Stopping: who is still working, and how to tell them that it is time to end.
//!
//! Every task of the proxy starts here, so that a stop can wait for it and count it. hyper's
//! connection future is finished the moment a connection is switched, so relays are counted apart.

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks, counts them, and carries the two stop signals to them.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    connections: TaskTracker,
    relays: TaskTracker,
    background: TaskTracker,
    draining: CancellationToken,
    cut: CancellationToken,
}

/// What was still alive at a moment of the drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Downstream connections that still speak HTTP.
    pub connections: usize,
    /// Switched connections.
    pub relays: usize,
}

impl Tracker {
    /// Starts the task of one downstream HTTP connection.
    pub fn connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(task);
    }

    /// Starts the task of one relay.
    pub fn relay(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.relays.spawn(task);
    }

    /// Starts a task that a drain does not wait for: an accept loop, an upstream connection.
    pub fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.background.spawn(async move {
            tokio::select! {
                () = task => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Resolves when no new work is to be taken and running work should end in its own time.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when the grace is over and everything ends at once.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// How much is alive now.
    pub fn live(&self) -> Live {
        Live { connections: self.connections.len(), relays: self.relays.len() }
    }

    /// Begins the drain, waits up to `grace` for connections and relays, then cuts the rest.
    ///
    /// Returns what was cut. A cut task is dropped at its next await; two seconds bound the wait for that.
    pub async fn drain(&self, grace: Duration) -> Live {
        self.draining.cancel();
        self.connections.close();
        self.relays.close();
        let all_ended = async {
            // A connection that ends may still have started a relay: relays are waited for last.
            self.connections.wait().await;
            self.relays.wait().await;
        };
        let cut = match timeout(grace, all_ended).await {
            Ok(()) => Live::default(),
            Err(_) => self.live(),
        };
        self.cut.cancel();
        self.background.close();
        let settled = async {
            self.connections.wait().await;
            self.relays.wait().await;
            self.background.wait().await;
        };
        // Nothing is lost when this runs out: the process is about to end.
        let _settled_in_time = timeout(CUT_LIMIT, settled).await.is_ok();
        cut
    }
}

/// How long cut tasks have to be dropped; they only have to reach an await.
const CUT_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_a_busy_relay_then_ends_it() {
        let tracker = Tracker::default();
        let own = tracker.clone();
        tracker.relay(async move { own.cut().await });
        let before = tokio::time::Instant::now();
        let cut = tracker.drain(Duration::from_secs(30)).await;
        assert_eq!(cut, Live { connections: 0, relays: 1 });
        assert_eq!(before.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_ends_early_when_the_work_does() {
        let tracker = Tracker::default();
        let own = tracker.clone();
        tracker.connection(async move { own.draining().await });
        let before = tokio::time::Instant::now();
        assert_eq!(tracker.drain(Duration::from_secs(30)).await, Live::default());
        assert!(before.elapsed() < Duration::from_secs(1));
    }
}

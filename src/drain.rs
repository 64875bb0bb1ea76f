//! Stopping: who is still working, and how to tell them that it is time to end.
//!
//! Every task of the proxy starts here, so that a stop can wait for it and count it. hyper's
//! connection future is finished the moment a connection is switched, so relays are counted apart.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks, counts them, and carries the two stop signals to them.
///
/// Clones share one; every request holds some, so that a clone is one count.
#[derive(Clone, Debug, Default)]
pub struct Tracker(Arc<Tasks>);

#[derive(Debug, Default)]
struct Tasks {
    connections: TaskTracker,
    relays: TaskTracker,
    background: TaskTracker,
    draining: CancellationToken,
    cut: CancellationToken,
    finished: CancellationToken,
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
        self.0.connections.spawn(task);
    }

    /// Starts the task of one relay.
    pub fn relay(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.relays.spawn(task);
    }

    /// Starts a task that a drain does not wait for: an accept loop, an upstream connection.
    pub fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.0.cut.clone();
        self.0.background.spawn(async move {
            tokio::select! {
                () = task => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Resolves when no new work is to be taken and running work should end in its own time.
    pub async fn draining(&self) {
        self.0.draining.cancelled().await;
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// Resolves when the grace is over and everything ends at once.
    pub async fn cut(&self) {
        self.0.cut.cancelled().await;
    }

    /// How much is alive now.
    pub fn live(&self) -> Live {
        Live { connections: self.0.connections.len(), relays: self.0.relays.len() }
    }

    /// Begins the drain: no new work, and running work is to end in its own time.
    pub fn start_draining(&self) {
        self.0.draining.cancel();
        self.0.connections.close();
        self.0.relays.close();
    }

    /// Resolves when a drain has begun and the last connection and the last relay have ended.
    pub async fn all_ended(&self) {
        // A connection that ends may still have started a relay: relays are waited for last.
        self.0.connections.wait().await;
        self.0.relays.wait().await;
    }

    /// Cuts what is left, and lets the threads go.
    ///
    /// A cut task is dropped at its next await; two seconds bound the wait for that.
    pub async fn finish(&self) {
        self.0.cut.cancel();
        self.0.background.close();
        let settled = async {
            self.all_ended().await;
            self.0.background.wait().await;
        };
        // Nothing is lost when this runs out: the process is about to end.
        let _settled_in_time = timeout(CUT_LIMIT, settled).await.is_ok();
        self.0.finished.cancel();
    }

    /// Cuts everything and lets the threads go, without waiting.
    pub fn abandon(&self) {
        self.0.cut.cancel();
        self.0.finished.cancel();
    }

    /// Resolves when all is over and the threads may end.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }
}

/// How long cut tasks have to be dropped; they only have to reach an await.
const CUT_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_connections_and_then_for_relays() {
        let tracker = Tracker::default();
        let (own, relayed) = (tracker.clone(), tracker.clone());
        tracker.connection(async move {
            own.draining().await;
            relayed.relay(tokio::time::sleep(Duration::from_secs(5)));
        });
        let before = tokio::time::Instant::now();
        tracker.start_draining();
        tracker.all_ended().await;
        assert_eq!(before.elapsed(), Duration::from_secs(5));
        assert_eq!(tracker.live(), Live::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_cut_is_not_waited_for_for_ever() {
        let tracker = Tracker::default();
        tracker.relay(std::future::pending());
        let before = tokio::time::Instant::now();
        tracker.start_draining();
        tracker.finish().await;
        assert_eq!(before.elapsed(), CUT_LIMIT);
    }
}

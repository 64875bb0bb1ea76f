//! A wait inside a polled stream.

use std::{future::Future, pin::Pin, task::Context, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// One wait with a limit, of a stream that is polled. It holds no timer while it is stopped.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// (Re)starts: `limit` from now on.
    pub fn start(&mut self, limit: Duration) {
        let at = Instant::now() + limit;
        match &mut self.0 {
            Some(sleep) => sleep.as_mut().reset(at),
            none => *none = Some(Box::pin(sleep_until(at))),
        }
    }

    /// Starts unless it is running already.
    pub fn start_if_idle(&mut self, limit: Duration) {
        if self.0.is_none() {
            self.start(limit);
        }
    }

    /// Forgets the wait.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// Whether the wait is over; if it is still running, the task is woken then.
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> bool {
        self.0.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready())
    }
}

//! The event loop that all kinds of load share: poll until done, or until a deadline.

use std::{
    io::ErrorKind,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Registry};

use crate::Result;

/// No phase of a run may take longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// An epoll and the buffer that all its connections read into.
pub(super) struct Round {
    poll: Poll,
    events: Events,
    pub(super) scratch: Vec<u8>,
}

impl Round {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(1024), scratch: vec![0; 128 * 1024] })
    }

    /// To register connections.
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Calls `step` with the number of each connection that something happened on, until it breaks.
    ///
    /// # Errors
    /// Those of `step`, and a sentence with `what` when the deadline passes.
    pub(super) fn drive(
        &mut self,
        what: &str,
        mut step: impl FnMut(usize, &Registry, &mut [u8]) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{what}: not done after {} s", PATIENCE.as_secs()).into());
            }
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &self.events {
                let stepped = step(event.token().0, self.poll.registry(), &mut self.scratch);
                if stepped.map_err(|error| format!("{what}: {error}"))?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

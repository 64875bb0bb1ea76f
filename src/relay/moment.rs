//! Points in time, as a relay keeps them.

use std::{ops::Add, time::Duration};

use tokio::time::Instant;

/// Nanoseconds since the relay began: half the size of an `Instant`, of which a relay would keep nine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; nothing if it is still to come.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<Duration> for Moment {
    /// Saturates after 584 years.
    fn from(age: Duration) -> Self {
        Self(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(Self::from(span).0))
    }
}

/// When a relay began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(Instant);

impl Epoch {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Moment {
        Moment::from(self.0.elapsed())
    }

    pub(super) fn instant(self, at: Moment) -> Instant {
        self.0 + Duration::from_nanos(at.0)
    }

    pub(super) fn moment(self, at: Instant) -> Moment {
        Moment::from(at.saturating_duration_since(self.0))
    }
}

//! Numbers that keep many clients from doing one thing at one time. They protect nothing.

use std::hash::{BuildHasher, RandomState};

/// From 0 up to, but not, 1.
pub(super) fn fraction() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0u8) >> 32).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

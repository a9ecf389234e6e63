//! The one place that reads the clock.

use std::time::{Instant, SystemTime};

/// Now, on the monotonic clock: it never jumps, and on Linux it stands still while the
/// device sleeps (`CLOCK_MONOTONIC`, `clock_gettime(2)`), as the command does.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// The time of day, for people and for other programs; nothing is decided by it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

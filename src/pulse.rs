//! The beats, wherever they come from: when the last one was, how many there were, and how near one of
//! them came to its deadline. Atomics, for a file's beats are noticed in another thread than the one
//! that judges, which they do not wake.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::clock;

/// Instead of a time: there is none.
const NONE: u64 = u64::MAX;

/// Beats of one command, over all its runs.
pub struct Pulse {
    /// From which all times here count, in nanoseconds.
    base: Instant,
    /// 0: none yet.
    last: AtomicU64,
    /// From when the timeout counts where no beat was later; none while no beat is waited for.
    awaited_from: AtomicU64,
    timeout: AtomicU64,
    tightest: AtomicU64,
    count: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            base: clock::now(),
            last: AtomicU64::new(0),
            awaited_from: AtomicU64::new(NONE),
            timeout: AtomicU64::new(NONE),
            tightest: AtomicU64::new(NONE),
            count: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// Notes a beat at `at`. Two threads may do so; the later one counts.
    pub fn beat(&self, at: Instant) {
        let at = self.nanos(at).max(1);
        let before = self.last.fetch_max(at, Ordering::AcqRel);
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(margin) = self.margin(before, at) {
            self.tightest.fetch_min(margin, Ordering::Relaxed);
        }
    }

    /// What was left of the timeout at `at`, if the last beat was at `before`.
    fn margin(&self, before: u64, at: u64) -> Option<u64> {
        let from = self.awaited_from.load(Ordering::Acquire);
        let timeout = self.timeout.load(Ordering::Acquire);
        if from == NONE {
            return None;
        }
        let silent = at.saturating_sub(from.max(before));
        // Nobody is silent for longer and lives, unless supervisor and command were frozen together.
        let is_frozen = silent > timeout.saturating_add(tolerance(timeout));
        (!is_frozen).then(|| timeout.saturating_sub(silent))
    }

    /// Beats are waited for, from then on and each for so long; None: they are not.
    pub fn wait_from(&self, awaited: Option<(Instant, Duration)>) {
        // In this order, so that who notes a beat meanwhile never takes one without the other.
        if let Some((_, timeout)) = awaited {
            self.timeout.store(nanos(timeout), Ordering::Release);
        }
        let from = awaited.map_or(NONE, |(from, _)| self.nanos(from));
        self.awaited_from.store(from, Ordering::Release);
    }

    /// How long the command may be silent; None while no beat is waited for.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        let is_awaited = self.awaited_from.load(Ordering::Acquire) != NONE;
        some(self.timeout.load(Ordering::Acquire)).filter(|_| is_awaited)
    }

    /// When the last beat was noticed.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        let last = self.last.load(Ordering::Acquire);
        (last > 0).then(|| self.base + Duration::from_nanos(last))
    }

    /// The smallest time that was ever left between a beat and its deadline (contract, section 11);
    /// None before the first beat that was waited for.
    #[must_use]
    pub fn tightest_margin(&self) -> Option<Duration> {
        some(self.tightest.load(Ordering::Relaxed))
    }

    /// How many beats were noticed: one write to a file may be noticed more than once, and several
    /// within a moment as one.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn nanos(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.base))
    }
}

/// By how much a deadline may be judged too late before it is thought that we were not running.
fn tolerance(timeout: u64) -> u64 {
    (timeout / 10).max(100_000_000)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).map_or(NONE - 1, |nanos| nanos.min(NONE - 1))
}

fn some(nanos: u64) -> Option<Duration> {
    (nanos != NONE).then(|| Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn awaiting(timeout: u32) -> (Pulse, Instant) {
        let pulse = Pulse::default();
        pulse.wait_from(Some((pulse.base + S, S * timeout)));
        let launched = pulse.base + S;
        (pulse, launched)
    }

    #[test]
    fn the_tightest_margin_is_the_smallest_that_was_ever_left() {
        let (pulse, launched) = awaiting(10);
        assert_eq!(pulse.tightest_margin(), None);
        for (at, tightest) in [(4, 6), (5, 6), (12, 3), (14, 3), (14, 3)] {
            pulse.beat(launched + S * at);
            assert_eq!(pulse.tightest_margin(), Some(S * tightest), "at {at}");
        }
        assert_eq!(pulse.last(), Some(launched + S * 14));
        assert_eq!(pulse.count(), 5);
    }

    #[test]
    fn a_beat_before_it_is_waited_for_or_while_none_is_has_no_margin() {
        let (pulse, launched) = awaiting(10);
        pulse.beat(launched - S / 2);
        assert_eq!(pulse.tightest_margin(), Some(S * 10));
        pulse.wait_from(None);
        pulse.beat(launched + S * 9);
        assert_eq!(pulse.tightest_margin(), Some(S * 10));
        // A pause, say, has moved the deadline.
        pulse.wait_from(Some((launched + S * 20, S * 10)));
        pulse.beat(launched + S * 21);
        assert_eq!(pulse.tightest_margin(), Some(S * 9));
    }

    #[test]
    fn a_beat_at_its_deadline_leaves_nothing_and_one_after_a_freeze_says_nothing() {
        let (pulse, launched) = awaiting(10);
        pulse.beat(launched + S * 40);
        assert_eq!(pulse.tightest_margin(), None);
        pulse.beat(launched + S * 40 + S * 10 + S / 2);
        assert_eq!(pulse.tightest_margin(), Some(Duration::ZERO));
    }

    #[test]
    fn the_later_of_two_beats_counts_whichever_is_noted_first() {
        let (pulse, launched) = awaiting(10);
        pulse.beat(launched + S * 2);
        pulse.beat(launched + S);
        assert_eq!(pulse.last(), Some(launched + S * 2));
    }
}

//! When the watcher's thread may leave events where they are for a while. Pure.
//!
//! A beat costs its wake-up. Where beats come faster than anybody has to know of them, the kernel can wait
//! with the next ones, and makes one event of those that are equal (inotify(7)). What is noticed after a rest
//! is taken for up to so much younger than it was, never for older: a kill is never early, and late by no
//! more than the contract allows (section 3).

use std::time::{Duration, Instant};

/// So much of the timeout at most, and so long. A kill may be late by a hundredth and 10 ms: the rest of
/// that is for a tick of the file's clock, and for the poll, which ends up to 1 ms and a thousandth late.
const PART: u32 = 125;
const LONGEST: Duration = Duration::from_millis(100);

/// With a shorter timeout there is no rest: little is to be had, and that sum would be more.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(2);

/// So many beats in a row have to come within a rest of each other: one may be two events, and who beats
/// more slowly has nothing from a rest, but one wake-up more.
const MANY: u32 = 3;

/// After a rest one event is taken, and every ninth time two, to see whether more wait: if the second one has
/// changed nothing that the first one had not, they do. (In between notify's thread has its turn, too.)
const BLIND: u32 = 8;

/// Then it stays awake for such a part of a rest: that is time for thousands.
const AWAKE_PART: u32 = 3;

/// What it knows of the beats.
#[derive(Debug, Default)]
pub struct Rest {
    /// The last beat.
    last: Option<Instant>,
    /// How many came that fast, one after the other.
    fast: u32,
    /// When the last rest was over.
    over: Option<Instant>,
    /// Events since then.
    events: u32,
    /// Among them was one that had waited.
    is_behind: bool,
    /// So many more rests need no second event.
    blind: u32,
}

impl Rest {
    /// An event was taken at `now`, and the file had changed since the one before, or not: after one that
    /// may have waited for long it is never rested. How long to rest after it, with this timeout.
    pub fn after(&mut self, now: Instant, changed: bool, timeout: Duration) -> Option<Duration> {
        self.events = self.events.saturating_add(1);
        if !changed {
            (self.is_behind, self.blind) = (true, 0);
            return None;
        }
        if timeout < SHORTEST_TIMEOUT {
            return None;
        }
        let rest = (timeout / PART).min(LONGEST);
        let since = |then: Option<Instant>| then.map(|then| now.saturating_duration_since(then));
        // What comes soon after a rest may have come in it.
        let is_fast = since(self.last.max(self.over)).is_some_and(|passed| passed <= rest);
        self.last = Some(now);
        self.fast = if is_fast {
            self.fast.saturating_add(1)
        } else {
            0
        };
        let awake = since(self.over).is_none_or(|passed| passed >= rest / AWAKE_PART);
        let is_checked = self.events > 1 && !self.is_behind;
        if self.fast < MANY || !(awake || is_checked || self.blind > 0) {
            return None;
        }
        self.blind = if is_checked {
            BLIND
        } else {
            self.blind.saturating_sub(1)
        };
        Some(rest)
    }

    /// Whether an event that is taken at `now` may have come while it rested.
    pub fn is_fresh_from_rest(&self, now: Instant) -> bool {
        let since = |over| now.saturating_duration_since(over);
        self.over
            .is_some_and(|over| since(over) < LONGEST / AWAKE_PART)
    }

    /// The rest ended at `now`, which may be later than it was to.
    pub fn over(&mut self, now: Instant) {
        self.over = Some(now);
        (self.events, self.is_behind) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Beats every `period` for a second, each of so many events that the kernel does not make one: how long
    /// was rested, in all, and how many events were taken.
    fn rests(period: Duration, events: u32, timeout: Duration) -> (Duration, u32) {
        let mut rest = Rest::default();
        let (mut rested, mut taken) = (Duration::ZERO, 0);
        let start = crate::clock::now();
        let (mut now, mut waiting, mut beat) = (start, 0, start);
        while now < start + MS * 1000 {
            // Until the next beat, where none waits. Equal events are one.
            now = if waiting == 0 { now.max(beat) } else { now };
            let mut changed = waiting > 0;
            while beat <= now {
                waiting = if events == 1 { 1 } else { waiting + events };
                (beat, changed) = (beat + period, true);
            }
            while waiting > 0 {
                (now, waiting, taken) = (now + MS / 200, waiting - 1, taken + 1);
                let time = rest.after(now, changed, timeout);
                changed = false;
                if let Some(time) = time {
                    (now, rested) = (now + time, rested + time);
                    rest.over(now);
                }
                if beat <= now {
                    break;
                }
            }
        }
        (rested, taken)
    }

    #[test]
    fn who_beats_faster_than_a_hundredth_of_the_timeout_is_noticed_less_often() {
        for (timeout, rest) in [(2500, 20), (3750, 30), (12_500, 100), (600_000, 100)] {
            for (period, events) in [(MS, 1), (MS / 1000, 1)] {
                let (rested, taken) = rests(period, events, MS * timeout);
                assert!(rested > MS * 600, "{timeout} {period:?}: {rested:?}");
                assert!(
                    taken <= 8 + 2 * 1000 / rest,
                    "{timeout} {period:?}: {taken}"
                );
            }
        }
    }

    #[test]
    fn who_beats_more_slowly_than_that_is_noticed_at_once() {
        for (period, timeout) in [(1, 1999), (100, 3000), (31, 3000), (101, 600_000)] {
            let (rested, taken) = rests(MS * period, 1, MS * timeout);
            assert_eq!(
                (rested, taken),
                (Duration::ZERO, 1 + 1000u32.div_ceil(period))
            );
            let (rested, _) = rests(MS * period, 2, MS * timeout);
            assert_eq!(
                rested,
                Duration::ZERO,
                "two events of one beat are no hurry"
            );
        }
    }

    #[test]
    fn what_can_not_be_one_event_is_read_in_time() {
        for period in [MS, MS / 10, MS / 20] {
            let (rested, taken) = rests(period, 2, MS * 3750);
            let beats = Duration::from_secs(1).div_duration_f64(period) as u32;
            // What came in the last rest and after it may be left.
            assert!(
                taken >= beats * 2 * 9 / 10,
                "{period:?}: {taken} of {beats} x 2"
            );
            assert!(rested > MS * 100, "{period:?}: {rested:?}");
        }
    }

    #[test]
    fn after_an_event_that_has_waited_there_is_no_rest_until_the_last_is_read() {
        let (mut rest, mut now) = (Rest::default(), crate::clock::now());
        let timeout = MS * 3750;
        let first = (0..10).find_map(|_| rest.after(now, true, timeout));
        assert_eq!(first, Some(MS * 30));
        now += MS * 90;
        rest.over(now);
        assert_eq!(rest.after(now, false, timeout), None);
        for _ in 0..5000 {
            assert_eq!(rest.after(now, false, timeout), None);
            now += MS / 200;
        }
        assert_eq!(rest.after(now, true, timeout), Some(MS * 30));
    }
}

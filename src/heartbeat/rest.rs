//! When the watcher's thread may leave events where they are for a while. Pure.
//!
//! A beat costs its wake-up. Where beats come faster than anybody has to know of them, the kernel can wait
//! with the next ones, and makes one event of those that are equal and neighbours (inotify(7)). What is
//! noticed after a rest is taken for up to so much younger than it was, never for older: a kill is never
//! early, and late by no more than the contract allows (section 3).
//!
//! Of equal neighbours the second would not be there if the first had waited to be read when it came. So
//! what equals the event before it came after that was read, or while it was; and where all are equal, one or two
//! wait at most. What differs from the one before may be one of thousands that have waited. So there is a rest
//! after some equal ones; and where a rest ended with another, only after many.

use std::time::{Duration, Instant};

/// So much of the timeout at most, and so long. A kill may be late by a hundredth and 10 ms: the rest of
/// that is for a tick of the file's clock, and for the poll, which ends up to 1 ms and a thousandth late.
const PART: u32 = 125;
const LONGEST: Duration = Duration::from_millis(100);

/// With a shorter timeout there is no rest: little is to be had, and that sum would be more.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(3);

/// So many equal ones in a row have to come within a rest of each other: one beat may be two events, and who
/// beats more slowly has nothing from a rest, but one wake-up more.
const SOME: u32 = 3;
/// And so many where beats were seen to be of several kinds.
const MANY: u32 = 300;

/// After so many rests one is left out, for notify's thread to have its turn at something else.
const IN_A_ROW: u32 = 8;

/// Who waits to be read follows the one before within this time, unless the machine is busy.
const SOON: Duration = Duration::from_millis(10);

/// What it knows of the events. `K` is what kind they are of.
#[derive(Debug)]
pub struct Rest<K> {
    /// The last one, and when it was taken.
    last: Option<(Instant, K)>,
    /// When the last rest was over.
    over: Option<Instant>,
    /// How many came that fast, and equal, one after the other.
    fast: u32,
    /// How many rests there were since one was left out.
    rests: u32,
    /// A rest has ended with another event than it began with.
    is_mixed: bool,
}

impl<K> Default for Rest<K> {
    fn default() -> Self {
        Self {
            last: None,
            over: None,
            fast: 0,
            rests: 0,
            is_mixed: false,
        }
    }
}

impl<K: Copy + PartialEq> Rest<K> {
    /// Whether an event of this kind that is taken at `now` may have waited for long.
    pub fn has_waited(&self, now: Instant, kind: K) -> bool {
        let Some((at, before)) = self.last else {
            return false;
        };
        let rested = self.over.filter(|over| *over >= at);
        let since = now.saturating_duration_since(rested.unwrap_or(at));
        since < SOON && (rested.is_some() || kind != before)
    }

    /// An event was taken at `now`: each has to be told. How long to rest after it, with this timeout; None: one
    /// does not rest, for it was no beat, say.
    pub fn after(&mut self, now: Instant, kind: K, timeout: Option<Duration>) -> Option<Duration> {
        let rest = timeout.map_or(Duration::ZERO, |timeout| (timeout / PART).min(LONGEST));
        let is_next = self.last.is_some_and(|(at, before)| {
            self.is_mixed |= kind != before && self.over.is_some_and(|over| over >= at);
            // What comes soon after a rest may have come in it.
            let since = now.saturating_duration_since(self.over.map_or(at, |over| over.max(at)));
            kind == before && since <= rest
        });
        self.last = Some((now, kind));
        self.fast = match is_next && timeout.is_some() {
            true => self.fast.saturating_add(1),
            false => 0,
        };
        let enough = if self.is_mixed { MANY } else { SOME };
        if self.fast < enough || timeout.is_none_or(|timeout| timeout < SHORTEST_TIMEOUT) {
            return None;
        }
        if self.rests == IN_A_ROW {
            self.rests = 0;
            return None;
        }
        self.rests += 1;
        Some(rest)
    }

    /// The rest ended at `now`, which may be later than it was to.
    pub fn over(&mut self, now: Instant) {
        self.over = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// How events are taken from a queue as the kernel's, each in 5 us: how long was rested in all, how many
    /// were taken, and of how many that had waited for more than 1 ms this was not known.
    #[derive(Default)]
    struct Taken {
        rested: Duration,
        events: u32,
        unknown: u32,
    }

    /// Beats every `period` for a second, each of events of these kinds, one after the other.
    fn take(period: Duration, kinds: &[char], timeout: Duration) -> Taken {
        let mut rest = Rest::default();
        let mut taken = Taken::default();
        let mut now = crate::clock::now();
        let (mut next, end, mut queue) = (now, now + MS * 1000, VecDeque::new());
        let mut to_come = kinds.iter().cycle();
        loop {
            if queue.is_empty() {
                now = now.max(next);
            }
            if now >= end {
                return taken;
            }
            while next <= now {
                let kind = to_come.next().unwrap();
                if queue.back().is_none_or(|(last, _)| last != kind) {
                    queue.push_back((*kind, next));
                }
                next += period / kinds.len() as u32;
            }
            let Some((kind, came)) = queue.pop_front() else {
                continue;
            };
            now += MS / 200;
            taken.events += 1;
            taken.unknown += u32::from(now - came > MS && !rest.has_waited(now, kind));
            if let Some(time) = rest.after(now, kind, Some(timeout)) {
                (now, taken.rested) = (now + time, taken.rested + time);
                rest.over(now);
            }
        }
    }

    #[test]
    fn who_beats_faster_than_a_hundredth_of_the_timeout_is_noticed_less_often() {
        for (timeout, rest) in [(3000, 24), (3750, 30), (12_500, 100), (600_000, 100)] {
            for period in [MS, MS / 1000] {
                let taken = take(period, &['w'], MS * timeout);
                assert!(taken.rested > MS * 850, "{timeout} {:?}", taken.rested);
                let most = 10 + 1000 * 9 / 8 / rest;
                assert!(taken.events <= most, "{timeout} {}", taken.events);
                assert_eq!(taken.unknown, 0);
            }
        }
    }

    #[test]
    fn who_beats_more_slowly_than_that_is_noticed_at_once() {
        for (period, timeout) in [(1, 2999), (100, 3000), (31, 3000), (101, 600_000)] {
            let taken = take(MS * period, &['w'], MS * timeout);
            let all = 1000u32.div_ceil(period);
            assert_eq!((taken.rested, taken.events), (Duration::ZERO, all));
            let mut rest = Rest::default();
            let mut now = crate::clock::now();
            for _ in 0..all {
                for event in 0..2 {
                    let at = now + MS * event / 100;
                    let rests = rest.after(at, 'w', Some(MS * timeout));
                    assert_eq!(rests.filter(|_| period > 1), None, "two of one beat");
                }
                now += MS * period;
            }
        }
    }

    #[test]
    fn what_can_not_be_one_event_is_left_to_wait_twice_at_most() {
        for kinds in ["wt", "wtm", "wwt", "wwwwt", "wwwwwwwwt"] {
            let kinds: Vec<_> = kinds.chars().collect();
            // The last is faster than it can be read, so that there are more and more of them.
            for period in [MS, MS / 10, MS / 20, MS / 300] {
                let taken = take(period, &kinds, MS * 3750);
                assert!(taken.rested <= MS * 60, "{kinds:?} {:?}", taken.rested);
                assert_eq!(taken.unknown, 0, "{kinds:?} {period:?}");
            }
        }
    }

    #[test]
    fn after_what_is_no_beat_there_is_no_rest() {
        let mut rest = Rest::default();
        let (mut now, timeout) = (crate::clock::now(), Some(MS * 3750));
        for _ in 0..100 {
            now += MS;
            assert_eq!(rest.after(now, 't', None), None);
        }
        // Nor where it comes between beats.
        for _ in 0..100 {
            for _ in 1..SOME {
                now += MS;
                assert_eq!(rest.after(now, 't', timeout), None);
            }
            now += MS;
            assert_eq!(rest.after(now, 't', None), None);
        }
    }

    #[test]
    fn what_has_waited_is_the_first_after_a_rest_and_what_differs_from_the_one_before() {
        let (mut rest, mut now) = (Rest::default(), crate::clock::now());
        assert!(!rest.has_waited(now, 'w'), "nothing came before");
        rest.after(now, 'w', Some(MS * 100));
        assert!(!rest.has_waited(now, 'w'));
        assert!(rest.has_waited(now + MS, 't'));
        assert!(
            !rest.has_waited(now + SOON, 't'),
            "too late for one in a row"
        );
        now += MS * 20;
        rest.over(now);
        assert!(rest.has_waited(now, 'w'));
        assert!(!rest.has_waited(now + SOON, 'w'), "it came later");
        rest.after(now, 'w', Some(MS * 100));
        rest.after(now + MS, 'w', Some(MS * 100));
        assert!(!rest.has_waited(now + MS * 2, 'w'));
    }
}

//! One wish that is told twice is not a second wish. Pure, as the machine is: time is an argument.
//!
//! `timeout(1)` sends its signal to its child and then to its process group, in which the child is; then
//! SIGCONT to both. Others (npm, `timeout --foreground`) pass on the Ctrl-C that the terminal has sent to
//! everybody. A second wish kills at once, so a copy had better be known.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

/// Two of the same within this time may be one.
const WITHIN: Duration = Duration::from_millis(100);

/// It is known by a SIGCONT that follows within this time.
const DOUBT: Duration = Duration::from_millis(50);

/// What was wished last, and what may be a copy of it.
#[derive(Default)]
pub struct Echo {
    last: Option<Wish>,
    /// Until then.
    doubted: Option<(Signal, Instant)>,
}

struct Wish {
    signal: Signal,
    at: Instant,
    by_terminal: bool,
}

impl Echo {
    /// Whether `signal`, heard at `now`, is or may be a copy of the last one: then nothing is to be done
    /// about it, unless [`Echo::none_after_all`] says so.
    pub fn is_copy(&mut self, now: Instant, signal: Signal, by_terminal: bool) -> bool {
        let wish = Wish {
            signal,
            at: now,
            by_terminal,
        };
        let Some(last) = self.last.replace(wish) else {
            return false;
        };
        // The terminal tells nothing twice; and a third is one in any case.
        let another = by_terminal || last.signal != signal || self.doubted.is_some();
        if another || now - last.at > WITHIN {
            return false;
        }
        if !last.by_terminal {
            self.doubted = Some((signal, now + DOUBT));
        }
        true
    }

    /// A SIGCONT was heard.
    pub fn continued(&mut self) {
        self.doubted = None;
    }

    /// When the doubt ends.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.doubted.map(|(_, until)| until)
    }

    /// What was no copy.
    pub fn none_after_all(&mut self, now: Instant) -> Option<Signal> {
        let ended = self.doubted.take_if(|(_, until)| *until <= now);
        ended.map(|(signal, _)| signal)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal::{SIGINT, SIGTERM};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_is_none_and_so_is_one_that_comes_later_or_is_another() {
        let now = crate::clock::now();
        let mut echo = Echo::default();
        assert!(!echo.is_copy(now, SIGTERM, false));
        assert!(!echo.is_copy(now, SIGINT, false));
        assert!(!echo.is_copy(now + 101 * MS, SIGINT, false));
        assert_eq!(echo.deadline(), None);
    }

    #[test]
    fn a_copy_is_known_by_the_sigcont_that_follows() {
        let now = crate::clock::now();
        let mut echo = Echo::default();
        echo.is_copy(now, SIGTERM, false);
        assert!(echo.is_copy(now + MS, SIGTERM, false));
        echo.continued();
        assert_eq!(echo.deadline(), None);
        assert_eq!(echo.none_after_all(now + 1000 * MS), None);
    }

    #[test]
    fn without_it_a_second_one_is_one_50_ms_later_and_once() {
        let now = crate::clock::now();
        let mut echo = Echo::default();
        echo.is_copy(now, SIGTERM, false);
        assert!(echo.is_copy(now + 100 * MS, SIGTERM, false));
        assert_eq!(echo.deadline(), Some(now + 150 * MS));
        assert_eq!(echo.none_after_all(now + 149 * MS), None);
        assert_eq!(echo.none_after_all(now + 150 * MS), Some(SIGTERM));
        assert_eq!(echo.none_after_all(now + 151 * MS), None);
    }

    #[test]
    fn a_third_one_is_one_at_once() {
        let now = crate::clock::now();
        let mut echo = Echo::default();
        echo.is_copy(now, SIGTERM, false);
        assert!(echo.is_copy(now, SIGTERM, false));
        assert!(!echo.is_copy(now, SIGTERM, false));
    }

    #[test]
    fn what_a_process_passes_on_from_the_terminal_is_a_copy_and_what_is_typed_again_is_not() {
        let now = crate::clock::now();
        let mut echo = Echo::default();
        echo.is_copy(now, SIGINT, true);
        assert!(echo.is_copy(now + MS, SIGINT, false));
        assert_eq!(echo.deadline(), None, "there is no doubt");
        assert!(!echo.is_copy(now + 2 * MS, SIGINT, true));
    }
}

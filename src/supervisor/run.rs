//! One run of the command: since when it runs, and until when it may be silent.

use std::time::{Duration, Instant};

use crate::config::Heartbeat;

/// A command that is running.
#[derive(Debug)]
pub struct Run {
    /// Its process id.
    pub pid: i32,
    /// When it was launched.
    pub started: Instant,
    silence: Option<Silence>,
}

/// How long this run has been silent. Only with a heartbeat.
#[derive(Debug)]
struct Silence {
    rule: Heartbeat,
    /// The last beat of this run.
    last_beat: Option<Instant>,
    /// One more timeout, given because the supervisor itself had not been running.
    excused_until: Option<Instant>,
}

/// What a look at an expired deadline comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is time left.
    Healthy,
    /// Silent too long.
    Hung {
        /// Since the last beat of this run, or its launch.
        silent: Duration,
        /// `--timeout`.
        timeout: Duration,
    },
}

impl Run {
    /// A run launched at `started`.
    #[must_use]
    pub fn new(pid: i32, started: Instant, heartbeat: Option<Heartbeat>) -> Self {
        let silence = heartbeat.map(|rule| Silence {
            rule,
            last_beat: None,
            excused_until: None,
        });
        Self {
            pid,
            started,
            silence,
        }
    }

    /// A sign of life at `at`. One from before the launch is not this run's.
    pub fn beat(&mut self, at: Instant) {
        if let Some(silence) = &mut self.silence
            && at >= self.started
            && silence.last_beat.is_none_or(|last| last < at)
        {
            silence.last_beat = Some(at);
            silence.excused_until = None;
        }
    }

    /// When its silence is to be judged: `max(last beat, launch + initial delay) + timeout`.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let silence = self.silence.as_ref()?;
        let from = self.started + silence.rule.initial_delay;
        let due = silence.last_beat.map_or(from, |beat| beat.max(from)) + silence.rule.timeout;
        Some(silence.excused_until.map_or(due, |until| until.max(due)))
    }

    /// Judges the silence at `now`, when all evidence is in.
    ///
    /// Where the judge himself comes late by more than a tenth of the timeout (100 ms at least),
    /// the supervisor was not running, and perhaps the command neither: once per silence that
    /// excuses one more timeout (contract, section 3, 'frozen together').
    pub fn judge(&mut self, now: Instant) -> Verdict {
        let Some(due) = self.deadline().filter(|due| *due <= now) else {
            return Verdict::Healthy;
        };
        let started = self.started;
        let Some(silence) = &mut self.silence else {
            return Verdict::Healthy;
        };
        let timeout = silence.rule.timeout;
        let tolerance = (timeout / 10).max(Duration::from_millis(100));
        if now - due > tolerance && silence.excused_until.is_none() {
            silence.excused_until = Some(now + timeout);
            return Verdict::Healthy;
        }
        Verdict::Hung {
            silent: now - silence.last_beat.unwrap_or(started),
            timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_launch_where_the_last_beat_was_the_run_befores() {
        let second = Duration::from_secs(1);
        let rule = Heartbeat {
            timeout: second,
            initial_delay: Duration::ZERO,
        };
        let launched = crate::clock::now() + 10 * second;
        let mut run = Run::new(1, launched, Some(rule));
        run.beat(launched - second);
        let hung = Verdict::Hung {
            silent: second,
            timeout: second,
        };
        assert_eq!(run.judge(launched + second), hung);
    }
}

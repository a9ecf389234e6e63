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
    /// A moment more, given because the deadline was looked at late.
    second_look_at: Option<Instant>,
    /// How long the command was stopped by its terminal since the last beat, which is no silence.
    paused: Duration,
    pause: Pause,
}

/// The last pause.
#[derive(Clone, Copy, Debug)]
enum Pause {
    Never,
    Since(Instant),
    Over { from: Instant, to: Instant },
}

/// A deadline that is looked at later than this found the supervisor stalled: what the watcher's
/// thread has to tell may wait just as it did. (A poll ends up to 1 ms late by itself.)
const PUNCTUAL: Duration = Duration::from_millis(2);

/// How long after that it is looked at again: at least, and as a part of the timeout. It is within
/// the lateness that the contract allows on an idle machine.
const SECOND_LOOK: Duration = Duration::from_millis(10);
const SECOND_LOOK_PART: u32 = 100;

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
            second_look_at: None,
            paused: Duration::ZERO,
            pause: Pause::Never,
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
            silence.second_look_at = None;
            if let Pause::Over { from, to } = silence.pause
                && from <= at
            {
                // What of the pause came after it: it may have been seen only then.
                silence.paused = to.saturating_duration_since(at);
            }
        }
    }

    /// The terminal has stopped it (contract, section 3: a stop by Ctrl-Z is not silence).
    pub fn pause(&mut self, now: Instant) {
        if let Some(silence) = &mut self.silence {
            silence.pause = Pause::Since(now);
        }
    }

    /// It was continued.
    pub fn resume(&mut self, now: Instant) {
        if let Some(silence) = &mut self.silence
            && let Pause::Since(from) = silence.pause
        {
            silence.paused += now - from;
            silence.pause = Pause::Over { from, to: now };
        }
    }

    /// When its silence is to be judged: `max(last beat, launch + initial delay) + timeout`.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let silence = self.silence.as_ref()?;
        if matches!(silence.pause, Pause::Since(_)) {
            return None;
        }
        let from = self.started + silence.rule.initial_delay;
        let since = silence.last_beat.map_or(from, |beat| beat.max(from)) + silence.paused;
        let due = since + silence.rule.timeout;
        let given = [silence.excused_until, silence.second_look_at];
        given.into_iter().flatten().chain([due]).max()
    }

    /// Judges the silence at `now`, when all evidence is in.
    ///
    /// Where the judge himself comes late by more than a tenth of the timeout (100 ms at least),
    /// the supervisor was not running, and perhaps the command neither: once per silence that
    /// excuses one more timeout (contract, section 3, 'frozen together').
    ///
    /// Where he comes late by less, once per silence there is a second look a moment later: a beat
    /// that left no mark on the file may still wait to be told ('pending evidence first').
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
        if now - due > PUNCTUAL && silence.second_look_at.is_none() {
            silence.second_look_at = Some(now + SECOND_LOOK.max(timeout / SECOND_LOOK_PART));
            return Verdict::Healthy;
        }
        Verdict::Hung {
            silent: (now - silence.last_beat.unwrap_or(started)).saturating_sub(silence.paused),
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

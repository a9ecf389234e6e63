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
    /// None: the command has asked for no deadline.
    timeout: Option<Duration>,
    /// The first timeout counts from here.
    from: Instant,
    /// It will say when it is ready; until then its start may take until here, whatever it asks for.
    start_until: Option<Instant>,
    /// It has said that it is ending.
    is_ending: bool,
    /// The last beat of this run.
    last_beat: Option<Instant>,
    /// More time, which the command has asked for.
    extended_until: Option<Instant>,
    /// One more timeout, given because the supervisor itself had not been running.
    excused_until: Option<Instant>,
    /// A moment more, given because the deadline was looked at late.
    second_look_at: Option<Instant>,
    /// How long the command was stopped by its terminal since the last beat, which is no silence.
    paused: Duration,
    pause: Pause,
    /// The deadline is held, for a debugger.
    held: bool,
    /// A whole timeout, given because it was held until then.
    released_until: Option<Instant>,
}

/// The last pause.
#[derive(Clone, Copy, Debug)]
enum Pause {
    Never,
    Since(Instant),
    Over { from: Instant, to: Instant },
}

/// A deadline that is looked at later than this, and than the kernel takes for punctual, found the supervisor
/// stalled: what the watcher's thread has to tell may wait just as it did. (A poll ends up to 1 ms late by
/// itself, and by a thousandth of the time that it waits: Linux, `select_estimate_accuracy`.)
const PUNCTUAL: Duration = Duration::from_millis(2);
const KERNELS_PART: u32 = 1000;

/// How long after that it is looked at again: at least, and as a part of the timeout. It is within
/// the lateness that the contract allows on an idle machine.
const SECOND_LOOK: Duration = Duration::from_millis(10);
const SECOND_LOOK_PART: u32 = 100;

/// The same for a look in doubt: what waits to be read at that moment is read within this time, unless the
/// machine is busy; and then it is in doubt for the command.
const LOOK_IN_DOUBT: Duration = Duration::from_millis(5);

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
    /// A run launched at `started`, its deadline `held` or not.
    #[must_use]
    pub fn new(pid: i32, started: Instant, heartbeat: Option<Heartbeat>, held: bool) -> Self {
        let silence = heartbeat.map(|rule| Silence {
            timeout: Some(rule.timeout),
            from: started + rule.initial_delay,
            start_until: (rule.says_ready).then(|| started + rule.initial_delay + rule.timeout),
            is_ending: false,
            last_beat: None,
            extended_until: None,
            excused_until: None,
            second_look_at: None,
            paused: Duration::ZERO,
            pause: Pause::Never,
            held,
            released_until: None,
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

    /// Whether it is still to say that it is ready, or to beat, which some do who never say so.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        let silence = self.silence.as_ref();
        silence.is_some_and(|s| s.start_until.is_some() && s.last_beat.is_none())
    }

    /// Whether it has said that it is ending.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.silence.as_ref().is_some_and(|s| s.is_ending)
    }

    /// It is ready: the deadline counts from here.
    pub fn ready(&mut self, now: Instant) {
        if let Some(silence) = &mut self.silence {
            silence.from = now;
            silence.start_until = None;
            silence.extended_until = None;
        }
        self.beat(now);
    }

    /// It is ending by itself, and has `grace` for that at least.
    pub fn end(&mut self, now: Instant, grace: Duration) {
        self.beat(now);
        if let Some(silence) = &mut self.silence {
            silence.is_ending = true;
        }
        self.extend(now, grace);
    }

    /// It asks for more time: only for its start and its end (`sd_notify(3)`).
    pub fn extend(&mut self, now: Instant, by: Duration) {
        if let Some(silence) = &mut self.silence
            && (silence.start_until.is_some() || silence.is_ending)
        {
            silence.extended_until = silence.extended_until.max(Some(now + by));
        }
    }

    /// It asks for another timeout from now on; None: for no deadline at all.
    pub fn set_timeout(&mut self, now: Instant, timeout: Option<Duration>) {
        if let Some(silence) = &mut self.silence {
            silence.timeout = timeout;
            // Who asks is alive, and a shorter one may be over already.
            silence.from = silence.from.max(now);
        }
    }

    /// Holds the deadline, or lets it go: then it is a whole timeout away.
    pub fn hold(&mut self, now: Instant, held: bool) {
        if let Some(silence) = &mut self.silence {
            if silence.held && !held {
                let full = silence.timeout.map(|timeout| now + timeout);
                silence.released_until = full;
            }
            silence.held = held;
        }
    }

    /// From when and for how long a beat is waited for: `max(last beat, launch + initial delay)`, and
    /// `timeout` from there.
    #[must_use]
    pub fn awaited(&self) -> Option<(Instant, Duration)> {
        let silence = self.silence.as_ref()?;
        let timeout = silence.timeout?;
        if silence.held || matches!(silence.pause, Pause::Since(_)) {
            return None;
        }
        let last = silence.last_beat;
        let since = last.map_or(silence.from, |beat| beat.max(silence.from)) + silence.paused;
        let given = [
            silence.start_until,
            silence.excused_until,
            silence.released_until,
            silence.extended_until,
        ];
        let latest = given.into_iter().flatten().max();
        let due = latest.map_or(since + timeout, |given| given.max(since + timeout));
        // Not before `since`.
        Some((due - timeout, timeout))
    }

    /// When its silence is to be judged.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let (from, timeout) = self.awaited()?;
        let second_look = self.silence.as_ref().and_then(|s| s.second_look_at);
        second_look.max(Some(from + timeout))
    }

    /// How long it has been silent.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Duration {
        let silence = self.silence.as_ref();
        let last = silence.and_then(|s| s.last_beat).unwrap_or(self.started);
        let paused = silence.map_or(Duration::ZERO, |s| s.paused);
        (now - last).saturating_sub(paused)
    }

    /// The timeout that it is judged by.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.silence.as_ref()?.timeout
    }

    /// Judges the silence at `now`, when all evidence is in.
    ///
    /// Where the judge himself comes late by more than a tenth of the timeout (100 ms at least),
    /// the supervisor was not running, and perhaps the command neither: once per silence that
    /// excuses one more timeout (contract, section 3, 'frozen together').
    ///
    /// Where he comes late by less, once per silence there is a second look a moment later: a beat
    /// that left no mark on the file may still wait to be told ('pending evidence first'). So there is where the
    /// look was `in_doubt`.
    pub fn judge(&mut self, now: Instant, in_doubt: bool) -> Verdict {
        let Some(due) = self.deadline().filter(|due| *due <= now) else {
            return Verdict::Healthy;
        };
        let silent = self.silent(now);
        let Some((silence, timeout)) = self.silence.as_mut().and_then(|s| {
            let timeout = s.timeout?;
            Some((s, timeout))
        }) else {
            return Verdict::Healthy;
        };
        let tolerance = (timeout / 10).max(Duration::from_millis(100));
        if now - due > tolerance && silence.excused_until.is_none() {
            silence.excused_until = Some(now + timeout);
            return Verdict::Healthy;
        }
        if in_doubt {
            silence.second_look_at = Some(now + LOOK_IN_DOUBT);
            return Verdict::Healthy;
        }
        let punctual = PUNCTUAL + timeout / KERNELS_PART;
        if now - due > punctual && silence.second_look_at.is_none() {
            silence.second_look_at = Some(now + SECOND_LOOK.max(timeout / SECOND_LOOK_PART));
            return Verdict::Healthy;
        }
        Verdict::Hung { silent, timeout }
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
            says_ready: false,
        };
        let launched = crate::clock::now() + 10 * second;
        let mut run = Run::new(1, launched, Some(rule), false);
        run.beat(launched - second);
        let hung = Verdict::Hung {
            silent: second,
            timeout: second,
        };
        assert_eq!(run.judge(launched + second, false), hung);
    }
}

//! Keeps the log readable where the same failure repeats a thousand times a minute.
//!
//! Pure, as the machine is: time is an argument. A run is told whole or not at all, and a run that
//! lasts is always told, as are the lines that matter whatever came before them: a stop, giving up,
//! the last one. What is left out is counted.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use log::LevelFilter;

use crate::report::Report;

/// So many brief runs, or signals for the command, may come in a row before any is left out...
const BURST: u32 = 100;
/// ... and then one in this time.
const EVERY: Duration = Duration::from_secs(5);
/// A run that is not followed by another within this time is told in any case.
const BRIEF: Duration = Duration::from_secs(1);

/// What is told and what is left out.
#[derive(Debug)]
pub struct Flood {
    /// What the log shows. The rest is neither told nor counted.
    level: LevelFilter,
    runs: Bucket,
    signals: Bucket,
    /// When the last run began.
    begun: Option<Instant>,
    /// The lines of a run that has begun when there were too many; told when it is no brief one.
    held: Option<Vec<Report>>,
    left_out: u64,
}

impl Flood {
    /// Nothing was told yet at `now`; the log shows what `level` lets through.
    #[must_use]
    pub fn new(level: LevelFilter, now: Instant) -> Self {
        Self {
            level,
            runs: Bucket { full_at: now },
            signals: Bucket { full_at: now },
            begun: None,
            held: None,
            left_out: 0,
        }
    }

    /// Takes one event at `now`; what is to be told at once, in this order.
    #[must_use]
    pub fn take(&mut self, now: Instant, report: Report) -> Vec<Report> {
        let mut told = self.due(now);
        let kind = Kind::of(&report);
        if kind == Kind::RunBegins {
            let brief = self.begun.replace(now).is_some_and(|at| now - at < BRIEF);
            self.leave_out_held();
            self.held = (brief && !self.runs.take(now)).then(Vec::new);
        }
        if report.level() > self.level {
            return told;
        }
        match (kind, &mut self.held) {
            (Kind::RunBegins | Kind::OfRun, Some(held)) => held.push(report),
            (Kind::Signal, _) if !self.signals.take(now) => self.left_out += 1,
            (Kind::RunBegins | Kind::OfRun | Kind::Signal | Kind::Urgent, held) => {
                told.extend(held.take().into_iter().flatten());
                told.push(report);
            }
        }
        told
    }

    /// When [`Flood::due`] is to be called; None while nothing waits to be told.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let until = self.begun? + BRIEF;
        let waits = self.held.as_ref().is_some_and(|held| !held.is_empty());
        waits.then_some(until)
    }

    /// What is to be told because time has passed.
    #[must_use]
    pub fn due(&mut self, now: Instant) -> Vec<Report> {
        if self.begun.is_some_and(|at| at + BRIEF <= now) {
            return self.held.take().unwrap_or_default();
        }
        Vec::new()
    }

    /// Whether the present run is one of too many: then what is known of it besides is not told either.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// How many lines were left out since the last call.
    #[must_use]
    pub fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    fn leave_out_held(&mut self) {
        let lines = self.held.take().map_or(0, |held| held.len());
        self.left_out += lines as u64;
    }
}

/// What a line is to the flood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Never left out.
    Urgent,
    /// The first line of a run.
    RunBegins,
    /// Another line of the present run.
    OfRun,
    /// A signal that is handed on, or has nobody to be handed to; or what somebody asked for.
    Signal,
}

impl Kind {
    fn of(report: &Report) -> Self {
        match report {
            Report::Started { .. } | Report::StartFailed { .. } => Self::RunBegins,
            Report::Exited { .. }
            | Report::HeartbeatTimeout { .. }
            | Report::Stopping { .. }
            | Report::Killing { .. }
            | Report::LeftBehind { .. }
            | Report::Restarting { .. } => Self::OfRun,
            Report::Signal {
                action: "forward" | "ignore",
                ..
            }
            | Report::Request { .. } => Self::Signal,
            Report::Signal { .. } | Report::GivingUp { .. } | Report::Finished { .. } => {
                Self::Urgent
            }
        }
    }
}

/// A token bucket, by the time at which it is full again.
#[derive(Debug)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Takes a token, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + EVERY;
        let is_left = full_at <= now + EVERY * BURST;
        if is_left {
            self.full_at = full_at;
        }
        is_left
    }
}

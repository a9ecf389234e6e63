//! Keeps the log readable where the same failure repeats a thousand times a minute.
//!
//! Pure, as the machine is: time is an argument. A run is told whole or not at all, and a run that
//! lasts is always told, as are the lines that matter whatever came before them: a stop, giving up,
//! the last one. What is left out is counted, and the count is told before the next line.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use log::LevelFilter;

use crate::report::Report;

/// So many runs, or signals for the command, may come in a row before any is left out...
const BURST: u32 = 100;
/// ... and then one in this time.
const EVERY: Duration = Duration::from_secs(5);
/// A run that lasts this long is told in any case.
const BRIEF: Duration = Duration::from_secs(1);

/// What is told and what is left out.
#[derive(Debug)]
pub struct Flood {
    /// What the log shows. The rest is neither told nor counted.
    level: LevelFilter,
    runs: Bucket,
    signals: Bucket,
    /// The lines of a run that has begun when there were too many.
    held: Option<Held>,
    left_out: u64,
    /// When the count is told, if no line comes before.
    count_due: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    lines: Vec<Report>,
    /// When it is no brief run any more.
    until: Instant,
}

impl Flood {
    /// Nothing was told yet at `now`; the log shows what `level` lets through.
    #[must_use]
    pub fn new(level: LevelFilter, now: Instant) -> Self {
        Self {
            level,
            runs: Bucket { full_at: now },
            signals: Bucket { full_at: now },
            held: None,
            left_out: 0,
            count_due: None,
        }
    }

    /// Takes one event at `now`; what is to be told at once, in this order.
    #[must_use]
    pub fn take(&mut self, now: Instant, report: Report) -> Vec<Report> {
        let kind = Kind::of(&report);
        if kind == Kind::RunBegins {
            if let Some(brief) = self.held.take() {
                self.leave_out(now, brief.lines.len());
            }
            if !self.runs.take(now) {
                self.held = Some(Held {
                    lines: Vec::new(),
                    until: now + BRIEF,
                });
            }
        }
        if report.level() > self.level {
            return Vec::new();
        }
        match (kind, &mut self.held) {
            (Kind::RunBegins | Kind::OfRun, Some(run)) => run.lines.push(report),
            (Kind::Signal, _) if !self.signals.take(now) => self.leave_out(now, 1),
            (Kind::RunBegins | Kind::OfRun | Kind::Signal | Kind::Urgent, _) => {
                return self.tell(report);
            }
        }
        Vec::new()
    }

    /// When [`Flood::due`] is to be called; None while nothing waits to be told.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let held = self.held.as_ref().map(|run| run.until);
        held.into_iter().chain(self.count_due).min()
    }

    /// What is to be told because time has passed.
    #[must_use]
    pub fn due(&mut self, now: Instant) -> Vec<Report> {
        if self.held.as_ref().is_some_and(|run| run.until <= now) {
            return self.all_that_waits();
        }
        if self.count_due.is_some_and(|at| at <= now) {
            return self.count().into_iter().collect();
        }
        Vec::new()
    }

    fn tell(&mut self, report: Report) -> Vec<Report> {
        let mut told = self.all_that_waits();
        told.push(report);
        told
    }

    fn all_that_waits(&mut self) -> Vec<Report> {
        let held = self.held.take().map(|run| run.lines);
        let held = held.into_iter().flatten();
        self.count().into_iter().chain(held).collect()
    }

    fn leave_out(&mut self, now: Instant, lines: usize) {
        if lines == 0 {
            return;
        }
        self.left_out = self.left_out.saturating_add(lines as u64);
        self.count_due.get_or_insert(now + EVERY);
    }

    fn count(&mut self) -> Option<Report> {
        self.count_due = None;
        let count = std::mem::take(&mut self.left_out);
        (count > 0).then_some(Report::LinesLeftOut { count })
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
    /// A signal that is handed on, or has nobody to be handed to.
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
            } => Self::Signal,
            Report::Signal { .. }
            | Report::GivingUp { .. }
            | Report::LinesLeftOut { .. }
            | Report::Finished { .. } => Self::Urgent,
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

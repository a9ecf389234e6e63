//! The machine as it is seen from outside, without changing it.

use std::time::{Duration, Instant};

use super::run::Run;
use super::{After, State, Supervisor, Then};
use crate::status::{Phase, Status};

impl Supervisor {
    /// What there is to be seen of it.
    #[must_use]
    pub fn status(&self) -> Status {
        let phase = match &self.state {
            State::Starting { .. } => Phase::Starting,
            State::Running(run) if run.is_ending() => Phase::Stopping,
            State::Running(_) if self.held => Phase::Paused,
            State::Running(run) if run.is_starting() => Phase::Starting,
            State::Running(_) => Phase::Running,
            State::Stopping { .. } | State::Clearing { .. } | State::Finished => Phase::Stopping,
            State::Backoff { .. } => Phase::Backoff,
        };
        let run = self.run();
        Status {
            phase,
            is_ending: self.is_ending(),
            pid: run.map(|run| run.pid),
            started: run.map(|run| run.started),
            run: self.runs,
            launched: self.launched,
            restarts: self.restarts,
            counts: self.counts,
            last_exit: self.last_exit,
            delay: if phase == Phase::Backoff {
                self.delay
            } else {
                Duration::ZERO
            },
        }
    }

    /// From when and for how long a beat is waited for; None: for none.
    #[must_use]
    pub fn awaited(&self) -> Option<(Instant, Duration)> {
        match &self.state {
            State::Running(run) => run.awaited(),
            State::Starting { .. }
            | State::Stopping { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Finished => None,
        }
    }

    /// The timeout that is in force; None: there is no deadline to be missed.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match self.run() {
            Some(run) => run.timeout(),
            None => self.policy.heartbeat.map(|heartbeat| heartbeat.timeout),
        }
    }

    fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Running(run) | State::Stopping { run, .. } => Some(run),
            State::Starting { .. }
            | State::Clearing { .. }
            | State::Backoff { .. }
            | State::Finished => None,
        }
    }

    fn is_ending(&self) -> bool {
        match &self.state {
            State::Starting { stop } => stop.is_some(),
            State::Stopping { after, .. } => matches!(after, After::Stop(_)),
            State::Clearing { then, .. } => matches!(then, Then::Finish { .. }),
            State::Finished => true,
            State::Running(_) | State::Backoff { .. } => false,
        }
    }
}

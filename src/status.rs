//! What there is to be seen of an instance, as plain data: for `--status`, for the metrics, for a
//! service manager.

use std::time::{Duration, Instant};

use crate::exit::Ended;

/// What an instance is doing (contract, section 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The command is being launched, or has not said yet that it is ready.
    Starting,
    /// It runs.
    Running,
    /// It, or what it left behind, is being stopped.
    Stopping,
    /// It waits for the next launch.
    Backoff,
    /// It runs, and its deadline is held.
    Paused,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Backoff,
        Self::Paused,
    ];

    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Paused => "paused",
        }
    }

    /// Whether the command is up and nothing is wrong with it.
    #[must_use]
    pub fn is_healthy(self) -> bool {
        match self {
            Self::Running | Self::Paused => true,
            Self::Starting | Self::Stopping | Self::Backoff => false,
        }
    }
}

/// Why a command is launched again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It exited with a code other than 0.
    Exit,
    /// A signal ended it.
    Signal,
    /// It hung.
    Heartbeat,
    /// It could not be launched.
    Start,
    /// Somebody asked for it.
    Requested,
}

impl Cause {
    /// All of them, in the order of [`Counts`].
    pub const ALL: [Self; 5] = [
        Self::Exit,
        Self::Signal,
        Self::Heartbeat,
        Self::Start,
        Self::Requested,
    ];

    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Heartbeat => "heartbeat",
            Self::Start => "start",
            Self::Requested => "requested",
        }
    }
}

/// How often a command was launched again, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Cause::ALL.len()]);

impl Counts {
    /// Once more.
    pub fn count(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    /// How often it was.
    #[must_use]
    pub fn of(self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }
}

/// What the machine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub phase: Phase,
    /// There will be no next run.
    pub is_ending: bool,
    /// The command's process id, while it is not reaped.
    pub pid: Option<i32>,
    /// When it was launched.
    pub started: Option<Instant>,
    /// Counts launches from 1, failed ones too.
    pub run: u64,
    /// The last launch that did not fail; 0: none yet.
    pub launched: u64,
    /// Consecutive restarts.
    pub restarts: u64,
    /// All restarts.
    pub counts: Counts,
    /// How the last run ended, a failed launch apart.
    pub last_exit: Option<Ended>,
    /// The delay that it waits for; zero where it does not.
    pub delay: Duration,
}

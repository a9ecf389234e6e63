//! The checked options, as plain data: durations, limits and paths that can only hold what is valid.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

/// Everything that the supervisor was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The command and its arguments as typed; never empty.
    pub command: Vec<OsString>,
    /// When to restart, how long to wait, when to give up.
    pub policy: Policy,
    /// The heartbeat file as given; None where the heartbeat is not enabled.
    pub heartbeat_file: Option<PathBuf>,
    /// `--keep-descendants`: what the command leaves behind is left alone.
    pub keep_descendants: bool,
    /// `--log-level`.
    pub log_level: LevelFilter,
    /// `--log-file`; None is stderr.
    pub log_file: Option<PathBuf>,
    /// Options that were given on the command line and have no effect, as typed.
    pub without_effect: Vec<&'static str>,
    /// The environment variables that are options of ours: not for the command.
    pub own_variables: Vec<OsString>,
}

/// What the pure machine decides by.
#[derive(Clone, Debug)]
pub struct Policy {
    /// From SIGTERM to SIGKILL. Zero: SIGKILL at once.
    pub grace: Duration,
    /// Consecutive restarts before giving up; None: never give up.
    pub max_restarts: Option<u64>,
    /// The delay before the first restart; it doubles with each. Zero: restart at once.
    pub backoff_factor: Duration,
    /// The upper bound of a delay, jitter not counted. Never below one factor.
    pub max_backoff: Duration,
    /// Up to this part of a delay is added at random; 0 to 1.
    pub jitter: f64,
    /// A run this long makes the next failure the first one again; None: never.
    pub reset_after: Option<Duration>,
    /// The heartbeat's deadlines; None where it is not enabled.
    pub heartbeat: Option<Heartbeat>,
}

/// How long a command may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// `--timeout`, more than zero: silence this long is a hang.
    pub timeout: Duration,
    /// `--initial-check-delay`: the first timeout counts from this long after a launch.
    pub initial_delay: Duration,
}

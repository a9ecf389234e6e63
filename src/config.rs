//! The checked options, as plain data: durations, limits and paths that can only hold what is valid.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use nix::sys::signal::Signal;

/// What the program was called for.
#[derive(Clone, Debug)]
pub enum Order {
    /// To supervise a command.
    Supervise(Box<Config>),
    /// To see or steer instances that are there.
    Call(Call),
    /// Nothing more: the command line is one to start with.
    Check,
}

/// A call of other instances (contract, section 11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `--list`.
    List(Form),
    /// What to do with the instance of this name.
    One(Verb, String, Form),
}

/// What is to be done with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `--status`.
    Status,
    /// `--restart`.
    Restart,
    /// `--stop`.
    Stop,
    /// `--pause`.
    Pause,
    /// `--resume`.
    Resume,
}

/// For whom the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A person.
    Text,
    /// A program: `--json`.
    Json,
}

/// Everything that the supervisor was told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The command and its arguments as typed; never empty.
    pub command: Vec<OsString>,
    /// When to restart, how long to wait, when to give up.
    pub policy: Policy,
    /// The heartbeat file as given; None where the heartbeat is not enabled.
    pub heartbeat_file: Option<PathBuf>,
    /// `--sd-notify`: the command has a socket for its beats.
    pub sd_notify: bool,
    /// `--name`; None: after the command.
    pub name: Option<String>,
    /// `--on-event`.
    pub on_event: Option<OsString>,
    /// `--on-give-up`.
    pub on_give_up: Option<OsString>,
    /// `--metrics-file`.
    pub metrics_file: Option<PathBuf>,
    /// `--keep-descendants`: what the command leaves behind is left alone.
    pub keep_descendants: bool,
    /// `--log-level`.
    pub log_level: LevelFilter,
    /// `--log-file`; None is stderr.
    pub log_file: Option<PathBuf>,
    /// Options that were given on the command line and have no effect, as typed.
    pub without_effect: Vec<String>,
    /// Whether an environment variable is an option of ours: not for the command.
    pub is_own_variable: fn(&OsStr) -> bool,
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
    /// The heartbeat's deadlines; None where neither a file nor a socket is to tell of beats.
    pub heartbeat: Option<Heartbeat>,
    /// `--hang-signal`: what a hung command is told first.
    pub hang_signal: Signal,
}

/// How long a command may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat {
    /// `--timeout`, more than zero: silence this long is a hang.
    pub timeout: Duration,
    /// `--initial-check-delay`: the first timeout counts from this long after a launch.
    pub initial_delay: Duration,
    /// `--sd-notify`: the command says when it is ready.
    pub says_ready: bool,
}

//! The table of the options: how each is called, what it takes, and what it is for.

use std::ffi::OsString;

use clap::builder::ValueParser;

use super::values::*;

/// An option.
pub struct Row {
    pub long: &'static str,
    /// None for a call and a check: a variable would turn every supervisor into it.
    pub variable: Option<&'static str>,
    pub takes: Takes,
    pub heading: &'static str,
    pub help: &'static str,
}

pub enum Takes {
    /// Nothing: it is on or off.
    Nothing,
    /// A value, shown by this name and checked by that.
    Value(&'static str, fn() -> ValueParser),
    /// The same, and what it is if nobody says.
    Default(&'static str, fn() -> ValueParser, &'static str),
}
use Takes::{Default, Nothing, Value};

const RESTART: &str = "Restart";
const HEARTBEAT: &str = "Heartbeat";
const STOPPING: &str = "Stopping";
const LOG: &str = "Log and events";
const CONTROL: &str = "Control";

/// All options, as the help shows them. A table, because clap's derive builds them in one function whose
/// frame alone would be 20 kB of stack that stays.
pub const OPTIONS: &[Row] = &[
    Row {
        long: "max-restarts",
        variable: Some("SUPERVISOR_MAX_RESTARTS"),
        takes: Default("N", || checked(max_restarts), "-1"),
        heading: RESTART,
        help: "Consecutive restarts before giving up; -1: never give up",
    },
    Row {
        long: "backoff-factor",
        variable: Some("SUPERVISOR_BACKOFF_FACTOR"),
        takes: Default("S", || checked(seconds), "1"),
        heading: RESTART,
        help: "Delay before the first restart; it doubles with each; 0: none",
    },
    Row {
        long: "max-backoff",
        variable: Some("SUPERVISOR_MAX_BACKOFF"),
        takes: Default("S", || checked(positive_seconds), "3600"),
        heading: RESTART,
        help: "Upper bound of a delay",
    },
    Row {
        long: "backoff-jitter",
        variable: Some("SUPERVISOR_BACKOFF_JITTER"),
        takes: Default("F", || checked(fraction), "0"),
        heading: RESTART,
        help: "Add up to this part of a delay at random, 0 to 1",
    },
    Row {
        long: "reset-after",
        variable: Some("SUPERVISOR_RESET_AFTER"),
        takes: Default("S", || checked(seconds), "60"),
        heading: RESTART,
        help: "A run this long starts the count of restarts again at 0; 0: never",
    },
    Row {
        long: "enable-heartbeat",
        variable: Some("SUPERVISOR_ENABLE_HEARTBEAT"),
        takes: Nothing,
        heading: HEARTBEAT,
        help: "Restart the command when its heartbeat file falls silent",
    },
    Row {
        long: "heartbeat-file",
        variable: Some("SUPERVISOR_HEARTBEAT_FILE"),
        takes: Default("PATH", || checked(path), "heartbeat.txt"),
        heading: HEARTBEAT,
        help: "The file that the command touches; it finds the path in HEARTBEAT_FILE",
    },
    Row {
        long: "sd-notify",
        variable: Some("SUPERVISOR_SD_NOTIFY"),
        takes: Nothing,
        heading: HEARTBEAT,
        help: "The command beats by sd_notify(3), as under systemd",
    },
    Row {
        long: "timeout",
        variable: Some("SUPERVISOR_TIMEOUT"),
        takes: Default("S", || checked(positive_seconds), "20"),
        heading: HEARTBEAT,
        help: "Silence this long is a hang",
    },
    Row {
        long: "initial-check-delay",
        variable: Some("SUPERVISOR_INITIAL_CHECK_DELAY"),
        takes: Default("S", || checked(seconds), "0"),
        heading: HEARTBEAT,
        help: "Extra time for the first beat after each launch",
    },
    Row {
        long: "hang-signal",
        variable: Some("SUPERVISOR_HANG_SIGNAL"),
        takes: Default("SIG", || checked(signal), "TERM"),
        heading: HEARTBEAT,
        help: "What a hung command is sent first: ABRT for a core",
    },
    Row {
        long: "grace-period",
        variable: Some("SUPERVISOR_GRACE_PERIOD"),
        takes: Default("S", || checked(seconds), "5"),
        heading: STOPPING,
        help: "From SIGTERM to SIGKILL; 0: SIGKILL at once",
    },
    Row {
        long: "keep-descendants",
        variable: Some("SUPERVISOR_KEEP_DESCENDANTS"),
        takes: Nothing,
        heading: STOPPING,
        help: "Leave alone what the command leaves behind when it ends",
    },
    Row {
        long: "log-level",
        variable: Some("SUPERVISOR_LOG_LEVEL"),
        takes: Default("L", || checked(level), "info"),
        heading: LOG,
        help: "error, warn, info or debug",
    },
    Row {
        long: "log-file",
        variable: Some("SUPERVISOR_LOG_FILE"),
        takes: Value("PATH", || checked(path)),
        heading: LOG,
        help: "Append the supervisor's own log there instead of to stderr",
    },
    Row {
        long: "on-event",
        variable: Some("SUPERVISOR_ON_EVENT"),
        takes: Value("COMMAND", || checked(script)),
        heading: LOG,
        help: "Run by the shell at each start, exit, hang and giving up",
    },
    Row {
        long: "on-give-up",
        variable: Some("SUPERVISOR_ON_GIVE_UP"),
        takes: Value("COMMAND", || checked(script)),
        heading: LOG,
        help: "Run by the shell, and waited for, when it gives up",
    },
    Row {
        long: "metrics-file",
        variable: Some("SUPERVISOR_METRICS_FILE"),
        takes: Value("PATH", || checked(path)),
        heading: LOG,
        help: "Keep a file of metrics for Prometheus there",
    },
    Row {
        long: "name",
        variable: Some("SUPERVISOR_NAME"),
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "What this instance is called; default: after its command and pid",
    },
    Row {
        long: "list",
        variable: None,
        takes: Nothing,
        heading: CONTROL,
        help: "Show all running instances",
    },
    Row {
        long: "status",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Show one; exit code 0: running, 3: not, 4: there is none",
    },
    Row {
        long: "restart",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Restart its command now, and wait for the new run",
    },
    Row {
        long: "stop",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Stop it, and wait until it is gone",
    },
    Row {
        long: "pause",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Hold its heartbeat deadline, for a debugger",
    },
    Row {
        long: "resume",
        variable: None,
        takes: Value("NAME", || checked(name)),
        heading: CONTROL,
        help: "Hold it no longer",
    },
    Row {
        long: "json",
        variable: None,
        takes: Nothing,
        heading: CONTROL,
        help: "With --list or --status: for programs",
    },
    Row {
        long: "check",
        variable: None,
        takes: Nothing,
        heading: CONTROL,
        help: "Only read the command line; exit code 0, or 2 and what is wrong",
    },
];

/// Those that exclude each other and a command.
pub const CALLS: [&str; 6] = ["list", "status", "restart", "stop", "pause", "resume"];

impl Row {
    pub fn default(&self) -> Option<&'static str> {
        match self.takes {
            Default(_, _, default) => Some(default),
            Nothing | Value(..) => None,
        }
    }

    /// Whether it may be set: what is not can be left out.
    pub fn is_named(&self, argv: &[OsString]) -> bool {
        let names = |word: &OsString| {
            let option = word.as_encoded_bytes().strip_prefix(b"--");
            let rest = option.and_then(|option| option.strip_prefix(self.long.as_bytes()));
            matches!(rest, Some([] | [b'=', ..]))
        };
        argv.iter().any(names)
            || self
                .variable
                .is_some_and(|name| std::env::var_os(name).is_some())
    }
}

pub fn whole() -> Vec<&'static Row> {
    OPTIONS.iter().collect()
}
